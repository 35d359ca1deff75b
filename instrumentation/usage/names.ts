// Providers, models and finish reasons, as the many spell them, in one spelling: OpenTelemetry's newest.

const renamed: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    'az.ai.inference': 'azure.ai.inference',
    'az.ai.openai': 'azure.ai.openai',
    'az.ai.agents': 'azure.ai.inference',
    azure: 'azure.ai.openai',
    azure_openai: 'azure.ai.openai',
    aws: 'aws.bedrock',
    bedrock: 'aws.bedrock',
    'amazon-bedrock': 'aws.bedrock',
    amazon_bedrock: 'aws.bedrock',
    vertex_ai: 'gcp.vertex_ai',
    vertexai: 'gcp.vertex_ai',
    gemini: 'gcp.gemini',
    google: 'gcp.gemini',
    google_genai: 'gcp.gemini',
    google_vertexai: 'gcp.vertex_ai',
    xai: 'x_ai',
    mistral: 'mistral_ai',
    mistralai: 'mistral_ai',
    moonshot: 'moonshot_ai',
    together: 'together_ai',
    'microsoft.foundry': 'azure.ai.openai',
    bedrock_converse: 'aws.bedrock',
  }),
)

/** Vercel writes `provider.api`; what stands before the dot, where the dot is not part of a name. */
const vercelPrefixes: readonly (readonly [string, string])[] = [
  ['google.generative-ai', 'gcp.gemini'],
  ['google.vertex.anthropic', 'gcp.vertex_ai'],
  ['google.vertex', 'gcp.vertex_ai'],
  ['vertex.anthropic', 'gcp.vertex_ai'],
  ['amazon-bedrock', 'aws.bedrock'],
  ['bedrock.', 'aws.bedrock'],
  ['googlevertex.', 'gcp.vertex_ai'],
  ['togetherai.', 'together_ai'],
  ['azure-openai', 'azure.ai.openai'],
  ['azure.', 'azure.ai.openai'],
  ['openai.', 'openai'],
  ['anthropic.', 'anthropic'],
  ['xai.', 'x_ai'],
  ['mistral.', 'mistral_ai'],
  ['groq.', 'groq'],
  ['deepseek.', 'deepseek'],
  ['cohere.', 'cohere'],
  ['perplexity', 'perplexity'],
  ['moonshotai.', 'moonshot_ai'],
]

/** Names of frameworks that some write where the provider belongs. */
const frameworks = new Set([
  'strands-agents',
  'langchain',
  'langgraph',
  'llamaindex',
  'microsoft.agent_framework',
  'crewai',
  'openai-agents',
  'agentcore',
  'spring_ai',
  'gemini-cli',
  'gcp.vertex.agent',
  'litellm',
  'unknown',
  '_other',
])

const ofModels: readonly (readonly [RegExp, string])[] = [
  [/^(us|eu|apac|global|ap|ca|sa)\.(anthropic|amazon|meta|mistral|cohere|ai21|deepseek)\./, 'aws.bedrock'],
  [/^(anthropic|amazon|meta|mistral|cohere|ai21)\.[a-z]/, 'aws.bedrock'],
  [
    /^(gpt-|chatgpt|o[1-9](-|$)|text-embedding-|text-davinci|davinci|babbage|codex|dall-e|whisper|tts-|omni-)/,
    'openai',
  ],
  [/^claude/, 'anthropic'],
  [/^(models\/)?(gemini|gemma|text-bison|learnlm|imagen)/, 'gcp.gemini'],
  [/^grok/, 'x_ai'],
  [/^(mistral|mixtral|codestral|ministral|magistral|devstral|pixtral|open-mi)/, 'mistral_ai'],
  [/^deepseek/, 'deepseek'],
  [/^(command|embed-(english|multilingual)|rerank)/, 'cohere'],
  [/^sonar/, 'perplexity'],
  [/^(kimi|moonshot)/, 'moonshot_ai'],
]

/** The provider in OpenTelemetry's spelling: from what was said, else from the model; '' is unknown. */
export function providerOf(said: string, model: string): string {
  const name = said.trim().toLowerCase()
  if (name === '' || frameworks.has(name)) return providerOfModel(model)
  const exact = renamed.get(name)
  if (exact !== undefined) return exact
  for (const [prefix, provider] of vercelPrefixes) if (name.startsWith(prefix) && !isOwnName(name)) return provider
  return name
}

/** OpenTelemetry's own names that begin like one of Vercel's. */
function isOwnName(name: string): boolean {
  return name.startsWith('azure.ai.')
}

export function providerOfModel(model: string): string {
  const name = model.toLowerCase()
  for (const [pattern, provider] of ofModels) if (pattern.test(name)) return provider
  return ''
}

const finishReasons: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    stop: 'stop',
    end_turn: 'stop',
    endturn: 'stop',
    stop_sequence: 'stop',
    stopsequence: 'stop',
    completed: 'stop',
    complete: 'stop',
    finish: 'stop',
    tool_call: 'tool_call',
    tool_calls: 'tool_call',
    toolcalls: 'tool_call',
    'tool-calls': 'tool_call',
    tool_use: 'tool_call',
    tooluse: 'tool_call',
    function_call: 'tool_call',
    length: 'length',
    max_tokens: 'length',
    maxtokens: 'length',
    max_output_tokens: 'length',
    content_filter: 'content_filter',
    'content-filter': 'content_filter',
    contentfilter: 'content_filter',
    safety: 'content_filter',
    refusal: 'content_filter',
    guardrail_intervened: 'content_filter',
    guardrailintervened: 'content_filter',
    error: 'error',
  }),
)

/** One word for what all mean; an unknown reason is kept as it came. */
export function foldFinishReason(said: string): string {
  return finishReasons.get(said.toLowerCase()) ?? said
}
