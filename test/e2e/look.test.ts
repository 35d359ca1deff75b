// What a person sees of a running collector: the page at `/`, `tallylight doctor`, `tail`, and what is written for a Grafana.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansOf, tracesRequest } from '../dashboards/traffic.ts'

const commandLine = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
let collector: CollectorProcess
let directory: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-look-'))
  collector = await startCollector()
}, 60_000)
afterAll(async () => {
  await collector?.[Symbol.asyncDispose]()
  await rm(directory, { recursive: true, force: true })
})

function start(args: readonly string[], environment: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', commandLine, ...args], {
    env: { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

type Ended = { readonly code: number | null; readonly out: string; readonly err: string }

async function run(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = start(args, environment)
  const said = { out: '', err: '' }
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said.out += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said.err += text
  })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, ...said }
}

async function sendTurn(name: string): Promise<void> {
  const call = { provider: 'openai', model: 'gpt-4o-mini', durationMs: 120, tokens: { input: 10, output: 5 } }
  const spans = spansOf({ name, atUnixMs: Date.now(), tenant: 'default', service: 'chat', calls: [call] })
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(tracesRequest(spans)),
  })
  expect([response.status, await response.text()]).toEqual([200, '{}'])
}

test('doctor: of a collector that is well, nothing is wrong: its schemas, its keys, and a turn that is written and read back', async () => {
  const { code, out } = await run(['doctor'])
  expect(out).toMatch(/^good {5}versions: ClickHouse 26\.\d+\..*\ngood {5}clocks: that of ClickHouse/m)
  expect(out).toMatch(/^good {5}versions: Postgres 18\./m)
  expect(out).toContain('good     write and read back: a turn came back from both stores')
  expect(out).toContain('good     tables: all in ClickHouse are as this version makes them')
  expect(out).toContain('good     senders: none was refused since the start')
  expect(out).toContain('good     ledger: all in Postgres is as this version makes it')
  expect([code, out.match(/^wrong/m)]).toEqual([0, null])
})

test('doctor: what is wrong is named with the command that mends it, and the exit code says so', async () => {
  const key = join(collector.directory, 'admin.key')
  const text = await readFile(key, 'utf8')
  await chmod(key, 0o644)
  await writeFile(key, `tl_aaaaaaaa_${'0'.repeat(64)}\n`)
  const { code, out } = await run(['doctor', '--grafana', join(directory, 'nothing')])
  await writeFile(key, text)
  await chmod(key, 0o600)
  expect(code).toBe(1)
  expect(out).toContain(`wrong    data directory: admin.key can be read by others\n           mend: chmod 600 ${key}`)
  expect(out).toContain('wrong    keys: the admin key is answered 401')
  expect(out).toContain(`mend: npm run --silent tallylight -- grafana provision ${join(directory, 'nothing')}`)
})

test('doctor: settings that the collector would refuse are named', async () => {
  const { code, out } = await run(['doctor'], { TALLYLIGHT_API_PROT: '1' })
  expect([code, out]).toEqual([
    1,
    expect.stringContaining('TALLYLIGHT_API_PROT is not known; did you mean TALLYLIGHT_API_PORT?'),
  ])
})

test('doctor: a ClickHouse that hangs is said not to answer, beside everything else that was found', async () => {
  const engine = Number(await readFile(join(collector.directory, 'clickhouse', 'engine.pid'), 'utf8'))
  process.kill(engine, 'SIGSTOP')
  const { code, out, err } = await run(['doctor'])
  process.kill(engine, 'SIGCONT')
  expect([code, err]).toEqual([1, ''])
  expect(out).toMatch(/^wrong {4}ClickHouse: does not answer/m)
  expect(out).toContain('good     keys: the admin key is taken')
  expect(out).toContain('good     ledger: all in Postgres is as this version makes it')
  expect(out).toMatch(/senders: .*\n(?:.*\n)*1 thing is wrong\n$/)
})

test('tail: a turn and its call are shown as they come, once, and so is a refusal', async () => {
  const child = start(['tail'])
  const lines: string[] = []
  const reader = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const seen = new Promise<void>((resolve) => {
    reader.on('line', (line) => {
      lines.push(line)
      if (['turn', 'call', 'refused'].every((word) => lines.some((each) => each.includes(` ${word}`)))) resolve()
    })
  })
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  // It shows what begins after it did, so turns are sent until one is seen.
  const done = new AbortController()
  const sending = (async () => {
    for (let at = 0; !done.signal.aborted; at++) {
      await sendTurn(`tailed ${at}`)
      await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
        method: 'POST',
        body: '{',
        headers: { 'Content-Type': 'application/json' },
      })
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
  })()
  await seen
  done.abort()
  await sending
  child.kill('SIGINT')
  expect(await closed).toBe(0)
  expect(
    lines.filter((line) => /call default chat openai gpt-4o-mini 120 ms 10→5 tokens \$0\.00/.test(line)),
  ).not.toHaveLength(0)
  expect(lines.filter((line) => /refused \d+ × malformed \(traces\)/.test(line))).not.toHaveLength(0)
  const shown = lines.filter((line) => line.includes(' call '))
  expect(new Set(shown).size).toBe(shown.length)
  expect(await run(['doctor'])).toMatchObject({
    code: 0,
    out: expect.stringMatching(
      /^unknown {2}senders: refused since the start: \d+ × malformed \(traces\)\n {11}mend: .* tail/m,
    ),
  })
})

test('tail: behind thousands that came at once the next is shown at once, and no name writes to the terminal', async () => {
  const child = start(['tail'])
  const lines: string[] = []
  const reader = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const seen = async (word: string): Promise<void> => {
    while (!lines.some((line) => line.includes(word))) {
      await sendTools(word, 1)
      await Promise.race([once(reader, 'line'), new Promise((resolve) => setTimeout(resolve, 300))])
    }
  }
  reader.on('line', (line) => lines.push(line))
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  await seen('beginning')
  await sendTools('many\u001b]0;title\u0007\u009b2J\n12:00:00 refused', 5_001)
  await collector.drained()
  await seen('behind')
  child.kill('SIGINT')
  expect(await closed).toBe(0)
  expect(lines.filter((line) => !/^\d\d:\d\d:\d\d (tool|turn) default /.test(line))).toEqual([])
  expect(lines.join('').match(/\p{Cc}/u)).toBe(null)
}, 60_000)

async function sendTools(name: string, count: number): Promise<void> {
  const nowUnixMs = Date.now()
  const spans = Array.from({ length: count }, (_, at) => ({
    traceId: randomBytes(16).toString('hex'),
    spanId: randomBytes(8).toString('hex'),
    name: 'tool',
    startTimeUnixNano: `${nowUnixMs}${String(at).padStart(6, '0')}`,
    endTimeUnixNano: `${nowUnixMs + 1}000000`,
    attributes: [
      { key: 'gen_ai.operation.name', value: { stringValue: 'execute_tool' } },
      { key: 'gen_ai.tool.name', value: { stringValue: name } },
    ],
  }))
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] }),
    headers: { 'Content-Type': 'application/json' },
  })
  expect(response.status).toBe(200)
}

test('grafana: a folder is written once with a key that may only read, and doctor knows when it is old', async () => {
  const folder = join(directory, 'grafana')
  const first = await run(['grafana', 'provision', folder])
  expect([first.code, first.err]).toEqual([0, expect.stringContaining(`GF_PATHS_PROVISIONING=${folder}`)])
  expect(first.out).not.toContain('policies')
  const key = (await readFile(join(folder, 'clickhouse.key'), 'utf8')).trim()
  const sources = JSON.parse(await readFile(join(folder, 'datasources', 'tallylight.yaml'), 'utf8')) as {
    readonly datasources: readonly {
      readonly secureJsonData: { readonly password: string }
      readonly jsonData: { readonly port?: number }
    }[]
  }
  expect(sources.datasources[0]).toMatchObject({
    secureJsonData: { password: key },
    jsonData: { port: collector.ports().clickhouse },
  })
  expect((await stat(join(folder, 'datasources', 'tallylight.yaml'))).mode & 0o077).toBe(0)
  const asked = await fetch(`http://127.0.0.1:${collector.ports().clickhouse}/?database=tallylight`, {
    method: 'POST',
    headers: { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': key },
    body: 'SELECT count() FROM turns',
  })
  expect(asked.status).toBe(200)
  await run(['grafana', 'provision', folder])
  expect((await readFile(join(folder, 'clickhouse.key'), 'utf8')).trim()).toBe(key)
  expect((await run(['doctor', '--grafana', folder])).out).toContain(
    `good     grafana: ${folder} is what this version writes`,
  )
  await writeFile(join(folder, 'boards', 'tallylight-trace.json'), '{}')
  const { code, out } = await run(['doctor', '--grafana', folder])
  expect([code, out]).toEqual([
    1,
    expect.stringContaining('boards/tallylight-trace.json is not what this version writes'),
  ])
})

test('help: every command is told, and an unknown one is answered with them', async () => {
  const { code, out } = await run(['--help'])
  expect(code).toBe(0)
  const source = await readFile(commandLine, 'utf8')
  const commands = [...source.matchAll(/^ {2}'?([a-z]+(?: [a-z]+)?)'?(?::|,$)/gm)].map(([, name]) => name as string)
  expect(commands).toEqual(expect.arrayContaining(['keys create', 'erase', 'hold place', 'reprice']))
  for (const name of ['doctor', 'tail', 'grafana provision', ...commands.filter((each) => each.includes(' '))])
    expect(out, name).toMatch(new RegExp(`tallylight ${name}|erase list \\| show ID`))
  for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(130)
  expect((await run(['doctor', '--help'])).out).toBe(out)
  for (const wrong of [['docter'], ['grafana'], ['grafana', 'provision']]) expect((await run(wrong)).code).toBe(2)
})

test('commands: what is no answer to them is told, and is no success', async () => {
  const answers: Readonly<Record<string, readonly [status: number, body: string]>> = {
    'POST /api/v1/retention/apply': [202, '{"state":"running"}'],
    'GET /api/v1/retention/apply': [200, '{"state":"idle"}'],
    'GET /api/v1/keys': [502, '<html>Bad gateway</html>'],
    'GET /api/v1/tenants': [200, '<html>Welcome</html>'],
  }
  const other = createServer((request, response) => {
    const [status, body] = answers[`${request.method} ${request.url}`] ?? [404, '{}']
    response.writeHead(status).end(body)
  })
  await once(other.listen(0, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
  const asked = (...args: string[]) => run(args, { TALLYLIGHT_URL: url, TALLYLIGHT_KEY: 'key' })
  expect(await asked('retention', 'apply')).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/restarted/) })
  expect(await asked('keys', 'list')).toMatchObject({ code: 1, err: expect.stringMatching(/answered 502: <html>Bad/) })
  expect(await asked('tenants', 'list')).toMatchObject({ code: 1, err: expect.stringMatching(/no collector's API at/) })
  // A variable that was never set.
  expect((await asked('keys', 'rotate', 'abcdefgh', '--grace-seconds', '')).code).toBe(2)
  expect((await asked('constructor')).code).toBe(2)
  other.close()
})

test('commands: of a collector that was killed they say so, and whoever has its port by then is not asked', async () => {
  const own = join(directory, 'killed')
  await mkdir(join(own, 'journal'), { recursive: true })
  const asked: string[] = []
  const stranger = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers.authorization}`)
    response.end('{}')
  }).listen(0, '127.0.0.1')
  await once(stranger, 'listening')
  const { port } = stranger.address() as AddressInfo
  const gone = spawn('true')
  await once(gone, 'exit')
  const ports = { otlpHttp: port, api: port, clickhouse: port, postgres: port }
  await writeFile(join(own, 'run.json'), JSON.stringify({ pid: gone.pid, ports, versions: {} }))
  await writeFile(join(own, 'admin.key'), collector.adminKey)
  for (const args of [['keys', 'list'], ['tail'], ['grafana', 'provision', join(own, 'grafana')]]) {
    const { code, err } = await run(args, { TALLYLIGHT_DATA_DIR: own })
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/no collector runs on .*: process \d+, which had port \d+, is gone/),
    ])
  }
  expect(asked).toEqual([])
  stranger.close()
  const nobody = await run(['keys', 'list'], { TALLYLIGHT_URL: `http://127.0.0.1:${port}`, TALLYLIGHT_KEY: 'tl_x' })
  expect([nobody.code, nobody.err]).toEqual([1, expect.stringContaining(`:${port} does not answer (ECONNREFUSED)`)])
})

test('state: the page’s numbers need no key and have no customer’s data, and the last turns need one', async () => {
  await sendTurn('on the page')
  await collector.drained()
  const api = `http://127.0.0.1:${collector.ports().api}`
  const state = (await (await fetch(`${api}/state.json`)).json()) as {
    readonly totals: { readonly accepted: number }
    readonly missing: readonly string[]
  }
  expect(state.missing).toEqual([])
  expect(state.totals.accepted).toBeGreaterThanOrEqual(2)
  expect(JSON.stringify(state)).not.toContain('on the page')
  const turns = await fetch(`${api}/state/turns`, { headers: { Authorization: `Bearer ${collector.adminKey}` } })
  expect(await turns.text()).toContain('How is on the page?')
  expect((await fetch(`${api}/state/turns`, { headers: { Authorization: 'Bearer tl_x' } })).status).toBe(401)
  // Without a key the loopback rule admits for ingest and quota, not for reading.
  expect((await fetch(`${api}/state/turns`)).status).toBe(403)
})

test('keys: none is made for the tenant that is the collector’s own', async () => {
  const { code, err } = await run(['keys', 'create', '--tenant', 'tallylight', '--roles', 'ingest'])
  expect([code, err]).toEqual([1, expect.stringContaining('the tenant tallylight is the collector')])
})

test('state: a key of one tenant shows the turns of that tenant alone', async () => {
  const api = `http://127.0.0.1:${collector.ports().api}`
  const made = await fetch(`${api}/api/v1/keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ tenant: 'another', roles: ['query'] }),
  })
  const { key } = (await made.json()) as { readonly key: string }
  const turns = await fetch(`${api}/state/turns`, { headers: { Authorization: `Bearer ${key}` } })
  expect([turns.status, await turns.json()]).toEqual([200, { turns: [] }])
})
