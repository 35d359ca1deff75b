// The body of a request: which model, how much it may write, whether it streams, and, when somebody wants it, what it says.
// A body that cannot be read gives what the URL says, and the call goes on as it would have.
import { limits } from '../limits.ts'
import type { CallRequest, Endpoint, Operation, RequestContent } from './call.ts'
import { openJsonDocument } from './json-document.ts'
import { isJsonObject, type Json, listOf, numberOf, objectOf, textOf, textsOf } from './json-fields.ts'
import { anthropicContent, bedrockContent, chatContent, geminiContent, responsesContent } from './request-content.ts'

export type RequestRead =
  | { readonly kind: 'request'; readonly request: CallRequest }
  /** `request` has what the URL alone says. */
  | { readonly kind: 'broken'; readonly request: CallRequest }

export function readRequest(endpoint: Endpoint, body: Uint8Array | string): RequestRead {
  const json = parsed(body)
  return json === undefined
    ? { kind: 'broken', request: requestOf(endpoint, {}) }
    : { kind: 'request', request: requestOf(endpoint, json) }
}

const encoder = new TextEncoder()

/** A long body is skimmed: what makes it long are files, and nothing of them is wanted. */
function parsed(body: Uint8Array | string): Json | undefined {
  if (typeof body === 'string' && body.length <= limits.requestWholeBytesMax) {
    try {
      const value: unknown = JSON.parse(body)
      return isJsonObject(value) ? value : undefined
    } catch {
      // The provider will say so to the caller; there is nothing to read here.
      return undefined
    }
  }
  const document = openJsonDocument(limits.requestWholeBytesMax)
  document.write(typeof body === 'string' ? encoder.encode(body) : body)
  const read = document.end()
  return read.kind === 'json' && isJsonObject(read.value) ? read.value : undefined
}

const operations: Readonly<Record<Endpoint['api'], Operation>> = {
  'openai.chat': 'chat',
  'openai.completions': 'text_completion',
  'openai.responses': 'chat',
  'openai.embeddings': 'embeddings',
  'anthropic.messages': 'chat',
  'gemini.generate': 'generate_content',
  'gemini.embed': 'embeddings',
  'bedrock.converse': 'chat',
}

function requestOf(endpoint: Endpoint, body: Json): CallRequest {
  const settings = settingsOf(endpoint, body)
  const choiceCount = numberOf(body.n) ?? numberOf(settings.candidateCount)
  const perChoice =
    numberOf(body.max_completion_tokens) ??
    numberOf(body.max_output_tokens) ??
    numberOf(body.max_tokens) ??
    numberOf(settings.maxOutputTokens) ??
    numberOf(settings.maxTokens)
  const operation = operations[endpoint.api]
  const isGoogles = endpoint.api === 'gemini.generate' || endpoint.api === 'gemini.embed'
  let content: RequestContent | undefined
  return {
    operation,
    // Google's own is in the address; a body may repeat it with its folder, `models/…`, by which no price is known.
    model: isGoogles ? endpoint.model : textOf(body.model) || endpoint.model,
    isStream: endpoint.isStream ?? body.stream === true,
    outputTokensMax:
      operation === 'embeddings' ? 0 : perChoice === undefined ? undefined : perChoice * (choiceCount ?? 1),
    choiceCount,
    temperature: numberOf(body.temperature) ?? numberOf(settings.temperature),
    topP: numberOf(body.top_p) ?? numberOf(settings.topP),
    topK: numberOf(body.top_k) ?? numberOf(settings.topK),
    frequencyPenalty: numberOf(body.frequency_penalty) ?? numberOf(settings.frequencyPenalty),
    presencePenalty: numberOf(body.presence_penalty) ?? numberOf(settings.presencePenalty),
    seed: numberOf(body.seed) ?? numberOf(settings.seed),
    stopSequences: textsOf(body.stop ?? body.stop_sequences ?? settings.stopSequences),
    reasoningLevel:
      textOf(body.reasoning_effort) ||
      textOf(objectOf(body.reasoning).effort) ||
      textOf(objectOf(settings.thinkingConfig).thinkingLevel),
    // A conversation may be named or given as an object with its id.
    conversationId: textOf(body.conversation) || textOf(objectOf(body.conversation).id),
    previousResponseId: textOf(body.previous_response_id),
    isAllSaid: !pointsElsewhere(body),
    embeddingDimensions: numberOf(body.dimensions) ?? numberOf(body.outputDimensionality),
    isBackground: endpoint.api === 'openai.responses' && body.background === true && body.stream !== true,
    asksForUsage: objectOf(body.stream_options).include_usage === true,
    hasStreamOptions: body.stream_options !== undefined,
    content: () => {
      content ??= contentOf(endpoint, body)
      return content
    },
    tools: () => listOf(endpoint.api === 'bedrock.converse' ? objectOf(body.toolConfig).tools : body.tools),
  }
}

/** To what the provider has: a conversation, Google's cached contents, a prompt by its id. That of completions is the text itself. */
function pointsElsewhere(body: Json): boolean {
  const kept = [body.previous_response_id, body.conversation, body.cachedContent, body.cached_content]
  return kept.some(Boolean) || isJsonObject(body.prompt)
}

/** Google and Amazon keep the settings in an object of their own. */
function settingsOf(endpoint: Endpoint, body: Json): Json {
  if (endpoint.api === 'gemini.generate') return objectOf(body.generationConfig ?? body.generation_config)
  return endpoint.api === 'bedrock.converse' ? objectOf(body.inferenceConfig) : {}
}

function contentOf(endpoint: Endpoint, body: Json): RequestContent {
  const none: RequestContent = { system: [], messages: [] }
  switch (endpoint.api) {
    case 'openai.chat':
      return chatContent(body.messages)
    case 'openai.completions':
      return {
        ...none,
        messages: textsOf(body.prompt).map((content) => ({ role: 'user', parts: [{ type: 'text', content }] })),
      }
    case 'openai.responses':
      return responsesContent(body)
    case 'anthropic.messages':
      return anthropicContent(body)
    case 'gemini.generate':
      return geminiContent(body)
    case 'bedrock.converse':
      return bedrockContent(body)
    case 'openai.embeddings':
    case 'gemini.embed':
      return none
    default:
      return endpoint.api satisfies never
  }
}
