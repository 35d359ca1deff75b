// Every query of every board on the real engines, over data that came in as OTLP: with everything chosen, with one value, and
// with a value that has a quote. A query that breaks or finds nothing here is a panel that stays blank there.
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { buildBoards } from '@tallylight/dashboards/boards.ts'
import type { Values } from '@tallylight/dashboards/expand.ts'
import { uids } from '@tallylight/dashboards/links.ts'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { allOf, annotationsOf, ask, dialectOf, panelsOf, targetsOf, variableQueriesOf, variablesOf } from './queries.ts'
import { quoted, seed, timesOf, worldConfig } from './seed.ts'
import { idOf } from './traffic.ts'
import { openWorld, type Table, type World } from './world.ts'

const boards = buildBoards()
const hourMs = 3_600_000
let world: World
let range: { readonly fromUnixMs: number; readonly toUnixMs: number }
/** What the variables of each board offer. */
let options: ReadonlyMap<string, readonly string[]>

beforeAll(async () => {
  world = await openWorld(worldConfig, { TALLYLIGHT_SELF_CHECK_MS: '2000' })
  const nowUnixMs = Date.now()
  await seed(world, timesOf(nowUnixMs))
  await world.probe()
  // Two: the seed's, and the one that was started here, which tells of itself every two seconds.
  await vi.waitUntil(
    async () => {
      const query = `SELECT uniqExact(ResourceAttributes['service.instance.id']) FROM otel_metrics_gauge
        WHERE ServiceName = 'tallylight' AND MetricName = 'tallylight.build_info'`
      return Number((await world.clickhouse(query)).rows[0]?.[0]) === 2
    },
    { timeout: 30_000, interval: 250 },
  )
  range = { fromUnixMs: nowUnixMs - 3 * hourMs, toUnixMs: Date.now() + 1_000 }
  const found = new Map<string, readonly string[]>()
  for (const board of boards) {
    for (const { name, query } of variableQueriesOf(board)) {
      const { rows } = await ask(world, query, { range, values: {} })
      found.set(
        `${board.uid} ${name}`,
        rows.map(([value]) => String(value)),
      )
    }
  }
  options = found
})
afterAll(() => world?.[Symbol.asyncDispose]())

/** Every one of a board's variables, and what All of it is in SQL. */
function offered(board: Dashboard): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    variableQueriesOf(board).map(({ name }) => [name, options.get(`${board.uid} ${name}`) ?? []]),
  )
}

/** Without an id the trace board shows the newest; this one has everything that a trace can have. */
function startOf(board: Dashboard): Values {
  return board.uid === uids.trace ? { ...allOf(board), trace: [idOf('failed 1', 32)] } : allOf(board)
}

/** What is chosen, one variable at a time; the first is there for every board. */
const choices: readonly (readonly [name: string, values: Readonly<Record<string, readonly string[]>>])[] = [
  ['everything', {}],
  ['one tenant', { tenant: ['acme'] }],
  ['one service', { service: ['chat'] }],
  ['one provider', { provider: ['openai'] }],
  ['one model', { model: [quoted.model] }],
  ['one collector', { collector: ['of the past'] }],
  ['one conversation', { conversation: [quoted.conversation] }],
  [
    'values with a quote',
    { service: [quoted.service], provider: [quoted.provider, 'elsewhere'], model: [quoted.model] },
  ],
]

function expectSeries({ columns, rows }: Table): void {
  expect(columns[0]?.name).toBe('time')
  const times = rows.map(([time]) => String(time))
  expect(times).toEqual(times.toSorted())
  // Long frames are turned into wide ones by their texts, and what is drawn is a number.
  const values = columns.slice(1).filter(({ type }) => !type.includes('String'))
  expect(values.map(({ type }) => /Int|Float|Decimal/.test(type))).toEqual(values.map(() => true))
  expect(values.length).toBeGreaterThan(0)
}

for (const board of boards) {
  describe(`board ${board.title}`, () => {
    const names = new Set(variablesOf(board).map(({ name }) => name))
    const own = choices.filter(
      ([name, values]) => name === 'everything' || Object.keys(values).some((each) => names.has(each)),
    )

    test.each(own)('with %s chosen every panel has rows', async (_choice, values) => {
      const blank: string[] = []
      const known = Object.fromEntries(Object.entries(values).filter(([name]) => names.has(name)))
      // At once, as a browser asks them.
      await Promise.all(
        panelsOf(board).flatMap((panel) =>
          targetsOf(panel).map(async (query) => {
            const values = { ...startOf(board), ...known }
            const table = await ask(world, query, { range, panel, values, options: offered(board) })
            if (table.rows.length === 0) blank.push(`${panel.id} ${panel.title}`)
            if (panel.type === 'timeseries' && table.rows.length > 0) expectSeries(table)
          }),
        ),
      )
      expect(blank).toEqual([])
    })

    test('every column that a link or a unit is for is there, and every column has those that its name asks for', async () => {
      const missing: string[] = []
      for (const panel of panelsOf(board).filter(({ type }) => type === 'table')) {
        const [query] = targetsOf(panel)
        if (query === undefined) continue
        const { columns } = await ask(world, query, { range, panel, values: startOf(board), options: offered(board) })
        const there = new Set(columns.map(({ name }) => name))
        missing.push(...columns.flatMap((column) => unsaid(panel, column)))
        for (const { matcher, properties } of panel.fieldConfig?.overrides ?? []) {
          if (!there.has(String(matcher.options))) missing.push(`${panel.id} ${panel.title}: ${matcher.options}`)
          for (const [, column] of JSON.stringify(properties).matchAll(/__data\.fields\[\\"(\w+)\\"\]/g))
            if (!there.has(column as string)) missing.push(`${panel.id} ${panel.title}: ${column} of a link`)
        }
      }
      expect(missing).toEqual([])
    })
  })
}

/** What a column of this name must have: numbers their unit, and a row its way to the trace. */
const wanted: readonly (readonly [name: RegExp, property: 'unit' | 'links', value: string])[] = [
  [/^trace$/, 'links', `/d/${uids.trace}?var-trace=`],
  [/^conversation$/, 'links', `/d/${uids.conversations}?var-conversation=`],
  [/cost/, 'unit', 'currencyUSD'],
  [/^(p\d\d|duration|silent)$|first_token|delay|_in$/, 'unit', '"s"'],
  [/^(failed|available|used|cached|repeats|canary)$/, 'unit', 'percentunit'],
  [/^(bytes|memory|journal)$/, 'unit', 'bytes'],
]

function unsaid(
  panel: ReturnType<typeof panelsOf>[number],
  { name, type }: Table['columns'][number],
): readonly string[] {
  const properties = (panel.fieldConfig?.overrides ?? [])
    .filter(({ matcher }) => matcher.options === name)
    .flatMap((override) => override.properties)
  return wanted
    .filter(([asks, property]) => asks.test(name) && (property === 'links' || /Int|Float|Decimal/.test(type)))
    .filter(
      ([, property, value]) => !JSON.stringify(properties.find(({ id }) => id === property) ?? '').includes(value),
    )
    .map(([, property]) => `${panel.id} ${panel.title}: ${property} of ${name}`)
}

test('boards: each says where a collector began', async () => {
  for (const board of boards) {
    const queries = annotationsOf(board)
    expect(queries).toHaveLength(1)
    for (const query of queries) {
      const { columns, rows } = await ask(world, query, { range, values: {} })
      expect(columns.map(({ name }) => name)).toEqual(['time', 'text', 'tags'])
      expect(rows).toHaveLength(2)
    }
  }
})

test('boards: each variable offers what was sent', () => {
  const of = (name: string) => options.get(`${uids.overview} ${name}`)
  expect(of('tenant')).toEqual(['acme', 'default'])
  expect(of('service')).toContain(quoted.service)
  expect(of('provider')).toContain(quoted.provider)
  expect(of('model')).toContain(quoted.model)
  expect(of('collector')?.length).toBe(2)
  expect(options.get(`${uids.tenants} tenant`)).toEqual(['acme', 'burning', 'default', 'empty', 'nearly'])
})

test('boards: the trace of a row is found by its id', async () => {
  const trace = boards.find(({ uid }) => uid === uids.trace)
  const [panel] = panelsOf(trace as (typeof boards)[number])
  const [query] = targetsOf(panel as NonNullable<typeof panel>)
  const { rows } = await world.clickhouse(`SELECT TraceId FROM llm_calls WHERE Model = 'nobody-1' LIMIT 1`)
  const spans = await ask(world, query as NonNullable<typeof query>, {
    range: { fromUnixMs: 0, toUnixMs: 1_000 },
    values: { ...allOf(trace as (typeof boards)[number]), trace: [String(rows[0]?.[0])] },
  })
  expect(spans.rows.length).toBe(2)
})

test('boards: nothing of the collector’s own is anybody’s: not its canary’s calls, turns or cost', async () => {
  const { rows } = await world.clickhouse(`SELECT count() FROM llm_calls WHERE TenantId = 'tallylight'`)
  expect(Number(rows[0]?.[0])).toBeGreaterThan(0)
  const asked = boards.filter(({ uid }) => uid !== uids.collector)
  for (const board of asked) {
    for (const panel of panelsOf(board)) {
      for (const query of targetsOf(panel).filter((each) => dialectOf(each) === 'clickhouse')) {
        const table = await ask(world, query, { range, panel, values: { ...allOf(board), tenant: ['tallylight'] } })
        const at = table.columns.findIndex(({ name }) => name === 'tenant')
        expect(table.rows.map((row) => row[at]).filter((tenant) => tenant === 'tallylight')).toEqual([])
      }
    }
  }
})
