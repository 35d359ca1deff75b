import { expect, test } from 'vitest'
import type { Fact } from '../genai/fact.ts'
import { factsOf, linkOf } from '../genai/lift.ts'
import { type SpanSketch, sketchSpan } from '../genai/testing.ts'
import type { TenantId } from '../receive/request.ts'
import type { SubjectKind } from './subject.ts'
import { spansOf } from './whose-spans.ts'

const tenantId = 'acme' as TenantId
const call = { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'm' }

/** A span of a tree; one that is no call is known by its place alone. */
function span(
  spanId: string,
  parentSpanId: string,
  attributes: NonNullable<SpanSketch['attributes']>,
): readonly Fact[] {
  const sketched = sketchSpan({ tenantId, spanId, parentSpanId, attributes })
  const { facts } = factsOf(sketched)
  return facts.length > 0 ? facts : [linkOf(sketched)]
}

function check(facts: readonly (readonly Fact[])[], kind: SubjectKind, name: string): readonly string[] {
  return spansOf(facts.flat(), { tenantId, kind, name }).toSorted()
}

const ada = { 'user.id': 'ada' }
const bob = { 'user.id': 'bob' }
/** root ─┬─ a (ada) ─┬─ a1, a call ─── a2, which speaks of nothing
 *        │           └─ b1 (bob), a call inside of hers
 *        └─ b (bob) ─── b2, a call */
const both = [
  span('root', '', {}),
  span('a', 'root', ada),
  span('a1', 'a', call),
  span('a2', 'a1', {}),
  span('b1', 'a', { ...call, ...bob }),
  span('b', 'root', bob),
  span('b2', 'b', call),
]

for (const [what, facts, kind, name, spans] of [
  ['those below a span that names the user', both, 'user', 'ada', ['a', 'a1', 'a2']],
  ['those of another inside of them are the other’s', both, 'user', 'bob', ['b', 'b1', 'b2']],
  ['of a user who is not there, none', both, 'user', 'eve', []],
  ['where one user is named, all', [span('root', '', {}), span('a', 'root', ada)], 'user', 'ada', ['a', 'root']],
  [
    'a session is the conversation where nobody names one',
    [span('s', '', { 'session.id': 'c' }), span('t', 's', call), span('u', 's', { 'gen_ai.conversation.id': 'd' })],
    'conversation',
    'c',
    ['s', 't'],
  ],
] as const)
  test(`whose spans: ${what}`, () => {
    expect(check(facts, kind, name)).toEqual(spans)
    expect(check(facts.toReversed(), kind, name)).toEqual(spans)
  })
