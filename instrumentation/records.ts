// What a service tells by itself, where no hook can see it: tool calls, usage, errors, changes worth an audit, health. Each is
// part of the turn it happens in. Without instrumentation they do nothing, and none of them throws.
import { type Attributes, context, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { attributes } from './attributes.ts'
import { usageAttributes } from './calls/call-recorder.ts'
import type { HealthCheck } from './health/looks.ts'
import { guarded } from './hooks/exchange.ts'
import { type Instrumentation, running } from './instrument.ts'
import type { Operation } from './providers/call.ts'
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
  // What cannot be written as JSON is left out, and counted.
  const addContent = (args: unknown, result: unknown): void =>
    guarded(
      instrumentation.watch,
      () => void span.setAttributes(instrumentation.content.ofTool(args, result)),
      undefined,
    )
  addContent(tool.arguments, undefined)
  const ended = (result: unknown): void => {
    addContent(undefined, result)
    span.end()
  }
  const failed = (error: unknown): never => {
    guarded(instrumentation.watch, () => setFailure(span, error), undefined)
    span.end()
    throw error
  }
  let result: T
  try {
    result = context.with(trace.setSpan(context.active(), span), work)
  } catch (error) {
    return failed(error)
  }
  if (!(result instanceof Promise)) {
    ended(result)
    return result
  }
  return result.then((value: unknown) => {
    ended(value)
    return value
  }, failed) as T
}

function startTool(instrumentation: Instrumentation, { name, id, type = 'function' }: ToolCall): Span {
  const span = startSpan(instrumentation, `execute_tool ${name}`, {
    [attributes.operation]: 'execute_tool',
    [attributes.toolName]: name,
    [attributes.toolType]: type,
    ...(id === undefined ? {} : { [attributes.toolCallId]: id }),
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
    // A time that is none cannot be written, and would take all spans that are exported with it along.
    const startTime = Number.isFinite(Number(startedAt)) ? startedAt : undefined
    startSpan(instrumentation, `${operation} ${model}`, described, SpanKind.CLIENT, startTime).end()
  })
}

/** An error that nobody throws further, but that somebody should know of. */
export function recordError(error: unknown, more: Attributes = {}): void {
  told((instrumentation) => {
    const span = startSpan(instrumentation, 'error', { ...more, [attributes.record]: 'error' })
    if (error instanceof Error) span.recordException(error)
    setFailure(span, error)
    span.end()
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
    // As with the time of a call: one that is no number would take other spans along.
    const responseTimeMs = Number.isFinite(check.responseTimeMs) ? check.responseTimeMs : undefined
    const seconds = responseTimeMs === undefined ? {} : { [attributes.healthResponseTime]: responseTimeMs / 1000 }
    const more = Object.entries(metadata ?? {}).map(([name, value]) => [`tallylight.health.metadata.${name}`, value])
    const span = instrumentation.exporter.tracer().startSpan('health check', {
      root: true,
      startTime: Date.now() - (responseTimeMs ?? 0),
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
