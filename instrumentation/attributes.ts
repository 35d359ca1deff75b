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
  /** No convention has a name for these two, which cost more: what Anthropic's own SDK and others write. */
  cacheWrite1hTokens: 'anthropic.usage.cache_creation.ephemeral_1h_input_tokens',
  webSearches: 'gen_ai.usage.web_searches',
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
  toolName: 'gen_ai.tool.name',
  toolType: 'gen_ai.tool.type',
  toolCallId: 'gen_ai.tool.call.id',
  toolArguments: 'gen_ai.tool.call.arguments',
  toolResult: 'gen_ai.tool.call.result',
  /** `wire`: of a tool that was asked for in one reply and answered in a later request, and that nobody told of. */
  toolSeenOn: 'tallylight.tool.seen_on',
  promptName: 'gen_ai.prompt.name',
  mcpMethod: 'mcp.method.name',
  mcpProtocolVersion: 'mcp.protocol.version',
  mcpSession: 'mcp.session.id',
  mcpResource: 'mcp.resource.uri',
  /** No convention has a name for the server; this is what others write. */
  mcpServer: 'mcp.server.name',
  jsonRpcId: 'jsonrpc.request.id',
  rpcStatus: 'rpc.response.status_code',
  networkTransport: 'network.transport',
  errorType: 'error.type',
  user: 'user.id',

  tenant: 'tallylight.tenant.id',
  callId: 'tallylight.call.id',
  /** The tenant's policy that let the call go, or refused it, while the quota service was away. */
  quotaPolicy: 'tallylight.quota.policy',
  attempt: 'tallylight.attempt',
  turnId: 'tallylight.turn.id',
  /** On the span of the turn alone: the collector knows that span by it. */
  channel: 'tallylight.turn.channel',
  question: 'tallylight.turn.question',
  answer: 'tallylight.turn.answer',
  turnStatus: 'tallylight.turn.status',
  blockReason: 'tallylight.turn.block_reason',
  /** Calls of models in the turn, and the tools they asked for. */
  turnCalls: 'tallylight.turn.calls',
  turnTools: 'tallylight.turn.tools',
  healthTarget: 'tallylight.health.target',
  healthStatus: 'tallylight.health.status',
  healthEvent: 'tallylight.health.event',
  healthResponseTime: 'tallylight.health.response_time',
  probe: 'tallylight.probe',
  /** `error` or `audit`: a span outside of any turn that says nothing else by which a collector would look into it. */
  record: 'tallylight.record',
  /** `provider`, `partial` or `none`: whether the usage beside it is the last word. */
  usageSource: 'tallylight.usage.source',
  /** How the reply ended, where it was not read to its end: `left`, `aborted`, `cut`, `unread`, `denied`. */
  ending: 'tallylight.ending',
} as const
