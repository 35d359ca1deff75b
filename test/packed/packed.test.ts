// The package as it is published: built, packed, unpacked into a project of its own, typed for both kinds of modules, and run
// with the SDKs that users have, each over real HTTP.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { build } from '@tallylight/instrumentation/build.ts'
import { build as bundle } from 'esbuild'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ReceivedSpan, type Receiver, startReceiver } from './receiver.ts'
import { type StandIn, startStandIn } from './stand-in.ts'

const here = fileURLToPath(new URL('.', import.meta.url))
const root = join(here, '..', '..')
const stack = new AsyncDisposableStack()
let project = ''
let standIn: StandIn
let receiver: Receiver
let spans: readonly ReceivedSpan[] = []

beforeAll(async () => {
  project = mkdtempSync(join(tmpdir(), 'tallylight-packed-'))
  stack.defer(() => rmSync(project, { recursive: true, force: true }))
  install()
  standIn = stack.use(await startStandIn())
  receiver = stack.use(await startReceiver())
}, 120_000)
afterAll(() => stack.disposeAsync())

/** The tarball in place of the workspace, everything else from the workspace's own modules. */
function install(): void {
  const built = join(project, 'built')
  build(built)
  const modules = join(project, 'node_modules')
  mkdirSync(join(modules, '@tallylight'), { recursive: true })
  for (const name of readdirSync(join(root, 'node_modules')))
    if (name !== '@tallylight' && !name.startsWith('.'))
      symlinkSync(join(root, 'node_modules', name), join(modules, name))
  execFileSync('npm', ['pack', built, '--pack-destination', project, '--loglevel=error'], { stdio: 'pipe' })
  const [file] = readdirSync(project).filter((name) => name.endsWith('.tgz'))
  if (file === undefined) throw new Error('npm pack made no file')
  execFileSync('tar', ['-xzf', join(project, file), '-C', project])
  cpSync(join(project, 'package'), join(modules, '@tallylight', 'instrumentation'), { recursive: true })
  for (const name of readdirSync(here).filter((name) => /\.[cm]js$/.test(name)))
    cpSync(join(here, name), join(project, name))
}

const bundling = { bundle: true, platform: 'node', minify: true, logLevel: 'error' } as const
/** Packages in CommonJS ask for `require`, which a module has not. */
const requireInModules = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"

type Ran = { readonly given: unknown; readonly said: readonly string[] }

async function run(args: readonly string[]): Promise<Ran> {
  const child = spawn(process.execPath, [...args, standIn.url, standIn.bedrockUrl], {
    cwd: project,
    env: {
      PATH: process.env.PATH ?? '',
      OPENAI_BASE_URL: `${standIn.url}/v1`,
      ANTHROPIC_BASE_URL: standIn.url,
      AWS_ENDPOINT_URL_BEDROCK_RUNTIME: standIn.bedrockUrl,
      OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    },
  })
  const [said, output, [code]] = await Promise.all([text(child.stderr), text(child.stdout), once(child, 'exit')])
  expect(code, said).toBe(0)
  spans = receiver.take()
  return { given: JSON.parse(output), said: said.split('\n').filter((line) => line.startsWith('tallylight:')) }
}

const streamed = [1200, 300]
const whole = [9, 2]

test('packed: every SDK gets what its provider sent, and every call is one span with the tokens that were served', async () => {
  const { given, said } = await run(['--import', './setup.mjs', 'service.mjs'])
  expect(said).toEqual([])
  expect(given).toEqual({
    'openai chat': 'Hi',
    'openai chat, streamed': [8, false],
    'openai chat, left': 'chat.completion.chunk',
    'openai responses': 'Hi',
    'openai responses, streamed': 13,
    'openai embeddings': [1, 2],
    anthropic: 'Hi',
    'anthropic, streamed': 50,
    gemini: 'Hi',
    'gemini, streamed': 4,
    ai: 'Hi',
    'ai, streamed': 'Grüße aus 東京 🗼',
    langchain: 'Hi',
    'langchain, streamed': 'Grüße aus 東京 🗼',
    bedrock: 'Hi',
    'bedrock, streamed': 4,
  })
  const ours = spans.filter(({ scope }) => scope === '@tallylight/instrumentation')
  const tokens = ours.map(({ name, attributes }) => [
    name,
    attributes['gen_ai.usage.input_tokens'],
    attributes['gen_ai.usage.output_tokens'],
  ])
  expect(tokens).toEqual([
    ['chat gpt-4o', ...whole],
    ['chat gpt-4o', ...streamed],
    ['chat gpt-4o', expect.anything(), expect.anything()],
    ['chat gpt-4o', ...whole],
    ['chat gpt-4o', ...streamed],
    ['embeddings text-embedding-3-small', 9, undefined],
    ['chat claude-sonnet-4-5', ...whole],
    ['chat claude-sonnet-4-5', 2400, 50],
    ['generate_content gemini-2.5-flash', ...whole],
    ['generate_content gemini-2.5-flash', ...streamed],
    ['chat gpt-4o', ...whole],
    ['chat gpt-4o', ...streamed],
    ['chat gpt-4o', ...whole],
    ['chat gpt-4o', ...streamed],
    ['chat amazon.nova-lite-v1:0', ...whole],
    ['chat amazon.nova-lite-v1:0', ...whole],
  ])
  // Anthropic's SDK has spans of its own as soon as there is a provider: one around each of ours, so that both are one call.
  const anthropics = spans.filter(({ scope }) => scope.startsWith('com.anthropic'))
  expect(anthropics).toHaveLength(2)
  for (const { spanId } of anthropics)
    expect(ours.filter(({ parentSpanId }) => parentSpanId === spanId)).toHaveLength(1)
})

test('packed: a CommonJS service, registered by either way, shares one instrumentation with it', async () => {
  for (const flag of ['--import', '--require']) {
    const { given, said } = await run([flag, '@tallylight/instrumentation/register', 'service.cjs'])
    expect(said).toEqual([expect.stringMatching(/^tallylight: watching fetch, undici, node:http, http2 and WebSocket/)])
    const { version } = JSON.parse(readFileSync(join(project, 'package', 'package.json'), 'utf8'))
    expect(given).toEqual({ given: ['Hi', 'Hi'], version, failures: 0 })
    const calls = spans.filter(({ scope, name }) => scope === '@tallylight/instrumentation' && name.startsWith('chat'))
    expect(calls.map(({ attributes }) => attributes['gen_ai.conversation.id'])).toEqual(['c1', 'c1'])
    expect(spans.filter(({ name }) => name === 'turn')).toHaveLength(1)
  }
})

test('packed: MCP clients and servers are watched by the flag alone, imported and required', async () => {
  for (const program of ['mcp.mjs', 'mcp.cjs']) {
    const { given } = await run(['--import', '@tallylight/instrumentation/register', program])
    const calls = spans.filter(({ name }) => name === 'tools/call ask')
    expect(calls.map(({ attributes }) => attributes['network.transport'])).toEqual(['tcp', 'tcp'])
    const [served, called] = calls
    expect(served?.parentSpanId).toBe(called?.spanId)
    expect(given).toEqual({ text: '3', traceId: called?.traceId })
  }
})

test('packed: a tool that an SDK’s own loop runs is one span, whether or not it tells of itself', async () => {
  const { given } = await run(['--import', '@tallylight/instrumentation/register', 'tools.mjs'])
  expect(given).toEqual(['Hi', 'Hi'])
  for (const [conversation, seenOn] of [
    ['runner', undefined],
    ['vercel', 'wire'],
  ] as const) {
    const inTurn = spans.filter(({ attributes }) => attributes['gen_ai.conversation.id'] === conversation)
    const names = inTurn.map(({ name }) => name)
    expect(names.toSorted()).toEqual(['chat gpt-4o', 'chat gpt-4o', 'execute_tool get_weather', 'turn'])
    const tool = inTurn.find(({ name }) => name.startsWith('execute_tool'))
    expect(tool?.attributes['tallylight.tool.seen_on']).toBe(seenOn)
    const opened = inTurn.find(({ name }) => name === 'turn')
    expect(opened?.attributes).toMatchObject({
      'tallylight.turn.calls': expect.toSatisfy((calls) => Number(calls) === 2),
    })
    expect(JSON.stringify(opened?.attributes['tallylight.turn.tools'])).toContain('get_weather')
  }
})

test('packed: in an esbuild bundle, of the service or of the package too, a call is one span', async () => {
  for (const format of ['esm', 'cjs'] as const) {
    const extension = format === 'esm' ? 'mjs' : 'cjs'
    // Into CommonJS by `require`: what `import` finds of OpenTelemetry's gRPC exporters asks for `import.meta.url`.
    const register = '@tallylight/instrumentation/register'
    const whole = `${format === 'esm' ? `import '${register}'` : `require('${register}')`}\nimport('./one-call.mjs')\n`
    writeFileSync(join(project, `whole.${extension}`), whole)
    const bundled = async (entry: string): Promise<string> => {
      const outfile = join(project, 'bundled', `${entry}.${extension}`)
      const banner = format === 'esm' ? { js: requireInModules } : {}
      await bundle({ ...bundling, format, banner, entryPoints: [join(project, entry)], outfile })
      return outfile
    }
    const flag = ['--import', register]
    const alone = await bundled('one-call.mjs')
    const both = await bundled(`whole.${extension}`)
    for (const args of [[...flag, alone], [both], [...flag, both]]) {
      const { given, said } = await run(args)
      expect(given).toBe('Hi')
      expect(said).toHaveLength(1)
      expect(spans.map(({ name, attributes }) => [name, attributes['gen_ai.usage.input_tokens']])).toEqual([
        ['chat gpt-4o', 9],
      ])
    }
  }
})

test('packed: is typed for ES modules and CommonJS, and holds nothing but JavaScript and types', () => {
  const consumer = readFileSync(join(here, 'consumer.ts.txt'), 'utf8')
  for (const name of ['consumer.mts', 'consumer.cts']) writeFileSync(join(project, name), consumer)
  const strict = ['--strict', '--exactOptionalPropertyTypes']
  const options = ['--noEmit', ...strict, '--module', 'nodenext', '--target', 'es2023', '--types', 'node']
  execFileSync(
    process.execPath,
    [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), ...options, 'consumer.mts', 'consumer.cts'],
    { cwd: project, stdio: 'pipe' },
  )
  const files = readdirSync(join(project, 'package'), { recursive: true, withFileTypes: true })
  const others = files.filter((file) => file.isFile() && !/\.(d\.ts|js|json|md)$|^LICENSE$/.test(file.name))
  expect(others.map(({ name }) => name)).toEqual([])
})
