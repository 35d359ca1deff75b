import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClickHouse } from './client.ts'
import { migrateClickHouse } from './migrate.ts'
import { startTestEngine, type TestEngine } from './testing.ts'

let engine: TestEngine
let client: ClickHouse
beforeAll(async () => {
  engine = await startTestEngine()
  client = await engine.open('superseded')
  await migrateClickHouse(client)
  const turns = (tenant: string, generation: number, conversation: string, isDeleted: number, where: string): string =>
    `INSERT INTO superseded.turn_rows (TenantId, RetentionDays, Timestamp, TraceId, TurnId, ConversationId, Generation, IsDeleted)
     SELECT '${tenant}', 30, toStartOfDay(now()) + number % 3600, toString(number), toString(number), ${conversation}, ${generation}, ${isDeleted}
     FROM numbers(60000) WHERE ${where}`
  await client.command(turns('a', 1, `toString(intDiv(number, 10))`, 0, '1'))
  await client.command(turns('b', 1, `toString(intDiv(number, 10))`, 0, '1'))
  // Of each ten one has moved to another conversation, and one is gone.
  await client.command(turns('a', 2, `'moved'`, 0, 'number % 10 = 3'))
  await client.command(turns('a', 3, `''`, 1, 'number % 10 = 4'))
})
afterAll(() => engine[Symbol.asyncDispose]())

const turnsOf = (conversation: string, settings = ''): string =>
  `SELECT TurnId, Generation FROM superseded.turns WHERE TenantId = 'a' AND ConversationId = '${conversation}' ORDER BY TurnId ${settings}`

test('turns: one that was superseded is found under what it is now alone, though only the keys that match are looked at', async () => {
  const plan = await client.query<{ explain: string }>(`EXPLAIN ${turnsOf('7')}`)
  expect(plan.some(({ explain }) => explain.includes('LazyFinal'))).toBe(true)
  const rows = await client.query<{ TurnId: string }>(turnsOf('7'))
  expect(rows.map(({ TurnId }) => TurnId)).toEqual(['70', '71', '72', '75', '76', '77', '78', '79'])
  for (const conversation of ['7', '5999', 'moved', '']) {
    const found = await client.query(turnsOf(conversation))
    for (const setting of ['query_plan_optimize_lazy_final', 'optimize_move_to_prewhere_if_final'])
      expect(found).toEqual(await client.query(turnsOf(conversation, `SETTINGS ${setting} = 0`)))
  }
  expect(await client.query(turnsOf('moved'))).toHaveLength(6_000)
  expect(await client.query(turnsOf(''))).toEqual([])
})

test('turns: only what a sort key says is asked before FINAL, and never what a superseded row may say otherwise', async () => {
  const plan = await client.query<{ explain: string }>(`EXPLAIN actions = 1 ${turnsOf('7')}`)
  const asked = plan.flatMap(({ explain }) => /Prewhere filter column: +(.*)$/.exec(explain)?.[1] ?? [])
  expect(new Set(asked)).toEqual(new Set([`TenantId = 'a'`]))
})
