// One turn of the chat: ask the model, do what it asks for, until it answers. Without a word about telemetry: the calls are
// seen where they leave.
import type OpenAI from 'openai'
import type { ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam } from 'openai/resources'
import type { Tools } from './tools.ts'

export type Chat = (question: string, options: ChatOptions) => Promise<string>
export type ChatOptions = {
  /** Gets the answer as it is written; without it the model is not asked to stream. */
  readonly onText?: (text: string) => void
  readonly signal?: AbortSignal
}

const iterationsMax = 5

export function openChat(openai: OpenAI, model: () => string, tools: Tools): Chat {
  return async (question, options) => {
    const messages: ChatCompletionMessageParam[] = [
      { role: 'system', content: 'Answer in one sentence.' },
      { role: 'user', content: question },
    ]
    for (let iteration = 0; iteration < iterationsMax; iteration++) {
      const { content, calls } = await ask(
        openai,
        { model: model(), messages, tools: tools.definitions, max_tokens: 200 },
        options,
      )
      if (calls.length === 0) return content
      messages.push({ role: 'assistant', content: null, tool_calls: [...calls] })
      for (const { id, function: asked } of calls) {
        const result = await tools.call(id, asked.name, JSON.parse(asked.arguments))
        messages.push({ role: 'tool', tool_call_id: id, content: result })
      }
    }
    throw new Error(`no answer after ${iterationsMax} calls`)
  }
}

type Said = { readonly content: string; readonly calls: readonly ChatCompletionMessageFunctionToolCall[] }

async function ask(
  openai: OpenAI,
  request: OpenAI.ChatCompletionCreateParamsNonStreaming,
  { onText, signal }: ChatOptions,
): Promise<Said> {
  const withSignal = signal === undefined ? {} : { signal }
  if (onText === undefined) {
    const reply = await openai.chat.completions.create(request, withSignal)
    const message = reply.choices[0]?.message
    const calls = (message?.tool_calls ?? []).filter((call) => call.type === 'function')
    return { content: message?.content ?? '', calls }
  }
  const stream = openai.chat.completions.stream(
    { ...request, stream: true, stream_options: { include_usage: true } },
    withSignal,
  )
  stream.on('content', onText)
  const message = (await stream.finalChatCompletion()).choices[0]?.message
  const calls = (message?.tool_calls ?? []).filter((call) => call.type === 'function')
  return { content: message?.content ?? '', calls }
}
