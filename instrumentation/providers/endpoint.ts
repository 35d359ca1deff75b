// Which API of which provider a request is for, from its method and URL alone. A known host says who answers, the end of the
// path what is spoken; a base URL from the configuration stands for a host that nobody can know.
import type { Api, Endpoint } from './call.ts'

export type BaseUrl = {
  readonly url: string
  readonly provider: string
  /** Whether the server takes `stream_options.include_usage`; one that does not may refuse the request. */
  readonly takesUsageOption?: boolean
}

type Host = { readonly provider: string; readonly takesUsageOption: boolean }

const host = (provider: string, takesUsageOption = false): Host => ({ provider, takesUsageOption })

const hosts: Readonly<Record<string, Host>> = {
  'api.openai.com': host('openai', true),
  'api.anthropic.com': host('anthropic'),
  'generativelanguage.googleapis.com': host('gcp.gemini'),
  'aiplatform.googleapis.com': host('gcp.vertex_ai'),
  // Tells usage unasked, in a chunk like the one that others are asked for: that is its caller's to read.
  'openrouter.ai': host('openrouter'),
  'api.mistral.ai': host('mistral_ai'),
  'api.groq.com': host('groq', true),
  'api.deepseek.com': host('deepseek', true),
  'api.x.ai': host('x_ai', true),
  'api.together.xyz': host('together_ai'),
  'api.fireworks.ai': host('fireworks'),
  'api.perplexity.ai': host('perplexity'),
  'api.cerebras.ai': host('cerebras'),
  'api.moonshot.ai': host('moonshot_ai'),
  'api.cohere.ai': host('cohere'),
  'api.cohere.com': host('cohere'),
}

const hostPatterns: readonly (readonly [RegExp, Host])[] = [
  // Where data has to stay, and where certificates are shown.
  [/^[a-z]+\.api\.openai\.com$/, host('openai', true)],
  [/\.openai\.azure\.(com|us|cn)$/, host('azure.ai.openai', true)],
  [/\.(cognitiveservices|services\.ai)\.azure\.com$/, host('azure.ai.openai', true)],
  [/\.models\.ai\.azure\.com$/, host('azure.ai.inference')],
  [
    /^(.+\.)?bedrock-(runtime|mantle)(-fips)?\.[a-z0-9-]+\.(vpce\.)?(amazonaws\.com(\.cn)?|api\.aws)$/,
    host('aws.bedrock'),
  ],
  [/^([a-z0-9-]+-aiplatform|aiplatform\.[a-z]+\.rep)\.googleapis\.com$/, host('gcp.vertex_ai')],
]

/** Ollama's port on this machine; elsewhere a base URL has to say so. */
const ollamaHosts = new Set(['localhost:11434', '127.0.0.1:11434', '[::1]:11434'])

/** Who answers at this host, whatever the path; undefined: nobody we know. */
export function hostOf(url: URL): Host | undefined {
  const known = hosts[url.hostname]
  if (known !== undefined) return known
  if (ollamaHosts.has(url.host)) return host('ollama', true)
  return hostPatterns.find(([pattern]) => pattern.test(url.hostname))?.[1]
}

/** The endpoint of a request, or nothing where it is no model call: another host, another method, a list of models, a file. */
export function endpointOf(method: string, url: URL, baseUrls: readonly BaseUrl[]): Endpoint | undefined {
  if (method.toUpperCase() !== 'POST') return undefined
  const spoken = spokenAt(url.pathname) ?? spokenAt(plainPath(url.pathname))
  if (spoken === undefined) return undefined
  const base = baseOf(url, spoken.api, baseUrls)
  const found =
    base === undefined ? hostOf(url) : { provider: base.provider, takesUsageOption: base.takesUsageOption ?? false }
  return found === undefined ? undefined : { ...found, ...spoken }
}

/** A gateway stands for several providers, often at one address: `http://gateway/v1` for the SDK of OpenAI is `http://gateway` for that
 *  of Anthropic. Who made the API that is spoken is meant, then whose address is the longest. */
function baseOf(url: URL, api: Api, baseUrls: readonly BaseUrl[]): BaseUrl | undefined {
  let found: BaseUrl | undefined
  for (const each of baseUrls) {
    if (!isUnder(url, each.url)) continue
    const isBetter = Number(isOwn(api, each.provider)) - Number(found !== undefined && isOwn(api, found.provider))
    if (found === undefined || isBetter > 0 || (isBetter === 0 && each.url.length > found.url.length)) found = each
  }
  return found
}

const makers: Readonly<Partial<Record<Api, RegExp>>> = {
  'anthropic.messages': /^(anthropic|gcp\.vertex_ai)$/,
  'gemini.generate': /^gcp\./,
  'gemini.embed': /^gcp\./,
  'bedrock.converse': /^aws\./,
}

/** OpenAI's are spoken by all who have none of their own. */
function isOwn(api: Api, provider: string): boolean {
  const maker = makers[api]
  return maker === undefined ? !Object.values(makers).some((each) => each.test(provider)) : maker.test(provider)
}

/** Whether this address is a provider's where something is asked for that may cost: no count of tokens, no file, no judgement of
 *  a text, which are free of charge and no call that was missed. */
export function mayCost(url: URL, baseUrls: readonly BaseUrl[]): boolean {
  if (freeEnds.test(url.pathname)) return false
  return hostOf(url) !== undefined || baseUrls.some((base) => isUnder(url, base.url))
}

const freeEnds =
  /(\/count[-_]tokens(:rawPredict)?|:(count|compute)Tokens|\/input_tokens|\/moderations|\/files|\/cancel|\/conversations|\/conversations\/[^/]+\/items)$/

/** `http://vllm:8000/v1` holds `/v1/chat/completions` and not `/v10`. */
function isUnder(url: URL, base: string): boolean {
  const whole = url.href
  if (!whole.startsWith(base)) return false
  const next = whole[base.length]
  return base.endsWith('/') || next === undefined || next === '/' || next === '?'
}

type Spoken = Pick<Endpoint, 'api' | 'model' | 'isStream'>

const pathEnds: readonly (readonly [string, Api])[] = [
  ['/chat/completions', 'openai.chat'],
  ['/completions', 'openai.completions'],
  ['/responses', 'openai.responses'],
  ['/embeddings', 'openai.embeddings'],
  ['/messages', 'anthropic.messages'],
]

const methodsOfModels: Readonly<Record<string, { readonly api: Api; readonly isStream: boolean }>> = {
  generateContent: { api: 'gemini.generate', isStream: false },
  streamGenerateContent: { api: 'gemini.generate', isStream: true },
  embedContent: { api: 'gemini.embed', isStream: false },
  batchEmbedContents: { api: 'gemini.embed', isStream: false },
  rawPredict: { api: 'anthropic.messages', isStream: false },
  streamRawPredict: { api: 'anthropic.messages', isStream: true },
}

function spokenAt(path: string): Spoken | undefined {
  const found = pathEnds.find(([end]) => path.endsWith(end))
  // Threads have messages, too, and none of them is a call.
  if (found?.[1] === 'anthropic.messages' && path.includes('/threads/')) return undefined
  if (found !== undefined) {
    // Azure's deployment is a name of the customer's own, and often all that is said of the model.
    const deployment = /\/deployments\/([^/]+)\//.exec(path)?.[1] ?? ''
    return { api: found[1], model: decoded(deployment), isStream: undefined }
  }
  // A model that was tuned is asked at an endpoint of its own, or by a name among the tuned.
  const google = /\/(?:models|endpoints|tunedModels)\/([^/:]+):([A-Za-z]+)$/.exec(path)
  const method = methodsOfModels[google?.[2] ?? '']
  if (google !== null && method !== undefined) {
    const isOther =
      method.api === 'anthropic.messages' && (!path.includes('/publishers/anthropic/') || google[1] === 'count-tokens')
    return isOther ? undefined : { ...method, model: decoded(google[1] ?? '') }
  }
  const converse = /\/model\/([^/]+)\/(converse|converse-stream)$/.exec(path)
  if (converse === null) return undefined
  return { api: 'bedrock.converse', model: decoded(converse[1] ?? ''), isStream: converse[2] === 'converse-stream' }
}

/** As servers read it that undo escapes before they route, or for which a slash at the end is none: a call that is spelled so
 *  costs the same, and must not go past the gate. */
function plainPath(path: string): string {
  return decoded(path).replace(/\/+$/, '')
}

/** An inference profile's ARN stands in the path with its slashes escaped. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** OpenAI's realtime API, over a WebSocket: each of its responses is a call that speaks as the responses API streams. */
export function realtimeEndpointOf(url: URL, baseUrls: readonly BaseUrl[]): Endpoint | undefined {
  if (!/\/realtime$/.test(url.pathname) || !/^wss?:$/.test(url.protocol)) return undefined
  const asHttp = new URL(url.href.replace(/^ws/, 'http'))
  const found = baseOf(asHttp, 'openai.responses', baseUrls) ?? hostOf(asHttp)
  const model = url.searchParams.get('model') ?? url.searchParams.get('deployment') ?? ''
  if (found === undefined) return undefined
  return { api: 'openai.responses', provider: found.provider, model, isStream: true, takesUsageOption: false }
}
