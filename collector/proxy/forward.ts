// One request to an upstream and its reply to the client, piece by piece. Nothing is gathered: a piece that the client's
// connection does not take at once stops the reading from the upstream until it does. A client that goes away ends the
// request to the upstream, an upstream that breaks off ends the client's reply, and each is told apart.
import type { ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { fieldsForClient } from './http-fields.ts'

/** What looks on, and may take bytes out. */
export type Tap = {
  /** `again` drops this reply, `refuse` as well, and the client gets something else. */
  head(status: number, header: (name: string) => string): 'pass' | 'again' | 'refuse'
  /** Whether the client gets other bytes than came. */
  isFiltering(): boolean
  pass(bytes: Uint8Array): readonly Uint8Array[]
  /** All came: what was held back. The client's reply ends after `recorded`. */
  rest(): readonly Uint8Array[]
  recorded(): Promise<void>
}

export type Forwarded =
  | { readonly kind: 'complete' | 'again' | 'refuse' }
  /** The client went away; `wasSent`: after something had gone to the upstream. */
  | { readonly kind: 'left'; readonly wasSent: boolean }
  | { readonly kind: 'failed'; readonly error: Error; readonly wasSent: boolean; readonly isHeadSent: boolean }

export type ForwardOptions = {
  readonly dispatcher: Dispatcher
  readonly origin: string
  readonly path: string
  readonly method: string
  readonly fields: string[]
  readonly body: Buffer | Readable | string | null
  readonly response: ServerResponse
  /** How long a client may take nothing of what waits for it. */
  readonly stalledMs: number
  readonly tap: Tap
}

export function forward(options: ForwardOptions): Promise<Forwarded> {
  const { response, tap } = options
  const { promise, resolve } = Promise.withResolvers<Forwarded>()
  let controller: Dispatcher.DispatchController | undefined
  let wasSent = false
  let isOver = false
  let stalled: NodeJS.Timeout | undefined
  /** Of a reply whose length was told: its last bytes wait for its record, as the end of any other does. */
  let bytesToCome = Number.POSITIVE_INFINITY
  let lastPieces: readonly Uint8Array[] = []

  function finish(forwarded: Forwarded): void {
    if (isOver) return
    isOver = true
    clearTimeout(stalled)
    response.off('close', onClosed)
    response.off('drain', onDrain)
    resolve(forwarded)
  }

  function stop(forwarded: Forwarded): void {
    finish(forwarded)
    controller?.abort(new Error('the reply is not wanted any more'))
  }

  function onClosed(): void {
    stop({ kind: 'left', wasSent })
  }

  function onDrain(): void {
    clearTimeout(stalled)
    controller?.resume()
  }

  function write(pieces: readonly Uint8Array[]): void {
    let hasRoom = true
    for (const piece of pieces) if (piece.length > 0) hasRoom = response.write(piece)
    if (hasRoom) return
    controller?.pause()
    clearTimeout(stalled)
    stalled = setTimeout(() => response.destroy(), options.stalledMs).unref()
  }

  response.once('close', onClosed)
  response.on('drain', onDrain)

  const handler: Dispatcher.DispatchHandler = {
    onRequestStart(started) {
      controller = started
      if (isOver) started.abort(new Error('the client has left'))
      else wasSent = true
    },
    onResponseStart(_controller, status, headers, statusMessage) {
      // 103 and its like are for browsers.
      if (isOver || status < 200) return
      const header = (name: string): string => String(headers[name] ?? '')
      const verdict = tap.head(status, header)
      if (verdict !== 'pass') return stop({ kind: verdict })
      const isLengthKept = !tap.isFiltering()
      const length = header('content-length')
      if (isLengthKept && /^\d+$/.test(length) && options.method !== 'HEAD') bytesToCome = Number(length)
      response.writeHead(status, reasonOf(statusMessage ?? ''), fieldsForClient(rawOf(controller), isLengthKept))
      // The head of a stream says that the call was taken; its first event may be a minute away.
      // As the bytes they came as: `flushHeaders` writes them as UTF-8.
      response.write('', 'latin1')
    },
    onResponseData(_controller, chunk) {
      if (isOver) return
      const pieces = tap.pass(chunk)
      bytesToCome -= chunk.length
      if (bytesToCome > 0) write(pieces)
      else lastPieces = pieces
    },
    onResponseEnd() {
      if (isOver) return
      const pieces = [...lastPieces, ...tap.rest()]
      tap.recorded().then(() => {
        if (isOver) return
        for (const piece of pieces) response.write(piece)
        response.end()
        finish({ kind: 'complete' })
      })
    },
    onResponseError(_controller, error) {
      finish({ kind: 'failed', error, wasSent, isHeadSent: response.headersSent })
    },
  }
  const { origin, path, method, fields, body } = options
  options.dispatcher.dispatch({ origin, path, method, headers: fields, body }, handler)
  return promise
}

function rawOf(controller: Dispatcher.DispatchController | undefined): readonly string[] {
  const raw = controller?.rawHeaders
  if (!Array.isArray(raw)) return []
  // As bytes they came, and as bytes they go on.
  return raw.map((each) => (typeof each === 'string' ? each : each.toString('latin1')))
}

/** The words behind a status are bytes, too; undici reads them as UTF-8. Some hold what Node would not write, and nobody reads. */
function reasonOf(statusMessage: string): string {
  return Buffer.from(statusMessage)
    .toString('latin1')
    .replaceAll(/[^\t\x20-\x7e\x80-\xff]/g, '')
}
