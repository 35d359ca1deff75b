// What a service tells by itself, where no hook can see it: tool calls, usage, errors, changes worth an audit, health. Each is
// part of the turn it happens in. Without instrumentation they do nothing, and none of them throws.
import { type Attributes, context, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { attributes } from './attributes.ts'
import { usageAttributes } from './calls/call-recorder.ts'
import type { HealthCheck } from './health/looks.ts'
import { guarded } from './hooks/exchange.ts'
import { type Instrumentation, running } from './instrument.ts'
import type { Operation } from './providers/call.ts'
import { followed } from './turns/outcome.ts'
import { activeTurn, sceneAttributes } from './turns/scene.ts'
import type { Usage } from './usage/usage.ts'

export type ToolCall = {
  readonly name: string
  /** The id by which the model asked for it. */
  readonly id?: string
  readonly type?: 'function' | 'extension' | 'datastore'
  readonly arguments?: unknown
}

/** Runs a tool as a span of its own. What it gives and throws is passed on. */
export function recordToolCall<T>(tool: ToolCall, work: () => T): T {
  const instrumentation = running()
  if (instrumentation === undefined) return work()
  const span = guarded(instrumentation.watch, () => startTool(instrumentation, tool), undefined)
  if (span === undefined) return work()
  return followed(
    () => context.with(trace.setSpan(context.active(), span), work),
    (outcome) => {
      const tell = (): void => {
        if ('threw' in outcome) setFailure(span, outcome.threw)
        else span.setAttributes(instrumentation.content.ofTool(undefined, outcome.gave))
      }
      guarded(instrumentation.watch, tell, undefined)
      span.end()
    },
  )
}

function startTool(instrumentation: Instrumentation, tool: ToolCall): Span {
  const { name, id, type = 'function' } = tool
  const span = startSpan(instrumentation, `execute_tool ${name}`, {
    [attributes.operation]: 'execute_tool',
    [attributes.toolName]: name,
    [attributes.toolType]: type,
    ...(id === undefined ? {} : { [attributes.toolCallId]: id }),
    ...instrumentation.content.ofTool(tool.arguments, undefined),
  })
  activeTurn()?.progress.tools.add(name)
  instrumentation.tools.told({ id: id ?? '', name }, context.active())
  return span
}

export type RecordedUsage = {
  readonly provider: string
  readonly model: string
  readonly operation?: Operation
  /** Input with what was read from and written to a cache, output with reasoning. */
  readonly usage: Usage
  readonly responseId?: string
  readonly startedAt?: Date
}

/** A call that no hook can see: over a transport of one's own, or told of by somebody else. */
export function recordUsage(recorded: RecordedUsage): void {
  told((instrumentation) => {
    const { provider, model, operation = 'chat', usage, responseId, startedAt } = recorded
    const described = {
      [attributes.operation]: operation,
      [attributes.provider]: provider,
      [attributes.requestModel]: model,
      ...usageAttributes(usage),
      [attributes.usageSource]: 'provider',
      ...(responseId === undefined ? {} : { [attributes.responseId]: responseId }),
    }
    const startTime = isTime(Number(startedAt)) ? startedAt : undefined
    startSpan(instrumentation, `${operation} ${model}`, described, SpanKind.CLIENT, startTime).end()
    const progress = activeTurn()?.progress
    if (progress !== undefined) progress.calls++
  })
}

/** An error that nobody throws further, but that somebody should know of. */
export function recordError(error: unknown, more: Attributes = {}): void {
  told((instrumentation) => {
    const span = startSpan(instrumentation, 'error', { ...more, [attributes.record]: 'error' })
    try {
      setFailure(span, error)
      if (error instanceof Error) span.recordException(error)
    } finally {
      span.end()
    }
  })
}

export type Audit = {
  readonly action: string
  /** Who did it; without one the user of the turn. */
  readonly actor?: string
  readonly resource: { readonly type: string; readonly id: string }
  /** As they were and are: objects become JSON. */
  readonly before?: unknown
  readonly after?: unknown
}

/** A change that has to be accounted for. */
export function recordAudit(audit: Audit): void {
  told((instrumentation) => {
    const { action, actor, resource, before, after } = audit
    // What cannot be written as JSON is left out, and counted; that something was done is told all the same.
    const stateOf = (name: string, value: unknown): Attributes =>
      value === undefined ? {} : guarded(instrumentation.watch, () => ({ [name]: textOf(value) }), {})
    const described = {
      'tallylight.audit.action': action,
      'tallylight.audit.actor': actor ?? activeTurn()?.scene.user ?? '',
      'tallylight.audit.resource.type': resource.type,
      'tallylight.audit.resource.id': resource.id,
      ...stateOf('tallylight.audit.before', before),
      ...stateOf('tallylight.audit.after', after),
    }
    startSpan(instrumentation, 'audit', { [attributes.record]: 'audit' })
      .addEvent('tallylight.audit', described)
      .end()
  })
}

/** Never part of a turn, and never a call. */
export function recordHealthCheck(check: HealthCheck): void {
  told((instrumentation) => {
    const { target, status, event = 'interval', metadata } = check
    const nowMs = Date.now()
    const responseTimeMs = isTime(nowMs - Number(check.responseTimeMs)) ? check.responseTimeMs : undefined
    const seconds = responseTimeMs === undefined ? {} : { [attributes.healthResponseTime]: responseTimeMs / 1000 }
    const more = Object.entries(metadata ?? {}).map(([name, value]) => [`tallylight.health.metadata.${name}`, value])
    const span = instrumentation.exporter.tracer().startSpan('health check', {
      root: true,
      startTime: nowMs - (responseTimeMs ?? 0),
      attributes: {
        [attributes.healthTarget]: target,
        [attributes.healthStatus]: status,
        [attributes.healthEvent]: event,
        [attributes.probe]: true,
        ...seconds,
        ...Object.fromEntries(more),
      },
    })
    if (status !== 'healthy') setFailure(span, check.error ?? new Error(status))
    span.end()
  })
}

/** Nanoseconds since 1970 in 64 bits: a time that is none cannot be written, and would take along what is exported with it. */
function isTime(unixMs: number): boolean {
  return unixMs >= 0 && unixMs < 2 ** 63 / 1e6
}

/** What a service tells wrongly is counted, and is none of its failures. */
function told(work: (instrumentation: Instrumentation) => void): void {
  const instrumentation = running()
  if (instrumentation !== undefined) guarded(instrumentation.watch, () => work(instrumentation), undefined)
}

function startSpan(
  { exporter }: Instrumentation,
  name: string,
  more: Attributes,
  kind: SpanKind = SpanKind.INTERNAL,
  startTime?: Date,
): Span {
  const options = { kind, attributes: { ...sceneAttributes(), ...more } }
  return exporter.tracer().startSpan(name, startTime === undefined ? options : { ...options, startTime })
}

function setFailure(span: Span, error: unknown): void {
  span.setAttribute(attributes.errorType, error instanceof Error ? error.name : typeof error)
  span.setStatus({ code: SpanStatusCode.ERROR })
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}
