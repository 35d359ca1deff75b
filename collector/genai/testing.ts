// For tests: OTLP/JSON files as lifted records, without the walk over wire bytes.
import { readdirSync, readFileSync } from 'node:fs'
import type { TenantId } from '../receive/request.ts'
import { factsOf } from './lift.ts'
import type { AnyValue, Attributes, LiftedEvent, LiftedLog, LiftedRecord, LiftedSpan, Scope } from './record.ts'

export const fixtures = new URL('fixtures/', import.meta.url)

type Wire = { readonly [key: string]: Wire } & { readonly length?: never }

export function readJson(path: URL): Wire {
  return JSON.parse(readFileSync(path, 'utf8')) as Wire
}

function list(value: unknown): readonly Wire[] {
  return Array.isArray(value) ? (value as readonly Wire[]) : []
}

function text(value: unknown): string {
  return value === undefined || value === null ? '' : String(value)
}

function anyValue(wire: unknown): AnyValue {
  const [kind, value] = Object.entries((wire ?? {}) as Record<string, unknown>)[0] ?? ['', null]
  switch (kind) {
    case 'stringValue':
    case 'boolValue':
      return value as string | boolean
    case 'doubleValue':
      return Number(value)
    case 'intValue': {
      const whole = BigInt(value as string | number)
      return Number.isSafeInteger(Number(whole)) ? Number(whole) : whole
    }
    case 'arrayValue':
      return list((value as Wire).values).map(anyValue)
    case 'kvlistValue':
      return attributes((value as Wire).values)
    case 'bytesValue':
      return Buffer.from(text(value), 'base64')
    default:
      return null
  }
}

function attributes(wire: unknown): Attributes {
  return new Map(list(wire).map((one) => [text(one.key), anyValue(one.value)]))
}

const tenantId = 'default' as TenantId
const spanKinds = ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'] as const
const statuses = ['unset', 'ok', 'error'] as const

function scopeOf(wire: Wire | undefined): Scope {
  return { name: text(wire?.name), version: text(wire?.version) }
}

function eventOf(wire: Wire): LiftedEvent {
  return {
    name: text(wire.name),
    timeUnixNano: BigInt(text(wire.timeUnixNano) || 0),
    attributes: attributes(wire.attributes),
  }
}

function spanOf(wire: Wire, resource: Attributes, scope: Scope): LiftedSpan {
  return {
    kind: 'span',
    tenantId,
    traceId: text(wire.traceId),
    spanId: text(wire.spanId),
    parentSpanId: text(wire.parentSpanId),
    name: text(wire.name),
    spanKind: spanKinds[Number(wire.kind ?? 0)] ?? 'unspecified',
    startUnixNano: BigInt(text(wire.startTimeUnixNano) || 0),
    endUnixNano: BigInt(text(wire.endTimeUnixNano) || 0),
    status: statuses[Number(wire.status?.code ?? 0)] ?? 'unset',
    statusMessage: text(wire.status?.message),
    attributes: attributes(wire.attributes),
    events: list(wire.events).map(eventOf),
    resource,
    scope,
  }
}

function logOf(wire: Wire, resource: Attributes, scope: Scope, ordinal: number): LiftedLog {
  return {
    kind: 'log',
    tenantId,
    traceId: text(wire.traceId),
    spanId: text(wire.spanId),
    eventName: text(wire.eventName),
    timeUnixNano: BigInt(text(wire.timeUnixNano) || text(wire.observedTimeUnixNano) || 0),
    ordinal,
    severity: Number(wire.severityNumber ?? 0),
    body: anyValue(wire.body),
    attributes: attributes(wire.attributes),
    resource,
    scope,
  }
}

/** The spans and log records of one OTLP/JSON request. */
export function recordsOf(request: Wire): readonly LiftedRecord[] {
  const records: LiftedRecord[] = []
  for (const ofResource of [...list(request.resourceSpans), ...list(request.resourceLogs)]) {
    const resource = attributes(ofResource.resource?.attributes)
    for (const ofScope of [...list(ofResource.scopeSpans), ...list(ofResource.scopeLogs)]) {
      const scope = scopeOf(ofScope.scope)
      for (const span of list(ofScope.spans)) records.push(spanOf(span, resource, scope))
      for (const log of list(ofScope.logRecords)) records.push(logOf(log, resource, scope, records.length))
    }
  }
  return records
}

export type SpanSketch = Partial<Omit<LiftedSpan, 'attributes' | 'resource'>> & {
  readonly attributes?: Readonly<Record<string, AnyValue>>
  readonly resource?: Readonly<Record<string, AnyValue>>
}

/** A span of which only the interesting parts are written down. */
export function sketchSpan(sketch: SpanSketch): LiftedSpan {
  return {
    kind: 'span',
    tenantId,
    traceId: '0'.repeat(31).concat('1'),
    spanId: '0000000000000001',
    parentSpanId: '',
    name: 'span',
    spanKind: 'internal',
    startUnixNano: 1_795_000_000_000_000_000n,
    endUnixNano: 1_795_000_001_000_000_000n,
    status: 'unset',
    statusMessage: '',
    events: [],
    scope: { name: 'test', version: '' },
    ...sketch,
    attributes: new Map(Object.entries(sketch.attributes ?? {})),
    resource: new Map(Object.entries(sketch.resource ?? {})),
  }
}

export function sketchLog(
  sketch: Partial<Omit<LiftedLog, 'attributes' | 'resource'>> & Pick<SpanSketch, 'attributes' | 'resource'>,
): LiftedLog {
  return {
    kind: 'log',
    tenantId,
    traceId: '0'.repeat(31).concat('1'),
    spanId: '0000000000000001',
    eventName: '',
    timeUnixNano: 1_795_000_000_500_000_000n,
    ordinal: 0,
    severity: 9,
    body: null,
    scope: { name: 'test', version: '' },
    ...sketch,
    attributes: new Map(Object.entries(sketch.attributes ?? {})),
    resource: new Map(Object.entries(sketch.resource ?? {})),
  }
}

/** A call with nothing but its marks. */
export const chatAttributes = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.request.model': 'gpt-4o-mini',
  'gen_ai.system': 'openai',
}

/** Direction, role, type and text of each message of a call. */
export function messagesOf(sketch: SpanSketch): string[][] {
  const { facts, texts } = factsOf(sketchSpan(sketch))
  const said = facts[0]?.says
  return said?.kind === 'call'
    ? said.messages.map(({ direction, role, type, content }) => [direction, role, type, texts.get(content.hash) ?? ''])
    : []
}

/** All spans and log records of all recordings. */
export function readRecorded(): readonly LiftedRecord[] {
  return readdirSync(fixtures)
    .filter((file) => file.endsWith('.json') && !file.includes('metrics'))
    .flatMap((file) => recordsOf(readJson(new URL(file, fixtures))))
}

export type Random = {
  /** 0 ≤ n < bound. */
  readonly below: (bound: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <Item>(items: readonly Item[]) => Item
  readonly shuffle: <Item>(items: readonly Item[]) => Item[]
}

/** The same seed gives the same numbers everywhere: xorshift32, enough for picking and shuffling. */
export function seededRandom(seed: number): Random {
  let state = seed | 1
  const below = (bound: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return Math.floor(((state >>> 0) / 2 ** 32) * bound)
  }
  return {
    below,
    chance: (probability) => below(1_000_000) < probability * 1_000_000,
    pick: (items) => {
      if (items.length === 0) throw new RangeError('nothing to pick from')
      return items[below(items.length)] as (typeof items)[number]
    },
    shuffle: (items) =>
      items
        .map((item) => ({ item, at: below(2 ** 31) }))
        .sort((a, b) => a.at - b.at)
        .map(({ item }) => item),
  }
}
