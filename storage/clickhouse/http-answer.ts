// Answers as ClickHouse's HTTP clients expect them.
import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createGzip, createZstdCompress } from 'node:zlib'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { type Exception, exceptionFrame, statusOf, textOf } from './http-exception.ts'

export type Summary = { readonly result_rows?: number; readonly elapsed_ns: number }

/** Writes the body, compressed as the client asked. `failure` is asked at the end of the rows: what it gives is told in the body,
 *  behind the rows, and the connection is cut, so that also a client that knows no such frame sees a broken answer. */
export async function sendRows(
  request: IncomingMessage,
  response: ServerResponse,
  url: URLSearchParams,
  rows: AsyncIterable<Buffer> | Iterable<Buffer>,
  failure: () => Promise<Buffer | undefined>,
): Promise<void> {
  let isBroken = false
  async function* body(): AsyncGenerator<Buffer> {
    yield* rows
    const frame = await failure()
    if (frame !== undefined) {
      isBroken = true
      yield frame
    }
  }
  const encoder = encoderOf(request, url)
  if (encoder !== undefined) response.setHeader('Content-Encoding', encoder.name)
  response.writeHead(200)
  const stop = watchForStall(response)
  try {
    const source = Readable.from(body(), { objectMode: false, highWaterMark: 256 * 1024 })
    // `end: false`, as a broken answer must not get the last chunk that says all came.
    if (encoder === undefined) await pipeline(source, response, { end: false })
    else await pipeline(source, encoder.transform, response, { end: false })
    if (isBroken) cutAfterFrame(response)
    else response.end()
  } finally {
    stop()
  }
}

/** A client that hears of the cut throws away what it has not read yet, the frame with it. One that has read the frame closes
 *  by itself; the others are cut. */
function cutAfterFrame(response: ServerResponse): void {
  const timer = setTimeout(() => response.socket?.end(), limits.brokenAnswerMs)
  response.once('close', () => clearTimeout(timer))
}

export function sendSmall(
  request: IncomingMessage,
  response: ServerResponse,
  url: URLSearchParams,
  body: Buffer,
): Promise<void> {
  if (encoderOf(request, url) !== undefined && body.length > 0)
    return sendRows(request, response, url, [body], async () => undefined)
  response.setHeader('Content-Length', body.length)
  response.writeHead(200).end(body)
  return Promise.resolve()
}

export function sendException(response: ServerResponse, exception: Exception, version: string): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  for (const name of ['Content-Encoding', 'Content-Length', 'X-ClickHouse-Format', 'X-ClickHouse-Summary'])
    response.removeHeader(name)
  const body = textOf(exception, version)
  if (statusOf(exception) === 401) response.setHeader('WWW-Authenticate', 'Basic realm="ClickHouse server HTTP API"')
  response.writeHead(statusOf(exception), {
    'X-ClickHouse-Exception-Code': exception.code,
    'Content-Type': 'text/plain; charset=UTF-8',
    'Content-Length': Buffer.byteLength(body),
  })
  response.end(body)
}

export function tagResponse(response: ServerResponse): string {
  const tag = Array.from(randomBytes(16), (byte) => String.fromCharCode(97 + (byte % 26))).join('')
  response.setHeader('X-ClickHouse-Exception-Tag', tag)
  return tag
}

export function frameOf(exception: Exception, version: string, tag: string): Buffer {
  return exceptionFrame(exception, version, tag)
}

/** Only what the engine tells: how many rows an INSERT wrote it does not, and a 0 would be taken for a count. */
export function setSummary(response: ServerResponse, summary: Summary): void {
  const fields = Object.entries(summary).map(([name, value]) => [name, String(value)])
  response.setHeader('X-ClickHouse-Summary', JSON.stringify(Object.fromEntries(fields)))
}

export function contentTypeOf(format: string): string {
  if (
    /^(json|jsoncompact|jsonstrings|jsoncolumns\w*|jsoncompactcolumns|jsoncompactstrings|jsonobjecteachrow)$/i.test(
      format,
    )
  )
    return 'application/json; charset=UTF-8'
  if (/^(json|ndjson|prettyndjson|prettyjson)/i.test(format)) return 'application/x-ndjson; charset=UTF-8'
  if (/^(tsv|tabseparated)/i.test(format)) return 'text/tab-separated-values; charset=UTF-8'
  if (/^csv/i.test(format))
    return 'text/csv; charset=UTF-8; header=absent'.replace('absent', /names/i.test(format) ? 'present' : 'absent')
  if (/^xml$/i.test(format)) return 'application/xml; charset=UTF-8'
  if (
    /^(native|rowbinary\w*|parquet|arrow\w*|orc|avro\w*|msgpack|bsoneachrow|npy|rawblob|protobuf\w*|buffers|png)$/i.test(
      format,
    )
  )
    return 'application/octet-stream'
  return 'text/plain; charset=UTF-8'
}

/** The first question of clickhouse-go on each connection, which it reads in the framing of the revision it asked with. */
export function isHello(sql: string, url: URLSearchParams): boolean {
  return (
    url.has('client_protocol_version') &&
    /^\s*SELECT\s+displayName\(\),\s*version\(\),\s*revision\(\),\s*timezone\(\)\s*$/.test(sql)
  )
}

/** Its answer names revision 0: from then on the driver reads plain Native, which is what the engine writes. */
export function helloBlock(version: string, timezone: string): Buffer {
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([Buffer.byteLength(value)]), Buffer.from(value)])
  const column = (name: string, type: string, value: Buffer): Buffer =>
    Buffer.concat([text(name), text(type), Buffer.from([0]), value])
  return Buffer.concat([
    // Block info: not an overflow, no bucket; then four columns of one row.
    Buffer.from('010002ffffffff000401', 'hex'),
    column('displayName()', 'String', text('embedded')),
    column('version()', 'String', text(version)),
    column('revision()', 'UInt32', Buffer.alloc(4)),
    column('timezone()', 'String', text(timezone)),
  ])
}

/** Asked for by enable_http_compression=1, as in ClickHouse: Accept-Encoding alone does nothing there. */
function encoderOf(
  request: IncomingMessage,
  url: URLSearchParams,
): { readonly name: string; readonly transform: Transform } | undefined {
  if (!/^(1|true)$/.test(url.get('enable_http_compression') ?? '')) return undefined
  const accepted = String(request.headers['accept-encoding'] ?? '')
    .split(',')
    .filter((entry) => !/;\s*q=0(\.0*)?\s*$/.test(entry))
    .map((entry) => entry.split(';', 1)[0]?.trim().toLowerCase())
  // The fastest levels: the client is on this machine.
  if (accepted.includes('zstd'))
    return { name: 'zstd', transform: createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 } }) }
  if (accepted.includes('gzip')) return { name: 'gzip', transform: createGzip({ level: 1 }) }
  return undefined
}

/** Cuts a client that takes nothing any more: a statement waits for it inside the engine, where no other limit reaches it. */
function watchForStall(response: ServerResponse): () => void {
  let written = response.socket?.bytesWritten ?? 0
  const timer = setInterval(() => {
    const now = response.socket?.bytesWritten ?? 0
    if (response.writableNeedDrain && now === written)
      response.destroy(new Error(`the client took no byte within ${limits.stallMs} ms`))
    written = now
  }, limits.stallMs)
  return () => clearInterval(timer)
}
