// One model call as its wire tells it, the same for every provider. Messages have OpenTelemetry's shape, so that they
// become attributes as they are. Pure data: the service's hooks and the collector's proxy make it, spans and the gate read it.
import type { Usage } from '../usage/usage.ts'

/** What is spoken, whoever answers: Azure, OpenRouter, Ollama and others speak OpenAI's. */
export type Api =
  | 'openai.chat'
  | 'openai.completions'
  | 'openai.responses'
  | 'openai.embeddings'
  | 'anthropic.messages'
  | 'gemini.generate'
  | 'gemini.embed'
  | 'bedrock.converse'

export type Endpoint = {
  readonly api: Api
  /** In OpenTelemetry's spelling. */
  readonly provider: string
  /** Where the URL names it, '' where the body does. */
  readonly model: string
  /** What the URL says; undefined where the body does. */
  readonly isStream: boolean | undefined
  /** Whether the host is known to take `stream_options.include_usage`. */
  readonly takesUsageOption: boolean
}

export type Operation = 'chat' | 'text_completion' | 'generate_content' | 'embeddings'

export type Part =
  | { readonly type: 'text' | 'reasoning'; readonly content: string }
  | { readonly type: 'tool_call'; readonly id: string; readonly name: string; readonly arguments: unknown }
  | { readonly type: 'tool_call_response'; readonly id: string; readonly response: unknown; readonly is_error?: true }
  /** Media are named and never carried. */
  | { readonly type: 'blob'; readonly modality: string; readonly mime_type: string }
  | { readonly type: 'uri'; readonly modality: string; readonly uri: string }
  | { readonly type: 'file'; readonly modality: string; readonly file_id: string }
  /** A part of the provider's own kind, named by its own word. */
  | { readonly type: 'generic'; readonly kind: string }

export function isMedia({ type }: { readonly type?: unknown }): boolean {
  return type === 'blob' || type === 'uri' || type === 'file'
}

export type Message = { readonly role: string; readonly parts: readonly Part[] }
export type OutputMessage = Message & { readonly finish_reason: string }

export type CallRequest = {
  readonly operation: Operation
  readonly model: string
  readonly isStream: boolean
  /** The most that the model may write, over all choices; undefined where the caller set no bound. */
  readonly outputTokensMax: number | undefined
  readonly choiceCount: number | undefined
  readonly temperature: number | undefined
  readonly topP: number | undefined
  readonly topK: number | undefined
  readonly frequencyPenalty: number | undefined
  readonly presencePenalty: number | undefined
  readonly seed: number | undefined
  readonly stopSequences: readonly string[]
  readonly reasoningLevel: string
  readonly conversationId: string
  readonly previousResponseId: string
  /** Whether the body has all that the model reads. False: the provider keeps some of it, the history for one. */
  readonly isAllSaid: boolean
  readonly embeddingDimensions: number | undefined
  /** Answered before a model has run: what it used is told to whoever asks for the response later. */
  readonly isBackground: boolean
  /** Whether the caller asked for usage in the stream, which is then not hidden from it. */
  readonly asksForUsage: boolean
  /** Whether the caller said anything of the stream's options. */
  readonly hasStreamOptions: boolean
  /** Read from the body when they are wanted, once and not before. */
  readonly content: () => RequestContent
  /** As the provider defines them. */
  readonly tools: () => readonly unknown[]
}

export type RequestContent = {
  readonly system: readonly Part[]
  readonly messages: readonly Message[]
}

/** `id` is '' at providers that give none. */
export type AskedTool = { readonly id: string; readonly name: string }

export type CallFailure = { readonly type: string; readonly message: string }

/** What is known of a reply, at any moment of it. */
export type CallReply = {
  readonly id: string
  readonly model: string
  readonly finishReasons: readonly string[]
  readonly messages: readonly OutputMessage[]
  /** The tools that the model asked the service for, in order; known whatever the content policy is. */
  readonly toolCalls: readonly AskedTool[]
  readonly usage: Usage | undefined
  /** `partial`: the provider told something and not the end of it. */
  readonly usageSource: 'provider' | 'partial' | 'none'
  /** UTF-16 units the model wrote, as far as they passed: what an estimate starts from. */
  readonly outputChars: number
  readonly failure: CallFailure | undefined
  /** The provider said that this is all. A stream without it was cut. */
  readonly isComplete: boolean
  /** Content that is missing in `messages` because of its size. */
  readonly isContentCut: boolean
  /** Things on the wire that could not be read. */
  readonly brokenEvents: number
}
