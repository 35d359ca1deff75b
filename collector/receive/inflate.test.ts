import { randomBytes } from 'node:crypto'
import { deflateRawSync, deflateSync, gzipSync, constants as zlibConstants, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { tenantOf } from './fixtures/receiver.ts'
import { type Inflated, inflateLater, inflateNow, openInflate } from './inflate.ts'
import type { ContentEncoding } from './request.ts'

const MiB = 1 << 20
const acme = tenantOf('acme')
const inflate = openInflate({ concurrentMax: 2 })
const compressors = { gzip: gzipSync, deflate: deflateSync, zstd: zstdCompressSync } as const
type Compression = keyof typeof compressors
const encodings = Object.keys(compressors) as Compression[]

// As compressible as telemetry: random ids among repeated words.
function telemetry(bytes: number): Buffer {
  const records = Array.from({ length: Math.ceil(bytes / 400) }, () => [
    randomBytes(40),
    Buffer.alloc(360, 'http.route GET /v1/users '),
  ])
  return Buffer.concat(records.flat()).subarray(0, bytes)
}

/** On the event loop and in the thread pool alike. */
async function both(body: Buffer, encoding: Compression, bytesMax = 64 * MiB): Promise<Inflated> {
  const now = inflateNow(body, encoding, bytesMax)
  expect(await inflateLater(body, encoding, bytesMax)).toEqual(now)
  return now
}

for (const encoding of encodings) {
  for (const bytes of [0, 1, 422, 100_000, 3 * MiB]) {
    test(`inflate: ${bytes} bytes of ${encoding} come back as they were`, async () => {
      const original = telemetry(bytes)
      const inflated = await inflate(acme, compressors[encoding](original), encoding, 64 * MiB)
      expect(inflated.kind === 'inflated' && inflated.bytes.equals(original)).toBe(true)
    })
  }

  test(`inflate: ${encoding} of exactly the limit passes, of one byte more does not`, async () => {
    const body = compressors[encoding](telemetry(50_000))
    expect((await both(body, encoding, 50_000)).kind).toBe('inflated')
    expect(await both(body, encoding, 49_999)).toMatchObject({
      kind: 'too_large',
      reason: expect.stringContaining('49999'),
    })
  })

  test(`inflate: ${encoding} cut off anywhere is malformed`, async () => {
    const body = compressors[encoding](telemetry(2000))
    for (let length = 0; length < body.length; length += 7) {
      expect((await both(body.subarray(0, length), encoding)).kind, `${length} bytes`).toBe('malformed')
    }
  })

  test(`inflate: ${encoding} with something behind it is malformed, not shorter`, async () => {
    const body = Buffer.concat([compressors[encoding](telemetry(2000)), Buffer.from('PPPPPPPPPP')])
    expect((await both(body, encoding)).kind).toBe('malformed')
  })

  test(`inflate: what is no ${encoding} is malformed`, async () => {
    expect((await both(Buffer.from('this is no compressed body at all'), encoding)).kind).toBe('malformed')
    expect((await both(randomBytes(1000), encoding)).kind).toBe('malformed')
  })
}

for (const encoding of ['gzip', 'zstd'] as const) {
  test(`inflate: ${encoding} in several parts is whole, an empty part among them`, async () => {
    const parts = [telemetry(1000), Buffer.alloc(0), telemetry(300_000), telemetry(5)]
    const body = Buffer.concat(parts.map((part) => compressors[encoding](part)))
    const inflated = await both(body, encoding)
    expect(inflated.kind === 'inflated' && inflated.bytes.equals(Buffer.concat(parts))).toBe(true)
    expect((await both(body.subarray(0, -3), encoding)).kind).toBe('malformed')
    expect((await both(body, encoding, 301_004)).kind).toBe('too_large')
  })
}

test('inflate: a zstd body that starts with a skippable frame is not taken for empty', async () => {
  const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
  const inflated = await both(Buffer.concat([skippable, zstdCompressSync('spans')]), 'zstd')
  expect(inflated.kind === 'inflated' && inflated.bytes.toString()).toBe('spans')
})

test('inflate: a body of nothing but zstd frames ends at a bound', async () => {
  const body = Buffer.concat(Array.from({ length: limits.zstdFramesMax + 1 }, () => zstdCompressSync('')))
  expect(await both(body, 'zstd')).toMatchObject({ kind: 'malformed', reason: expect.stringContaining('frames') })
})

test('inflate: a zstd frame that asks for a large window is refused before the window is there', async () => {
  const params = { [zlibConstants.ZSTD_c_windowLog]: 25 }
  const body = zstdCompressSync(Buffer.alloc(40 * MiB, 'x'), { params })
  expect(await both(body, 'zstd')).toMatchObject({ kind: 'too_large', reason: expect.stringContaining('window') })
})

test('inflate: gzip padded with zeros is whole, zeros with something behind are malformed', async () => {
  const body = gzipSync('spans')
  expect((await both(Buffer.concat([body, Buffer.alloc(512)]), 'gzip')).kind).toBe('inflated')
  expect((await both(Buffer.concat([body, Buffer.alloc(512), body]), 'gzip')).kind).toBe('malformed')
})

test('inflate: a flipped bit of gzip is malformed, wherever it is', async () => {
  const original = telemetry(1000)
  const body = gzipSync(original)
  for (let at = 0; at < body.length; at += 3) {
    const broken = Buffer.from(body)
    broken[at] = (broken[at] ?? 0) ^ 0x10
    const inflated = await both(broken, 'gzip')
    // The time, level and system in the head carry nothing.
    expect(inflated.kind === 'malformed' || (inflated.kind === 'inflated' && inflated.bytes.equals(original))).toBe(
      true,
    )
  }
})

test('inflate: a length at the end of gzip that claims 4 GiB gets no memory for it', async () => {
  const body = gzipSync(telemetry(10_000))
  body.writeUInt32LE(0xffffffff, body.length - 4)
  const before = process.memoryUsage().arrayBuffers
  expect((await both(body, 'gzip')).kind).toBe('malformed')
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * MiB)
})

test('inflate: raw deflate is not what the header promises', async () => {
  expect((await both(deflateRawSync(telemetry(1000)), 'deflate')).kind).toBe('malformed')
})

for (const encoding of encodings) {
  test(`inflate: a bomb of 512 MiB in ${encoding} fails before twice the limit is allocated, and stalls nobody`, async () => {
    const bomb = bombOf(encoding)
    let turns = 0
    let peak = 0
    const before = process.memoryUsage().arrayBuffers
    const watch = setInterval(() => {
      turns++
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - before)
    }, 1)
    const inflated = await inflate(acme, bomb, encoding, 64 * MiB)
    clearInterval(watch)
    expect(inflated.kind).toBe('too_large')
    expect(peak).toBeLessThan(128 * MiB)
    // On the event loop no other turn would come in between.
    expect(turns).toBeGreaterThan(2)
  })
}

test("inflate: one tenant's bombs delay another's body by two of them, not by all", async () => {
  const fair = openInflate({ concurrentMax: 1 })
  const bomb = gzipSync(Buffer.alloc(40 * MiB))
  const finished: string[] = []
  const bombs = Array.from({ length: 10 }, async () => {
    await fair(acme, bomb, 'gzip', 64 * MiB)
    finished.push('bomb')
  })
  const body = gzipSync(telemetry(2 * MiB))
  const other = (async () => {
    await fair(tenantOf('other'), body, 'gzip', 64 * MiB)
    finished.push('other')
  })()
  await Promise.all([...bombs, other])
  expect(finished.indexOf('other')).toBeLessThanOrEqual(2)
  expect(finished).toHaveLength(11)
})

test('inflate: an identity body is itself, and within the limit', () => {
  const body = Buffer.from('spans')
  expect(inflate(acme, body, 'identity', 5)).toEqual({ kind: 'inflated', bytes: body })
  expect(inflate(acme, body, 'identity', 4)).toMatchObject({ kind: 'too_large' })
})

test('inflate: small bodies are answered at once, large ones later', () => {
  const isLater = (bytes: number, encoding: ContentEncoding) =>
    inflate(acme, gzipSync(telemetry(bytes)), encoding, 64 * MiB) instanceof Promise
  expect(isLater(220_000, 'gzip')).toBe(false)
  expect(isLater(4 * MiB, 'gzip')).toBe(true)
})

function bombOf(encoding: Compression): Buffer {
  if (encoding === 'zstd') return zstdCompressSync(Buffer.alloc(512 * MiB))
  // Zeros compress to repetition: 8 MiB of them once, and many members say the same in a second.
  if (encoding === 'gzip') {
    const member = gzipSync(Buffer.alloc(32 * MiB))
    return Buffer.concat(Array.from({ length: 16 }, () => member))
  }
  return deflateSync(Buffer.alloc(512 * MiB), { level: 1 })
}
