// What a call says, as attributes, by the policy for content. What is too long is left out whole and counted: half a text
// looks like all of it.
import type { Attributes } from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import type { Counters } from '../counters.ts'
import { limits } from '../limits.ts'
import type { CallReply, CallRequest, OutputMessage } from '../providers/call.ts'
import { objectOf, textOf } from '../providers/json-fields.ts'
import type { ContentPolicy } from '../settings.ts'

/** Gets each JSON text before it becomes an attribute; '' leaves it out. What it throws leaves it out as well. */
export type Redact = (text: string, attribute: string) => string

export type ContentAttributes = {
  ofRequest(request: CallRequest): Attributes
  ofReply(reply: CallReply): Attributes
}

export function openContentAttributes(
  policy: ContentPolicy,
  redact: Redact | undefined,
  counters: Counters,
): ContentAttributes {
  function add(found: Attributes, name: string, values: readonly unknown[]): void {
    if (values.length === 0) return
    const text = JSON.stringify(values)
    const redacted = redact === undefined ? text : redact(text, name)
    if (redacted.length > limits.contentAttributeCharsMax) counters.add('contentDropped')
    else if (redacted !== '') found[name] = redacted
  }

  return {
    ofRequest(request) {
      const found: Attributes = {}
      if (policy === 'off') return found
      const tools = request.tools()
      if (policy === 'metadata') {
        add(
          found,
          attributes.toolDefinitions,
          tools.map(nameOnly).filter(({ name }) => name !== ''),
        )
        return found
      }
      const { system, messages } = request.content()
      add(found, attributes.systemInstructions, system)
      add(found, attributes.inputMessages, messages)
      add(found, attributes.toolDefinitions, tools)
      return found
    },
    ofReply(reply) {
      const found: Attributes = {}
      if (policy === 'full') add(found, attributes.outputMessages, reply.messages)
      if (policy === 'metadata' && reply.toolNames.length > 0) add(found, attributes.outputMessages, toolsOnly(reply))
      if (reply.isContentCut) counters.add('contentDropped')
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
  const parts = reply.toolNames.map((name) => ({ type: 'tool_call', id: '', name, arguments: undefined }) as const)
  return [{ role: 'assistant', parts, finish_reason: reply.finishReasons[0] ?? '' }]
}
