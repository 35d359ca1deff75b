// What a dialect is: a test and two readers. Most dialects are OpenTelemetry's conventions with quirks, so they lean on
// `otel.ts` for everything that they do not do in a way of their own.
import type { Dialect as DialectName, Failure, Says } from '../fact.ts'
import type { Reading } from '../reading.ts'
import type { LiftedLog, LiftedSpan } from '../record.ts'

export type Read = {
  readonly says: Says
  readonly failure?: Failure | undefined
  /** Where the span's own start is not that of the operation. */
  readonly startUnixNano?: bigint
  /** What the same span says beside its main matter. */
  readonly besides?: readonly Says[]
}

export type Dialect = {
  readonly name: DialectName
  /** The first dialect of the list that knows a span reads it; nobody else is asked. */
  readonly knows: (span: LiftedSpan) => boolean
  /** Undefined: the span is to be treated as if it had never come. */
  readonly readSpan: (reading: Reading, span: LiftedSpan) => Read | undefined
  readonly knowsLog?: (log: LiftedLog) => boolean
  readonly readLog?: (reading: Reading, log: LiftedLog) => Read | undefined
}

export const link: Says = { kind: 'link' }
