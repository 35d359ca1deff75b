// A turn: one user message and all that happens until its reply. A span with what was asked, what was answered and how it went;
// calls and tool calls inside it carry its id. A turn in a turn belongs to the outer one and has no span of its own.
import { type Attributes, type Context, context, type Link, type Span, SpanStatusCode, trace } from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import { guarded } from '../hooks/exchange.ts'
import { type Instrumentation, running } from '../instrument.ts'
import { followed } from './outcome.ts'
import {
  type ActiveTurn,
  activeTurn,
  attributesOf,
  inTexts,
  type Joined,
  type Scene,
  type TurnProgress,
  textOf,
  withTurn,
} from './scene.ts'

export type TurnScene = Scene & {
  /** How the user's message came: `rest`, `sse`, `websocket`, or a word of one's own. */
  readonly channel?: string | undefined
  /** The user's message; without it, the last one that a call of the turn sends. Kept where content is. */
  readonly question?: string | undefined
}

export type TurnStatus = 'success' | 'failure' | 'timeout' | 'blocked'

export type Turn = {
  readonly id: string
  /** Runs what belongs to the turn. */
  run<T>(work: () => T): T
  /** The reply, where it is not the last text that a model wrote. */
  answer(text: string): void
  /** The turn was not let through: a guard, a limit. */
  block(reason: string): void
  end(status?: TurnStatus, error?: unknown): void
}

export type TurnFrom = {
  /** What an incoming request says of the turn that it is part of. */
  readonly joined?: Joined
  /** Begins a trace of its own, linked to this span: a turn on a socket that is open for hours. */
  readonly connection?: Span
}

/** Runs `work` as a turn, and gives what it gives. The turn ends with it; its failure is the turn's, and is thrown on. */
export function turn<T>(scene: TurnScene, work: (turn: Turn) => T): T {
  return runTurn(openTurn(scene), work)
}

export function runTurn<T>(opened: Turn, work: (turn: Turn) => T): T {
  return followed(
    () => opened.run(() => work(opened)),
    (outcome) => {
      if ('gave' in outcome) opened.end()
      // Also nothing can be thrown, which is a failure all the same.
      else opened.end(undefined, outcome.threw ?? 'nothing')
    },
  )
}

/** The turn that this runs in failed, though its reply began well: an error that a stream tells its reader in an event, under a
 *  status of 200. What is thrown through a turn, and a status of 500 and above, needs no telling. */
export function failTurn(error: unknown): void {
  const progress = activeTurn()?.progress
  if (progress !== undefined) progress.failure = error
}

/** For a turn whose end is no function's end. Whoever opens it ends it. */
export function openTurn(scene: TurnScene, from: TurnFrom = {}): Turn {
  const instrumentation = running()
  if (instrumentation === undefined) return untold()
  return guarded(instrumentation.watch, () => openTold(instrumentation, scene, from), untold())
}

function openTold(instrumentation: Instrumentation, scene: TurnScene, from: TurnFrom): Turn {
  instrumentation.exporter.start()
  const parent = from.joined?.parent ?? context.active()
  const outer = from.connection === undefined ? activeTurn(parent) : undefined
  if (outer !== undefined) return within(outer, parent)
  const { question, channel, conversation, user, tenant } = scene
  const merged: Scene = { ...from.joined?.scene, ...inTexts({ conversation, user, tenant }) }
  const id = from.joined?.turnId ?? crypto.randomUUID()
  const progress = {
    calls: 0,
    tools: new Set<string>(),
    question: typeof question === 'string' ? question : '',
    answer: '',
    firstMs: undefined,
    blockReason: '',
    failure: undefined,
  }
  const active: ActiveTurn = { id, scene: merged, progress }
  if (from.joined?.turnId !== undefined) return within(active, parent)
  const startedMs = performance.now()
  const links: Link[] = from.connection === undefined ? [] : [{ context: from.connection.spanContext() }]
  // Only the trace begins anew: what else the service has in its context, its word on quota for one, holds in the turn.
  const around = from.connection === undefined ? parent : trace.deleteSpan(parent)
  const span = instrumentation.exporter.tracer().startSpan(
    'turn',
    {
      attributes: {
        ...attributesOf(merged),
        [attributes.turnId]: id,
        ...(channel === undefined ? {} : { [attributes.channel]: channel }),
      },
      links,
    },
    around,
  )
  const inside = withTurn(trace.setSpan(around, span), active)
  let isOver = false

  return {
    id,
    run: (work) => context.with(inside, work),
    ...saidOf(progress),
    end(status, error) {
      if (isOver) return
      isOver = true
      try {
        span.setAttributes(instrumentation.content.ofTurn(progress.question, progress.answer))
        span.setAttributes(progressAttributes(active, startedMs))
        setOutcome(span, active, status, error)
      } catch (failure) {
        instrumentation.watch.failed(failure)
      } finally {
        span.end()
      }
    },
  }
}

/** Part of another turn, here or upstream: what happens inside is that one's, and its end is not ours to say. */
function within(outer: ActiveTurn, parent: Context): Turn {
  const inside = withTurn(parent, outer)
  return {
    id: outer.id,
    run: (work) => context.with(inside, work),
    ...saidOf(outer.progress),
    end: () => undefined,
  }
}

/** A service in JavaScript may say what is no text: that leaves the outcome and the numbers of its turn as they are. */
function saidOf(progress: TurnProgress): Pick<Turn, 'answer' | 'block'> {
  return {
    answer: (text) => {
      progress.answer = typeof text === 'string' ? text : ''
    },
    block: (reason) => {
      progress.blockReason = textOf(reason ?? '') || 'blocked'
    },
  }
}

/** Without instrumentation the service runs as it is. */
function untold(): Turn {
  const nothing = (): void => undefined
  return { id: '', run: (work) => work(), answer: nothing, block: nothing, end: nothing }
}

function progressAttributes({ progress }: ActiveTurn, startedMs: number): Attributes {
  return {
    [attributes.turnCalls]: progress.calls,
    ...(progress.tools.size === 0 ? {} : { [attributes.turnTools]: [...progress.tools] }),
    ...(progress.firstMs === undefined ? {} : { [attributes.timeToFirstChunk]: (progress.firstMs - startedMs) / 1000 }),
  }
}

function setOutcome(span: Span, { progress }: ActiveTurn, said: TurnStatus | undefined, thrown: unknown): void {
  const error = thrown ?? progress.failure
  const name = error instanceof Error ? error.name : ''
  const isBlocked = progress.blockReason !== '' || name === 'QuotaExceededError'
  const judged = isBlocked
    ? 'blocked'
    : error === undefined
      ? 'success'
      : name === 'TimeoutError'
        ? 'timeout'
        : 'failure'
  const status = said ?? judged
  span.setAttribute(attributes.turnStatus, status)
  if (isBlocked) span.setAttribute(attributes.blockReason, progress.blockReason || 'quota')
  if (error === undefined && status !== 'failure' && status !== 'timeout') return
  if (name !== '') span.setAttribute(attributes.errorType, name)
  if (!isBlocked) span.setStatus({ code: SpanStatusCode.ERROR })
}
