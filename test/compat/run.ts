// `npm run test:compat`: the package as it is published, on each Node and with the oldest and newest version of each SDK that it
// claims, all installed into a temporary folder: is every call one span with the tokens that were served? Prints a table; ends with
// 1 when anything is not as claimed. `--only NAME` takes SDKs whose name has it, `--node MAJOR` one Node.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { build } from '@tallylight/instrumentation/build.ts'
import { type ReceivedSpan, startReceiver } from '../packed/receiver.ts'
import { startStandIn } from '../packed/stand-in.ts'
import { type Cell, cells, nodes } from './cells.ts'
import { buildNext, callNext } from './next.ts'

const { values } = parseArgs({ options: { only: { type: 'string' }, node: { type: 'string' } } })
const here = fileURLToPath(new URL('.', import.meta.url))
const packed = join(here, '..', 'packed')

const project = mkdtempSync(join(tmpdir(), 'tallylight-compat-'))
await using stack = new AsyncDisposableStack()
stack.defer(() => rmSync(project, { recursive: true, force: true }))
const standIn = stack.use(await startStandIn())
const receiver = stack.use(await startReceiver())

const tarball = pack()
install(project, [tarball])
const wantedNodes = nodes.filter((version) => values.node === undefined || version.split('.')[0] === values.node)
const nodePaths = new Map(wantedNodes.map((version) => [version, installNode(version)]))
const wantedCells = cells().filter(({ sdk }) => values.only === undefined || sdk.includes(values.only))
const rows: (readonly string[])[] = []
const problems: string[] = []
for (const cell of wantedCells) rows.push(await rowOf(cell))
printTable([
  ['', ...[...nodePaths.values()].map((path) => `Node ${execFileSync(path, ['-v']).toString().trim().slice(1)}`)],
  ...rows,
])
for (const problem of problems) console.log(`\n${problem}`)
process.exitCode = problems.length === 0 ? 0 : 1

function pack(): string {
  const built = join(project, 'built')
  build(built)
  execFileSync('npm', ['pack', built, '--pack-destination', project, '--loglevel=error'], { stdio: 'pipe' })
  const [file] = readdirSync(project).filter((name) => name.endsWith('.tgz'))
  if (file === undefined) throw new Error('npm pack made no file')
  return join(project, file)
}

function install(folder: string, packages: readonly string[]): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, allowScripts: { node: true } }))
  const quiet = ['--no-audit', '--no-fund', '--no-save', '--loglevel=error']
  execFileSync('npm', ['install', ...quiet, ...packages], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] })
}

function installNode(version: string): string {
  const folder = join(project, `node-${version}`)
  install(folder, [`node@${version}`])
  return join(folder, 'node_modules', 'node', 'bin', 'node')
}

/** Below the project, so that the package is found from it. */
async function rowOf(cell: Cell): Promise<readonly string[]> {
  const folder = join(project, `${cell.sdk}-${cell.version}`.replaceAll(/[^\w.-]/g, '-'))
  install(folder, cell.packages)
  for (const name of ['setup.mjs', 'mcp-run.cjs', 'mcp.mjs', 'mcp.cjs']) cpSync(join(packed, name), join(folder, name))
  for (const name of readdirSync(join(here, 'services'))) cpSync(join(here, 'services', name), join(folder, name))
  const [builder] = nodePaths.values()
  if (cell.kind === 'next' && builder !== undefined) buildNext(nodePaths.get('24') ?? builder, folder, standIn.url)
  const results: string[] = []
  for (const [version, node] of nodePaths) {
    const problem = await problemOf(cell, folder, node)
    results.push(problem === '' ? 'yes' : 'NO')
    if (problem !== '') problems.push(`${cell.sdk} ${cell.version} on Node ${version}: ${problem}`)
  }
  return [`${cell.sdk} ${cell.version}`, ...results]
}

/** '' when all is as it has to be. */
async function problemOf(cell: Cell, folder: string, node: string): Promise<string> {
  const environment = {
    PATH: process.env.PATH ?? '',
    OPENAI_BASE_URL: `${standIn.url}/v1`,
    ANTHROPIC_BASE_URL: standIn.url,
    AWS_ENDPOINT_URL_BEDROCK_RUNTIME: standIn.bedrockUrl,
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  }
  receiver.take()
  if (cell.kind === 'next') {
    const got = await callNext(node, folder, environment, receiver.next)
    return got === 'Hi' ? differenceOf([[9, 2]], tokensOf(receiver.take())) : `gave ${got}`
  }
  for (const service of cell.services) {
    // In code, to tell that the stand-in takes OpenAI's option for usage; MCP by the flag alone.
    const flag = cell.kind === 'mcp' ? '@tallylight/instrumentation/register' : './setup.mjs'
    const args = ['--import', flag, service, standIn.url, standIn.bedrockUrl]
    const child = spawn(node, args, { cwd: folder, env: environment })
    const [said, output, [code]] = await Promise.all([text(child.stderr), text(child.stdout), once(child, 'exit')])
    if (code !== 0) return `${service} ended with ${code}: ${said.slice(-600)}`
    const lines = said.split('\n').filter((line) => line.startsWith('tallylight:') && !line.includes('watching'))
    if (lines.length > 0) return `${service} was told: ${lines.join('; ')}`
    const spans = receiver.take()
    const problem =
      cell.kind === 'mcp' ? problemOfMcp(spans, JSON.parse(output)) : differenceOf(JSON.parse(output), tokensOf(spans))
    if (problem !== '') return `${service}: ${problem}`
  }
  return ''
}

function tokensOf(spans: readonly ReceivedSpan[]): unknown {
  return spans
    .filter(({ scope }) => scope === '@tallylight/instrumentation')
    .map(({ attributes }) => [
      attributes['gen_ai.usage.input_tokens'] ?? null,
      attributes['gen_ai.usage.output_tokens'] ?? null,
    ])
}

function differenceOf(served: unknown, told: unknown): string {
  return isDeepStrictEqual(served, told) ? '' : `served ${JSON.stringify(served)}, told ${JSON.stringify(told)}`
}

function problemOfMcp(spans: readonly ReceivedSpan[], given: { readonly traceId?: string }): string {
  const calls = spans.filter(({ name }) => name === 'tools/call ask')
  const called = calls.find(({ spanId }) => calls.some(({ parentSpanId }) => parentSpanId === spanId))
  if (calls.length !== 2 || called === undefined) return `${calls.length} spans of the tool call, which are no pair`
  return given.traceId === called.traceId ? '' : 'the trace did not go with the headers'
}

function printTable(table: readonly (readonly string[])[]): void {
  const widths = (table[0] ?? []).map((_, at) => Math.max(...table.map((row) => row[at]?.length ?? 0)))
  for (const row of table) console.log(`| ${row.map((each, at) => each.padEnd(widths[at] ?? 0)).join(' | ')} |`)
}
