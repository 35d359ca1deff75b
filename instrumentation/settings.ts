// The settings of a service, from its environment. Nothing in it is fatal: a value that is not understood is told of once,
// and the default stands, because a service must start.
import { type BaseUrl, hostOf } from './providers/endpoint.ts'

export type ContentPolicy = 'off' | 'metadata' | 'full'
export type McpMode = 'off' | 'parent' | 'link'
export type QuotaMode = 'off' | 'observe' | 'enforce'

export type Settings = {
  /** `off`: numbers, models and which tools ran. `metadata`: also which were offered and asked for. `full`: what was said, too. */
  readonly content: ContentPolicy
  readonly quota: QuotaMode
  /** What a trace that comes with an MCP request is to the server's span; `off`: the SDK is not looked for. */
  readonly mcp: McpMode
  /** Of the collector's API; its OTLP port is taken from OpenTelemetry's own settings, else it is the usual one at this host. */
  readonly url: string
  readonly key: string
  readonly baseUrls: readonly BaseUrl[]
  readonly asksForUsage: boolean
}

export type Environment = Readonly<Record<string, string | undefined>>

const urlUsual = 'http://localhost:4319'

export function readSettings(environment: Environment): {
  readonly settings: Settings
  readonly warnings: readonly string[]
} {
  const warnings: string[] = []

  function choice<T extends string>(name: string, choices: readonly T[], usual: T): T {
    return chosen(name, environment[name] || undefined, choices, usual, (warning) => warnings.push(warning))
  }

  const url = environment.TALLYLIGHT_URL || urlUsual
  if (!URL.canParse(url)) warnings.push(`TALLYLIGHT_URL is not a URL, so ${urlUsual} is taken`)
  const collectors = [url, environment.OTEL_EXPORTER_OTLP_ENDPOINT ?? ''].map(hostNameOf)
  const named = baseUrlsOf(environment)
  const proxied = named.filter((base) => isProxy(new URL(base.url), collectors))
  if (proxied.length > 0)
    warnings.push(
      'calls of models go to the proxy of Tallylight, which meters them and asks for quota; they are not watched here as well, and are in their turn where they carry downstreamHeaders()',
    )
  return {
    settings: {
      content: choice('TALLYLIGHT_CONTENT', ['off', 'metadata', 'full'], 'metadata'),
      quota: choice('TALLYLIGHT_QUOTA', ['off', 'observe', 'enforce'], 'off'),
      mcp: choice('TALLYLIGHT_MCP', ['off', 'parent', 'link'], 'parent'),
      url: URL.canParse(url) ? url : urlUsual,
      // Secrets are often kept with the line break that ended their file.
      key: environment.TALLYLIGHT_KEY?.trim() ?? '',
      baseUrls: named.filter((base) => !proxied.includes(base)),
      asksForUsage: true,
    },
    warnings,
  }
}

/** One of `choices`; for anything else `usual`, of which `warn` is told. A service in JavaScript has no types that keep others out. */
export function chosen<T extends string>(
  name: string,
  said: unknown,
  choices: readonly T[],
  usual: T,
  warn: (warning: string) => void,
): T {
  const found = choices.find((each) => each === said)
  if (found === undefined && said !== undefined) {
    const shown = typeof said === 'string' ? JSON.stringify(said.slice(0, 40)) : 'something else'
    warn(`${name} may be ${choices.join(', ')}; it is ${shown}, so ${usual} is taken`)
  }
  return found ?? usual
}

const proxyPort = '4320'

/** What is asked there is a record and a hold already; watched here it would be two. */
function isProxy({ hostname, port, pathname }: URL, collectors: readonly string[]): boolean {
  const isAtCollector = port === proxyPort && collectors.includes(hostNameOf(`http://${hostname}`))
  return isAtCollector || pathname.startsWith('/k/tl_')
}

/** '' where there is none. The names of this machine are one. */
function hostNameOf(url: string): string {
  const name = URL.parse(url)?.hostname ?? ''
  return /^(localhost|127\.0\.0\.1|\[::1\])$/.test(name) ? 'localhost' : name
}

/** Where SDKs are told of another server, it is a provider without our being told of it as well. */
const sdkNames: readonly (readonly [name: string, provider: string])[] = [
  ['OPENAI_BASE_URL', 'openai'],
  ['AZURE_OPENAI_ENDPOINT', 'azure.ai.openai'],
  ['ANTHROPIC_BASE_URL', 'anthropic'],
  ['ANTHROPIC_VERTEX_BASE_URL', 'gcp.vertex_ai'],
  ['GOOGLE_GEMINI_BASE_URL', 'gcp.gemini'],
  ['GOOGLE_VERTEX_BASE_URL', 'gcp.vertex_ai'],
  ['GROQ_BASE_URL', 'groq'],
  ['MISTRAL_BASE_URL', 'mistral_ai'],
  ['OLLAMA_HOST', 'ollama'],
  ['AWS_ENDPOINT_URL_BEDROCK_RUNTIME', 'aws.bedrock'],
]

function baseUrlsOf(environment: Environment): readonly BaseUrl[] {
  return sdkNames.flatMap(([name, provider]) => {
    const value = (environment[name]?.trim() ?? '').replace(/\/+$/, '')
    // Ollama's own is a host without a scheme, whose usual port need not be said.
    const port = name === 'OLLAMA_HOST' && !/:\d+$/.test(value) ? ':11434' : ''
    const url = value === '' ? null : URL.parse(/^https?:/.test(value) ? value : `http://${value}${port}`)
    // A host that is known says itself who answers there, and what it takes: most of these variables name Azure or DeepSeek.
    if (url === null || hostOf(url) !== undefined) return []
    return [{ url: url.href.replace(/\/+$/, ''), provider }]
  })
}
