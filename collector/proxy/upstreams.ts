// Where the proxy may send: the known providers by their own addresses, and what the configuration file names. A client says
// the name and a path, and nothing that it sends can make another host of it.
import { type BaseUrl, hostOf } from '@tallylight/instrumentation/providers/endpoint.ts'
import { z } from 'zod'

export type Upstream = {
  readonly name: string
  readonly origin: string
  /** What stands before every path, '' or `/team/llm`. */
  readonly basePath: string
  readonly base: BaseUrl
  /** A server of one's own may go on with the trace; a provider is told nothing of it. */
  readonly sendsTrace: boolean
}

export const upstreamName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, 'a name is 1–40 small letters, digits and -, and begins with a letter')
  .refine((name) => name !== 'k', '/k/ is where keys stand')

export const upstreamSchema = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/ })
      .refine((text) => isPlain(text), 'has no user, password, query or #')
      .meta({ description: 'where /NAME/ leads; what stands behind the name in a path is added' }),
    provider: z.string().min(1).max(100).optional().meta({
      description: 'who answers there, in OpenTelemetry’s spelling; needed where the host is not known',
      unset: 'by its host',
    }),
    takesUsageOption: z.boolean().optional().meta({
      description:
        'whether `stream_options.include_usage` is asked for where a caller did not; the caller does not see it',
      unset: 'by its host, or false',
    }),
    sendsTrace: z.boolean().optional().meta({
      description: 'whether it gets `traceparent` of the call, for servers of your own; no upstream gets baggage',
      unset: 'false',
    }),
  })
  .superRefine(({ url, provider }, context) => {
    if (provider === undefined && URL.canParse(url) && hostOf(new URL(url)) === undefined)
      context.addIssue({ code: 'custom', path: ['provider'], message: 'is needed: the host is no known provider’s' })
  })

export type UpstreamConfig = z.infer<typeof upstreamSchema>

function isPlain(url: string): boolean {
  const { username, password, search, hash } = URL.parse(url) ?? {}
  return username === '' && password === '' && search === '' && hash === ''
}

/** By their origins, so that the rest of an address is what each provider's own documentation says. */
const known: Readonly<Record<string, string>> = {
  openai: 'https://api.openai.com',
  anthropic: 'https://api.anthropic.com',
  gemini: 'https://generativelanguage.googleapis.com',
  vertex: 'https://aiplatform.googleapis.com',
  openrouter: 'https://openrouter.ai',
  mistral: 'https://api.mistral.ai',
  groq: 'https://api.groq.com',
  deepseek: 'https://api.deepseek.com',
  xai: 'https://api.x.ai',
  together: 'https://api.together.xyz',
  fireworks: 'https://api.fireworks.ai',
  perplexity: 'https://api.perplexity.ai',
  cerebras: 'https://api.cerebras.ai',
  moonshot: 'https://api.moonshot.ai',
  cohere: 'https://api.cohere.ai',
}

export function openUpstreams(options: {
  readonly configured: Readonly<Record<string, UpstreamConfig>>
  readonly withKnown: boolean
}): ReadonlyMap<string, Upstream> {
  const upstreams = new Map<string, Upstream>()
  for (const [name, url] of options.withKnown ? Object.entries(known) : [])
    upstreams.set(name, upstreamOf(name, { url }))
  for (const [name, config] of Object.entries(options.configured)) upstreams.set(name, upstreamOf(name, config))
  return upstreams
}

function upstreamOf(name: string, { url, provider, takesUsageOption, sendsTrace = false }: UpstreamConfig): Upstream {
  const { origin, pathname } = new URL(url)
  const host = hostOf(new URL(url))
  const basePath = pathname.replace(/\/+$/, '')
  return {
    name,
    origin,
    basePath,
    base: {
      url: `${origin}${basePath}`,
      provider: provider ?? host?.provider ?? 'unknown',
      takesUsageOption: takesUsageOption ?? host?.takesUsageOption ?? false,
    },
    sendsTrace,
  }
}
