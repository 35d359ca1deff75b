// The spans of proxied calls, on the road that all records go: as OTLP through the collector's own `accept`, as the tenant whose
// key was sent. A call's reply ends when its record is on the disk. What the journal cannot take now is tried again while
// there is room to keep it, and what is lost after all is counted: the ledger has the call by its settlement.
import { ROOT_CONTEXT, type Span, type Tracer, trace } from '@opentelemetry/api'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { AlwaysOnSampler, type ReadableSpan, TracerProvider } from '@opentelemetry/sdk-trace'
import { limits } from '../limits.ts'
import { pause } from '../quota/pause.ts'
import { after } from '../receive/receiver.ts'
import type { Accept, Identity } from '../receive/request.ts'

export type CallSpan = {
  readonly tracer: Pick<Tracer, 'startSpan'>
  /** Settles when the record is durable, was lost, or has kept the reply waiting for as long as it may. */
  stored(): Promise<void>
  /** For an upstream that goes on with the trace. */
  traceHeaders(): Readonly<Record<string, string>>
}

export type CallSpans = AsyncDisposable & {
  open(identity: Identity, service: string): CallSpan
}

export type CallSpansOptions = {
  readonly accept: Accept
  readonly version: string
  readonly onRecord: (outcome: 'stored' | 'lost', reason: string) => void
}

type Waiting = {
  readonly identity: Identity
  readonly service: string
  readonly stored: (promise: Promise<void>) => void
}

const scope = '@tallylight/proxy'
const propagator = new W3CTraceContextPropagator()

export function openCallSpans(options: CallSpansOptions): CallSpans {
  const waiting = new WeakMap<object, Waiting>()
  const underWay = new Set<Promise<void>>()
  const stopping = new AbortController()
  let waitingBytes = 0
  const provider = new TracerProvider({
    // A caller that does not sample its traces still pays for its calls.
    sampler: new AlwaysOnSampler(),
    spanProcessors: [{ onStart: () => undefined, onEnd, forceFlush, shutdown: forceFlush }],
  })
  const tracer = provider.getTracer(scope, options.version)

  function onEnd(span: ReadableSpan): void {
    const record = waiting.get(span)
    if (record === undefined) return
    const storing = store(span, record).finally(() => underWay.delete(storing))
    underWay.add(storing)
    record.stored(storing)
  }

  async function store(span: ReadableSpan, { identity, service }: Waiting): Promise<void> {
    const resource = resourceFromAttributes({ 'service.name': service })
    const bytes = ProtobufTraceSerializer.serializeRequest([Object.create(span, { resource: { value: resource } })])
    if (bytes === undefined || waitingBytes + bytes.length > limits.proxyRecordsBytesMax)
      return options.onRecord('lost', 'too many records wait for the journal')
    waitingBytes += bytes.length
    const reason = await send(identity, bytes)
    waitingBytes -= bytes.length
    options.onRecord(reason === '' ? 'stored' : 'lost', reason)
  }

  /** '' when it is stored. */
  async function send(identity: Identity, bytes: Uint8Array): Promise<string> {
    for (let tries = 1; ; tries++) {
      // `accept` writes over what is masked, and may give its memory back.
      const body = Buffer.from(bytes)
      const outcome = await options
        .accept({ signal: 'traces', identity, encoding: 'protobuf', contentEncoding: 'identity', body })
        .catch((error: unknown) => ({ kind: 'unavailable', reason: String(error), retryAfterMs: 0 }) as const)
      if (outcome.kind === 'accepted') return outcome.rejected === 0 ? '' : outcome.message
      if (outcome.kind === 'malformed' || outcome.kind === 'too_large') return outcome.reason
      if (tries >= limits.proxyRecordTriesMax || stopping.signal.aborted) return outcome.reason
      await pause(limits.proxyRecordPauseMs * tries, stopping.signal)
    }
  }

  async function forceFlush(): Promise<void> {
    await Promise.all(underWay)
  }

  function open(identity: Identity, service: string): CallSpan {
    let started: Span | undefined
    const stored = Promise.withResolvers<void>()
    return {
      tracer: {
        startSpan(name, spanOptions, context) {
          started = tracer.startSpan(name, spanOptions, context)
          waiting.set(started, { identity, service, stored: stored.resolve })
          return started
        },
      },
      stored: () => Promise.race([stored.promise, after(limits.proxyRecordWaitMs)]),
      traceHeaders() {
        const headers: Record<string, string> = {}
        if (started !== undefined)
          propagator.inject(trace.setSpan(ROOT_CONTEXT, started), headers, {
            set: (carrier, name, value) => {
              carrier[name] = value
            },
          })
        return headers
      },
    }
  }

  return {
    open,
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await forceFlush()
    },
  }
}
