// Compressed bodies, inflated whole or refused. Bounded before allocation: what the body says about its own length is only
// a hint for the first buffer. Nothing that was sent may disappear: Node's decoders stop at the end of the first zstd frame
// or zlib stream and say nothing about the rest, so what they consumed is compared with what came.
import zlib from 'node:zlib'
import { limits } from '../limits.ts'
import type { ContentEncoding, TenantId } from './request.ts'

export type Inflated =
  | { readonly kind: 'inflated'; readonly bytes: Buffer }
  | { readonly kind: 'malformed'; readonly reason: string }
  | { readonly kind: 'too_large'; readonly reason: string }

/** Answers at once for small bodies, later for large ones. `tenant` decides only whose turn it is. */
export type Inflate = (
  tenant: TenantId,
  body: Buffer,
  contentEncoding: ContentEncoding,
  bytesMax: number,
) => Inflated | Promise<Inflated>

/** Large bodies wait for one of `concurrentMax` places in the thread pool, tenants in turn: a thousand bombs of one
 *  tenant then hold two bombs' memory and delay another's body by two, not by a thousand. */
export function openInflate({ concurrentMax }: { readonly concurrentMax: number }): Inflate {
  const waiting = new Map<TenantId, (() => void)[]>()
  let running = 0

  async function inTurn(tenant: TenantId, work: () => Promise<Inflated>): Promise<Inflated> {
    if (running >= concurrentMax) {
      await new Promise<void>((resolve) => {
        const queue = waiting.get(tenant)
        if (queue === undefined) waiting.set(tenant, [resolve])
        else queue.push(resolve)
      })
    } else running++
    try {
      return await work()
    } finally {
      passOn()
    }
  }

  // The place is handed over, not freed and taken again, so that nobody slips in between.
  function passOn(): void {
    const next = waiting.entries().next().value
    if (next === undefined) {
      running--
      return
    }
    const [tenant, queue] = next
    const resume = queue.shift()
    waiting.delete(tenant)
    if (queue.length > 0) waiting.set(tenant, queue)
    resume?.()
  }

  return (tenant, body, contentEncoding, bytesMax) => {
    if (contentEncoding === 'identity') {
      return body.length > bytesMax ? tooLarge(bytesMax) : { kind: 'inflated', bytes: body }
    }
    const expected = expectedBytes(body, contentEncoding)
    const syncMax = Math.min(bytesMax, limits.inflateSyncBytesMax)
    if (body.length <= limits.inflateSyncBytesMax / 4 && expected <= syncMax) {
      const inflated = inflateNow(body, contentEncoding, syncMax)
      if (inflated.kind !== 'too_large' || syncMax === bytesMax) return inflated
    }
    return inTurn(tenant, () => inflateLater(body, contentEncoding, bytesMax))
  }
}

/** On the event loop. */
export function inflateNow(body: Buffer, contentEncoding: Compression, bytesMax: number): Inflated {
  const steps = inflateSteps(body, contentEncoding, bytesMax)
  let step = steps.next()
  while (!step.done) {
    try {
      step = steps.next(decodeNow[contentEncoding](step.value.rest, step.value.options))
    } catch (error) {
      return failed(error, contentEncoding, bytesMax)
    }
  }
  return step.value
}

/** In the thread pool, with the same answers as `inflateNow`. */
export async function inflateLater(body: Buffer, contentEncoding: Compression, bytesMax: number): Promise<Inflated> {
  const steps = inflateSteps(body, contentEncoding, bytesMax)
  let step = steps.next()
  while (!step.done) {
    try {
      step = steps.next(await decodeLater(contentEncoding, step.value.rest, step.value.options))
    } catch (error) {
      return failed(error, contentEncoding, bytesMax)
    }
  }
  return step.value
}

type Compression = Exclude<ContentEncoding, 'identity'>

type Piece = { readonly bytes: Buffer; readonly consumedBytes: number }
type Step = { readonly rest: Buffer; readonly options: Options }
type Options = zlib.ZlibOptions & zlib.ZstdOptions & { readonly info: true }

// With `info`, which the type declarations leave out, Node gives the decoder back beside the bytes.
function pieceOf(result: unknown): Piece {
  const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } }
  return { bytes: buffer, consumedBytes: engine.bytesWritten }
}

const decodeNow = {
  gzip: (body: Buffer, options: Options) => pieceOf(zlib.gunzipSync(body, options)),
  deflate: (body: Buffer, options: Options) => pieceOf(zlib.inflateSync(body, options)),
  zstd: (body: Buffer, options: Options) => pieceOf(zlib.zstdDecompressSync(body, options)),
}

function decodeLater(contentEncoding: Compression, body: Buffer, options: Options): Promise<Piece> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, result: unknown) => (error ? reject(error) : resolve(pieceOf(result)))
    if (contentEncoding === 'gzip') zlib.gunzip(body, options, done)
    else if (contentEncoding === 'deflate') zlib.inflate(body, options, done)
    else zlib.zstdDecompress(body, options, done)
  })
}

const zstdParams = { [zlib.constants.ZSTD_d_windowLogMax]: limits.zstdWindowLogMax }

// One buffer of the expected size and one byte: with exactly the size, Node allocates a second one to learn that nothing
// is left. Measured on 188 KB: 99 µs against 130 with its 16 KiB chunks (zstd 64 against 104), and no copy to join them.
function pieceOptions(body: Buffer, contentEncoding: ContentEncoding, bytesMax: number): Options {
  const chunkSize = Math.max(64, Math.min(expectedBytes(body, contentEncoding), bytesMax) + 1)
  // 0 would mean no limit at all.
  const maxOutputLength = Math.max(1, bytesMax)
  if (contentEncoding === 'zstd') return { info: true, chunkSize, maxOutputLength, params: zstdParams }
  return { info: true, chunkSize, maxOutputLength }
}

/** What the body says it holds, at most 64 times its length: OTLP shrinks 5 to 30 times, so a larger claim is a lie or a
 *  bomb, and gets no memory in advance. */
function expectedBytes(body: Buffer, contentEncoding: ContentEncoding): number {
  const most = body.length * 64 + 1024
  const claimed =
    contentEncoding === 'gzip' && body.length >= 18
      ? body.readUInt32LE(body.length - 4)
      : contentEncoding === 'zstd'
        ? zstdContentBytes(body)
        : undefined
  return Math.min(claimed ?? body.length * 8, most)
}

/** The Frame_Content_Size of RFC 8878 §3.1.1.1, when the first frame has one. */
function zstdContentBytes(body: Buffer): number | undefined {
  if (body.length < 14 || body.readUInt32LE(0) !== 0xfd2fb528) return undefined
  const descriptor = body[4] ?? 0
  const isSingleSegment = (descriptor & 0x20) !== 0
  const at = 5 + (isSingleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!
  switch (descriptor >> 6) {
    case 0:
      return isSingleSegment ? body[at] : undefined
    case 1:
      return body.readUInt16LE(at) + 256
    case 2:
      return at + 4 <= body.length ? body.readUInt32LE(at) : undefined
    default:
      return at + 8 <= body.length ? Number(body.readBigUInt64LE(at)) : undefined
  }
}

/** One step per frame; gzip members follow each other inside Node's decoder. Zero padding after the last is allowed, as
 *  gzip(1) does. */
function* inflateSteps(body: Buffer, contentEncoding: Compression, bytesMax: number): Generator<Step, Inflated, Piece> {
  const pieces: Buffer[] = []
  let rest = body
  let length = 0
  for (;;) {
    const { bytes, consumedBytes }: Piece = yield {
      rest,
      options: pieceOptions(rest, contentEncoding, bytesMax - length),
    }
    pieces.push(bytes)
    length += bytes.length
    if (length > bytesMax) return tooLarge(bytesMax)
    const isAtEnd = consumedBytes >= rest.length || (contentEncoding === 'gzip' && isPadding(rest, consumedBytes))
    if (isAtEnd) return { kind: 'inflated', bytes: pieces.length === 1 ? bytes : Buffer.concat(pieces, length) }
    rest = rest.subarray(consumedBytes)
    if (contentEncoding !== 'zstd' || consumedBytes === 0) {
      return { kind: 'malformed', reason: `the ${contentEncoding} body goes on for ${rest.length} bytes after its end` }
    }
    if (pieces.length === limits.zstdFramesMax) {
      return { kind: 'malformed', reason: `the zstd body has more than ${limits.zstdFramesMax} frames` }
    }
  }
}

/** gzip(1) writes at most a tape block of zeros. */
function isPadding(body: Buffer, from: number): boolean {
  return body.length - from <= 64 * 1024 && body.subarray(from).every((byte) => byte === 0)
}

function failed(error: unknown, contentEncoding: ContentEncoding, bytesMax: number): Inflated {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ERR_BUFFER_TOO_LARGE') return tooLarge(bytesMax)
  if (code === 'ZSTD_error_frameParameter_windowTooLarge') {
    const windowBytesMax = 2 ** limits.zstdWindowLogMax
    return { kind: 'too_large', reason: `the zstd body asks for a window of more than ${windowBytesMax} bytes` }
  }
  // Only what the bytes can cause is the client's fault; anything else is a broken environment.
  if (code === undefined || !/^(Z_(DATA|BUF)_ERROR|Z_NEED_DICT|ZSTD_error_)/.test(code) || isOurFault(code)) throw error
  return { kind: 'malformed', reason: `the body is not ${contentEncoding}: ${message}` }
}

function isOurFault(code: string): boolean {
  return code === 'ZSTD_error_memory_allocation'
}

function tooLarge(bytesMax: number): Inflated {
  return { kind: 'too_large', reason: `the body inflates to more than the ${bytesMax} bytes allowed` }
}
