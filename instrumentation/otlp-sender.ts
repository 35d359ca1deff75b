// Sends OTLP over HTTP without keeping the process alive: neither its sockets nor its pauses hold the end of a service. The
// exporters of OpenTelemetry try again on timers that do, up to 8 s after the last line of a program whose collector is away,
// and its batch processor waits for an exporter on a timer of 30 s: so what is handed over here is answered for at once.
import http from 'node:http'
import https from 'node:https'
import { constants, gzipSync } from 'node:zlib'
import { runSeen } from './hooks/exchange.ts'
import { limits } from './limits.ts'

export type Sent = { readonly kind: 'sent' } | { readonly kind: 'failed'; readonly reason: string }

export type OtlpSender = {
  /** Takes it over. What does not fit beside that which waits is dropped, and told of. */
  send(body: Uint8Array, records: number): void
  /** Settles when nothing waits. */
  idle(): Promise<void>
  /** Gives up what waits now; what is handed over later is tried as ever. */
  giveUp(): void
}

export type OtlpSenderOptions = {
  readonly url: string
  readonly contentType: 'application/x-protobuf' | 'application/json'
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly onOutcome: (outcome: Sent, records: number) => void
}

type Try = Sent | { readonly kind: 'again'; readonly reason: string; readonly afterMs: number | undefined }

export function openOtlpSender(options: OtlpSenderOptions): OtlpSender {
  const module = options.url.startsWith('https:') ? https : http
  const agent = new module.Agent({ keepAlive: true, maxSockets: limits.exportConnectionsMax })
  let attempts = new AbortController()
  const underWay = new Set<Promise<void>>()
  let waitingBytes = 0

  function send(body: Uint8Array, records: number): void {
    // Spans repeat each other: the fastest level halves the time and costs a fiftieth more bytes.
    const packed = gzipSync(body, { level: constants.Z_BEST_SPEED })
    if (waitingBytes + packed.length > limits.exportWaitingBytesMax) {
      options.onOutcome({ kind: 'failed', reason: 'too much waits to be sent' }, records)
      return
    }
    waitingBytes += packed.length
    const work = sendAll(packed).then((outcome) => {
      waitingBytes -= packed.length
      underWay.delete(work)
      options.onOutcome(outcome, records)
    })
    underWay.add(work)
  }

  async function sendAll(packed: Uint8Array): Promise<Sent> {
    const { signal } = attempts
    let reason = 'it did not answer in time'
    for (let tried = 0; tried < limits.exportTriesMax && !signal.aborted; tried++) {
      if (tried > 0) await pause(limits.exportPauseMs * 2 ** (tried - 1), signal)
      const outcome = await tryOnce(packed, signal)
      if (outcome.kind !== 'again') return outcome
      // Being given up is no reason, but what was the matter before it.
      if (!signal.aborted) reason = outcome.reason
      if (outcome.afterMs !== undefined) await pause(outcome.afterMs, signal)
    }
    return { kind: 'failed', reason }
  }

  function pause(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, ms).unref()
    const onAbort = (): void => resolve()
    signal.addEventListener('abort', onAbort, { once: true })
    return promise.finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    })
  }

  function tryOnce(packed: Uint8Array, signal: AbortSignal): Promise<Try> {
    try {
      return runSeen(() => sendOnce(packed, signal))
    } catch (error) {
      // Thrown at once for an address or a header that no request can carry, a line break in a key for one.
      return Promise.resolve({ kind: 'failed', reason: error instanceof Error ? reasonOf(error) : String(error) })
    }
  }

  function sendOnce(body: Uint8Array, signal: AbortSignal): Promise<Try> {
    const { promise, resolve } = Promise.withResolvers<Try>()
    const request = module.request(options.url, {
      method: 'POST',
      agent,
      signal,
      timeout: options.timeoutMs,
      headers: {
        ...options.headers,
        'content-type': options.contentType,
        'content-encoding': 'gzip',
        'content-length': body.length,
      },
    })
    request.on('socket', (socket) => socket.unref())
    request.on('timeout', () => request.destroy(new Error(`no answer in ${options.timeoutMs} ms`)))
    request.on('error', (error) => resolve({ kind: 'again', reason: reasonOf(error), afterMs: undefined }))
    request.on('response', (response) => {
      response.resume()
      resolve(outcomeOf(response.statusCode ?? 0, response.headers))
    })
    request.end(body)
    return promise
  }

  return {
    send,
    idle: async () => {
      await Promise.all(underWay)
    },
    giveUp() {
      attempts.abort()
      attempts = new AbortController()
    },
  }
}

/** As OTLP says: these four may be tried again, all others are final. */
const again = new Set([429, 502, 503, 504])

function outcomeOf(status: number, headers: http.IncomingHttpHeaders): Try {
  const { 'content-type': type = '', 'retry-after': retryAfter } = headers
  // Somebody else's port: whatever serves pages there takes any path, and has kept nothing.
  if (status < 300 && type.includes('text/html')) return { kind: 'failed', reason: `answered ${status} with a page` }
  if (status >= 200 && status < 300) return { kind: 'sent' }
  const reason = `answered ${status}`
  if (!again.has(status)) return { kind: 'failed', reason }
  const seconds = Number(retryAfter)
  const afterMs = seconds >= 0 ? Math.min(seconds * 1000, limits.exportPauseMsMax) : undefined
  return { kind: 'again', reason, afterMs }
}

function reasonOf(error: Error): string {
  // A connection that was refused at each of several addresses has no message of its own.
  return error.message || ('code' in error ? String(error.code) : error.name)
}
