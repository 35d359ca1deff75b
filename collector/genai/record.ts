// What the walk lifts out of the bytes for the dialects: one span or log record as an object. Only records that `speaks.ts`
// recognises become one; everything else stays bytes.
import type { TenantId } from '../receive/request.ts'

/** An OTLP AnyValue. An integer is a number where a number holds it exactly, else a bigint. */
export type AnyValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | Uint8Array
  | readonly AnyValue[]
  | ReadonlyMap<string, AnyValue>

export type Attributes = ReadonlyMap<string, AnyValue>

export type Scope = { readonly name: string; readonly version: string }

export type LiftedEvent = {
  readonly name: string
  readonly timeUnixNano: bigint
  readonly attributes: Attributes
}

export type LiftedSpan = {
  readonly kind: 'span'
  /** As the walk stamped it: the key's tenant, or the one the record may name. */
  readonly tenantId: TenantId
  /** 32 and 16 lower-case hex digits; no parent is ''. */
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly name: string
  readonly spanKind: 'unspecified' | 'internal' | 'server' | 'client' | 'producer' | 'consumer'
  readonly startUnixNano: bigint
  readonly endUnixNano: bigint
  readonly status: 'unset' | 'ok' | 'error'
  readonly statusMessage: string
  readonly attributes: Attributes
  readonly events: readonly LiftedEvent[]
  readonly resource: Attributes
  readonly scope: Scope
}

export type LiftedLog = {
  readonly kind: 'log'
  readonly tenantId: TenantId
  /** '' where the record belongs to no trace or span. */
  readonly traceId: string
  readonly spanId: string
  readonly eventName: string
  readonly timeUnixNano: bigint
  /** Position among the log records of its request: some senders stamp a whole conversation with one millisecond. */
  readonly ordinal: number
  readonly severity: number
  readonly body: AnyValue
  readonly attributes: Attributes
  readonly resource: Attributes
  readonly scope: Scope
}

/** One value of a prober's metric. */
export type LiftedPoint = {
  readonly tenantId: TenantId
  readonly metricName: string
  readonly timeUnixNano: bigint
  readonly value: number
  readonly attributes: Attributes
  readonly resource: Attributes
}

export type LiftedRecord = LiftedSpan | LiftedLog
