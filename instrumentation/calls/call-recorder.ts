// The record of one call: a client span by OpenTelemetry's GenAI conventions and its metrics. The span is ended in every
// case, with what is known and how sure it is.
import { type Attributes, context, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import type { Counters } from '../counters.ts'
import type { CallEnd, CallRecord, CallStart } from '../hooks/exchange.ts'
import type { CallReply, CallRequest, Part } from '../providers/call.ts'
import type { Gate } from '../quota/gate.ts'
import { quotaExceededIn } from '../quota/quota-exceeded.ts'
import { activeTurn, sceneAttributes, type TurnProgress } from '../turns/scene.ts'
import type { Usage } from '../usage/usage.ts'
import type { CallMetrics } from './call-metrics.ts'
import type { ContentAttributes } from './content-attributes.ts'
import type { RunnerTools } from './runner-tools.ts'

export type CallRecorder = { startCall(start: CallStart): CallRecord }

export type CallRecorderOptions = {
  readonly tracer: () => Pick<Tracer, 'startSpan'>
  readonly metrics: () => CallMetrics
  readonly content: ContentAttributes
  /** Undefined: what is run because a model asked for it is not looked for. */
  readonly tools: Pick<RunnerTools, 'asked' | 'answered'> | undefined
  readonly counters: Counters
  /** Undefined: quota is off. */
  readonly gate: Pick<Gate, 'admit'> | undefined
  /** Whether the turn around a call may keep what was said. */
  readonly keepsContent: boolean
  readonly nowMs: () => number
}

export function openCallRecorder(options: CallRecorderOptions): CallRecorder {
  return {
    startCall(start) {
      const { request, endpoint } = start
      const startedMs = options.nowMs()
      const described = describedBy(start)
      const parent = start.context ?? context.active()
      options.tools?.answered(request, parent)
      const span = options.tracer().startSpan(
        `${request.operation} ${request.model}`.trimEnd(),
        {
          kind: SpanKind.CLIENT,
          attributes: Object.assign(requestAttributes({ ...described }, start), sceneAttributes(parent)),
        },
        parent,
      )
      const progress = activeTurn(parent)?.progress
      if (progress !== undefined) progress.calls++
      options.counters.add('spansMade')
      if (request.isBackground) tellUnmetered(options.counters, start.url.hostname)
      if (span.isRecording()) span.setAttributes(options.content.ofRequest(request))
      if (progress?.question === '' && options.keepsContent) progress.question = lastQuestion(request)
      // Last: what fails before it leaves nothing held.
      const hold = options.gate?.admit(start)
      if (hold !== undefined) span.setAttribute(attributes.callId, hold.callId)
      const inSpan = trace.setSpan(parent, span)
      let firstMs: number | undefined

      function finish(end: CallEnd): void {
        hold?.end(end)
        try {
          const absencePolicy = hold?.absencePolicy() ?? ''
          if (absencePolicy !== '') span.setAttribute(attributes.quotaPolicy, absencePolicy)
          const exceeded = quotaExceededIn(end.error)
          if (exceeded !== undefined && progress !== undefined)
            progress.blockReason = `quota ${exceeded.denial.limitId}`.trimEnd()
          if (request.isStream && firstMs !== undefined)
            span.setAttribute(attributes.timeToFirstChunk, (firstMs - startedMs) / 1000)
          if (end.reply !== undefined && progress !== undefined) tellTurn(progress, end.reply)
          if (end.reply !== undefined) options.tools?.asked(end.reply, parent, span.spanContext())
          if (end.reply !== undefined) span.setAttributes(replyAttributes(end.reply))
          if (end.reply !== undefined && span.isRecording()) span.setAttributes(options.content.ofReply(end.reply))
          const errorType = endSpanStatus(span, end)
          const model = end.reply?.model
          const more = { ...(model ? { [attributes.responseModel]: model } : {}), ...errorAttribute(errorType) }
          options.metrics().record({ ...described, ...more }, (options.nowMs() - startedMs) / 1000, end.reply?.usage)
        } finally {
          span.end()
        }
      }

      return {
        admitted: hold?.admitted,
        inContext: (work) => context.with(inSpan, work),
        begun: () => {
          firstMs = options.nowMs()
          if (progress !== undefined) progress.firstMs ??= firstMs
        },
        finish,
      }

      function describedBy({ url }: CallStart): Attributes {
        const port = Number(url.port) || (url.protocol.endsWith('s:') ? 443 : 80)
        return {
          [attributes.operation]: request.operation,
          [attributes.provider]: endpoint.provider,
          ...(request.model === '' ? {} : { [attributes.requestModel]: request.model }),
          [attributes.serverAddress]: url.hostname,
          [attributes.serverPort]: port,
        }
      }
    },
  }
}

function tellUnmetered(counters: Counters, host: string): void {
  counters.add('unmetered')
  counters.warnOnce(
    `unmetered background ${host}`,
    `${host} was asked for a response in the background, whose tokens are not metered`,
  )
}

function lastQuestion(request: CallRequest): string {
  const asked = request.content().messages.findLast(({ role }) => role === 'user')
  return textOf(asked?.parts ?? [])
}

/** The answer of a turn is the last text that a model wrote in it. */
function tellTurn(progress: TurnProgress, reply: CallReply): void {
  for (const { name } of reply.toolCalls) progress.tools.add(name)
  const answer = textOf(reply.messages[0]?.parts ?? [])
  if (answer !== '') progress.answer = answer
}

function textOf(parts: readonly Part[]): string {
  return parts.flatMap((part) => (part.type === 'text' ? [part.content] : [])).join('')
}

/** One by one into one object: a call has a dozen, and most are not set. */
function requestAttributes(found: Attributes, { request, attempt }: CallStart): Attributes {
  found[attributes.attempt] = attempt
  if (request.operation !== 'embeddings') put(found, attributes.maxTokens, request.outputTokensMax)
  if (request.choiceCount !== 1) put(found, attributes.choiceCount, request.choiceCount)
  put(found, attributes.temperature, request.temperature)
  put(found, attributes.topP, request.topP)
  put(found, attributes.topK, request.topK)
  put(found, attributes.frequencyPenalty, request.frequencyPenalty)
  put(found, attributes.presencePenalty, request.presencePenalty)
  put(found, attributes.seed, request.seed)
  put(found, attributes.reasoningLevel, request.reasoningLevel)
  put(found, attributes.conversation, request.conversationId)
  put(found, attributes.previousResponseId, request.previousResponseId)
  put(found, attributes.embeddingDimensions, request.embeddingDimensions)
  if (request.isStream) found[attributes.isStream] = true
  if (request.stopSequences.length > 0) found[attributes.stopSequences] = [...request.stopSequences]
  return found
}

function put(found: Attributes, name: string, value: string | number | undefined): void {
  if (value !== undefined && value !== '') found[name] = value
}

function replyAttributes(reply: CallReply): Attributes {
  const found: Attributes = { ...usageAttributes(reply.usage), [attributes.usageSource]: reply.usageSource }
  if (reply.id !== '') found[attributes.responseId] = reply.id
  if (reply.model !== '') found[attributes.responseModel] = reply.model
  if (reply.finishReasons.length > 0) found[attributes.finishReasons] = [...reply.finishReasons]
  return found
}

const usageNames = [
  'inputTokens',
  'outputTokens',
  'cacheReadTokens',
  'cacheWriteTokens',
  'cacheWrite1hTokens',
  'webSearches',
  'reasoningTokens',
  'inputAudioTokens',
  'cacheReadAudioTokens',
  'outputAudioTokens',
] as const

export function usageAttributes(usage: Usage | undefined): Attributes {
  const found: Attributes = {}
  for (const name of usageNames) {
    const count = usage?.[name]
    if (count !== undefined) found[attributes[name]] = count
  }
  return found
}

/** A caller that left or said stop has no error; a connection, a clock, a provider or a limit that ended the call is one. */
function endSpanStatus(span: Span, { ending, reply, error }: CallEnd): string {
  if (ending !== 'complete') span.setAttribute(attributes.ending, ending)
  const failure = reply?.failure
  const isEndedByCaller = ending === 'left' || ending === 'unread' || (ending === 'aborted' && !isTimeout(error))
  const type = failure?.type ?? (ending === 'complete' || isEndedByCaller ? '' : errorTypeOf(error, ending))
  if (type === '') return ''
  span.setAttribute(attributes.errorType, type)
  span.setStatus({ code: SpanStatusCode.ERROR })
  return type
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name === 'TimeoutError'
}

/** Names and codes only: a message may hold what a user said. */
function errorTypeOf(error: unknown, ending: string): string {
  for (let each = error, depth = 0; each instanceof Error && depth < 4; each = each.cause, depth++) {
    const { code } = each as { readonly code?: unknown }
    if (typeof code === 'string' && code !== '') return code
  }
  return error instanceof Error && error.name !== 'Error' && error.name !== 'TypeError' ? error.name : ending
}

function errorAttribute(type: string): Attributes {
  return type === '' ? {} : { [attributes.errorType]: type }
}
