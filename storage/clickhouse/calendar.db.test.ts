import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CalendarOf, openCalendars } from './calendar.ts'
import type { ClickHouse } from './client.ts'
import { startTestEngine, type TestEngine } from './testing.ts'

let engine: TestEngine
let client: ClickHouse
let calendarOf: CalendarOf
beforeAll(async () => {
  engine = await startTestEngine()
  client = await engine.open('calendars')
  calendarOf = openCalendars(client)
})
afterAll(() => engine[Symbol.asyncDispose]())

test.each([
  ['DateTime64(9)', 'UTC', true, [0]],
  ["DateTime64(6, 'Etc/UTC')", 'Etc/UTC', true, [0]],
  ["DateTime('Europe/London')", 'Europe/London', false, [0]],
  ["SimpleAggregateFunction(min, DateTime('Europe/Berlin'))", 'Europe/Berlin', false, [0]],
  ["DateTime64(9, 'America/St_Johns')", 'America/St_Johns', false, [1800]],
  ["DateTime64(9, 'Asia/Kolkata')", 'Asia/Kolkata', false, [1800]],
  ["DateTime64(9, 'Asia/Kathmandu')", 'Asia/Kathmandu', false, [900]],
  ["DateTime64(9, 'Australia/Lord_Howe')", 'Australia/Lord_Howe', false, [0, 1800]],
])(
  'calendar: %s is in %s, with the days of UTC: %s, and hours that begin %j seconds past those of UTC',
  async (...[type, zone, hasDaysOfUtc, hoursBegin]) => {
    expect(await calendarOf(type)).toEqual({ zone, hasDaysOfUtc, hoursBegin })
  },
)

test('calendar: each zone is asked for once', async () => {
  let asked = 0
  const query: ClickHouse['query'] = (...question) => {
    asked++
    return client.query(...question)
  }
  const calendar = openCalendars({ ...client, query })
  for (const type of ['DateTime', 'DateTime64(9)', "DateTime64(9, 'Asia/Kolkata')", "DateTime('Asia/Kolkata')"])
    await calendar(type)
  expect(asked).toBe(2)
})
