// What the ledger says of itself, as metrics.
import type { Sample } from '../metrics.ts'
import type { LedgerSink } from '../sinks/ledger.ts'

export function quotaSamples({ waiting, lagSeconds }: ReturnType<LedgerSink['status']>): readonly Sample[] {
  const gauge = (name: string, help: string, value: number): Sample => ({
    name,
    type: 'gauge',
    help,
    labels: {},
    value,
  })
  return [
    gauge('tallylight_ledger_waiting_segments', 'Segments whose calls are not in the ledger yet.', waiting),
    gauge(
      'tallylight_ledger_lag_seconds',
      'Age of the oldest segment whose calls are not in the ledger yet.',
      lagSeconds,
    ),
  ]
}
