// The ledger sink: brings what calls used from sealed segments into the ledger, and lets a segment go when it is booked.
//
// Events are taken out of a segment while its rows are in memory, when it is sealed; those of a run before this one, and of
// a backlog that is too long to keep, are read back from the file. Exactly once rests on the ledger: the key of an event,
// and the journal's cursor, which it moves in the transaction that books. A segment without events asks nobody.
import { setTimeout as delay } from 'node:timers/promises'
import type { Journal, SealedSegment, SegmentPart } from '../journal/journal.ts'
import type { Ledger, Recorded } from '../quota/ledger.ts'
import { recordOf, type UsageEvent } from '../quota/usage-event.ts'
import type { RemoveSegment } from './removal.ts'

export type LedgerSinkOptions = {
  readonly journal: () => Pick<Journal, 'id' | 'load'>
  readonly ledger: Pick<Ledger, 'record'>
  readonly eventsOf: (parts: readonly SegmentPart[]) => readonly UsageEvent[]
  readonly remove: RemoveSegment
  readonly now: () => number
  readonly bounds: {
    readonly retryMsMin: number
    readonly retryMsMax: number
    /** Events kept in memory for segments that wait. */
    readonly eventsMax: number
  }
  readonly onProblem: (problem: { readonly kind: string; readonly message: string }) => void
  readonly onBooked: (booked: Extract<Recorded, { kind: 'recorded' }> & { readonly unpriced: number }) => void
}

export type LedgerSink = {
  /** The sink takes the segment from here, with its rows while they are in memory; in order. */
  enqueue(segment: SealedSegment, parts: readonly SegmentPart[] | undefined): void
  status(): { readonly waiting: number; readonly lagSeconds: number }
  /** Runs until the signal. */
  run(signal: AbortSignal): Promise<void>
}

type Waiting = { readonly segment: SealedSegment; readonly events: readonly UsageEvent[] | undefined }

export function openLedgerSink(options: LedgerSinkOptions): LedgerSink {
  const { bounds, now } = options
  const waiting: Waiting[] = []
  let eventsHeld = 0
  let wake = Promise.withResolvers<void>()

  function enqueue(segment: SealedSegment, parts: readonly SegmentPart[] | undefined): void {
    const events = parts === undefined ? undefined : options.eventsOf(parts)
    const isKept = events !== undefined && eventsHeld + events.length <= bounds.eventsMax
    if (isKept) eventsHeld += events.length
    waiting.push({ segment, events: isKept ? events : undefined })
    wake.resolve()
  }

  async function run(signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    let pauseMs = bounds.retryMsMin
    while (!signal.aborted) {
      // What needs nothing of the ledger does not wait for it.
      const next = waiting.find(({ events }) => events?.length === 0) ?? waiting[0]
      if (next === undefined) {
        wake = Promise.withResolvers()
        await Promise.race([wake.promise, aborted])
        continue
      }
      if (await bring(next)) {
        waiting.splice(waiting.indexOf(next), 1)
        eventsHeld -= next.events?.length ?? 0
        pauseMs = bounds.retryMsMin
        continue
      }
      await delay(pauseMs, undefined, { signal }).catch(() => undefined)
      pauseMs = Math.min(pauseMs * 2, bounds.retryMsMax)
    }
  }

  async function bring({ segment, events }: Waiting): Promise<boolean> {
    try {
      const found = events ?? (await readEvents(segment))
      if (found.length > 0 && !(await book(segment, found))) return false
      await options.remove(segment)
      return true
    } catch (error) {
      options.onProblem({ kind: 'not_booked', message: `${segment.name}: ${String(error)}` })
      return false
    }
  }

  async function readEvents(segment: SealedSegment): Promise<readonly UsageEvent[]> {
    const loaded = await options.journal().load(segment)
    try {
      return options.eventsOf(loaded.parts)
    } finally {
      loaded.release()
    }
  }

  async function book(segment: SealedSegment, events: readonly UsageEvent[]): Promise<boolean> {
    const { sequence, lane, createdUnixMs, name } = segment
    const source = { journal: options.journal().id, lane, segment: sequence, createdUnixMs, name }
    const recorded = await options.ledger.record(source, events.map(recordOf))
    if (recorded.kind === 'unavailable') return false
    const unpriced = events.filter((event) => event.isMetered && event.cost.kind === 'unpriced').length
    options.onBooked({ ...recorded, unpriced })
    return true
  }

  return {
    enqueue,
    run,
    status: () => {
      const [oldest] = waiting
      return {
        waiting: waiting.length,
        lagSeconds: oldest === undefined ? 0 : (now() - oldest.segment.createdUnixMs) / 1000,
      }
    },
  }
}
