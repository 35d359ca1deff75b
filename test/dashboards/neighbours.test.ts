// What stands beside each other and must not be taken for one another, and what came in parts: tenants whose conversations have the
// same name, servers and collectors under one roof, traces without spans, turns of hours, checks that became rare.
import { rules } from '@tallylight/dashboards/alerts/alerts.ts'
import { buildBoards } from '@tallylight/dashboards/boards.ts'
import type { Values } from '@tallylight/dashboards/expand.ts'
import { type BoardName, uids } from '@tallylight/dashboards/links.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { allOf, ask, panelsOf, targetsOf } from './queries.ts'
import {
  attributesOf,
  healthCheck,
  idOf,
  type LogRecord,
  logsRequest,
  type Span,
  spansOf,
  type Turn,
  tracesRequest,
  type Value,
} from './traffic.ts'
import { openWorld, type World } from './world.ts'

const boards = buildBoards()
const minuteMs = 60_000
const nowUnixMs = Date.now()
const nano = (unixMs: number): string => `${BigInt(unixMs) * 1_000_000n}`

let world: World
beforeAll(async () => {
  world = await openWorld({}, {})
  await sent('traces', tracesRequest([...talks(), ...longTurn(), ...checks()]))
  await sent('logs', logsRequest([unspanned, ...burst()]))
  for (const [instance, success] of Object.entries({ well: 1, ill: 0 }))
    await sent('metrics', reading(instance, success))
  await world.collector.drained()
})
afterAll(() => world?.[Symbol.asyncDispose]())

async function sent(signal: 'traces' | 'logs' | 'metrics', body: object): Promise<void> {
  const answer = await world.send(signal, body)
  expect([answer.status, await answer.text()]).toEqual([200, '{}'])
}

function talks(): readonly Span[] {
  const turn = (tenant: string, conversation: string, minutes = 10): Turn => ({
    ...{
      name: `${tenant} ${conversation}`,
      atUnixMs: nowUnixMs - minutes * minuteMs,
      tenant,
      service: 'chat',
      conversation,
    },
    calls: [{ provider: 'openai', model: 'gpt-4o-mini', durationMs: 800 }],
  })
  return [turn('acme', '1'), turn('beta', '1'), turn('acme', String.raw`DOMAIN\bob's`, 20)].flatMap(spansOf)
}

/** An agent that has worked for three hours, and made its last call five minutes ago. */
function longTurn(): readonly Span[] {
  const span = (
    name: string,
    under: string,
    fromMinutes: number,
    toMinutes: number,
    said: Record<string, Value>,
  ): Span => ({
    resource: { 'service.name': 'agent', 'tallylight.tenant.id': 'acme' },
    span: {
      ...{ traceId: idOf('long', 32), spanId: idOf(name, 16), parentSpanId: idOf(under, 16), name, kind: 1 },
      startTimeUnixNano: nano(nowUnixMs - fromMinutes * minuteMs),
      endTimeUnixNano: nano(nowUnixMs - toMinutes * minuteMs),
      attributes: attributesOf(said),
    },
  })
  const call = {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt-4o-mini',
  }
  const { span: root, resource } = span('long', 'none', 183, 3, { 'tallylight.turn.id': 'long' })
  return [{ resource, span: { ...root, parentSpanId: '' } }, span('last', 'long', 5, 4, call)]
}

const unspanned = {
  ...{ event: 'tallylight.error', tenant: 'acme', service: 'sampled', atUnixMs: nowUnixMs - 10 * minuteMs },
  traceId: idOf('unspanned', 32),
  attributes: { 'exception.type': 'Broken', 'exception.message': 'It broke.' },
}

/** Sixty within fifteen seconds, a half of them before a minute of the clock ends. */
function burst(): readonly LogRecord[] {
  const strokeUnixMs = Math.floor(nowUnixMs / minuteMs - 1) * minuteMs
  return Array.from({ length: 60 }, (_, at) => ({
    ...{ event: 'tallylight.audit', tenant: 'acme', service: 'chat', atUnixMs: strokeUnixMs + (at - 30) * 250 },
    attributes: { 'tallylight.audit.actor': 'ada', 'tallylight.audit.action': `change ${at}` },
  }))
}

/** Minutes ago at which each target was looked at; what fails is looked at ever less often. */
function checks(): readonly Span[] {
  const sparing = [40, 39.5, 39, 38, 36, 32, 27, 22, 17, 12, 7, 2]
  const often = [4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1]
  const look = (target: string, minutes: number, isHealthy: boolean, more: Readonly<Record<string, Value>>): Span => {
    const { resource, span } = healthCheck({
      ...{ tenant: 'acme', service: 'chat', target, isHealthy },
      atUnixMs: nowUnixMs - minutes * minuteMs,
    })
    const { attributes, ...rest } = span as { readonly attributes: readonly object[]; readonly spanId: string }
    const spanId = idOf(JSON.stringify([target, minutes, more]), 16)
    return {
      resource,
      span: { ...rest, spanId, traceId: spanId + spanId, attributes: [...attributes, ...attributesOf(more)] },
    }
  }
  const event = (name: string) => ({ 'tallylight.health.event': name })
  const server = (name: string) => ({ ...event('interval'), 'tallylight.health.metadata.server': name })
  return [
    ...sparing.map((minutes) => look('down', minutes, false, event('interval'))),
    ...sparing.map((minutes) => look('mended', minutes, minutes <= 7, event('interval'))),
    ...sparing.map((minutes) => look('left', minutes, false, event(minutes === 2 ? 'shutdown' : 'interval'))),
    ...often.flatMap((minutes) => [
      look('mcp:ping', minutes, true, server('files')),
      look('mcp:ping', minutes, false, server('bank')),
    ]),
  ]
}

function reading(instance: string, success: number): object {
  const point = { timeUnixNano: nano(nowUnixMs - minuteMs), asDouble: success }
  return {
    resourceMetrics: [
      {
        resource: {
          attributes: attributesOf({
            ...{ 'service.name': 'tallylight', 'tallylight.tenant.id': 'tallylight', 'host.name': 'one roof' },
            'service.instance.id': instance,
          }),
        },
        scopeMetrics: [
          {
            scope: { name: 'tallylight' },
            metrics: [{ name: 'tallylight.canary_success', gauge: { dataPoints: [point] } }],
          },
        ],
      },
    ],
  }
}

async function rowsOf(
  name: BoardName,
  panelId: number,
  values: Values,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const board = boards.find(({ uid }) => uid === uids[name])
  const panel = board && panelsOf(board).find(({ id }) => id === panelId)
  const [query] = panel === undefined ? [] : targetsOf(panel)
  if (board === undefined || panel === undefined || query === undefined) throw new Error(`no panel ${name} ${panelId}`)
  const range = { fromUnixMs: nowUnixMs - 60 * minuteMs, toUnixMs: nowUnixMs + 1_000 }
  const { columns, rows } = await ask(world, query, { range, panel, values: { ...allOf(board), ...values } })
  return rows.map((row) => Object.fromEntries(columns.map((column, at) => [column.name, row[at]])))
}

async function firing(uid: string): Promise<readonly string[]> {
  const rule = rules.find((each) => each.uid === uid)
  if (rule === undefined) throw new Error(`no rule ${uid}`)
  const range = { fromUnixMs: nowUnixMs - rule.overSeconds * 1000, toUnixMs: nowUnixMs }
  const { columns, rows } = await ask(world, rule.query, { range, values: {} })
  const { when, bound } = rule.fires
  return rows
    .filter((row) => (when === 'above' ? Number(row.at(-1)) > bound : Number(row.at(-1)) < bound))
    .map((row) =>
      columns.flatMap(({ name }, at) => (name === 'time' || name === 'value' ? [] : [`${name}=${row[at]}`])).join(' '),
    )
    .toSorted()
}

test('conversations: of two tenants that give theirs the same name, the chosen one’s are shown', async () => {
  const question = async (values: Values) => (await rowsOf('conversations', 20, values)).map((row) => row.question)
  for (const tenant of ['acme', 'beta'])
    expect(await question({ tenant: [tenant], conversation: ['1'] })).toEqual([`How is ${tenant} 1?`])
  expect(await rowsOf('conversations', 22, { tenant: ['acme'], conversation: ['1'] })).toHaveLength(1)
  // Every way there says whose it is.
  const links =
    JSON.stringify(boards)
      .replaceAll(String.raw`\"`, "'")
      .match(new RegExp(`/d/${uids.conversations}\\?var-conversation=[^"]*`, 'g')) ?? []
  expect(links.length).toBeGreaterThan(5)
  for (const link of links) expect(link).toContain('&var-tenant=')
})

test('conversations: the newest is one, also where another tenant has one of the same name', async () => {
  expect(await rowsOf('conversations', 20, {})).toHaveLength(1)
})

test('conversations: names may have quotes and backslashes', async () => {
  expect(await rowsOf('conversations', 20, { conversation: [String.raw`DOMAIN\bob's`] })).toHaveLength(1)
})

test('trace: what was logged in one whose spans were not sent is shown', async () => {
  const values = { trace: [unspanned.traceId] }
  expect((await rowsOf('trace', 30, values)).map((row) => row.type)).toEqual(['Broken'])
  expect(await rowsOf('trace', 31, values)).toHaveLength(1)
})

test('integrity: a turn that took hours is stored, and none is missing', async () => {
  expect(await rowsOf('integrity', 20, {})).toEqual([])
  expect(await firing('chat-log-writes')).toEqual([])
})

test('alerts: what fails is told however seldom it is looked at, until it is mended or left; and each server for itself', async () => {
  expect(await firing('health-check-down')).toEqual(['tenant=acme target=down', 'tenant=acme target=mcp:ping bank'])
})

test('alerts: of two collectors on one host the ill one is told', async () => {
  expect(await firing('canary-missing')).toEqual(['host=one roof collector=ill'])
})

test('alerts: a burst of changes is one, also where a minute of the clock ends in it', async () => {
  expect(await firing('audit-burst')).toEqual(['tenant=acme'])
})
