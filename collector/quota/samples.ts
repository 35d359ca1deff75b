// What the ledger says of itself, as metrics.
import type { Sample } from '../metrics.ts'
import type { LedgerSink } from '../sinks/ledger.ts'
import type { FailurePolicies } from './failure-policy.ts'
import type { Reconciler } from './reconcile.ts'

export function quotaSamples(
  sink: ReturnType<LedgerSink['status']>,
  reconciler: ReturnType<Reconciler['status']>,
  failure: ReturnType<FailurePolicies['status']>,
): readonly Sample[] {
  const sample = (type: 'counter' | 'gauge', name: string, help: string, value: number): Sample => ({
    name,
    type,
    help,
    labels: {},
    value,
  })
  const { waiting, lagSeconds } = sink
  const { wrongAccounts, checkedAccounts, driftNanoUsd, differences, reconciledUnixMs } = reconciler
  return [
    sample('gauge', 'tallylight_ledger_waiting_segments', 'Segments whose calls are not booked yet.', waiting),
    sample(
      'gauge',
      'tallylight_ledger_lag_seconds',
      'Age of the oldest segment whose calls are not booked.',
      lagSeconds,
    ),
    sample(
      'counter',
      'tallylight_quota_checked_accounts_total',
      'Accounts compared with their entries.',
      checkedAccounts,
    ),
    sample('counter', 'tallylight_quota_wrong_accounts_total', 'Accounts that were not their sum.', wrongAccounts),
    sample(
      'gauge',
      'tallylight_quota_drift_nano_usd',
      'Settled minus recorded cost of the calls of two days, each difference taken as positive.',
      driftNanoUsd,
    ),
    sample(
      'gauge',
      'tallylight_quota_differences',
      'Calls of two days whose settled and recorded cost differ.',
      differences,
    ),
    sample(
      'gauge',
      'tallylight_quota_tenants_away',
      'Tenants whose calls are judged without the ledger.',
      failure.tenantsAway,
    ),
    sample(
      'gauge',
      'tallylight_quota_allowed_away_nano_usd',
      'Estimated cost of what was allowed while the ledger is away.',
      Number(failure.allowedNanoUsd),
    ),
    ...reconciler.leased.map(
      ({ measure, unspent }): Sample => ({
        name: 'tallylight_quota_leased',
        type: 'gauge',
        help: 'What open leases could still spend: the worst overspend, were their records lost.',
        labels: { measure },
        value: unspent,
      }),
    ),
    ...(reconciledUnixMs === undefined
      ? []
      : [
          sample(
            'gauge',
            'tallylight_quota_reconciled_seconds',
            'Unix time of the last comparison.',
            reconciledUnixMs / 1000,
          ),
        ]),
  ]
}
