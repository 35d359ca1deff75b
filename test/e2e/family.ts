// Spans of a trace by short names, sent to a collector in any order: who is whose parent is all that matters of them.
import { createHash } from 'node:crypto'
import { expect } from 'vitest'
import type { CollectorProcess } from '../collector-process.ts'

export type FamilySpan = {
  readonly id: string
  readonly parent?: string
  readonly attributes?: Readonly<Record<string, string>>
}

export const call: FamilySpan = {
  id: '3',
  parent: '2',
  attributes: { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'openai', 'gen_ai.request.model': 'gpt' },
}
/** Says nothing of models, nor whose it is. */
export const between: FamilySpan = { id: '2', parent: '1', attributes: { 'http.route': '/chat' } }
/** Says whose it is. */
export const outermost: FamilySpan = {
  id: '1',
  attributes: { 'user.id': 'ada', 'session.id': 's1', 'client.address': '::1' },
}

/** Ids of different traces differ, though their spans have the same names. */
export async function sendFamily(
  collector: CollectorProcess,
  trace: string,
  ...spans: readonly FamilySpan[]
): Promise<void> {
  const startTimeUnixNano = `${BigInt(Date.now()) * 1_000_000n}`
  const idOf = (id: string): string => hashOf(`${trace} ${id}`).slice(0, 16)
  const sent = spans.map(({ id, parent, attributes = {} }) => ({
    ...{ traceId: traceIdOf(trace), spanId: idOf(id), name: id, startTimeUnixNano, endTimeUnixNano: startTimeUnixNano },
    ...(parent === undefined ? {} : { parentSpanId: idOf(parent) }),
    attributes: Object.entries(attributes).map(([key, stringValue]) => ({ key, value: { stringValue } })),
  }))
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: sent }] }] }),
    headers: { 'Content-Type': 'application/json' },
  })
  expect([response.status, await response.text()]).toEqual([200, '{}'])
}

export function traceIdOf(trace: string): string {
  return hashOf(trace).slice(0, 32)
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
