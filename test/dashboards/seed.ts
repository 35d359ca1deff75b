// Three hours of a few services: calm until an hour ago, then everything at once that an alert is there for. Everything comes
// through the ports, as services send it; only the loss of a turn is made by taking its row away.
import { readdirSync, readFileSync } from 'node:fs'
import type { Sample } from '@tallylight/collector/metrics.ts'
import { openReadings } from '@tallylight/collector/self/readings.ts'
import {
  type Call,
  healthCheck,
  idOf,
  type LogRecord,
  logsRequest,
  type Span,
  spansOf,
  type Turn,
  tracesRequest,
} from './traffic.ts'
import type { World } from './world.ts'

const minuteMs = 60_000

/** Names with a quote, where names are free. */
export const quoted = {
  service: "it's a shop",
  provider: "o'provider",
  model: "o'model",
  conversation: "what's up",
} as const

export const worldConfig = {
  quota: {
    unpriced: 'tokens_only',
    prices: [
      {
        provider: quoted.provider,
        model: quoted.model,
        inputNanoUsdPerMillion: '1000000000',
        outputNanoUsdPerMillion: '5000000000',
      },
    ],
    limits: [
      { id: 'month', tenant: 'acme', measure: 'cost', amount: '1000000000000', window: 'month', action: 'block' },
      { id: 'month', tenant: 'burning', measure: 'cost', amount: '100000000', window: 'month', action: 'block' },
      { id: 'day', tenant: 'nearly', measure: 'tokens', amount: '1000', window: 'day', action: 'block' },
      { id: 'day', tenant: 'empty', measure: 'tokens', amount: '10', window: 'day', action: 'block' },
    ],
  },
}

export type Times = {
  readonly nowUnixMs: number
  /** An hour in which all was well ends here. */
  readonly calmUnixMs: number
}

export function timesOf(nowUnixMs: number): Times {
  return { nowUnixMs, calmUnixMs: nowUnixMs - 75 * minuteMs }
}

const good: Call = { provider: 'openai', model: 'gpt-4o-mini', durationMs: 800, tokens: { input: 900, output: 120 } }
const stream: Call = { ...good, provider: 'anthropic', model: 'claude-sonnet-4-5', firstTokenMs: 240 }
const own: Call = { ...stream, provider: quoted.provider, model: quoted.model }

/** One of each kind, so that every board has rows whatever is chosen. */
function someOfAll(atUnixMs: number, name: string): readonly Turn[] {
  const chat = { atUnixMs, tenant: 'acme', service: 'chat' }
  const shop = { atUnixMs, tenant: 'acme', service: quoted.service, conversation: quoted.conversation }
  const { tokens: _unsaid, ...silent } = own
  return [
    {
      ...chat,
      name: `${name} good`,
      calls: [good],
      tools: [
        { name: 'search', durationMs: 90 },
        { name: 'read', server: 'files', durationMs: 30 },
      ],
    },
    { ...chat, name: `${name} stream`, calls: [stream, { ...stream, attempt: 2 }] },
    { ...shop, name: `${name} shop`, calls: [own], tools: [{ name: 'buy', server: "o'bank", durationMs: 50 }] },
    { ...shop, name: `${name} elsewhere`, calls: [{ ...own, provider: 'elsewhere' }, silent] },
  ]
}

function calmTurns({ nowUnixMs }: Times): readonly Turn[] {
  const from = nowUnixMs - 170 * minuteMs
  return Array.from({ length: 95 }, (_, minute) =>
    someOfAll(from + minute * minuteMs, `calm ${minute}`).slice(0, minute % 10 === 0 ? 4 : 3),
  ).flat()
}

function badTurns({ nowUnixMs }: Times): readonly Turn[] {
  const turns: Turn[] = []
  for (let at = 0; at < 30; at++) {
    const atUnixMs = nowUnixMs - (at + 1) * 8_000
    const chat = { atUnixMs, tenant: 'acme', service: 'chat' }
    const shop = { ...chat, service: quoted.service, conversation: quoted.conversation }
    const { tokens: _unsaid, ...silent } = good
    turns.push(
      { ...chat, name: `slow ${at}`, calls: [{ ...stream, durationMs: 9_000, firstTokenMs: 7_000 }] },
      { ...chat, name: `silent ${at}`, calls: [silent] },
      ...[chat, shop].map((scene) => ({
        ...{ ...scene, name: `denied ${scene.service} ${at}`, status: 'blocked', blockReason: 'quota month' },
        // As often as it answers: were they failures, its ratio would fire.
        calls: [{ ...stream, durationMs: 1, error: 'QuotaExceededError' }],
      })),
      { ...chat, name: `unpriced ${at}`, calls: [{ ...good, model: 'nobody-1' }] },
      { ...shop, name: `refused ${at}`, status: 'failure', calls: [{ ...own, error: '429', attempt: 2 }] },
      {
        ...chat,
        name: `failed ${at}`,
        status: 'failure',
        calls: [{ ...good, error: 'server_error' }],
        tools: [{ name: 'search', durationMs: 70, error: 'timeout' }],
      },
      {
        ...shop,
        name: `shop ${at}`,
        calls: [own],
        tools: [{ name: 'buy', server: "o'bank", durationMs: 60, error: 'tool_error' }],
      },
    )
  }
  return turns
}

function checks({ nowUnixMs }: Times): readonly Span[] {
  return Array.from({ length: 170 }, (_, minute) => {
    const at = { tenant: 'acme', service: 'chat', atUnixMs: nowUnixMs - minute * minuteMs - 30_000 }
    return [
      healthCheck({ ...at, target: 'files', isHealthy: true }),
      healthCheck({ ...at, target: 'bank', isHealthy: minute > 30 }),
    ]
  }).flat()
}

function records(times: Times): readonly LogRecord[] {
  const at = { tenant: 'acme', service: 'chat' }
  const audit = (atUnixMs: number, action: string): LogRecord => ({
    ...at,
    event: 'tallylight.audit',
    atUnixMs,
    attributes: {
      'tallylight.audit.actor': 'ada',
      'tallylight.audit.action': action,
      'tallylight.audit.resource.type': 'key',
    },
  })
  return [
    ...Array.from({ length: 20 }, (_, minute) => audit(times.calmUnixMs - minute * minuteMs, `calm ${minute}`)),
    ...Array.from({ length: 120 }, (_, at) => audit(times.nowUnixMs - 90_000 + at * 100, `burst ${at}`)),
    {
      ...{ ...at, event: 'tallylight.error', atUnixMs: times.nowUnixMs - 15_900, traceId: idOf('failed 1', 32) },
      attributes: { 'exception.type': 'Broken', 'exception.message': 'It broke.' },
    },
  ]
}

/** A collector that had a calm hour and then a bad one, in its own words. */
async function sendReadings(world: World, times: Times): Promise<void> {
  const origin = {
    version: '0.0.1',
    instanceId: 'of the past',
    hostName: 'past',
    startedUnixMs: times.nowUnixMs - 171 * minuteMs,
  }
  const readings = openReadings(origin, [])
  for (let minute = 170; minute >= 1; minute--) {
    const atUnixMs = times.nowUnixMs - minute * minuteMs
    const reading = readings.take(
      pastSamples(170 - minute, origin.startedUnixMs, atUnixMs > times.calmUnixMs + 20 * minuteMs),
      atUnixMs,
    )
    const request = JSON.parse(reading.body.toString()) as {
      readonly resourceMetrics: readonly [{ readonly resource: { readonly attributes: object[] } }]
    }
    request.resourceMetrics[0].resource.attributes.push({
      key: 'tallylight.tenant.id',
      value: { stringValue: 'tallylight' },
    })
    await accepted(world.send('metrics', request))
    reading.keep()
  }
}

function pastSamples(minute: number, startedUnixMs: number, isBad: boolean): readonly Sample[] {
  const bad = isBad ? minute - 110 : 0
  const counter = (name: string, value: number, labels = {}): Sample => ({
    name,
    help: name,
    labels,
    type: 'counter',
    value,
  })
  const gauge = (name: string, value: number): Sample => ({ name, help: name, labels: {}, type: 'gauge', value })
  const histogram = (name: string, counts: readonly number[]): Sample => ({
    ...{ name, help: name, labels: {}, type: 'histogram' },
    value: { counts, bounds: [1, 5, 30, 60, 300], sum: 1, count: counts.reduce((sum, each) => sum + each, 0) },
  })
  return [
    counter('tallylight_accepted_records_total', minute * 100, { signal: 'traces' }),
    counter('tallylight_quarantined_records_total', bad, { signal: 'traces' }),
    counter('tallylight_refused_requests_total', bad * 3, { signal: 'traces', reason: 'unauthenticated' }),
    counter('tallylight_rejected_records_total', bad * 2, { signal: 'traces', reason: 'too_old' }),
    counter('tallylight_inserts_total', minute, { table: 'otel_traces', outcome: 'inserted' }),
    counter('tallylight_inserts_total', bad, { table: 'otel_traces', outcome: 'refused' }),
    counter('tallylight_quota_answers_total', minute, { route: 'reservations', status: '201' }),
    gauge('tallylight_build_info', 1),
    gauge('process_start_time_seconds', startedUnixMs / 1000),
    gauge('tallylight_journal_age_seconds', isBad ? 900 : 1),
    gauge('tallylight_journal_bytes', isBad ? 900 : 10),
    gauge('tallylight_journal_bytes_max', 1_000),
    gauge('tallylight_canary_success', isBad ? 0 : 1),
    gauge('tallylight_canary_delay_seconds', isBad ? 30 : 1),
    gauge('tallylight_quota_drift_nano_usd', isBad ? 5_000_000_000 : 0),
    gauge('tallylight_quota_differences', isBad ? 12 : 0),
    gauge('tallylight_ledger_lag_seconds', 1),
    gauge('process_resident_memory_bytes', 1e8),
    counter('process_cpu_seconds_total', minute),
    counter('tallylight_quota_records_total', minute, { outcome: 'booked' }),
    counter('tallylight_inserted_rows_total', minute * 100, { table: 'otel_traces' }),
    counter('tallylight_leftover_contents_total', bad, { signal: 'traces' }),
    counter('tallylight_inserts_total', minute, { table: 'genai_facts', outcome: 'inserted' }),
    histogram('tallylight_insert_seconds', [minute, 0, 0, 0, 0, 0]),
    histogram('tallylight_quota_seconds', [minute, 0, 0, 0, 0, 0]),
    histogram('tallylight_lag_seconds', [minute, 0, 0, 0, bad * 5, 0]),
  ]
}

async function accepted(answer: Promise<Response>): Promise<void> {
  const response = await answer
  const text = await response.text()
  if (response.status !== 200 || text.includes('rejected')) throw new Error(`not accepted: ${response.status} ${text}`)
}

/** The recordings of every dialect, moved into the last hour. */
async function sendRecordings(world: World, { nowUnixMs }: Times): Promise<void> {
  const fixtures = new URL('../../collector/genai/fixtures/', import.meta.url)
  for (const file of readdirSync(fixtures).filter(
    (name) => name.endsWith('.json') && !name.endsWith('-metrics.json'),
  )) {
    const text = readFileSync(new URL(file, fixtures), 'utf8')
    const times = [...text.matchAll(/"\w*[tT]imeUnixNano": ?"?(\d{19})"?/g)].map(([, time]) => BigInt(time ?? 0))
    const shift = BigInt(nowUnixMs - 50 * minuteMs) * 1_000_000n - (times.toSorted()[0] ?? 0n)
    const moved = text.replaceAll(
      /"(\w*[tT]imeUnixNano)": ?"?(\d{19})"?/g,
      (_all, key: string, time: string) => `"${key}":"${BigInt(time) + shift}"`,
    )
    await accepted(world.send(file.endsWith('.logs.json') ? 'logs' : 'traces', moved))
  }
}

/** One that burns too fast, one that is nearly at its end, one that is beyond it and is denied. */
async function spend(world: World): Promise<void> {
  const reserve = (key: string, callId: string, estimate: object) =>
    world.quota('reservations', { callId, model: 'gpt-4o-mini', provider: 'openai', user: 'ada', estimate }, key)
  const tokens = (inputTokens: number) => ({ inputTokens, outputTokens: 0 })
  const settled = async (tenant: string, estimate: object, used: object): Promise<string> => {
    const key = await world.keyOf(tenant)
    const reserved = await reserve(key, `first of ${tenant}`, estimate)
    const { id } = (await reserved.json()) as { readonly id: string }
    const answer = await world.quota(`reservations/${id}/settle`, used, key)
    if (answer.status !== 200) throw new Error(`${tenant} could not settle: ${answer.status} ${await answer.text()}`)
    return key
  }
  await settled('acme', { costNanoUsd: '1000' }, { costNanoUsd: '2000' })
  await settled('burning', { costNanoUsd: '1000' }, { costNanoUsd: '50000000' })
  await settled('nearly', { inputTokens: 10, outputTokensMax: 0 }, { usage: tokens(950) })
  const key = await settled('empty', { inputTokens: 5, outputTokensMax: 0 }, { usage: tokens(12) })
  const denied = await reserve(key, 'second of empty', { inputTokens: 100, outputTokensMax: 0 })
  if (denied.status !== 429)
    throw new Error(`the call beyond the limit was answered ${denied.status} ${await denied.text()}`)
}

/** What senders are told no for. */
async function sendBadly(world: World, { nowUnixMs }: Times): Promise<void> {
  const statuses = [
    (await world.send('traces', '{')).status,
    (await world.send('traces', {}, 'tl_aaaaaaaa_'.padEnd(76, '0'))).status,
  ]
  const ahead = spansOf({
    name: 'ahead',
    atUnixMs: nowUnixMs + 3 * 86_400_000,
    tenant: 'acme',
    service: 'chat',
    calls: [good],
  })
  const spans = ahead.map(({ resource, span }, at) => ({
    resource,
    span: at === 0 ? { ...span, traceId: '0'.repeat(32) } : span,
  }))
  statuses.push((await world.send('traces', tracesRequest(spans))).status)
  if (statuses.join() !== '400,401,200') throw new Error(`the bad requests were answered ${statuses.join(', ')}`)
}

export async function seed(world: World, times: Times): Promise<void> {
  const spans = [...calmTurns(times), ...badTurns(times)].flatMap(spansOf)
  const all = [...spans, ...checks(times)]
  for (let at = 0; at < all.length; at += 500)
    await accepted(world.send('traces', tracesRequest(all.slice(at, at + 500))))
  await accepted(world.send('logs', logsRequest(records(times))))
  await sendRecordings(world, times)
  await sendReadings(world, times)
  await spend(world)
  await sendBadly(world, times)
  await world.collector.drained()
  // A store that lost what it had said it has.
  await world.owner.command(
    `ALTER TABLE tallylight.turn_rows DELETE WHERE TraceId = '${idOf('failed 29', 32)}' SETTINGS mutations_sync = 1`,
  )
}
