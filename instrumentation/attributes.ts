// The names of attributes as OpenTelemetry spells them (GenAI conventions, newest; those not yet there in the last release are
// marked), and ours where it has none. Only those we write.

export const attributes = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  requestModel: 'gen_ai.request.model',
  maxTokens: 'gen_ai.request.max_tokens',
  choiceCount: 'gen_ai.request.choice.count',
  temperature: 'gen_ai.request.temperature',
  topP: 'gen_ai.request.top_p',
  topK: 'gen_ai.request.top_k',
  frequencyPenalty: 'gen_ai.request.frequency_penalty',
  presencePenalty: 'gen_ai.request.presence_penalty',
  seed: 'gen_ai.request.seed',
  stopSequences: 'gen_ai.request.stop_sequences',
  isStream: 'gen_ai.request.stream',
  /** Newer than the last release. */
  reasoningLevel: 'gen_ai.request.reasoning.level',
  /** Newer than the last release. */
  previousResponseId: 'gen_ai.request.previous_response.id',
  embeddingDimensions: 'gen_ai.embeddings.dimension.count',
  responseId: 'gen_ai.response.id',
  responseModel: 'gen_ai.response.model',
  finishReasons: 'gen_ai.response.finish_reasons',
  timeToFirstChunk: 'gen_ai.response.time_to_first_chunk',
  inputTokens: 'gen_ai.usage.input_tokens',
  outputTokens: 'gen_ai.usage.output_tokens',
  cacheReadTokens: 'gen_ai.usage.cache_read.input_tokens',
  /** Newer than the last release, which says `cache_creation`. */
  cacheWriteTokens: 'gen_ai.usage.cache_write.input_tokens',
  reasoningTokens: 'gen_ai.usage.reasoning.output_tokens',
  inputAudioTokens: 'gen_ai.usage.audio.input_tokens',
  cacheReadAudioTokens: 'gen_ai.usage.audio.cache_read.input_tokens',
  outputAudioTokens: 'gen_ai.usage.audio.output_tokens',
  tokenType: 'gen_ai.token.type',
  conversation: 'gen_ai.conversation.id',
  systemInstructions: 'gen_ai.system_instructions',
  inputMessages: 'gen_ai.input.messages',
  outputMessages: 'gen_ai.output.messages',
  toolDefinitions: 'gen_ai.tool.definitions',
  serverAddress: 'server.address',
  serverPort: 'server.port',
  errorType: 'error.type',
  user: 'user.id',

  tenant: 'tallylight.tenant.id',
  callId: 'tallylight.call.id',
  attempt: 'tallylight.attempt',
  turnId: 'tallylight.turn.id',
  channel: 'tallylight.turn.channel',
  /** `provider`, `partial` or `none`: whether the usage beside it is the last word. */
  usageSource: 'tallylight.usage.source',
  /** How the reply ended, where it was not read to its end: `left`, `aborted`, `cut`, `unread`, `denied`. */
  ending: 'tallylight.ending',
} as const
