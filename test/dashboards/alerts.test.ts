// Every alert seen firing, for whom it should and for nobody else, and seen quiet over an hour in which there was something to
// look at. Evaluated as Grafana does it: the query at a moment, the last value of each set of labels, the bound.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import {
  contactPoints,
  policies,
  receivers,
  ruleGroups,
  rules,
  templates,
} from '@tallylight/dashboards/alerts/alerts.ts'
import type { Rule } from '@tallylight/dashboards/alerts/rule.ts'
import { boardPlans, buildBoards } from '@tallylight/dashboards/boards.ts'
import { uids } from '@tallylight/dashboards/links.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask, panelsOf } from './queries.ts'
import { quoted, seed, type Times, timesOf, worldConfig } from './seed.ts'
import { openWorld, type World } from './world.ts'

const hourMs = 3_600_000
let world: World
let times: Times

beforeAll(async () => {
  world = await openWorld(worldConfig, {})
  times = timesOf(Date.now())
  await seed(world, times)
})
afterAll(() => world?.[Symbol.asyncDispose]())

type Instance = { readonly labels: string; readonly value: number; readonly isFiring: boolean }

async function evaluate(rule: Rule, atUnixMs: number): Promise<readonly Instance[]> {
  const range = { fromUnixMs: atUnixMs - rule.overSeconds * 1000, toUnixMs: atUnixMs }
  const { columns, rows } = await ask(world, rule.query, { range, values: {} })
  const isNumber = columns.map(({ type }) => /Int|Float|Decimal/.test(type))
  // What Grafana makes labels and values of: texts, and exactly one number.
  expect(columns.filter((_, at) => isNumber[at]).map(({ name }) => name)).toEqual(['value'])
  const last = new Map<string, number>()
  for (const row of rows) {
    const labels = columns.flatMap(({ name }, at) => (isNumber[at] || name === 'time' ? [] : [`${name}=${row[at]}`]))
    last.set(labels.join(' '), Number(row[columns.findIndex(({ name }) => name === 'value')]))
  }
  const { when, bound } = rule.fires
  return [...last].map(([labels, value]) => ({
    labels,
    value,
    isFiring: when === 'above' ? value > bound : value < bound,
  }))
}

const labelsOf = (instances: readonly Instance[]): readonly string[] => instances.map(({ labels }) => labels).toSorted()
const firing = (instances: readonly Instance[]): readonly string[] =>
  labelsOf(instances.filter(({ isFiring }) => isFiring))

const shop = `provider=${quoted.provider} model=${quoted.model}`
/** For whom each fires in the bad hour. */
const expected: Readonly<Record<string, readonly string[]>> = {
  'error-ratio-of-model': ['provider=openai model=gpt-4o-mini', shop],
  'error-rate': [''],
  'failures-in-5-minutes': [''],
  'time-to-first-token': ['provider=anthropic model=claude-sonnet-4-5'],
  'average-latency-of-provider': ['provider=anthropic'],
  'rate-limited-by-provider': [`provider=${quoted.provider}`],
  'usage-is-estimated': ['service=chat'],
  'calls-without-price': ['provider=openai model=nobody-1'],
  'health-check-down': ['tenant=acme target=bank'],
  'chat-log-writes': [''],
  'audit-burst': ['tenant=acme'],
  'canary-missing': ['host=past collector=of the past'],
  'records-refused': ['reason=too_old', 'reason=unauthenticated'],
  'records-quarantined': ['signal=traces'],
  'inserts-fail': ['table=otel_traces'],
  'journal-age': ['host=past collector=of the past'],
  'journal-fill': ['host=past collector=of the past'],
  lag: [''],
  'settle-drift': ['host=past collector=of the past'],
  'cost-burn-fast': ['tenant=burning limit=month subject='],
  'cost-burn-slow': ['tenant=burning limit=month subject='],
  'quota-near': ['tenant=nearly limit=day subject='],
  'quota-exhausted': ['tenant=empty limit=day subject='],
}

const ofLedger = (rule: Rule): boolean => rule.query.datasource.uid === 'tallylight-postgres'

describe.each(rules.map((rule) => [rule.uid, rule] as const))('alert %s', (uid, rule) => {
  // Before anything was sent, for the one that watches for silence.
  test('fires for whom it should, and for nobody else', async () => {
    const at = rule.isSilenceAlarming === true ? times.nowUnixMs - 5 * hourMs : times.nowUnixMs
    expect(firing(await evaluate(rule, at))).toEqual([...(expected[uid] ?? [''])].toSorted())
  })

  test('is quiet when all is well, with something to look at', async () => {
    if (ofLedger(rule)) {
      // It knows only now, and tells of nobody who is well: there is somebody.
      const { rows } = await world.postgres(`SELECT FROM quota_balances WHERE tenant = 'acme' AND spent > 0`)
      expect(rows.length).toBeGreaterThan(0)
      expect((await evaluate(rule, times.nowUnixMs)).filter(({ labels }) => labels.startsWith('tenant=acme '))).toEqual(
        [],
      )
      return
    }
    const instances = await evaluate(rule, times.calmUnixMs)
    expect(instances.length).toBeGreaterThan(0)
    expect(firing(instances)).toEqual([])
  })

  test('has a board to look at, and a page that says what to do', () => {
    const board = buildBoards().find((each) => each.uid === uids[rule.board])
    expect(panelsOf(board as NonNullable<typeof board>).map(({ id }) => id)).toContain(rule.panelId)
    const page = new URL(`../../dashboards/runbooks/${uid}.md`, import.meta.url)
    expect(existsSync(page), `there is no runbook ${uid}`).toBe(true)
    const text = readFileSync(page, 'utf8')
    for (const heading of ['## What it means', '## Look at', '## Do']) expect(text).toContain(heading)
  })
})

test('alerts: what is asked of the collector’s numbers is what it has', async () => {
  const asked = JSON.stringify([
    rules.map(({ query }) => query.rawSql),
    boardPlans.map(({ rows }) => rows.map(({ panels }) => panels.map((panel) => panel.build()))),
  ])
  const names = new Set([...asked.matchAll(/'((?:tallylight|process)\.[a-z_]+)'/g)].map(([, name]) => name as string))
  expect(names.size).toBeGreaterThan(20)
  const prometheus = readdirSync(new URL('../../collector/', import.meta.url), { recursive: true, encoding: 'utf8' })
    .filter((path) => /(?<!\.test)\.ts$/.test(path))
    .map((path) => readFileSync(new URL(`../../collector/${path}`, import.meta.url), 'utf8'))
    .join('\n')
  const made = new Set(
    [...prometheus.matchAll(/\b(tallylight|process)_([a-z_]+)/g)].map(
      ([, prefix, rest]) => `${prefix}.${(rest as string).replace(/_total$/, '').replace(/_(seconds|bytes)$/, '')}`,
    ),
  )
  // States of records are names made of two parts.
  for (const state of ['accepted', 'quarantined']) made.add(`tallylight.${state}_records`)
  expect([...names].filter((name) => !made.has(name))).toEqual([])
})

test('alerts: uids are their own, groups are whole, and every receiver of a policy is a contact point', () => {
  const { groups } = ruleGroups('http://runbooks') as {
    readonly groups: readonly { readonly rules: readonly { readonly uid: string }[] }[]
  }
  const all = groups.flatMap((group) => group.rules.map(({ uid }) => uid))
  expect(new Set(all).size).toBe(rules.length)
  // They are an organisation's, beside those of others.
  for (const uid of all) expect(uid).toMatch(/^tallylight-[a-z0-9-]{1,29}$/)
  const points = JSON.stringify(contactPoints({ pageUrl: 'http://pager', ticketEmail: 'sre@example.org' }))
  for (const [, receiver] of JSON.stringify(policies()).matchAll(/"receiver":"([^"]+)"/g))
    expect(points).toContain(`"name":"${receiver}"`)
  expect(Object.keys(receivers)).toEqual([...new Set(rules.map(({ severity }) => severity))].toSorted())
  const { templates: made } = templates() as {
    readonly templates: readonly { readonly name: string; readonly template: string }[]
  }
  for (const { name } of made) expect(points).toContain(`template \\"${name}\\"`)
})

test('alerts: no rule asks what only a browser can answer', () => {
  for (const { query } of rules) expect(query.rawSql).not.toMatch(/\$__conditionalAll|\$\{|\$__interval\b/)
})
