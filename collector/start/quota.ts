// The ledger, what watches over its holds, and the limits.
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import { type ConfigFile, failurePolicyOf } from '../config.ts'
import { type OwnPrice, openPrices, type PriceOf } from '../genai/price.ts'
import { limits } from '../limits.ts'
import { type FailurePolicies, openFailurePolicies } from '../quota/failure-policy.ts'
import { type Ledger, openLedger } from '../quota/ledger.ts'
import { type LimitBook, openLimitBook } from '../quota/limit-book.ts'
import { pause } from '../quota/pause.ts'
import { runWebhook } from '../quota/webhook.ts'
import { canaryPrice } from '../self/canary.ts'
import type { Engines } from './engines.ts'
import { followFileLimits } from './file-limits.ts'
import type { Start } from './start.ts'

export type Quota = {
  readonly ledger: Ledger
  readonly limitBook: LimitBook
  readonly failure: FailurePolicies
  readonly priceOf: PriceOf
  /** Once it was tried to put the limits of the configuration file in force. */
  readonly prepared: Promise<void>
}

export function openQuota(start: Start, { database, postgresUrl, keysPrepared }: Engines): Quota {
  const { file, metrics, log, stack, loops } = start
  const limitBook = openLimitBook({ database })
  const ledgerDatabase = openPool(
    {
      connectionString: postgresUrl,
      max: limits.ledgerConnectionsMax,
      connectionTimeoutMillis: limits.ledgerAnswerMsMax,
      query_timeout: limits.ledgerAnswerMsMax,
      pipeline: true,
    },
    (error) => log.warn({ err: error }, 'a connection of the ledger was lost'),
  )
  stack.defer(() => ledgerDatabase.end())
  const failure = openFailurePolicies({
    policyOf: (tenant) => failurePolicyOf(file, tenant),
    now: Date.now,
    tenantsMax: limits.awayTenantsMax,
    callsMax: limits.awayCallsMax,
  })
  const ledger = openLedger({
    database: ledgerDatabase,
    log,
    eventsKeptMs: limits.quotaEventsKeptMs,
    onRecovered: () => {
      limitBook.noteOutages(failure.takeOutages()).catch((error: unknown) => {
        log.warn({ err: error }, 'what was decided without the ledger could not be noted in the audit')
      })
    },
  })
  // None of these waits for the limits of the file: whatever it says, holds expire and thresholds are told.
  loops.add(
    keysPrepared.then(() =>
      ledger.watch(loops.signal, (count) => metrics.add('tallylight_quota_expired_total', {}, count)),
    ),
  )
  const { webhook } = file.quota ?? {}
  if (webhook !== undefined) {
    const onDelivery = (outcome: string): void => metrics.add('tallylight_quota_events_total', { outcome }, 1)
    loops.add(
      keysPrepared.then(() => runWebhook({ ...webhook, database, now: Date.now, log, onDelivery }, loops.signal)),
    )
  }
  const prepared = followFileLimits(start, limitBook, keysPrepared)
  loops.add(prepared.then(() => finishChanges(start, limitBook)))
  return { ledger, limitBook, failure, priceOf: openPrices([canaryPrice, ...pricesOf(file)]), prepared }
}

/** What a change of a limit has left, in this life or in one before. */
async function finishChanges({ log, loops: { signal } }: Start, limitBook: LimitBook): Promise<void> {
  let said = ''
  while (!signal.aborted) {
    try {
      await limitBook.finishChanges(signal)
      said = ''
    } catch (error) {
      if (String(error) !== said)
        log.warn(
          { err: error },
          'a change of a limit cannot be finished yet: some accounts have what it granted before',
        )
      said = String(error)
    }
    await pause(limits.configPollMs, signal)
  }
}

function pricesOf(file: ConfigFile): readonly OwnPrice[] {
  return (file.quota?.prices ?? []).map(
    ({ provider, from, cacheReadNanoUsdPerMillion, cacheWriteNanoUsdPerMillion, ...price }) => ({
      ...price,
      fromUnixMs: Date.parse(from),
      ...(provider === undefined ? {} : { provider }),
      ...(cacheReadNanoUsdPerMillion === undefined ? {} : { cacheReadNanoUsdPerMillion }),
      ...(cacheWriteNanoUsdPerMillion === undefined ? {} : { cacheWriteNanoUsdPerMillion }),
    }),
  )
}
