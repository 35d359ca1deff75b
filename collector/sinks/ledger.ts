// The ledger sink: brings what calls used into the ledger, and lets a segment go when that is booked.
//
// What a segment's calls used is said by the resolver, once the segment's facts are in ClickHouse. While ClickHouse is away, or
// they cannot be resolved, it is read from the segment itself and from what is remembered of its traces; what is known better later is booked as a
// difference. Exactly once rests on the ledger: the key and generation of an event, and the journal's cursor, which it moves
// in the transaction that books. A segment without events asks nobody.
import type { Journal } from '../journal/journal.ts'
import type { SealedSegment, SegmentPart } from '../journal/sealed-segments.ts'
import type { Ledger, Recorded } from '../quota/ledger.ts'
import { pause } from '../quota/pause.ts'
import { recordOf, type UsageEvent } from '../quota/usage-event.ts'
import type { RemoveSegment } from './removal.ts'

export type LedgerSinkOptions = {
  readonly journal: () => Pick<Journal, 'id' | 'load'>
  readonly ledger: Pick<Ledger, 'record'>
  /** What can be said of a segment without ClickHouse. */
  readonly eventsOf: (parts: readonly SegmentPart[]) => readonly UsageEvent[]
  /** Whether nobody says it better soon: ClickHouse is away, or it cannot be derived. */
  readonly isSilentAbout: (segment: SealedSegment) => boolean
  readonly remove: RemoveSegment
  /** The time of day, for what is shown. */
  readonly now: () => number
  /** For what is waited for: it never goes back, as the time of day does when it is set. */
  readonly clockMs: () => number
  readonly bounds: {
    readonly retryMsMin: number
    readonly retryMsMax: number
    /** How long nothing may be said of a segment before it is not waited for. */
    readonly awayMs: number
  }
  readonly onProblem: (problem: { readonly kind: string; readonly message: string }) => void
  readonly onBooked: (booked: Extract<Recorded, { kind: 'recorded' }> & { readonly unpriced: number }) => void
}

export type LedgerSink = {
  /** The sink takes the segment from here; in order. */
  enqueue(segment: SealedSegment): void
  /** Says what the calls of a segment used. Resolves when it is booked or will be; throws when it has to be said again. */
  deliver(segment: SealedSegment, events: readonly UsageEvent[]): Promise<void>
  /** Books what became known later of calls whose segments are gone. */
  correct(events: readonly UsageEvent[]): Promise<void>
  status(): { readonly waiting: number; readonly lagSeconds: number }
  /** Runs until the signal. */
  run(signal: AbortSignal): Promise<void>
}

type Waiting = {
  readonly segment: SealedSegment
  readonly sinceMs: number
  /** Undefined until it is said. */
  events: readonly UsageEvent[] | undefined
}

export function openLedgerSink(options: LedgerSinkOptions): LedgerSink {
  const { bounds, now, clockMs } = options
  const waiting: Waiting[] = []
  let wake = Promise.withResolvers<void>()

  function enqueue(segment: SealedSegment): void {
    waiting.push({ segment, sinceMs: clockMs(), events: undefined })
    wake.resolve()
  }

  async function deliver(segment: SealedSegment, events: readonly UsageEvent[]): Promise<void> {
    const entry = waiting.find((each) => each.segment.sequence === segment.sequence)
    // What could be said without ClickHouse is booked, or is being booked: this is the difference.
    if (entry === undefined || entry.events !== undefined) return correct(events)
    entry.events = events
    wake.resolve()
  }

  async function correct(events: readonly UsageEvent[]): Promise<void> {
    if (events.length === 0) return
    const recorded = await options.ledger.record(undefined, events.map(recordOf))
    if (recorded.kind === 'unavailable') throw new Error('the ledger cannot be reached')
    count(recorded, events)
  }

  async function run(signal: AbortSignal): Promise<void> {
    let pauseMs = bounds.retryMsMin
    while (!signal.aborted) {
      // What needs nothing of the ledger does not wait for it.
      const next = waiting.find(({ events }) => events?.length === 0) ?? waiting[0]
      if (next === undefined || (next.events === undefined && !isLeftAlone(next))) {
        wake = Promise.withResolvers()
        await pause(bounds.retryMsMax, signal, wake.promise)
        continue
      }
      if (await bring(next)) {
        waiting.splice(waiting.indexOf(next), 1)
        pauseMs = bounds.retryMsMin
        continue
      }
      await pause(pauseMs, signal)
      pauseMs = Math.min(pauseMs * 2, bounds.retryMsMax)
    }
  }

  function isLeftAlone({ segment, sinceMs }: Waiting): boolean {
    return clockMs() - sinceMs >= bounds.awayMs && options.isSilentAbout(segment)
  }

  async function bring(next: Waiting): Promise<boolean> {
    const { segment } = next
    try {
      const read = next.events ?? (await readEvents(segment))
      // It may have been said meanwhile.
      next.events ??= read
      if (next.events.length > 0 && !(await book(segment, next.events))) return false
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
    count(recorded, events)
    return true
  }

  function count(recorded: Extract<Recorded, { kind: 'recorded' }>, events: readonly UsageEvent[]): void {
    const unpriced = events.filter((event) => event.isMetered && event.cost.kind === 'unpriced').length
    options.onBooked({ ...recorded, unpriced })
  }

  return {
    enqueue,
    deliver,
    correct,
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
