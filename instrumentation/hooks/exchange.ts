// One exchange with a provider as a hook sees it: a request body, the head of a reply, its bytes, one end. Every hook drives
// this and nothing else. It ends exactly once, whatever happens, and nothing of it throws into the service: what fails in
// here is counted, and the bytes pass on as if nobody had watched.
import { AsyncLocalStorage } from 'node:async_hooks'
import type { Context } from '@opentelemetry/api'
import type { CallReply, CallRequest, Endpoint } from '../providers/call.ts'
import { openReply, type Reply } from '../providers/reply.ts'
import { readRequest } from '../providers/request.ts'
import { askForUsage, openUsageChunkFilter, type UsageChunkFilter } from '../providers/usage-chunk.ts'
import type { FetchWire } from './fetch-wire.ts'
import { openPieceBatch, type PieceBatch } from './piece-batch.ts'

/** `left`: the caller stopped reading. `aborted`: it said so with a signal, or its time was over. `cut`: the connection ended
 *  early, or never began. `unread`: nobody ever read the reply. `denied`: the gate refused, and nothing was sent. */
export type Ending = 'complete' | 'left' | 'aborted' | 'cut' | 'unread' | 'denied'

export type Transport = 'fetch' | 'undici' | 'http' | 'http2' | 'websocket' | 'proxy'

export type CallStart = {
  readonly endpoint: Endpoint
  readonly request: CallRequest
  readonly url: URL
  readonly requestBytes: number
  /** Counts from 1; an SDK that tries again says so in a header. */
  readonly attempt: number
  readonly transport: Transport
  /** Where the call stands, for who speaks for another process; the active one where it is left out. */
  readonly context?: Context
}

export type CallEnd = {
  readonly ending: Ending
  /** 0: there was no reply. */
  readonly status: number
  readonly reply: CallReply | undefined
  readonly error: unknown
  /** The caller gave up before anything was sent. */
  readonly isHeldBack?: boolean
}

/** Who keeps the record of a call: its span, its metrics, its reservation. */
export type CallRecord = {
  /** Settles before any byte may go out, or rejects with what the caller shall get. */
  readonly admitted: Promise<void> | undefined
  /** Runs what sends the request as part of the call. */
  inContext<T>(work: () => T): T
  /** Something of the model has arrived. */
  begun(): void
  finish(end: CallEnd): void
}

export type Watch = {
  readonly endpointOf: (method: string, url: URL) => Endpoint | undefined
  readonly startCall: (start: CallStart) => CallRecord
  readonly asksForUsage: boolean
  readonly keepsContent: boolean
  /** Something of ours failed. */
  readonly failed: (error: unknown) => void
  /** Whether this address is a provider's, and what is asked of it may cost. */
  readonly mayCost: (url: URL) => boolean
  /** Something was sent to a provider that is no call we can read: `api`, pictures, batches and the like; or it went past a hook. */
  readonly unmetered: (reason: 'api' | 'transport', host: string) => void
}

/** Runs our part; what it throws is ours to count and not the service's to see. */
export function guarded<T>(watch: Pick<Watch, 'failed'>, work: () => T, otherwise: T): T {
  try {
    return work()
  } catch (error) {
    watch.failed(error)
    return otherwise
  }
}

/** For a POST that is no call: tells of it where it went to a provider. Said by the lowest hook only, which sees all. */
export function noteOther(watch: Watch, url: URL | null): void {
  if (url !== null && watch.mayCost(url)) watch.unmetered('api', url.hostname)
}

/** Set while a request that a hook has seen goes down to the next layer, where another hook would see it again. There it is
 *  told to the wire of a fetch, where one waits for it. Every socket that is opened meanwhile keeps this for its life, and may
 *  make the requests of others in it: so the wire is taken out of it when it waits for none any more. */
export type SeenBy = { wire: FetchWire | undefined }
const seen = new AsyncLocalStorage<SeenBy>()
const nobodyWaits: SeenBy = { wire: undefined }
export const isSeen = (): boolean => seen.getStore() !== undefined
export const runSeen = <T>(work: () => T, by: SeenBy = nobodyWaits): T => seen.run(by, work)
export const wireAbove = (): FetchWire | undefined => seen.getStore()?.wire

export type Exchange = {
  /** What to send instead of the caller's body, where that asks for usage; undefined once it is withdrawn. */
  readonly body: string | undefined
  /** The caller's body is sent after all, so nothing is taken out of the reply, and one to the other body is not its. */
  withdraw(): void
  readonly admitted: Promise<void> | undefined
  /** Nothing of it will be sent, whatever the gate says. */
  holdBack(): void
  inContext<T>(work: () => T): T
  /** Again where the reply before was not the one: a dispatcher that tries again. */
  head(status: number, header: (name: string) => string): void
  /** Whether bytes have to be taken out of what the caller reads. */
  isFiltering(): boolean
  /** Reads bytes of the reply and gives what the caller may have of them. */
  pass(bytes: Uint8Array): readonly Uint8Array[]
  /** What was held back, at the end of the reply. */
  rest(): readonly Uint8Array[]
  end(ending: Ending, error?: unknown): void
}

export type ExchangeStart = {
  readonly endpoint: Endpoint
  readonly url: URL
  readonly transport: Transport
  readonly body: string | Uint8Array
  readonly header: (name: string) => string
  /** Whether this hook can send another body and take a chunk out of the reply. */
  readonly mayAsk: boolean
}

const nothing: readonly Uint8Array[] = []

/** What an exchange needs to know of who watches. */
export type ExchangeWatch = Pick<Watch, 'startCall' | 'asksForUsage' | 'keepsContent' | 'failed'>

export function openExchange(watch: ExchangeWatch, start: ExchangeStart): Exchange | undefined {
  return guarded(watch, () => open(watch, start), undefined)
}

function open(watch: ExchangeWatch, start: ExchangeStart): Exchange {
  const { endpoint, body } = start
  const { request } = readRequest(endpoint, body)
  const record = watch.startCall({
    endpoint,
    request,
    url: start.url,
    requestBytes: body.length,
    attempt: attemptOf(start.header),
    transport: start.transport,
  })
  let asked = watch.asksForUsage && start.mayAsk ? bodyThatAsks(endpoint, request, body) : undefined
  const keepsContent = watch.keepsContent
  let status = 0
  let reply: Reply | undefined
  let batch: PieceBatch | undefined
  let filter: UsageChunkFilter | undefined
  let hasBegun = false
  let isOver = false
  let isHeldBack = record.admitted !== undefined
  const admit = (): void => {
    isHeldBack = false
  }
  record.admitted?.then(admit, () => undefined)

  function head(newStatus: number, header: (name: string) => string): void {
    guarded(
      watch,
      () => {
        status = newStatus
        const opened = openReply(endpoint, { status, header }, keepsContent)
        reply = opened
        const isStream = header('content-type').includes('text/event-stream')
        batch = isStream ? openPieceBatch(opened.write) : undefined
        filter = asked !== undefined && isStream && status < 400 ? openUsageChunkFilter(endpoint.provider) : undefined
      },
      undefined,
    )
  }

  function pass(bytes: Uint8Array): readonly Uint8Array[] {
    guarded(watch, () => read(bytes), undefined)
    const held = filter
    return held === undefined ? [bytes] : guarded(watch, () => held.write(bytes), [bytes])
  }

  function read(bytes: Uint8Array): void {
    if (isOver || reply === undefined) return
    if (hasBegun && batch !== undefined) batch.write(bytes)
    else reply.write(bytes)
    if (hasBegun || !reply.hasBegun()) return
    hasBegun = true
    record.begun()
  }

  function end(ending: Ending, error?: unknown): void {
    if (isOver) return
    isOver = true
    guarded(
      watch,
      () => {
        batch?.flush()
        reply?.end()
        const known = reply?.known()
        // The end was said, and only the bytes behind it were not fetched: nothing is missing.
        const isWhole = known?.isComplete === true && ending !== 'denied' && ending !== 'cut'
        record.finish({ ending: isWhole ? 'complete' : ending, status, reply: known, error, isHeldBack })
      },
      undefined,
    )
  }

  return {
    get body() {
      return asked
    },
    withdraw: () => {
      asked = undefined
      status = 0
      reply = undefined
      batch = undefined
    },
    admitted: record.admitted,
    holdBack: () => {
      isHeldBack = true
    },
    inContext: record.inContext,
    head,
    isFiltering: () => filter !== undefined,
    pass,
    rest: () => filter?.end() ?? nothing,
    end,
  }
}

function bodyThatAsks(endpoint: Endpoint, request: CallRequest, body: string | Uint8Array): string | undefined {
  const isChat = endpoint.api === 'openai.chat' || endpoint.api === 'openai.completions'
  if (!isChat || !endpoint.takesUsageOption || !request.isStream || request.asksForUsage) return undefined
  return askForUsage(typeof body === 'string' ? body : new TextDecoder().decode(body), request)
}

function attemptOf(header: (name: string) => string): number {
  // The SDKs of OpenAI and Anthropic, then Amazon's: `attempt=2; max=3`.
  const retries = Number.parseInt(header('x-stainless-retry-count'), 10)
  if (retries >= 0) return retries + 1
  const attempt = Number.parseInt(/attempt=(\d+)/.exec(header('amz-sdk-request'))?.[1] ?? '', 10)
  return attempt > 0 ? attempt : 1
}

/** What platforms and clients (axios: `ERR_CANCELED`) give who stops a call. */
const abortCodes: ReadonlySet<unknown> = new Set(['ABORT_ERR', 'ERR_CANCELED'])

/** By the names of errors and signals, since every transport and runtime has classes of its own. */
export function endingOf(error: unknown, signal: AbortSignal | null | undefined): Ending {
  if (signal?.aborted === true) return 'aborted'
  const { name, code } = (typeof error === 'object' && error !== null ? error : {}) as {
    readonly name?: unknown
    readonly code?: unknown
  }
  return name === 'AbortError' || name === 'TimeoutError' || abortCodes.has(code) ? 'aborted' : 'cut'
}
