// What one call used, as its record says: the seam between what resolves records and the ledger, which knows neither spans
// nor dialects. An event is told by its span; a higher generation of it replaces what is booked of a lower one.
import type { Priced } from '../genai/price.ts'
import type { TenantId } from '../receive/request.ts'
import { tokensOf } from './books.ts'
import type { RecordCall } from './step.ts'

export type UsageEvent = {
  readonly tenant: TenantId
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  /** How much is known: a late parent or wrapper gives a record a higher one. */
  readonly generation: number
  /** `tallylight.call.id`: the reservation that the call was made under. */
  readonly callId: string | undefined
  readonly user: string
  readonly conversation: string
  readonly model: string
  readonly provider: string
  /** Undefined where nobody told it. */
  readonly usage: { readonly inputTokens: number; readonly outputTokens: number } | undefined
  /** It may be more: a stream that was left had told of a part. */
  readonly isLowerBound: boolean
  readonly cost: Priced
  /** False when another record meters this call: a wrapper of it, say. */
  readonly isMetered: boolean
  readonly endedUnixMs: number
}

/** The same key wherever the record comes from, and however often. */
export function eventKeyOf({ traceId, spanId }: Pick<UsageEvent, 'traceId' | 'spanId'>): string {
  return `span:${traceId}:${spanId}`
}

export function recordOf(event: UsageEvent): RecordCall {
  const text = (value: string): string => value.replaceAll('\0', '\ufffd')
  return {
    kind: 'record',
    tenant: event.tenant,
    eventKey: eventKeyOf(event),
    generation: event.generation,
    callId: event.callId === undefined ? undefined : text(event.callId),
    // A record does not tell which key asked for the call; its reservation does.
    subject: {
      user: text(event.user),
      key: '',
      model: text(event.model),
      provider: text(event.provider),
      conversation: text(event.conversation),
    },
    amounts: {
      cost: event.cost.kind === 'priced' ? event.cost.costNanoUsd : undefined,
      ...(event.usage === undefined ? { tokens: undefined } : tokensOf(event.usage)),
    },
    isLowerBound: event.isLowerBound,
    isMetered: event.isMetered,
    endedAt: new Date(event.endedUnixMs),
  }
}
