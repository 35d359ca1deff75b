// Tool calls that nobody tells of, as the wire shows them: a model asks for a tool in one reply, and a later request of the same
// trace brings its result. Between the two the service ran it, whether by a runner of its SDK or by a loop of its own. The span
// says that it was seen on the wire: it includes whatever else was done in between, and gives way to a span of the tool itself.
import {
  type Attributes,
  type Context,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import type { Counters } from '../counters.ts'
import { guarded } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import type { AskedTool, CallReply, CallRequest, Part } from '../providers/call.ts'
import { sceneAttributes } from '../turns/scene.ts'
import type { ContentAttributes } from './content-attributes.ts'

/** None of these throws: a call is kept account of whatever becomes of its tools. */
export type RunnerTools = {
  /** A reply that has ended asked for these. `parent` is what its call stands in. */
  asked(reply: Pick<CallReply, 'toolCalls' | 'messages'>, parent: Context, call: SpanContext): void
  /** A request begins: makes a span of each tool whose result it is the first to bring. */
  answered(request: CallRequest, parent: Context): void
  /** The tool has a span of its own. */
  told(tool: AskedTool, from: Context): void
}

export type RunnerToolsOptions = {
  readonly tracer: () => Pick<Tracer, 'startSpan'>
  readonly content: Pick<ContentAttributes, 'ofTool'>
  readonly counters: Counters
  readonly failed: (error: unknown) => void
  /** Unix time. */
  readonly nowMs: () => number
}

type Asked = {
  readonly name: string
  readonly parent: Context
  readonly call: SpanContext
  readonly askedUnixMs: number
  /** As an attribute. Without any, what the later request repeats of them. */
  readonly said: Attributes
}

type ToolResult = Extract<Part, { type: 'tool_call_response' }>

export function openRunnerTools(options: RunnerToolsOptions): RunnerTools {
  /** In the order in which they were asked for. */
  const waiting = new Map<string, Asked>()

  function asked({ toolCalls, messages }: Parameters<RunnerTools['asked']>[0], parent: Context, call: SpanContext) {
    if (toolCalls.length === 0) return
    const parts = messages.flatMap((message) => message.parts)
    for (const { id, name } of toolCalls) {
      const key = keyOf({ id, name }, parent)
      if (key === undefined) continue
      const said = options.content.ofTool(argumentsIn(parts, id || name), undefined)
      const isShort = String(said[attributes.toolArguments]).length <= limits.askedToolCharsMax
      waiting.delete(key)
      waiting.set(key, { name, parent, call, askedUnixMs: options.nowMs(), said: isShort ? said : {} })
    }
    for (const [key, { askedUnixMs }] of waiting) {
      if (waiting.size <= limits.askedToolsMax && options.nowMs() - askedUnixMs <= limits.askedToolMsMax) break
      waiting.delete(key)
    }
  }

  function answered(request: CallRequest, parent: Context): void {
    if (waiting.size === 0) return
    const parts = request.content().messages.flatMap((message) => message.parts)
    for (const part of parts) {
      if (part.type !== 'tool_call_response') continue
      // Gemini knows tools by their names where they have no id, and the parts that are read from it do so, too.
      const key = keyOf({ id: part.id, name: part.id }, parent)
      const tool = key === undefined ? undefined : waiting.get(key)
      if (key === undefined || tool === undefined) continue
      waiting.delete(key)
      tell(tool, part, argumentsIn(parts, part.id))
    }
  }

  function tell({ name, parent, call, askedUnixMs, said }: Asked, result: ToolResult, args: unknown): void {
    const span = options.tracer().startSpan(
      `execute_tool ${name}`,
      {
        kind: SpanKind.INTERNAL,
        startTime: askedUnixMs,
        attributes: {
          ...sceneAttributes(parent),
          [attributes.operation]: 'execute_tool',
          [attributes.toolName]: name,
          [attributes.toolType]: 'function',
          [attributes.toolSeenOn]: 'wire',
          ...(result.id === name ? {} : { [attributes.toolCallId]: result.id }),
        },
      },
      // A call that stands in nothing is its own trace, and what it asked for is part of that.
      trace.getSpan(parent) === undefined ? trace.setSpanContext(parent, call) : parent,
    )
    options.counters.add('spansMade')
    if (result.is_error === true) {
      span.setAttribute(attributes.errorType, 'tool_error')
      span.setStatus({ code: SpanStatusCode.ERROR })
    }
    try {
      if (span.isRecording()) span.setAttributes({ ...options.content.ofTool(args, result.response), ...said })
    } finally {
      span.end()
    }
  }

  function told({ id, name }: AskedTool, from: Context): void {
    if (id !== '') {
      waiting.delete(keyOf({ id, name }, from) ?? '')
      return
    }
    const traceId = traceIdOf(from)
    if (traceId === '') return
    for (const [each, tool] of waiting) {
      if (tool.name !== name || traceIdOf(tool.parent) !== traceId) continue
      waiting.delete(each)
      return
    }
  }

  return {
    asked: (reply, parent, call) => guarded(options, () => asked(reply, parent, call), undefined),
    answered: (request, parent) => guarded(options, () => answered(request, parent), undefined),
    told: (tool, from) => guarded(options, () => told(tool, from), undefined),
  }
}

/** Undefined where neither a trace nor the id tells this tool call from any other in the process. */
function keyOf({ id, name }: AskedTool, from: Context): string | undefined {
  const traceId = traceIdOf(from)
  if (traceId === '' && id.length < uniqueIdChars) return undefined
  return `${traceId} ${id || name}`
}

/** Some local servers count from 0; whoever makes ids at random makes them longer. */
const uniqueIdChars = 8

function traceIdOf(from: Context): string {
  return trace.getSpanContext(from)?.traceId ?? ''
}

function argumentsIn(parts: readonly Part[], id: string): unknown {
  for (const part of parts) if (part.type === 'tool_call' && (part.id || part.name) === id) return part.arguments
  return undefined
}
