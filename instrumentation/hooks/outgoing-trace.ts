// Marks work whose HTTP requests carry the trace in their headers. Requests to model providers never do: what a service does
// is none of their business.
import { type Context, context, createContextKey, propagation } from '@opentelemetry/api'

const key = createContextKey('tallylight.outgoing-trace')

export function withOutgoingTrace(parent: Context): Context {
  return parent.setValue(key, true)
}

/** The headers of the trace, where the work is marked. */
export function outgoingTraceHeaders(): Readonly<Record<string, string>> | undefined {
  const active = context.active()
  if (active.getValue(key) !== true) return undefined
  const headers: Record<string, string> = {}
  propagation.inject(propagation.deleteBaggage(active), headers)
  return headers
}
