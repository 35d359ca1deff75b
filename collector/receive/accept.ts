// The road from a request's bytes to its answer: seen before? inflate, make wire bytes of JSON, mask, walk into the journal,
// wait until it is on the disk. Every receiver hands its requests to this one function.
import { hash } from 'node:crypto'
import type { TextNames } from '../genai/known-texts.ts'
import type { Journal } from '../journal/journal.ts'
import type { Appended } from '../journal/open-segments.ts'
import type { MaskedCounts, MaskRequest } from '../masking/request-mask.ts'
import { wireFromJson } from '../otlp/json.ts'
import type { Lifting } from '../otlp/lift.ts'
import { walkLogs } from '../otlp/logs.ts'
import { walkMetrics } from '../otlp/metrics.ts'
import { walkTraces } from '../otlp/traces.ts'
import { openWalk, openWalkScratch, type RejectReason, type WalkTally } from '../otlp/walk.ts'
import { Malformed } from '../otlp/wire.ts'
import { freeBytes } from './bodies.ts'
import type { DuplicateWindow } from './duplicates.ts'
import type { Inflate } from './inflate.ts'
import type { IngestLimits } from './ingest-limits.ts'
import type { Accept, ExportOutcome, ExportRequest, Signal } from './request.ts'
import { openUnderWay } from './under-way.ts'

export type AcceptOptions = {
  readonly journal: Journal
  readonly inflate: Inflate
  readonly inflatedBytesMax: number
  /** Undefined when repeats are to be stored again. */
  readonly duplicates: DuplicateWindow | undefined
  readonly ingestLimits: Pick<IngestLimits, 'charge'>
  readonly retentionDays: (signal: Signal) => (tenant: string) => number
  /** Masks in place. Nothing that is not to be stored may be read out of the bytes before. */
  readonly mask: MaskRequest
  readonly now: () => number
  /** Undefined where nothing is lifted. */
  readonly lifting: Lifting | undefined
  readonly onMasked: (counts: MaskedCounts) => void
  readonly onWalked: (signal: Signal, tally: WalkTally) => void
}

const walks = { traces: walkTraces, metrics: walkMetrics, logs: walkLogs } as const
const unavailableMs = 1000
const digestBytes = 16

export function openAccept(options: AcceptOptions): Accept {
  const { journal, duplicates, now } = options
  const scratch = openWalkScratch()
  /** Requests that are on their way to the disk: a repeat waits for the answer of the first. */
  const underWay = openUnderWay()

  return async (request) => {
    if (duplicates === undefined) return take(request, nothing)
    const digest = digestOf(request)
    const first = underWay.find(digest)
    if (first !== undefined) {
      const outcome = await first
      if (outcome.kind !== 'accepted') return outcome
    }
    const before = duplicates.find(digest)
    if (before !== undefined) {
      journal.countDuplicate(request.signal, before.kept)
      return { kind: 'accepted', rejected: before.rejected, message: before.message }
    }
    const outcome = take(request, digest)
    underWay.add(digest, outcome)
    try {
      return await outcome
    } finally {
      underWay.delete(digest)
    }
  }

  async function take(request: ExportRequest, digest: Buffer): Promise<ExportOutcome> {
    const { signal, identity } = request
    const pending = options.inflate(identity.tenant, request.body, request.contentEncoding, options.inflatedBytesMax)
    const inflated = 'kind' in pending ? pending : await pending
    if (inflated.kind !== 'inflated') return inflated
    let bytes = inflated.bytes
    if (request.encoding === 'json') {
      const wire = wireFromJson(signal, bytes)
      if (wire.kind === 'malformed') return wire
      bytes = wire.bytes
    }
    const masked = options.mask(signal, identity, bytes)
    let tally: WalkTally | undefined
    let texts: TextNames = noTexts
    let appended: Appended | undefined
    const walkInto: Parameters<Journal['append']>[0] = (openBlock, rowBytesMax) => {
      const retentionDaysOf = options.retentionDays(signal)
      const walk = openWalk(
        signal,
        {
          bytes,
          tenant: identity.tenant,
          manyTenants: identity.manyTenants,
          receivedUnixMs: now(),
          retentionDaysOf,
          openBlock,
          rowBytesMax,
          lifting: options.lifting,
          masked,
        },
        scratch,
      )
      walks[signal](walk)
      tally = walk.tally
      texts = walk.texts
      const rejected = [...tally.rejected.values()].reduce((sum, count) => sum + count, 0)
      appended = {
        signal,
        digest,
        kept: tally.records - rejected,
        rejected,
        message: rejected === 0 ? '' : rejectionText(tally.rejected, retentionDaysOf(identity.tenant)),
      }
      return appended
    }
    let outcome: ReturnType<Journal['append']>
    try {
      outcome = journal.append(walkInto)
    } catch (error) {
      if (error instanceof Malformed)
        return { kind: 'malformed', reason: `cannot decode the request of ${signal}: ${error.message}` }
      throw error
    }
    // Every row is in the journal's blocks now. The body itself is the receiver's.
    if (inflated.bytes !== request.body) freeBytes(inflated.bytes)
    if (outcome.kind === 'too_large') return outcome
    if (outcome.kind === 'unavailable') return { ...outcome, retryAfterMs: unavailableMs }
    if (!(await outcome.durable)) {
      return {
        kind: 'unavailable',
        reason: 'the journal could not bring the request to the disk',
        retryAfterMs: unavailableMs,
      }
    }
    // `append` returned 'appended', so the walk has run to its end.
    const { kept, rejected, message } = appended as Appended
    options.lifting?.onTexts(texts)
    duplicates?.add(digest, { kept, rejected, message })
    options.ingestLimits.charge(identity.tenant, (tally as WalkTally).records)
    options.onMasked(masked)
    options.onWalked(signal, tally as WalkTally)
    return { kind: 'accepted', rejected, message }
  }
}

const nothing = Buffer.alloc(digestBytes)
const noTexts: TextNames = new Map()

/** The tenant is part of it: the same bytes of another key are another request. */
function digestOf({ identity, signal, encoding, contentEncoding, body }: ExportRequest): Buffer {
  const head = `${identity.keyId}\n${identity.tenant}\n${signal}\n${encoding}\n${contentEncoding}\n`
  const inner = hash('sha256', body, 'buffer')
  return hash('sha256', Buffer.concat([Buffer.from(head), inner]), 'buffer').subarray(0, digestBytes)
}

const explanations: Readonly<Record<RejectReason, string>> = {
  invalid_trace_id: 'a trace id has 16 bytes, not all 0',
  invalid_span_id: 'a span id has 8 bytes, not all 0',
  invalid_parent_span_id: 'a parent span id has 8 bytes',
  invalid_tenant: 'tallylight.tenant.id is no tenant name',
  too_old: 'older than its retention',
  too_deep: 'values nest deeper than 64',
  too_many_attributes: 'more than 32,768 attributes',
}

function rejectionText(rejected: ReadonlyMap<RejectReason, number>, retentionDays: number): string {
  const parts = [...rejected].map(([reason, count]) => {
    const detail = reason === 'too_old' ? `${explanations[reason]} of ${retentionDays} days` : explanations[reason]
    return `${count} ${reason} (${detail})`
  })
  return `rejected, not to be sent again: ${parts.join(', ')}`
}
