// What the ledger is asked to do, and what comes of it.
import type { TenantId } from '../receive/request.ts'
import type { Amounts, Denial } from './books.ts'
import type { Limit, Subject } from './limits.ts'

export type Reserve = {
  readonly kind: 'reserve'
  readonly tenant: TenantId
  readonly callId: string
  readonly bodyHash: string
  readonly subject: Subject
  readonly amounts: Amounts
  readonly ttlMs: number
  /** Why the amount of a cost is not known: refused where a limit on cost blocks. */
  readonly unpriced: string | undefined
  /** Only asks what the answer would be. */
  readonly isDry: boolean
  /** For many calls, whose records name it as `<callId>/<anything>`. */
  readonly isLease: boolean
}
export type End = {
  readonly kind: 'settle' | 'release'
  readonly tenant: TenantId
  readonly id: string
  readonly bodyHash: string
  /** What was used by the call that was reserved; undefined for a release. */
  readonly amountsOf: ((subject: Subject) => Amounts) | undefined
}
export type Extend = { readonly kind: 'extend'; readonly tenant: TenantId; readonly id: string; readonly ttlMs: number }
export type Charge = {
  readonly kind: 'charge'
  readonly tenant: TenantId
  readonly eventKey: string
  readonly bodyHash: string
  readonly subject: Subject
  readonly amounts: Amounts
  /** When the call ended: the window that is charged, closed or not. Undefined is now. */
  readonly endedAt: Date | undefined
}
/** The record of a call settles its reservation, or is a charge when there is none. */
export type RecordCall = {
  readonly kind: 'record'
  readonly tenant: TenantId
  readonly eventKey: string
  /** A higher one replaces what is booked of a lower one. */
  readonly generation: number
  /** Names the reservation. */
  readonly callId: string | undefined
  readonly subject: Subject
  readonly amounts: Amounts
  /** What its client settled counts where that is more. */
  readonly isLowerBound: boolean
  /** False: another record meters this call, and of this one nothing counts. */
  readonly isMetered: boolean
  readonly endedAt: Date
}
export type Step = Reserve | End | Extend | Charge | RecordCall

/** How a limit stands for whoever asked. */
export type Rate = {
  readonly limitId: string
  readonly window: Limit['window']
  readonly granted: bigint
  readonly free: bigint
  /** When more is free; undefined where that is not known. */
  readonly freesInMs: number | undefined
}

export type StepOutcome =
  /** `body` is what is told, also to whoever asks the same again. */
  | { readonly kind: 'done'; readonly body: object; readonly isRepeat: boolean; readonly rates?: readonly Rate[] }
  | { readonly kind: 'denied'; readonly denial: Denial; readonly nowMs: number; readonly rates: readonly Rate[] }
  | { readonly kind: 'unpriced'; readonly reason: string }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'conflict'; readonly detail: string; readonly first: object | undefined }
  /** The books cannot hold what it says. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'unavailable'; readonly reason: string }
