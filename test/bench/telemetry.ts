// Records as services really send them, made from a seed: a fleet with its services, instances, routes, users and prompts.
// They are plain objects in the shape of OTLP; corpora.ts encodes them.
import type { Random } from '../random.ts'

export type AttributeValue =
  | { readonly stringValue: string }
  | { readonly intValue: number }
  | { readonly doubleValue: number }
  | { readonly boolValue: boolean }
  | { readonly arrayValue: { readonly values: readonly AttributeValue[] } }
export type Attribute = { readonly key: string; readonly value: AttributeValue }
/** OTLP as objects: ids are Buffers, 64-bit integers are decimal strings, the rest is as in OTLP/JSON. */
export type Otlp = {
  readonly [name: string]: Otlp | readonly Otlp[] | Buffer | string | number | boolean | readonly (string | number)[]
}

const text = (key: string, value: string): Attribute => ({ key, value: { stringValue: value } })
const int = (key: string, value: number): Attribute => ({ key, value: { intValue: value } })

export type Fleet = {
  readonly resource: () => Otlp
  readonly webSpan: () => Otlp
  readonly llmSpan: () => Otlp
  readonly logRecord: (bodyBytes: number) => Otlp
  readonly metric: (index: number, points: number) => Otlp
}

export function openFleet(random: Random, nowUnixNano: bigint): Fleet {
  const words = makeWords(random, 4_000)
  const hosts = Array.from({ length: 40 }, () => `ip-10-${random.below(64)}-${random.below(256)}-${random.below(256)}`)
  const routes = makeRoutes(random, words)
  const clients = Array.from({ length: 3_000 }, () => makeAddress(random))
  const systemPrompts = Array.from({ length: 12 }, () => writeText(random, words, 420))
  let trace = { id: random.bytes(16), spans: 0, parents: [random.bytes(8)], startNano: nowUnixNano }

  /** Traces of one to some twenty spans, which reach a collector mixed: a batch holds parts of many. */
  function nextInTrace(): { traceId: Buffer; parent: Buffer | undefined; spanId: Buffer; startNano: bigint } {
    const spanId = random.bytes(8)
    if (trace.spans > 0 && random.chance(0.88)) {
      trace.spans += 1
      const parent = random.pick(trace.parents)
      trace.parents.push(spanId)
      trace.startNano += BigInt(random.below(4_000_000))
      return { traceId: trace.id, parent, spanId, startNano: trace.startNano }
    }
    const startNano = nowUnixNano - BigInt(random.below(20_000_000)) * 1_000n - BigInt(random.below(1_000))
    trace = { id: random.bytes(16), spans: 1, parents: [spanId], startNano }
    return { traceId: trace.id, parent: undefined, spanId, startNano }
  }

  function span(
    name: string,
    kind: number,
    durationNano: number,
    attributes: readonly Attribute[],
    isError: boolean,
  ): Otlp {
    const place = nextInTrace()
    return {
      traceId: place.traceId,
      spanId: place.spanId,
      ...(place.parent ? { parentSpanId: place.parent } : {}),
      name,
      kind,
      startTimeUnixNano: String(place.startNano),
      endTimeUnixNano: String(place.startNano + BigInt(durationNano)),
      attributes,
      droppedAttributesCount: 0,
      events: [],
      droppedEventsCount: 0,
      status: isError ? { code: 2, message: 'upstream request timeout' } : { code: 0 },
      links: [],
      droppedLinksCount: 0,
      flags: 257,
    }
  }

  return {
    resource: () => {
      const service = random.pick(services)
      return {
        attributes: [
          text('service.name', service),
          text('service.version', `2.${random.below(4)}.${random.below(20)}`),
          text('service.instance.id', uuid(random)),
          text('deployment.environment.name', random.chance(0.9) ? 'production' : 'staging'),
          text('host.name', random.pick(hosts)),
          text('k8s.pod.name', `${service}-${random.bytes(5).toString('hex')}-${random.bytes(3).toString('hex')}`),
          text('telemetry.sdk.language', random.pick(['nodejs', 'java', 'go', 'python'])),
          text('telemetry.sdk.version', '2.1.0'),
        ],
        droppedAttributesCount: 0,
      }
    },

    webSpan: () => {
      const route = random.pick(routes)
      const status = random.chance(0.94) ? 200 : random.pick([201, 204, 301, 400, 404, 429, 500, 503])
      const method = random.pick(['GET', 'GET', 'GET', 'POST', 'PUT', 'DELETE'])
      const isServer = random.chance(0.6)
      const attributes = [
        text('http.request.method', method),
        text(
          'url.path',
          route.replaceAll(/\{[^}]*\}/g, () => random.bytes(random.between(3, 8)).toString('hex')),
        ),
        text('http.route', route),
        text('url.scheme', 'https'),
        text('server.address', `${random.pick(services)}.internal`),
        int('server.port', random.pick([443, 8080, 8443])),
        text('client.address', random.pick(clients)),
        int('http.response.status_code', status),
        int('http.response.body.size', Math.floor(logNormal(random, 7, 1.6))),
        text('network.protocol.version', random.chance(0.7) ? '1.1' : '2'),
      ]
      const durationNano = Math.floor(logNormal(random, 15.5, 1.4))
      return span(`${method} ${route}`, isServer ? 2 : 3, durationNano, attributes, status >= 500)
    },

    llmSpan: () => {
      const model = random.pick(['gpt-5-mini', 'gpt-5', 'claude-sonnet-4-5', 'gemini-2.5-flash'])
      const turns = [{ role: 'system', parts: [{ type: 'text', content: random.pick(systemPrompts) }] }]
      const question = writeText(random, words, Math.floor(Math.min(6_000, logNormal(random, 6.965, 0.55))))
      const answer = writeText(random, words, Math.floor(Math.min(6_000, logNormal(random, 6.815, 0.55))))
      turns.push({ role: 'user', parts: [{ type: 'text', content: question }] })
      const output = [{ role: 'assistant', parts: [{ type: 'text', content: answer }], finish_reason: 'stop' }]
      const attributes = [
        text('gen_ai.operation.name', 'chat'),
        text(
          'gen_ai.provider.name',
          model.startsWith('gpt') ? 'openai' : model.startsWith('cl') ? 'anthropic' : 'gcp.gemini',
        ),
        text('gen_ai.request.model', model),
        text('gen_ai.response.model', `${model}-2026-04-14`),
        text('gen_ai.response.id', `chatcmpl-${random.bytes(15).toString('base64url')}`),
        { key: 'gen_ai.request.temperature', value: { doubleValue: random.below(11) / 10 } },
        { key: 'gen_ai.response.finish_reasons', value: { arrayValue: { values: [{ stringValue: 'stop' }] } } },
        int('gen_ai.usage.input_tokens', Math.floor((420 + question.length) / 4.1)),
        int('gen_ai.usage.output_tokens', Math.floor(answer.length / 4.1)),
        text('gen_ai.conversation.id', uuid(random)),
        text('gen_ai.input.messages', JSON.stringify(turns)),
        text('gen_ai.output.messages', JSON.stringify(output)),
      ]
      return span(`chat ${model}`, 3, Math.floor(logNormal(random, 21.5, 0.8)), attributes, false)
    },

    logRecord: (bodyBytes) => {
      const place = nextInTrace()
      const level = random.pick(levels)
      return {
        timeUnixNano: String(place.startNano),
        observedTimeUnixNano: String(place.startNano + BigInt(random.below(2_000_000))),
        severityNumber: level[0],
        severityText: level[1],
        body: { stringValue: writeLogLine(random, words, routes, bodyBytes) },
        attributes: [
          text('log.logger', `${random.pick(services)}.${random.pick(['http', 'db', 'cache', 'auth', 'queue'])}`),
          text('thread.name', `worker-${random.below(32)}`),
          int('user.id', random.below(200_000)),
        ],
        droppedAttributesCount: 0,
        flags: 1,
        traceId: place.traceId,
        spanId: place.spanId,
      }
    },

    metric: (index, points) => makeMetric(random, nowUnixNano, index, points, routes),
  }
}

const services = [
  'checkout',
  'cart',
  'catalog',
  'payments',
  'shipping',
  'accounts',
  'search',
  'gateway',
  'chat',
  'ledger',
  'mailer',
  'media',
]
const levels = [
  [9, 'INFO'],
  [9, 'INFO'],
  [9, 'INFO'],
  [5, 'DEBUG'],
  [13, 'WARN'],
  [17, 'ERROR'],
] as const

const syllables =
  'an ar be ca co con de di do e en er es ex fi for gen i in is it la le li lo ma me men mo na ne no o of on or pa per po pre pro ra re ri ro sa se si so sta ta te ter ti tion to tra tri u un ve vi za'.split(
    ' ',
  )

/** Words by rank: short ones first, as in any language; common endings make them compress as words do. */
function makeWords(random: Random, count: number): string[] {
  const words = new Set([
    'the',
    'of',
    'to',
    'and',
    'a',
    'in',
    'is',
    'that',
    'for',
    'it',
    'with',
    'as',
    'was',
    'on',
    'be',
    'by',
  ])
  while (words.size < count) {
    const length = 1 + Math.min(4, Math.floor(Math.log2(words.size) / 4) + random.below(3))
    words.add(Array.from({ length }, () => random.pick(syllables)).join(''))
  }
  return [...words]
}

/** Text with the word frequencies of natural language (Zipf's law), in sentences and paragraphs. */
function writeText(random: Random, words: readonly string[], bytes: number): string {
  let out = ''
  let left = 0
  while (out.length < bytes) {
    const word = words[Math.floor(words.length ** (random.bits() / 2 ** 32)) - 1] ?? 'the'
    const isFirst = left === 0
    if (isFirst) left = random.between(5, 22)
    out += isFirst ? word.charAt(0).toUpperCase() + word.slice(1) : word
    left -= 1
    if (left === 0) out += random.chance(0.12) ? '.\n\n' : random.chance(0.1) ? '? ' : '. '
    else out += random.chance(0.08) ? ', ' : random.chance(0.01) ? ` "${random.pick(words)}" ` : ' '
  }
  return out.slice(0, bytes)
}

function writeLogLine(random: Random, words: readonly string[], routes: readonly string[], bytes: number): string {
  const route = random.pick(routes)
  const head = random.pick([
    `request completed route=${route} status=${random.pick([200, 200, 204, 404, 500])} duration_ms=${random.below(3_000)}`,
    `cache miss key=user:${random.below(200_000)}:${random.pick(words)} backend=redis-${random.below(6)} latency_us=${random.below(9_000)}`,
    `retrying call to ${random.pick(services)} attempt=${random.between(1, 5)} cause="connection reset by peer" backoff_ms=${random.below(5_000)}`,
    `job ${uuid(random)} finished in ${random.below(60_000)} ms, ${random.below(500)} rows written`,
  ])
  return `${head} ${writeText(random, words, Math.max(0, bytes - head.length - 1))}`.trim()
}

function makeRoutes(random: Random, words: readonly string[]): string[] {
  const nouns = words.filter((word) => word.length > 3).slice(0, 60)
  return Array.from({ length: 120 }, () => {
    const parts = ['api', random.pick(['v1', 'v2']), random.pick(nouns)]
    if (random.chance(0.8)) parts.push('{id}')
    if (random.chance(0.4)) parts.push(random.pick(nouns))
    return `/${parts.join('/')}`
  })
}

const metricNames = [
  'process.cpu.utilization',
  'http.server.requests',
  'http.server.request.duration',
  'rpc.server.duration',
  'jvm.gc.pause',
]

/** The five kinds in turn: gauge, sum, histogram, exponential histogram, summary. */
function makeMetric(
  random: Random,
  nowUnixNano: bigint,
  index: number,
  points: number,
  routes: readonly string[],
): Otlp {
  const kind = index % 5
  const attributes = () => [
    text('http.route', random.pick(routes)),
    text('http.request.method', random.pick(['GET', 'POST', 'PUT'])),
    int('http.response.status_code', random.pick([200, 200, 200, 404, 500])),
  ]
  const times = () => ({
    startTimeUnixNano: String(nowUnixNano - 3_600_000_000_000n),
    timeUnixNano: String(nowUnixNano - BigInt(random.below(10_000)) * 1_000_000n),
  })
  const list = (make: () => Otlp) =>
    Array.from({ length: points }, () => ({ attributes: attributes(), ...times(), ...make() }))
  const head = {
    name: `${metricNames[kind]}.${random.below(20)}`,
    description: 'Made for the benchmark.',
    unit: kind < 2 ? '1' : 's',
  }
  const counts = (length: number) => Array.from({ length }, () => String(Math.floor(logNormal(random, 3, 1.5))))
  const total = () => String(random.below(100_000))
  switch (kind) {
    case 0:
      return { ...head, gauge: { dataPoints: list(() => ({ asDouble: random.bits() / 2 ** 32 })) } }
    case 1: {
      const dataPoints = list(() => ({ asInt: total() }))
      return { ...head, sum: { dataPoints, aggregationTemporality: 2, isMonotonic: true } }
    }
    case 2: {
      const explicitBounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
      const point = () => ({
        count: total(),
        sum: logNormal(random, 4, 1),
        bucketCounts: counts(15),
        explicitBounds,
        min: 0.001,
        max: 12.5,
      })
      return { ...head, histogram: { dataPoints: list(point), aggregationTemporality: 2 } }
    }
    case 3: {
      const point = () => ({
        count: total(),
        sum: logNormal(random, 4, 1),
        scale: random.between(-2, 6),
        zeroCount: '0',
        positive: { offset: random.between(-40, 40), bucketCounts: counts(20) },
      })
      return { ...head, exponentialHistogram: { dataPoints: list(point), aggregationTemporality: 2 } }
    }
    default: {
      const quantile = (q: number) => ({ quantile: q, value: logNormal(random, 0, 1) })
      const point = () => ({
        count: total(),
        sum: logNormal(random, 4, 1),
        quantileValues: [0.5, 0.9, 0.99].map(quantile),
      })
      return { ...head, summary: { dataPoints: list(point) } }
    }
  }
}

/** Durations and sizes: most are small, a few are very large. */
function logNormal(random: Random, mean: number, deviation: number): number {
  const u = (random.bits() + 1) / (2 ** 32 + 1)
  const v = random.bits() / 2 ** 32
  return Math.exp(mean + deviation * Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v))
}

function makeAddress(random: Random): string {
  return `${random.between(1, 223)}.${random.below(256)}.${random.below(256)}.${random.below(256)}`
}

function uuid(random: Random): string {
  return random
    .bytes(16)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
