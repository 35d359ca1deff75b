// Whose each span of a trace is that several users or conversations share. The same inheritance as of the resolved rows, so
// that what is erased is exactly what readers were shown as theirs.
import type { Fact } from '../genai/fact.ts'
import { openTrace } from '../genai/resolve/trace.ts'
import type { Subject } from './subject.ts'

/** Ids of the spans that are the subject's. `facts` has one for every span of the trace. */
export function spansOf(facts: readonly Fact[], { kind, name }: Subject): readonly string[] {
  const trace = openTrace(facts)
  return trace.nodes
    .filter((node) => {
      const { userId, conversationId } = trace.placeOf(node)
      return (kind === 'user' ? userId : conversationId) === name
    })
    .map((node) => node.spanId)
}
