import { expect, test } from 'vitest'
import { factsOf } from './lift.ts'
import { isSpeakingEvent, isSpeakingKey, isSpeakingValue, isValuedKey } from './speaks.ts'
import { readRecorded } from './testing.ts'

test('speaks: keys and events of every dialect are told from bytes, and the web’s are not', () => {
  const speaks = (key: string) => isSpeakingKey(Buffer.from(`..${key}..`), 2, 2 + key.length)
  const ours = [
    'gen_ai.system',
    'ai.operationId',
    'traceloop.span.kind',
    'mcp.method.name',
    'tallylight.probe',
    'request',
  ]
  for (const key of ours) expect([key, speaks(key)]).toEqual([key, true])
  for (const key of ['gen_ai', 'requests', 'http.route', 'ai.operationIds', 'a', '', 'llm', 'session.id'])
    expect([key, speaks(key)]).toEqual([key, false])
  const valued = (key: string) => isValuedKey(Buffer.from(key), 0, key.length)
  expect(['http.route', 'user_agent.original', 'http.routes', 'url.full'].map(valued)).toEqual([
    true,
    true,
    false,
    false,
  ])
  const value = (text: string) => isSpeakingValue(Buffer.from(text), 0, text.length)
  expect(['/healthz', '/health/', 'kube-probe/1.30', '/chat', 'x'.repeat(9999)].map(value)).toEqual([
    true,
    true,
    true,
    false,
    false,
  ])
  expect(
    ['gen_ai.choice', 'tallylight.audit', 'browser.click'].map((name) =>
      isSpeakingEvent(Buffer.from(name), 0, name.length),
    ),
  ).toEqual([true, true, false])
})

test('speaks: every recorded span that says something is lifted', () => {
  for (const record of readRecorded()) {
    const keys = [...record.attributes.keys()]
    const speaks = keys.some((key) => isSpeakingKey(Buffer.from(key), 0, Buffer.byteLength(key)))
    const isEvent = record.kind === 'log' && isSpeakingEvent(Buffer.from(record.eventName), 0, record.eventName.length)
    if (factsOf(record).facts.length > 0) expect(speaks || isEvent, keys.join()).toBe(true)
  }
})
