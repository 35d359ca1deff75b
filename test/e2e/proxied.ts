// A collector whose proxy leads to stand-ins: one that counts what it served, one that plays recordings and faults and
// remembers what it was told, and addresses where nobody or no TLS is.
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Authority, makeAuthority, makeCertificate } from '@tallylight/collector/receive/fixtures/certificate.ts'
import { type StandIn, startStandIn } from '@tallylight/examples/stand-in.ts'
import { type Answer, type Provider, startProvider } from '@tallylight/instrumentation/hooks/fixtures/provider.ts'
import { encodeEvent } from '@tallylight/instrumentation/providers/fixtures/encode-event.ts'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

export const recorded = (name: string): Buffer =>
  readFileSync(new URL(`../../instrumentation/providers/fixtures/${name}`, import.meta.url))

/** Told to providers alone: it must not be anywhere with us. */
export const providerKey = 'sk-proj-providersecret0123456789abcdefghijklmnop'

export type Told = {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
  /** Settles when the connection that it came over is closed. */
  readonly closed: Promise<void>
}

export type World = AsyncDisposable & {
  readonly collector: CollectorProcess
  readonly chat: StandIn
  readonly provider: Provider
  /** What the provider was told, oldest first. */
  readonly told: Told[]
  /** Of the proxy, with the name of an upstream behind it. */
  url(upstream: string): string
  keyOf(roles: readonly string[], tenant?: string, manyTenants?: boolean): Promise<string>
  limitOf(user: string, amount: number, tenant?: string): Promise<void>
  /** When nothing is held any more: settlements follow the answer. */
  settledAccountOf(user: string): Promise<{ readonly held: number; readonly spent: number }>
  /** What the upstream `wild` says to the next request, byte for byte, before it hangs up. */
  wildSays(bytes: string): void
  /** The first line and what follows, of bytes that no HTTP client would send. */
  sendRaw(bytes: string): Promise<string>
}

const sse = { 'content-type': 'text/event-stream' }
const json = { 'content-type': 'application/json' }

/** By what a path ends in, and by words in the body. */
function answerOf(body: string, { url = '' }: IncomingMessage): Answer {
  const path = url.split('?')[0] ?? ''
  const isStream = body.includes('"stream":true')
  if (body.includes('[html 503]')) return { status: 503, headers: { 'content-type': 'text/html' }, pieces: ['<p>busy'] }
  if (body.includes('[html]')) return { headers: { 'content-type': 'text/html; charset=utf-8' }, pieces: ['<html>'] }
  if (body.includes('[unwilling]') && body.includes('include_usage'))
    return { status: 400, headers: json, pieces: ['{"error":{"message":"stream_options is not known"}}'] }
  if (body.includes('[cut]'))
    return { headers: sse, pieces: [recorded('openai-chat.sse').subarray(0, 900)], after: 'cut' }
  if (body.includes('[wait]'))
    return { headers: sse, pieces: [recorded('openai-chat.sse').subarray(0, 900)], after: 'wait' }
  if (body.includes('[endless]'))
    return { headers: sse, pieces: Array<string>(4096).fill(`: ${'x'.repeat(65_000)}\n\n`) }
  if (body.includes('[refused]')) return { status: 400, headers: json, pieces: ['{"error":{"message":"too long"}}'] }
  if (path.endsWith('/chat/completions') && isStream) return { headers: sse, pieces: [chatRecording(body)] }
  if (path.endsWith('/responses')) return { headers: sse, pieces: [recorded('openai-responses.sse')] }
  if (path.endsWith('/messages') && isStream) return { headers: sse, pieces: [recorded('anthropic-messages.sse')] }
  if (path.endsWith('/messages')) return { headers: json, pieces: [JSON.stringify(message)] }
  if (path.endsWith(':streamGenerateContent')) return { headers: sse, pieces: [recorded('gemini-generate.sse')] }
  if (path.endsWith('/converse-stream'))
    return { headers: { 'content-type': 'application/vnd.amazon.eventstream' }, pieces: converseEvents }
  return {
    headers: { ...json, 'set-cookie': 'a=b', connection: 'keep-alive, x-hop', 'x-hop': '1' },
    pieces: ['{"data":[]}'],
  }
}

/** Usage is told to those alone who ask for it: in a chunk of its own, and as null in all others. */
function chatRecording(body: string): Buffer {
  if (body.includes('"include_usage":true')) return recorded('openai-chat.sse')
  const events = recorded('openai-chat.sse').toString().replaceAll(',"usage":null', '').split('\n\n')
  return Buffer.from(events.filter((event) => !event.includes('"choices":[]')).join('\n\n'))
}

const message = {
  id: 'm1',
  type: 'message',
  role: 'assistant',
  model: 'claude-sonnet-4-5',
  content: [{ type: 'text', text: 'Hi' }],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: { input_tokens: 9, output_tokens: 2 },
}

const converseEvents = [
  encodeEvent('messageStart', { role: 'assistant' }),
  encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'Hi' } }),
  encodeEvent('messageStop', { stopReason: 'end_turn' }),
  encodeEvent('metadata', { usage: { inputTokens: 7, outputTokens: 3, totalTokens: 10 }, metrics: { latencyMs: 1 } }),
]

/** Speaks TLS, and of all that is asked one message. */
async function startTlsProvider(authority: Authority): Promise<AsyncDisposable & { readonly url: string }> {
  const { certPem, keyPem } = makeCertificate('localhost', authority)
  const server = createTlsServer({ cert: certPem, key: keyPem }, (request, response) => {
    request.resume().on('end', () => response.writeHead(200, json).end(JSON.stringify(message)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `https://localhost:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function startWild() {
  let said = ''
  const server = createServer((socket) => socket.once('data', () => socket.end(said, 'latin1')))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    says: (bytes: string): void => {
      said = bytes
    },
    async [Symbol.asyncDispose]() {
      server.close()
      await once(server, 'close')
    },
  }
}

export async function startWorld(): Promise<World> {
  const stack = new AsyncDisposableStack()
  const told: Told[] = []
  const chat = stack.use(await startStandIn())
  const provider = stack.use(
    await startProvider((body, request) => {
      const closed = new Promise<void>((resolve) => request.socket.once('close', () => resolve()))
      told.push({ url: request.url ?? '', headers: request.headers, body, closed })
      return answerOf(body, request)
    }),
  )
  const authority = makeAuthority('upstreams')
  const trusted = await startTlsProvider(authority)
  stack.use(trusted)
  const wild = stack.use(await startWild())
  const gone = await startProvider({ pieces: [] })
  await gone[Symbol.asyncDispose]()
  const upstreams = {
    chat: { url: chat.url, provider: 'openai', takesUsageOption: true },
    openai: { url: provider.url, provider: 'openai', takesUsageOption: true },
    anthropic: { url: provider.url, provider: 'anthropic' },
    gemini: { url: provider.url, provider: 'gcp.gemini' },
    bedrock: { url: provider.url, provider: 'aws.bedrock' },
    team: { url: `${provider.url}/team/llm/`, provider: 'vllm', sendsTrace: true },
    gone: { url: gone.url, provider: 'openai' },
    wild: { url: wild.url, provider: 'openai' },
    trusted: { url: trusted.url, provider: 'anthropic' },
    untrusted: { url: provider.url.replace('http:', 'https:'), provider: 'anthropic' },
  }
  const failure = { default: { policy: 'closed' }, tenants: { trusting: { policy: 'open' } } }
  const directory = mkdtempSync(join(tmpdir(), 'tallylight-proxied-'))
  stack.defer(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'tallylight.json')
  writeFileSync(path, JSON.stringify({ proxy: { upstreams }, content: { default: 'full' }, quota: { failure } }))
  const authorityPath = join(directory, 'authority.pem')
  writeFileSync(authorityPath, authority.certPem)
  const collector = stack.use(await startCollector({ TALLYLIGHT_CONFIG: path, NODE_EXTRA_CA_CERTS: authorityPath }))
  const api = (): string => `http://127.0.0.1:${collector.ports().api}`

  async function administer(method: string, path: string, body: object): Promise<unknown> {
    const reply = await fetch(`${api()}${path}`, {
      method,
      headers: { authorization: `Bearer ${collector.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    if (reply.status !== 201) throw new Error(`${path} answered ${reply.status}: ${await reply.text()}`)
    return reply.json()
  }

  return {
    collector,
    chat,
    provider,
    told,
    url: (upstream) => `http://127.0.0.1:${collector.ports().proxy}/${upstream}`,
    async keyOf(roles, tenant = 'default', manyTenants = false) {
      const made = (await administer('POST', '/api/v1/keys', { tenant, roles, name: 'proxy', manyTenants })) as {
        readonly key: string
      }
      return made.key
    },
    async limitOf(user, amount, tenant = 'default') {
      const limit = { subject: { user }, measure: 'tokens', amount, window: 'day', action: 'block' }
      await administer('PUT', `/v1/quota/limits/${user}?tenant=${tenant}`, limit)
    },
    async settledAccountOf(user) {
      for (;;) {
        const reply = await fetch(`${api()}/v1/quota/usage?limit=${user}`)
        const { usage } = (await reply.json()) as {
          readonly usage: readonly { readonly held: number; readonly spent: number }[]
        }
        if (usage[0]?.held === 0) return usage[0]
      }
    },
    wildSays: wild.says,
    async sendRaw(bytes) {
      const socket = connect(collector.ports().proxy, '127.0.0.1').setEncoding('latin1')
      await once(socket, 'connect')
      socket.write(bytes)
      return (await Array.fromAsync(socket)).join('')
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}
