// Planted secrets, by every road into a collector and at every place of a record, are looked for in every file and table.
// Beside each stands a word that must be found, or the search would prove nothing.
import { readdir, readFile } from 'node:fs/promises'
import { connect } from 'node:http2'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { secretExamples } from '@tallylight/collector/masking/testing.ts'
import { expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { loadRequestTypes, type Signal } from '../fuzz/otlp-proto.ts'

const types = loadRequestTypes()
const examples = secretExamples()
const services = { traces: 'trace.v1.Trace', logs: 'logs.v1.Logs', metrics: 'metrics.v1.Metrics' } as const

/** Gives a text with the next secret in it, and a word of its own beside it. */
function openPlanter() {
  let planted = 0
  return {
    plant: (): string => `witness${planted}end ${examples[planted++ % examples.length]?.text} `,
    planted: () => planted,
  }
}

const secrets = examples.map(({ secret }) => secret)
const wordsIn = (text: string): readonly string[] => text.match(/witness\d+end/g) ?? []

const id = (bytes: number, isHex: boolean): string => {
  const value = Buffer.alloc(bytes, 0xab)
  return value.toString(isHex ? 'hex' : 'base64')
}

/** One of everything that holds a string, as OTLP/JSON. `aheadDays` sets a record aside in the quarantine. */
function requestOf(signal: Signal, plant: () => string, isHex: boolean, aheadDays = 0): object {
  const nano = String(BigInt(Date.now() + aheadDays * 86_400_000) * 1_000_000n)
  const value = () => ({ stringValue: plant() })
  const attributes = () => [
    { key: 'text', value: value() },
    { key: plant(), value: { intValue: 1 } },
    { key: 'list', value: { arrayValue: { values: [value(), value()] } } },
    { key: 'map', value: { kvlistValue: { values: [{ key: plant(), value: value() }] } } },
  ]
  const resource = () => ({ attributes: [{ key: 'service.name', value: value() }, ...attributes()] })
  const scope = () => ({ name: plant(), version: plant(), attributes: attributes() })
  const ids = () => ({ traceId: id(16, isHex), spanId: id(8, isHex) })
  const exemplars = () => [{ timeUnixNano: nano, asDouble: 1, filteredAttributes: attributes(), ...ids() }]
  const point = () => ({ timeUnixNano: nano, attributes: attributes(), exemplars: exemplars() })
  const span = () => ({
    ...ids(),
    name: plant(),
    traceState: plant(),
    startTimeUnixNano: nano,
    endTimeUnixNano: nano,
    attributes: attributes(),
    events: [{ timeUnixNano: nano, name: plant(), attributes: attributes() }],
    links: [{ ...ids(), traceState: plant(), attributes: attributes() }],
    status: { code: 2, message: plant() },
  })
  const log = () => ({
    timeUnixNano: nano,
    severityText: plant(),
    eventName: plant(),
    body: { kvlistValue: { values: [{ key: plant(), value: value() }] } },
    attributes: attributes(),
    ...ids(),
  })
  const described = () => ({ name: plant(), description: plant(), unit: plant() })
  const around = () => ({ resource: resource(), schemaUrl: plant() })
  const inScope = () => ({ scope: scope(), schemaUrl: plant() })
  switch (signal) {
    case 'traces':
      return { resourceSpans: [{ ...around(), scopeSpans: [{ ...inScope(), spans: [span()] }] }] }
    case 'logs':
      return { resourceLogs: [{ ...around(), scopeLogs: [{ ...inScope(), logRecords: [log()] }] }] }
    case 'metrics': {
      const metrics = [
        { ...described(), gauge: { dataPoints: [{ ...point(), asDouble: 1 }] } },
        { ...described(), sum: { dataPoints: [{ ...point(), asInt: '1' }] } },
        { ...described(), histogram: { dataPoints: [{ ...point(), count: '1' }] } },
        { ...described(), exponentialHistogram: { dataPoints: [{ ...point(), count: '1' }] } },
        { ...described(), summary: { dataPoints: [{ timeUnixNano: nano, attributes: attributes() }] } },
      ]
      return { resourceMetrics: [{ ...around(), scopeMetrics: [{ ...inScope(), metrics }] }] }
    }
    default:
      return signal satisfies never
  }
}

const signals = ['traces', 'logs', 'metrics'] as const

async function post(collector: CollectorProcess, signal: Signal, body: Buffer, headers: Record<string, string>) {
  const url = `http://127.0.0.1:${collector.ports().otlpHttp}/v1/${signal}`
  const response = await fetch(url, { method: 'POST', body: new Uint8Array(body), headers })
  expect([response.status, await response.text()]).toEqual([200, expect.not.stringContaining('partialSuccess')])
}

async function call(collector: CollectorProcess, signal: Signal, message: Buffer): Promise<void> {
  const session = connect(`http://127.0.0.1:${collector.ports().otlpGrpc}`)
  const path = `/opentelemetry.proto.collector.${services[signal]}Service/Export`
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  const head = Buffer.alloc(5)
  head.writeUInt32BE(message.length, 1)
  const status = await new Promise((resolve, reject) => {
    stream.on('trailers', (trailers) => resolve(trailers['grpc-status']))
    stream.on('error', reject)
    stream.resume()
    stream.end(Buffer.concat([head, message]))
  })
  session.close()
  expect(status).toBe('0')
}

async function filesIn(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

/** The engines end after their collector, and take some files with them. */
async function readIfThere(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
}

test('masking: a planted secret is in no file and no table, by whatever road it came', async () => {
  await using collector = await startCollector()
  const { plant, planted } = openPlanter()
  const wire = (signal: Signal, request: object): Buffer =>
    Buffer.from(types[signal].encode(types[signal].fromObject(request)).finish())
  for (const signal of signals) {
    const proto = { 'Content-Type': 'application/x-protobuf' }
    await post(collector, signal, wire(signal, requestOf(signal, plant, false)), proto)
    await post(collector, signal, wire(signal, requestOf(signal, plant, false, 3)), proto)
    const json = JSON.stringify(requestOf(signal, plant, true))
    // Every sign of a string may be spelled as an escape, and what has a length is only known afterwards.
    const escaped = json.replace(/-/g, '\\u002d')
    await post(collector, signal, gzipSync(escaped), { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip' })
    await call(collector, signal, wire(signal, requestOf(signal, plant, false)))
  }
  expect(planted()).toBeGreaterThan(examples.length * 3)

  // As the journal has it, before any of it may have been stored and removed.
  await collector.kill('SIGKILL')
  const search = async (): Promise<{ readonly leaked: readonly string[]; readonly seen: ReadonlySet<string> }> => {
    const leaked: string[] = []
    const seen = new Set<string>()
    for (const path of await filesIn(collector.directory)) {
      const bytes = await readIfThere(path)
      for (const secret of secrets) if (bytes.includes(secret)) leaked.push(`${secret} in ${path}`)
      for (const word of wordsIn(bytes.toString('latin1'))) seen.add(word)
    }
    return { leaked, seen }
  }
  const killed = await search()
  expect(killed.leaked).toEqual([])

  await collector.start()
  await collector.drained()
  const tables = await collector.query<{ name: string }>(
    "SELECT name FROM system.tables WHERE database = 'tallylight' ORDER BY name",
  )
  let stored = ''
  for (const { name } of tables) stored += JSON.stringify(await collector.query(`SELECT * FROM tallylight.${name}`))
  for (const secret of secrets) expect(stored).not.toContain(secret)
  expect((await search()).leaked).toEqual([])
  for (const secret of secrets) expect(collector.log()).not.toContain(secret)

  // What stands beside them was in the journal and is in the tables, save what no column holds.
  expect(killed.seen.size).toBeGreaterThan(planted() * 0.9)
  expect(new Set(wordsIn(stored)).size).toBeGreaterThan(planted() * 0.9)
  expect(await collector.query("SELECT count() AS n FROM tallylight.quarantine WHERE Reason = 'future_time'")).toEqual([
    { n: 7 },
  ])
}, 120_000)

test('masking: what was masked is counted by kind, and a request that is sent again is not masked twice', async () => {
  await using collector = await startCollector()
  const slack = examples.find(({ kind }) => kind === 'slack')?.text ?? ''
  const request = { resourceLogs: [{ scopeLogs: [{ logRecords: [{ body: { stringValue: `${slack} ${slack}` } }] }] }] }
  const body = Buffer.from(JSON.stringify(request))
  for (let time = 0; time < 2; time++) await post(collector, 'logs', body, { 'Content-Type': 'application/json' })
  expect(await collector.metric('tallylight_masked_total', { kind: 'slack' })).toBe(2)
  expect(await collector.metric('tallylight_masked_total')).toBe(2)
  await collector.drained()
  const gone = '[masked:slack]'.padEnd(slack.length, '*')
  expect(await collector.query('SELECT Body FROM tallylight.otel_logs')).toEqual([{ Body: `${gone} ${gone}` }])
})
