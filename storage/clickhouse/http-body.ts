// Bodies as they come in: inflated, bounded, and never waited for longer than the client deserves.
import type { IncomingMessage } from 'node:http'
import { pipeline, type Readable, type Transform } from 'node:stream'
import { constants, createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { Refusal } from './http-exception.ts'

const decoders: Readonly<Record<string, () => Transform>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
  zstd: () => createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: limits.zstdWindowLogMax } }),
}

/** The body without its Content-Encoding. */
function inflatedBody(request: IncomingMessage): Readable {
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (encoding === 'identity' || encoding === '') return request
  const decoder = decoders[encoding]
  if (decoder === undefined) {
    throw new Refusal(
      48,
      'NOT_IMPLEMENTED',
      `unknown Content-Encoding ${encoding.slice(0, 20)}; ${Object.keys(decoders).join(', ')} are known`,
    )
  }
  // The stream that is returned carries whatever goes wrong in either.
  return pipeline(request, decoder(), () => undefined)
}

export type BodyReader = {
  /** Up to `bytesMax` bytes from the beginning, less at the end of the body. They stay part of what `rest` yields. */
  head(bytesMax: number): Promise<Buffer>
  /** All of it. Throws when it is more. */
  whole(bytesMax: number): Promise<Buffer>
  rest(): AsyncGenerator<Buffer>
}

/** Reads when asked to, and no sooner: what waits for its turn leaves the body with the client. */
export function readBody(request: IncomingMessage): BodyReader {
  const chunks: AsyncIterator<Buffer> = inflatedBody(request)[Symbol.asyncIterator]()
  let read: Buffer[] = []
  let size = 0
  let isEnded = false

  async function next(): Promise<Buffer | undefined> {
    if (isEnded) return undefined
    // While we wait for the client, its silence has a bound; while it waits for us, it has not.
    request.socket.setTimeout(limits.stallMs)
    try {
      const chunk = await chunks.next()
      if (!chunk.done) return chunk.value
      isEnded = true
      return undefined
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException
      const what = /^(Z|ZSTD|ERR_ZSTD|ERR_BROTLI|ERR__ERROR)_/.test(code ?? '') ? 'inflated' : 'read'
      throw new Refusal(33, 'CANNOT_READ_ALL_DATA', `the body could not be ${what}: ${message}`)
    } finally {
      request.socket.setTimeout(0)
    }
  }
  async function readMore(): Promise<void> {
    const chunk = await next()
    if (chunk === undefined) return
    read.push(chunk)
    size += chunk.length
  }

  return {
    head: async (bytesMax) => {
      while (!isEnded && size < bytesMax) await readMore()
      return Buffer.concat(read, size)
    },
    whole: async (bytesMax) => {
      while (!isEnded) {
        await readMore()
        if (size > bytesMax) {
          throw new Refusal(
            229,
            'QUERY_IS_TOO_LARGE',
            `a statement may have ${bytesMax} bytes; rows go behind an INSERT … FORMAT`,
          )
        }
      }
      return Buffer.concat(read, size)
    },
    rest: async function* () {
      yield* read
      read = []
      for (let chunk = await next(); chunk !== undefined; chunk = await next()) yield chunk
    },
  }
}

/** Takes the rest of a body that was refused, for a while: cut in the middle of sending, the client would see a reset and not
 *  the answer. */
export function discardBody(request: IncomingMessage): void {
  if (request.complete) return
  const timer = setTimeout(() => request.destroy(), limits.discardMs)
  request.once('close', () => clearTimeout(timer))
  request.removeAllListeners('readable')
  request.resume()
}

/** The fields of a multipart/form-data body, which `@clickhouse/client` sends for long parameters. Undefined for any other. */
export function readForm(contentType: string | undefined, body: Buffer): ReadonlyMap<string, string> | undefined {
  const boundary = /^multipart\/form-data\s*;.*\bboundary="?([^";]+)"?/i.exec(contentType ?? '')?.[1]
  if (boundary === undefined) return undefined
  const fields = new Map<string, string>()
  for (const part of `\r\n${body.toString()}`.split(`\r\n--${boundary}`).slice(1, -1)) {
    const found = /^\r\n((?:[^\r\n]+\r\n)*)\r\n([\s\S]*)$/.exec(part)
    const name = /^content-disposition:\s*form-data\s*;\s*name="([^"]*)"/im.exec(found?.[1] ?? '')?.[1]
    if (found === null || name === undefined) throw new Refusal(36, 'BAD_ARGUMENTS', 'a part of the form has no name')
    if (name !== 'query' && !name.startsWith('param_')) {
      throw new Refusal(
        48,
        'NOT_IMPLEMENTED',
        `the embedded ClickHouse takes query and param_… in a form, and no external tables (${name.slice(0, 40)})`,
      )
    }
    fields.set(name, found[2] as string)
  }
  return fields
}
