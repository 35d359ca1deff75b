// The ledger and its limits: those of the configuration file are put in force at the start and when the file changes.
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import { type ConfigFile, failurePolicyOf, parseConfigFile } from '../config.ts'
import { watchFile } from '../file-watch.ts'
import { type OwnPrice, openPrices, type PriceOf } from '../genai/price.ts'
import { limits } from '../limits.ts'
import { type FailurePolicies, openFailurePolicies } from '../quota/failure-policy.ts'
import { type Ledger, openLedger } from '../quota/ledger.ts'
import { type LimitBook, openLimitBook } from '../quota/limit-book.ts'
import { limitOf } from '../quota/limits.ts'
import { runWebhook } from '../quota/webhook.ts'
import { defaultTenant } from '../receive/key-rules.ts'
import { parseTenantId } from '../receive/request.ts'
import { canaryPrice } from '../self/canary.ts'
import { type Engines, untilDone } from './engines.ts'
import type { Start } from './start.ts'

export type Quota = {
  readonly ledger: Ledger
  readonly limitBook: LimitBook
  readonly failure: FailurePolicies
  readonly priceOf: PriceOf
  /** Once the limits of the configuration file are in force. */
  readonly prepared: Promise<void>
}

export function openQuota(start: Start, { database, postgresUrl, keysPrepared }: Engines): Quota {
  const { config, file, metrics, log, stack, loops } = start
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
  const prepared = keysPrepared.then(() =>
    untilDone(start, 'The ledger', () => applyQuotaLimits(start, limitBook, file)),
  )
  loops.add(
    prepared.then(() =>
      ledger.watch(loops.signal, (count) => metrics.add('tallylight_quota_expired_total', {}, count)),
    ),
  )
  loops.add(
    prepared.then(() =>
      watchFile(
        {
          path: config.configPath,
          pollMs: limits.configPollMs,
          onChange: (text) => applyChangedFile(start, limitBook, text),
        },
        loops.signal,
      ),
    ),
  )
  const { webhook } = file.quota ?? {}
  if (webhook !== undefined) {
    const onDelivery = (outcome: string): void => metrics.add('tallylight_quota_events_total', { outcome }, 1)
    loops.add(prepared.then(() => runWebhook({ ...webhook, database, now: Date.now, log, onDelivery }, loops.signal)))
  }
  return { ledger, limitBook, failure, priceOf: openPrices([canaryPrice, ...pricesOf(file)]), prepared }
}

/** The limits of the configuration file, with what that changed in the log. */
async function applyQuotaLimits({ log }: Start, limitBook: LimitBook, file: ConfigFile): Promise<void> {
  const wanted = (file.quota?.limits ?? []).map(({ tenant, ...input }) =>
    limitOf(parseTenantId(tenant) ?? defaultTenant, input.id, input, 'config'),
  )
  const diff = await limitBook.applyConfig(wanted)
  if (diff.added.length + diff.changed.length + diff.removed.length > 0) log.info(diff, 'quota limits were changed')
}

/** Applies the limits of a configuration file that has changed. A file that is gone or wrong changes nothing. */
async function applyChangedFile(start: Start, limitBook: LimitBook, text: string | undefined): Promise<void> {
  const { log } = start
  const path = start.config.configPath
  const read = text === undefined ? undefined : parseConfigFile(text, path)
  if (read?.kind !== 'file') {
    const reasons = read?.reasons ?? [`${path} cannot be read`]
    log.error({ reasons }, 'the configuration file has changed and cannot be used; limits and probes stay as they are')
    return
  }
  try {
    await applyQuotaLimits(start, limitBook, read.file)
    log.info(
      { path },
      'the limits and probes of the configuration file are in force; its other settings are read at the next start',
    )
  } catch (error) {
    log.error({ err: error }, 'the limits of the changed configuration file could not be applied')
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
