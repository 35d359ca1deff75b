// Real servers, over HTTP and MCP, that are well, fail, hang, die and come back; what would be sent is looked at.
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { freePort } from '@tallylight/storage/free-port.ts'
import { afterEach, expect, test, vi } from 'vitest'
import { type ProbeSetting, parseConfigFile } from '../config.ts'
import { openMetrics } from '../metrics.ts'
import { openProbes, type ProbesOptions } from './probes.ts'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

type Answer = (request: IncomingMessage, response: ServerResponse) => void

async function listen(answer: Answer, again?: number): Promise<{ readonly server: Server; readonly port: number }> {
  const port = again ?? (await freePort())
  const server = createServer(answer)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(() => die(server))
  return { server, port }
}

async function die(server: Server): Promise<void> {
  if (!server.listening) return
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
}

type Row = Readonly<Record<string, string | number | boolean>> & { readonly tenant: string; readonly message: string }

/** A prober of this collector, its rows, and all that it said. */
async function probe(wanted: readonly unknown[], environment: ProbesOptions['environment'] = {}) {
  const rows: Row[] = []
  const bodies: string[] = []
  const said: string[] = []
  const metrics = openMetrics()
  const say = (...parts: readonly unknown[]): void => void said.push(JSON.stringify(parts))
  const probes = openProbes({
    // Alone.
    turns: {
      want: (_name, taken) => {
        taken()
        return () => undefined
      },
      run: async () => undefined,
    },
    environment,
    collectorId: 'c1',
    metrics,
    now: Date.now,
    log: { info: say, warn: say, error: say } as unknown as ProbesOptions['log'],
    send: async (tenant, body) => {
      bodies.push(body.toString())
      rows.push(rowOf(tenant, body.toString()))
      return true
    },
  })
  const started = stack.use(probes)
  started.apply(settingsOf(wanted))
  const seen = (count: number): Promise<void> => until(() => expect(rows.length).toBeGreaterThanOrEqual(count))
  return { probes: started, rows, bodies, said, metrics, seen }
}

function settingsOf(probes: readonly unknown[]): readonly ProbeSetting[] {
  const parsed = parseConfigFile(JSON.stringify({ probes }), 'tallylight.json')
  if (parsed.kind === 'refused') throw new Error(parsed.reasons.join('\n'))
  return parsed.file.probes ?? []
}

function rowOf(tenant: string, body: string): Row {
  const [resource] = (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Record<string, unknown>[] }[] }[] })
    .resourceSpans
  const span = resource?.scopeSpans[0]?.spans[0] as {
    attributes: { key: string; value: Record<string, string> }[]
    status: { message?: string }
  }
  const attributes = span.attributes.map(({ key, value }) => [
    key.replace('tallylight.health.', ''),
    Object.values(value)[0],
  ])
  return { ...Object.fromEntries(attributes), tenant, message: span.status.message ?? '' } as Row
}

function until(is: () => void): Promise<void> {
  return vi.waitFor(is, { timeout: 20_000, interval: 5 })
}

const brief = (rows: readonly Row[]) => rows.map((row) => [row.event, row.status])

test('probes: a server that dies, hangs and comes back is seen so, at its start and at the end', async () => {
  let hangs = false
  const answer: Answer = (_request, response) => void (hangs || response.end('ok'))
  const { server, port } = await listen(answer)
  const { probes, rows, seen } = await probe([
    {
      tenant: 'acme',
      target: 'http:search',
      kind: 'http',
      url: `http://127.0.0.1:${port}/`,
      intervalMs: 100,
      timeoutMs: 1_500,
    },
  ])
  await seen(1)
  await die(server)
  await until(() => expect(rows.at(-1)?.status).toBe('unhealthy'))
  hangs = true
  await listen(answer, port)
  await until(() => expect(rows.at(-1)?.status).toBe('timeout'))
  hangs = false
  await until(() => expect(rows.at(-1)?.status).toBe('healthy'))
  await probes[Symbol.asyncDispose]()
  expect(brief(rows)[0]).toEqual(['startup', 'healthy'])
  expect(brief(rows).at(-1)).toEqual(['shutdown', 'healthy'])
  expect(new Set(rows.slice(1, -1).map(({ event }) => event))).toEqual(new Set(['interval']))
  expect(rows.find(({ status }) => status === 'unhealthy')?.message).toBe('fetch failed: ECONNREFUSED')
  expect(
    new Set(rows.map((row) => [row.tenant, row.target, row['tallylight.probe'], row['metadata.collector']].join())),
  ).toEqual(new Set(['acme,http:search,true,c1']))
})

type Mcp = { readonly methods: string[]; readonly url: string; readonly authorization: Set<string> }

async function startMcp(options: { readonly hangsAt?: string; readonly refuses?: boolean } = {}): Promise<Mcp> {
  const methods: string[] = []
  const authorization = new Set<string>()
  const sessions = new Map<string, StreamableHTTPServerTransport>()
  const { port } = await listen(async (request, response) => {
    authorization.add(request.headers.authorization ?? '')
    let body = ''
    for await (const chunk of request) body += String(chunk)
    const message = body === '' ? {} : (JSON.parse(body) as { method?: string })
    const method = message.method ?? request.method ?? ''
    methods.push(method)
    if (method === options.hangsAt) return
    if (options.refuses) return void response.writeHead(500).end(`no: ${request.headers.authorization}`)
    let transport = sessions.get(String(request.headers['mcp-session-id']))
    if (transport === undefined) {
      const opened = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => `s${sessions.size}`,
        onsessioninitialized: (id) => void sessions.set(id, opened),
      })
      transport = opened
      await new McpServer({ name: 'weather', version: '1.2.3' }).connect(
        transport as Parameters<McpServer['connect']>[0],
      )
    }
    await transport.handleRequest(request, response, body === '' ? undefined : message)
  })
  return { methods, authorization, url: `http://127.0.0.1:${port}/mcp` }
}

test('probes: an MCP server is initialized, pinged and left, and nothing else is asked of it', async () => {
  const server = await startMcp()
  const { rows, probes, seen } = await probe([
    { target: 'mcp:weather', kind: 'mcp', url: server.url, intervalMs: 60_000 },
  ])
  await seen(1)
  await until(() => expect(server.methods).toContain('DELETE'))
  await probes[Symbol.asyncDispose]()
  expect(brief(rows)).toEqual([
    ['startup', 'healthy'],
    ['shutdown', 'healthy'],
  ])
  expect(rows[0]).toMatchObject({ 'metadata.server': 'weather', 'metadata.version': '1.2.3', tenant: 'default' })
  // The client listens as well; whether it does before the end is a matter of time.
  const once = ['initialize', 'notifications/initialized', 'ping', 'DELETE']
  expect(server.methods.filter((method) => method !== 'GET')).toEqual([...once, ...once])
})

test.each(['initialize', 'ping'])('probes: an MCP server that hangs at %s is a time-out', async (hangsAt) => {
  const server = await startMcp({ hangsAt })
  const { rows, seen } = await probe([{ target: 'mcp:hung', kind: 'mcp', url: server.url, timeoutMs: 150 }])
  await seen(1)
  expect(brief(rows)).toEqual([['startup', 'timeout']])
})

test.each(['application/json', 'text/event-stream'])(
  'probes: a reply of an MCP server that does not end is given up after a megabyte, and is not waited for: %s',
  async (type) => {
    const piece = Buffer.alloc(65_536, 'x')
    let sentBytes = 0
    const closed = Promise.withResolvers<void>()
    const { port } = await listen((_request, response) => {
      const more = (): void => {
        do sentBytes += piece.length
        while (response.write(piece))
      }
      response.writeHead(200, { 'content-type': type })
      response.on('drain', more).on('close', closed.resolve)
      more()
    })
    const url = `http://127.0.0.1:${port}/`
    const { rows, seen } = await probe([{ target: 'mcp:endless', kind: 'mcp', url, timeoutMs: 20_000 }])
    await seen(1)
    expect(rows[0]).toMatchObject({ status: 'unhealthy', message: 'a reply is longer than 1048576 B' })
    await closed.promise
    // What the sockets and the streams between take is the rest.
    expect(sentBytes).toBeLessThan(32 * 1024 * 1024)
  },
)

test('probes: a refusal of an MCP server is its status and the begin of what it says', async () => {
  const { port } = await listen((request, response) => {
    if (request.url === '/empty') return void response.writeHead(401).end()
    response.writeHead(502).end(`<html>${'x'.repeat(100_000)}`)
  })
  const of = (path: string) => ({ target: path, kind: 'mcp', url: `http://127.0.0.1:${port}/${path}` })
  const { rows, seen } = await probe([of('empty'), of('page')])
  await seen(2)
  const messages = new Map(rows.map(({ target, message }) => [target, message]))
  expect(messages.get('empty')).toBe('401')
  expect(messages.get('page')).toBe(`502: <html>${'x'.repeat(489)}`)
})

test('probes: what a server calls itself is kept to 500 characters', async () => {
  const { port } = await listen(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    if (body === '') return void response.writeHead(405).end()
    const { id, method } = JSON.parse(body) as { readonly id?: number; readonly method: string }
    if (id === undefined) return void response.writeHead(202).end()
    const serverInfo = { name: 'n'.repeat(100_000), version: 'v'.repeat(100_000) }
    const result = method === 'initialize' ? { protocolVersion: '2025-06-18', capabilities: {}, serverInfo } : {}
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result }))
  })
  const { rows, seen } = await probe([{ target: 'mcp:vain', kind: 'mcp', url: `http://127.0.0.1:${port}/` }])
  await seen(1)
  expect(rows[0]).toMatchObject({
    status: 'healthy',
    'metadata.server': 'n'.repeat(500),
    'metadata.version': 'v'.repeat(500),
  })
})

test('probes: a port that speaks something else is not well, and the error says what came of it', async () => {
  const server = createTcpServer((socket) => void socket.on('error', () => undefined).write('SSH-2.0-OpenSSH_9.6\r\n'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(() => void server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const { rows, seen } = await probe([{ target: 'http:ssh', kind: 'http', url }])
  await seen(1)
  expect(rows[0]?.status).toBe('unhealthy')
  expect(rows[0]?.message).toMatch(/^fetch failed: .*HTTP/)
})

const fixture = fileURLToPath(new URL('fixtures/mcp-server.ts', import.meta.url))

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test.each(['polite', 'deaf'])(
  'probes: a command is an MCP server for as long as it is looked at: %s',
  async (manner) => {
    const command = [process.execPath, fixture, manner]
    const { rows, probes, seen } = await probe([{ target: 'mcp:files', kind: 'mcp', command, timeoutMs: 20_000 }])
    await seen(1)
    await probes[Symbol.asyncDispose]()
    expect(brief(rows)).toEqual([
      ['startup', 'healthy'],
      ['shutdown', expect.stringMatching(/healthy|timeout/)],
    ])
    expect(rows[0]).toMatchObject({ 'metadata.server': 'files' })
    const pids = rows.flatMap((row) => row['metadata.version'] ?? []).map(Number)
    await until(() => expect(pids.filter(isAlive)).toEqual([]))
  },
  30_000,
)

test('probes: a command that is not there, or that is no MCP server, is not well', async () => {
  const { rows, seen } = await probe([
    { target: 'mcp:none', kind: 'mcp', command: ['/no/such/program'] },
    { target: 'mcp:cat', kind: 'mcp', command: [process.execPath, '-e', '0'] },
  ])
  await seen(2)
  const byTarget = new Map(rows.map((row) => [row.target, row]))
  expect(byTarget.get('mcp:none')).toMatchObject({ status: 'unhealthy', message: 'spawn /no/such/program ENOENT' })
  expect(byTarget.get('mcp:cat')).toMatchObject({ status: 'unhealthy' })
})

test('probes: values of headers come from files and variables, follow the file, and are said nowhere', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-probes-'))
  stack.defer(() => rm(directory, { recursive: true }))
  const file = join(directory, 'token')
  await writeFile(file, 'Bearer swordfish-one\n')
  const server = await startMcp({ refuses: true })
  const headers = { Authorization: { file }, 'X-Team': { environment: 'TEAM' } }
  const { rows, said, bodies, seen } = await probe(
    [{ target: 'mcp:secret', kind: 'mcp', url: server.url, headers, intervalMs: 100 }],
    { TEAM: 'swordfish-team' },
  )
  await seen(1)
  await writeFile(file, 'Bearer swordfish-two\n')
  await until(() => expect(server.authorization).toEqual(new Set(['Bearer swordfish-one', 'Bearer swordfish-two'])))
  expect(rows[0]?.message).toContain('[masked]')
  expect(JSON.stringify([said, bodies])).not.toContain('swordfish')
})

test('probes: what cannot be looked at for a reason of ours says nothing of the server, and is told once', async () => {
  let requests = 0
  const { port } = await listen((_request, response) => {
    requests++
    response.end()
  })
  const base = { kind: 'http', url: `http://127.0.0.1:${port}/`, intervalMs: 100 }
  const environment: Record<string, string> = { BROKEN: 'swordfish\nX-Other: 1' }
  const { rows, said, metrics } = await probe(
    [
      { ...base, target: 'no file', headers: { A: { file: '/no/such/file' } } },
      { ...base, target: 'no variable', headers: { A: { environment: 'NONE' } } },
      { ...base, target: 'no header', headers: { A: { environment: 'BROKEN' } } },
    ],
    environment,
  )
  const notLooked = () =>
    metrics.read().filter(({ name, labels }) => name === 'tallylight_probes_total' && labels.status === 'not_looked')
  await until(() => expect(notLooked().map((one) => Number(one.value) >= 2)).toEqual([true, true, true]))
  expect([rows, requests]).toEqual([[], 0])
  expect(said).toHaveLength(3)
  expect(said.join()).toContain('the file /no/such/file, which is not there')
  expect(said.join()).not.toContain('swordfish')
})

test('probes: headers do not follow a redirect', async () => {
  const elsewhere = await listen((request, response) => {
    asked.push(request.headers)
    response.end()
  })
  const asked: unknown[] = []
  const { port } = await listen((_request, response) =>
    response.writeHead(302, { location: `http://127.0.0.1:${elsewhere.port}/` }).end(),
  )
  const { rows, seen } = await probe(
    [{ target: 'a', kind: 'http', url: `http://127.0.0.1:${port}/`, headers: { 'X-Key': { environment: 'KEY' } } }],
    { KEY: 'swordfish' },
  )
  await seen(1)
  expect(rows[0]).toMatchObject({ status: 'healthy', 'metadata.status': 302 })
  expect(asked).toEqual([])
})

test('probes: a changed list ends what is gone, begins what is new, and leaves the others alone', async () => {
  const { port } = await listen((_request, response) => void response.end())
  const of = (target: string, more: object = {}) => ({
    target,
    kind: 'http',
    url: `http://127.0.0.1:${port}/`,
    ...more,
  })
  const { probes, rows, seen } = await probe([of('stays'), of('changes'), of('goes')])
  await seen(3)
  probes.apply(settingsOf([of('stays'), of('changes', { intervalMs: 40_000 }), of('comes')]))
  await seen(7)
  const events = (target: string) => rows.filter((row) => row.target === target).map(({ event }) => event)
  expect(events('stays')).toEqual(['startup'])
  expect(events('changes').toSorted()).toEqual(['shutdown', 'startup', 'startup'])
  expect(events('goes')).toEqual(['startup', 'shutdown'])
  expect(events('comes')).toEqual(['startup'])
})

test.each<readonly [what: string, probe: object, reason: RegExp]>([
  ['a password in a URL', { kind: 'http', target: 'a', url: 'http://u:swordfish@h/' }, /no credentials here/],
  ['a value of a header', { kind: 'http', target: 'a', url: 'http://h/', headers: { A: 'swordfish' } }, /headers\.A/],
  ['MCP without a server', { kind: 'mcp', target: 'a' }, /either `url` or `command`/],
  ['MCP with two', { kind: 'mcp', target: 'a', url: 'http://h/', command: ['a'] }, /either `url` or `command`/],
  ['headers for a command', { kind: 'mcp', target: 'a', command: ['a'], headers: {} }, /go with a `url`/],
  ['another kind', { kind: 'model', target: 'a', url: 'http://h/' }, /probes\.0\.kind/],
  ['another protocol', { kind: 'http', target: 'a', url: 'file:///etc/passwd' }, /probes\.0\.url/],
])('probes: the configuration refuses %s, and quotes none of it', (_what, refused, reason) => {
  const parsed = parseConfigFile(JSON.stringify({ probes: [refused] }), 'tallylight.json')
  expect(parsed).toMatchObject({ kind: 'refused', reasons: [expect.stringMatching(reason)] })
  expect(JSON.stringify(parsed)).not.toContain('swordfish')
})
