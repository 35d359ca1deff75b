// What the page at `/` shows: whether the collector is alive, what it takes and refuses, how far it is behind. None of it is a
// customer's, so it needs no key, as /metrics. The last turns do: they are read with the key that asks, and only its tenant's.
import { readFileSync } from 'node:fs'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteName } from '@tallylight/storage/clickhouse/schema.ts'
import express, { type Request, type RequestHandler, type Response, type Router } from 'express'
import { limits } from '../limits.ts'
import type { Sample } from '../metrics.ts'
import { identityOf, isRefusal } from '../receive/admission.ts'
import { reservedTenant } from '../receive/key-rules.ts'
import type { Keyring } from '../receive/keys.ts'
import type { Identity } from '../receive/request.ts'

export type State = {
  readonly version: string
  readonly startedUnixMs: number
  readonly missing: readonly string[]
  /** Totals since the start, or since the journal was made; a page that asks twice has the rates. */
  readonly totals: Readonly<
    Record<'accepted' | 'stored' | 'refused' | 'rejected' | 'quarantined' | 'insertFailures', number>
  >
  readonly behind: {
    readonly records: number
    readonly bytes: number
    readonly seconds: number
    readonly isFull: boolean
  }
  readonly ledgerSeconds: number
  /** Undefined until the first probe. */
  readonly canary: { readonly isGood: boolean; readonly seconds: number } | undefined
}

export function stateOf(samples: readonly Sample[], version: string, missing: readonly string[]): State {
  const sum = (name: string, isCounted: (labels: Sample['labels']) => boolean = () => true): number =>
    samples.reduce((total, sample) => {
      const counts = sample.name === name && sample.type !== 'histogram' && isCounted(sample.labels)
      return counts ? total + sample.value : total
    }, 0)
  const hasProbed = samples.some(({ name }) => name === 'tallylight_canary_success')
  return {
    version,
    startedUnixMs: Math.round(sum('process_start_time_seconds') * 1000),
    missing,
    totals: {
      accepted: sum('tallylight_accepted_records_total'),
      stored: sum('tallylight_stored_records_total'),
      refused: sum('tallylight_refused_requests_total'),
      rejected: sum('tallylight_rejected_records_total'),
      quarantined: sum('tallylight_quarantined_records_total'),
      insertFailures: sum('tallylight_inserts_total', ({ outcome }) => outcome !== 'inserted'),
    },
    behind: {
      records: sum('tallylight_journal_records'),
      bytes: sum('tallylight_journal_bytes'),
      seconds: sum('tallylight_journal_age_seconds'),
      isFull: sum('tallylight_journal_full') > 0,
    },
    ledgerSeconds: sum('tallylight_ledger_lag_seconds'),
    canary: hasProbed
      ? { isGood: sum('tallylight_canary_success') === 1, seconds: sum('tallylight_canary_delay_seconds') }
      : undefined,
  }
}

export type StatePage = { router(identify: (request: Request) => ReturnType<Keyring['authenticate']>): Router }

export function openStatePage(options: {
  readonly read: () => readonly Sample[]
  readonly version: string
  readonly missing: () => readonly string[]
  readonly clickhouse: ClickHouse
}): StatePage {
  const page = readFileSync(new URL('./state-page.html', import.meta.url), 'utf8')
  const script = readFileSync(new URL('./state-page.js', import.meta.url), 'utf8')

  async function answerTurns(identity: Identity, response: Response): Promise<void> {
    const rows = await options.clickhouse.query(turnsSql(options.clickhouse.database), {
      tenant: identity.manyTenants ? '' : identity.tenant,
      own: reservedTenant,
      most: limits.statePageTurnsMax,
    })
    response.json({ turns: rows })
  }

  return {
    router: (identify) => {
      const router = express.Router()
      router.get('/', guarded, (_request, response) => void response.type('html').send(page))
      router.get('/state-page.js', guarded, (_request, response) => void response.type('js').send(script))
      router.get('/state.json', guarded, (_request, response) => {
        response.json(stateOf(options.read(), options.version, options.missing()))
      })
      router.get('/state/turns', guarded, async (request, response) => {
        const identity = identityOf(identify(request))
        if (isRefusal(identity)) {
          response.status(identity.reason === 'unauthenticated' ? 401 : 503).json({ detail: identity.message })
        } else if (!identity.roles.has('query') && !identity.roles.has('admin')) {
          response.status(403).json({ detail: 'the key has neither the role query nor admin' })
        } else await answerTurns(identity, response)
      })
      return router
    },
  }
}

/** The page loads nothing from elsewhere, runs in nobody's frame, and a key typed into it goes nowhere but here. */
const headers = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
}

const guarded: RequestHandler = (_request, response, next) => {
  response.set(headers)
  next()
}

function turnsSql(database: string): string {
  return `SELECT toUnixTimestamp64Milli(Timestamp) AS atUnixMs, TenantId AS tenant, ServiceName AS service, Status AS status,
      Calls AS calls, ToolCalls AS toolCalls, InputTokens AS input, OutputTokens AS output, CostNanoUsd / 1e9 AS cost,
      DurationNano / 1e6 AS durationMs, QuestionPreview AS question, TraceId AS trace
    FROM ${quoteName(database)}.turns
    WHERE Timestamp > now() - INTERVAL 1 DAY AND TenantId != {own:String} AND ({tenant:String} = '' OR TenantId = {tenant:String})
    ORDER BY Timestamp DESC LIMIT {most:UInt32}`
}
