// A turn of our own, once a minute: reserved, sent, stored, settled, and read back from both stores, under the reserved tenant,
// which is in no tenant's cost and in no board's objectives. It goes the road of every record from where ports hand over to
// it; that the ports can be reached is what a probe from outside is for (`GET /readyz`).
import { randomBytes } from 'node:crypto'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteName } from '@tallylight/storage/clickhouse/schema.ts'
import type pg from 'pg'
import type { OwnPrice } from '../genai/price.ts'
import type { Metrics, Sample } from '../metrics.ts'
import type { Ledger } from '../quota/ledger.ts'
import { pause } from '../quota/pause.ts'
import type { Log } from '../receive/admission.ts'
import { reservedTenant } from '../receive/key-rules.ts'
import type { Signal } from '../receive/request.ts'

export type Canary = {
  /** Sends one probe and waits until it is read back, or given up. Undefined when the end cut it short. */
  probe(signal: AbortSignal): Promise<Probed | undefined>
  samples(): readonly Sample[]
}

/** What was not read back, and why a store could not say. */
export type Probed = {
  readonly missing: readonly Step[]
  readonly reasons: readonly string[]
  readonly seconds: number
}

export type Send = (signal: Signal, body: Buffer) => Promise<boolean>

/** Its call costs nothing. Without a price it would be one of those that lack it, once a minute, in counters that alert. */
export const canaryPrice: OwnPrice = {
  provider: 'tallylight',
  model: 'canary',
  fromUnixMs: 0,
  inputNanoUsdPerMillion: 0n,
  outputNanoUsdPerMillion: 0n,
}

type Step = 'reserve' | 'send' | 'turn' | 'call' | 'tool' | 'health' | 'settle'

export function openCanary(options: {
  readonly send: Send
  readonly ledger: Pick<Ledger, 'run'>
  readonly clickhouse: ClickHouse
  readonly database: pg.Pool
  readonly metrics: Pick<Metrics, 'add'>
  readonly log: Log
  readonly now: () => number
  readonly bounds: { readonly waitMsMax: number; readonly pollMs: number }
}): Canary {
  const { clickhouse, database, now, bounds } = options
  const sql = readBackSql(clickhouse.database)
  let last: { readonly isGood: boolean; readonly seconds: number } | undefined

  async function probe(signal: AbortSignal): Promise<Probed | undefined> {
    const startedUnixMs = now()
    const traceId = randomBytes(16).toString('hex')
    const missing = new Set<Step>(['turn', 'call', 'tool', 'health', 'settle'])
    if (!(await reserve(traceId))) missing.add('reserve')
    if (!(await options.send('traces', Buffer.from(JSON.stringify(turnOf(traceId, startedUnixMs))))))
      missing.add('send')
    let reasons: readonly string[] = []
    while (!signal.aborted && missing.size > 0 && now() - startedUnixMs < bounds.waitMsMax) {
      await pause(bounds.pollMs, signal)
      const found = await readBack(traceId, startedUnixMs)
      for (const step of found.steps) missing.delete(step)
      reasons = found.reasons
    }
    // One that the end of the collector cut short says nothing.
    if (signal.aborted) return undefined
    for (const step of missing) options.metrics.add('tallylight_canary_misses_total', { step }, 1)
    if (missing.size > 0)
      options.log.warn({ traceId, missing: [...missing], reasons }, 'a probe was not read back whole')
    const seconds = (now() - startedUnixMs) / 1000
    last = { isGood: missing.size === 0, seconds }
    return { missing: [...missing], reasons, seconds }
  }

  async function reserve(traceId: string): Promise<boolean> {
    const outcome = await options.ledger.run({
      kind: 'reserve',
      tenant: reservedTenant,
      callId: traceId,
      bodyHash: traceId,
      subject: { user: '', key: '', model: 'canary', provider: 'tallylight', conversation: 'canary' },
      amounts: { cost: 0n, tokens: 2n, inputTokens: 1n, outputTokens: 1n },
      ttlMs: bounds.waitMsMax,
      unpriced: undefined,
      isDry: false,
      isLease: false,
    })
    return outcome.kind === 'done'
  }

  /** What is there, and why a store could not say. */
  async function readBack(
    traceId: string,
    sinceUnixMs: number,
  ): Promise<{ readonly steps: readonly Step[]; readonly reasons: readonly string[] }> {
    const found = clickhouse
      .query<{ step: Step }>(sql, {
        trace: traceId,
        tenant: reservedTenant,
        since: Math.floor(sinceUnixMs / 1000) - 1,
      })
      .then((rows) => rows.map(({ step }) => step))
    const settled = database
      .query<{ settled: boolean }>(
        `select state <> 'held' and records > 0 as settled from quota_reservation_rows where tenant = $1 and call_id = $2`,
        [reservedTenant, traceId],
      )
      .then(({ rows }): Step[] => (rows[0]?.settled === true ? ['settle'] : []))
    const answers = await Promise.allSettled([found, settled])
    return {
      steps: answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : [])),
      reasons: answers.flatMap((answer) => (answer.status === 'rejected' ? [String(answer.reason)] : [])),
    }
  }

  function samples(): readonly Sample[] {
    if (last === undefined) return []
    const gauge = (name: string, help: string, value: number): Sample => ({
      name,
      help,
      labels: {},
      type: 'gauge',
      value,
    })
    return [
      gauge(
        'tallylight_canary_success',
        '1 when the last probe was read back whole from the stores.',
        last.isGood ? 1 : 0,
      ),
      gauge(
        'tallylight_canary_delay_seconds',
        'From sending the last probe until it was read back or given up.',
        last.seconds,
      ),
    ]
  }

  return { probe, samples }
}

const tables = { turn: 'turns', call: 'llm_calls', tool: 'tool_calls', health: 'health_checks' } as const

function readBackSql(database: string): string {
  const of = Object.entries(tables).map(
    ([step, table]) =>
      `SELECT '${step}' AS step FROM ${quoteName(database)}.${table} WHERE TenantId = {tenant:String} AND Timestamp >= {since:DateTime('UTC')} AND TraceId = {trace:String}`,
  )
  return of.join('\nUNION ALL\n')
}

/** OTLP/JSON of a turn with a call, a tool call and a health check. */
function turnOf(traceId: string, unixMs: number): object {
  const turnSpan = randomBytes(8).toString('hex')
  const span = (
    name: string,
    attributes: Readonly<Record<string, string | number>>,
    parentSpanId: string,
    spanId: string,
  ) => ({
    ...{ traceId, spanId, name, kind: 1, ...(parentSpanId === '' ? {} : { parentSpanId }) },
    ...{
      startTimeUnixNano: `${unixMs}000000`,
      endTimeUnixNano: `${unixMs + 1}000000`,
      attributes: attributesOf(attributes),
    },
  })
  const child = (name: string, attributes: Readonly<Record<string, string | number>>) =>
    span(name, attributes, turnSpan, randomBytes(8).toString('hex'))
  const spans = [
    span(
      'turn',
      { 'tallylight.turn.id': traceId, 'tallylight.turn.channel': 'canary', 'gen_ai.conversation.id': 'canary' },
      '',
      turnSpan,
    ),
    child('chat canary', {
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'tallylight',
      'gen_ai.request.model': 'canary',
      'gen_ai.usage.input_tokens': 1,
      'gen_ai.usage.output_tokens': 1,
      'tallylight.call.id': traceId,
    }),
    child('execute_tool canary', { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'canary' }),
    child('health canary', { 'tallylight.health.target': 'canary', 'tallylight.health.status': 'healthy' }),
  ]
  const resource = { attributes: attributesOf({ 'service.name': reservedTenant }) }
  return { resourceSpans: [{ resource, scopeSpans: [{ scope: { name: '@tallylight/collector' }, spans }] }] }
}

function attributesOf(values: Readonly<Record<string, string | number>>): readonly object[] {
  return Object.entries(values).map(([key, value]) => ({
    key,
    value: typeof value === 'number' ? { intValue: `${value}` } : { stringValue: value },
  }))
}
