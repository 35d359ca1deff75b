// What a call says, as attributes, by the policy for content. What is too long is left out whole and counted: half a text
// looks like all of it.
import type { Attributes } from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import type { Counters } from '../counters.ts'
import { limits } from '../limits.ts'
import type { CallReply, CallRequest, OutputMessage } from '../providers/call.ts'
import { objectOf, textOf } from '../providers/json-fields.ts'
import type { ContentPolicy } from '../settings.ts'

/** Gets each text before it becomes an attribute, JSON mostly; '' leaves it out. What it throws leaves it out as well. */
export type Redact = (text: string, attribute: string) => string

export type ContentAttributes = {
  ofRequest(request: CallRequest): Attributes
  ofReply(reply: CallReply): Attributes
  /** Undefined is left out. */
  ofTool(args: unknown, result: unknown): Attributes
  /** '' is left out. A long text is cut: it is a preview. */
  ofTurn(question: string, answer: string): Attributes
}

export function openContentAttributes(
  policy: ContentPolicy,
  redact: Redact | undefined,
  counters: Counters,
): ContentAttributes {
  function addAll(found: Attributes, name: string, values: readonly unknown[]): void {
    if (values.length > 0) add(found, name, values)
  }

  function add(found: Attributes, name: string, value: unknown): void {
    if (value === undefined) return
    const redacted = redactedOf(value, name)
    if (redacted === undefined || redacted.length > limits.contentAttributeCharsMax) counters.add('contentDropped')
    else if (redacted !== '') found[name] = redacted
  }

  /** Undefined: what redacts has failed, or the value is too deep for JSON. The call goes on. */
  function redactedOf(value: unknown, name: string): string | undefined {
    try {
      const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
      const redacted: unknown = redact === undefined ? text : redact(text, name)
      // One that is asynchronous has nobody who waits for it.
      if (redacted instanceof Promise) redacted.catch(() => undefined)
      return typeof redacted === 'string' ? redacted : undefined
    } catch {
      return undefined
    }
  }

  return {
    ofRequest(request) {
      const found: Attributes = {}
      if (policy === 'off') return found
      const tools = request.tools()
      if (policy === 'metadata') {
        addAll(
          found,
          attributes.toolDefinitions,
          tools.map(nameOnly).filter(({ name }) => name !== ''),
        )
        return found
      }
      if (policy !== 'full') return found
      const { system, messages } = request.content()
      addAll(found, attributes.systemInstructions, system)
      addAll(found, attributes.inputMessages, messages)
      addAll(found, attributes.toolDefinitions, tools)
      return found
    },
    ofReply(reply) {
      const found: Attributes = {}
      if (policy === 'full') addAll(found, attributes.outputMessages, reply.messages)
      if (policy === 'metadata' && reply.toolCalls.length > 0)
        addAll(found, attributes.outputMessages, toolsOnly(reply))
      if (reply.isContentCut) counters.add('contentDropped')
      return found
    },
    ofTool(args, result) {
      const found: Attributes = {}
      if (policy !== 'full') return found
      add(found, attributes.toolArguments, args)
      add(found, attributes.toolResult, result)
      return found
    },
    ofTurn(question, answer) {
      const found: Attributes = {}
      if (policy !== 'full') return found
      if (question !== '') add(found, attributes.question, question.slice(0, limits.contentAttributeCharsMax))
      if (answer !== '') add(found, attributes.answer, answer.slice(0, limits.contentAttributeCharsMax))
      return found
    },
  }
}

/** OpenAI puts a function into an object of its own, Amazon into another. */
function nameOnly(tool: unknown): { readonly type: string; readonly name: string } {
  const said = objectOf(tool)
  const inner = objectOf(said.function ?? said.toolSpec)
  return { type: textOf(said.type) || 'function', name: textOf(inner.name) || textOf(said.name) }
}

function toolsOnly(reply: CallReply): readonly OutputMessage[] {
  const parts = reply.toolCalls.map(({ name }) => ({ type: 'tool_call', id: '', name, arguments: undefined }) as const)
  return [{ role: 'assistant', parts, finish_reason: reply.finishReasons[0] ?? '' }]
}
