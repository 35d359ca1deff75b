import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { type ClickHouseAddress, type InsertOutcome, insertSettings, openClickHouse } from './client.ts'

type Handler = (request: IncomingMessage, response: ServerResponse) => void

async function insertInto(
  handler: Handler,
  body: Iterable<Buffer> | AsyncIterable<Buffer> = [Buffer.from('block')],
  address: Partial<ClickHouseAddress> & { readonly abort?: AbortSignal } = {},
): Promise<InsertOutcome> {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { abort, ...rest } = address
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await using client = openClickHouse({ url, database: 'd', ...rest })
  try {
    return await client.insertNative(
      '`d`.`t`',
      ['a', 'Events.Name'],
      insertSettings,
      body,
      abort === undefined ? {} : { abort },
    )
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const answer =
  (status: number, text: string, headers = {}): Handler =>
  (request, response) => {
    request.resume().on('end', () => response.writeHead(status, headers).end(text))
  }

test('insert: the statement and the settings go in the URL, the block alone in the body', async () => {
  let url = new URL('http://none')
  let sent: Buffer = Buffer.alloc(0)
  const outcome = await insertInto(
    async (request, response) => {
      url = new URL(request.url ?? '', 'http://x')
      sent = await bodyOf(request)
      response.writeHead(200, { 'X-ClickHouse-Summary': '{"written_rows":"7"}' }).end()
    },
    [Buffer.from('a bl'), Buffer.from('ock')],
  )
  expect(outcome).toEqual({ kind: 'inserted', writtenRows: 7 })
  expect(url.searchParams.get('query')).toBe('INSERT INTO `d`.`t` (`a`, `Events.Name`) FORMAT Native')
  for (const [name, value] of Object.entries(insertSettings))
    expect(url.searchParams.get(name), name).toBe(String(value))
  expect(sent.toString()).toBe('a block')
})

test('insert: compressed when asked to, and what arrives inflates to the block', async () => {
  for (const [codec, inflate] of [
    ['gzip', gunzipSync],
    ['zstd', zstdDecompressSync],
  ] as const) {
    let sent = ''
    const outcome = await insertInto(
      async (request, response) => {
        expect(request.headers['content-encoding']).toBe(codec)
        sent = inflate(await bodyOf(request)).toString()
        response.end()
      },
      [Buffer.from('a block')],
      { compression: codec },
    )
    expect(outcome.kind).toBe('inserted')
    expect(sent).toBe('a block')
  }
})

const refusal = 'Code: 252. DB::Exception: Too many parts (3000). (TOO_MANY_PARTS) (version 26.7.2.1)'
const outcomes: readonly (readonly [what: string, handler: Handler, expected: object])[] = [
  [
    'a refusal has its code',
    answer(500, refusal, { 'X-ClickHouse-Exception-Code': '252' }),
    { kind: 'refused', code: 252, type: 'TOO_MANY_PARTS' },
  ],
  [
    'a refusal with status 200 is one',
    answer(200, refusal, { 'X-ClickHouse-Exception-Code': '252' }),
    { kind: 'refused', code: 252 },
  ],
  ['a proxy that answers 502 leaves doubt', answer(502, '<html>Bad Gateway</html>'), { kind: 'in_doubt' }],
  ['an exception behind status 200 leaves doubt', answer(200, refusal), { kind: 'in_doubt' }],
  [
    'a connection cut after the block leaves doubt',
    (request) => void request.resume().on('end', () => request.socket.destroy()),
    { kind: 'in_doubt' },
  ],
  [
    'a connection cut within the answer leaves doubt',
    (request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200, { 'Content-Length': 10 }).write('1')
        response.socket?.destroySoon()
      })
    },
    { kind: 'in_doubt' },
  ],
  ['a connection cut at once leaves doubt', (request) => void request.socket.destroy(), { kind: 'in_doubt' }],
]
for (const [what, handler, expected] of outcomes) {
  test(`insert: ${what}`, async () => {
    expect(await insertInto(handler)).toMatchObject(expected)
  })
}

test('insert: no answer in time leaves doubt', async () => {
  expect(
    await insertInto((request) => void request.resume(), [Buffer.from('x')], { requestTimeoutMs: 200 }),
  ).toMatchObject({ kind: 'in_doubt' })
})

test('insert: an abort after the block was sent leaves doubt', async () => {
  const abort = new AbortController()
  const outcome = await insertInto(
    (request) => void request.resume().on('end', () => abort.abort()),
    [Buffer.from('x')],
    { abort: abort.signal },
  )
  expect(outcome).toMatchObject({ kind: 'in_doubt' })
})

test('insert: nobody at the address is unreachable, by number and by name', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  for (const url of [`http://127.0.0.1:${port}`, `http://localhost:${port}`, 'http://no-such-host.invalid:8123']) {
    await using client = openClickHouse({ url, database: 'd' })
    expect(await client.insertNative('t', ['a'], {}, [Buffer.from('x')]), url).toMatchObject({ kind: 'unreachable' })
  }
})

test('insert: a body that fails half way is never ended, so the server cannot take it for whole', async () => {
  let ended: 'whole' | 'cut' | undefined
  const closed = Promise.withResolvers<void>()
  const arrived = Promise.withResolvers<void>()
  const outcome = await insertInto(
    (request) => {
      request.once('data', () => arrived.resolve())
      request.resume().on('end', () => {
        ended = 'whole'
      })
      request.on('close', () => {
        ended ??= 'cut'
        closed.resolve()
      })
    },
    (async function* () {
      yield Buffer.alloc(100_000)
      await arrived.promise
      throw new Error('the segment could not be read')
    })(),
  )
  await closed.promise
  expect(outcome).toMatchObject({ kind: 'in_doubt', message: expect.stringContaining('the segment could not be read') })
  expect(ended).toBe('cut')
})

test('insert: a server that does not read holds the body back', async () => {
  let pulled = 0
  const stalled = Promise.withResolvers<void>()
  const abort = new AbortController()
  const body = (function* () {
    for (;;) {
      pulled++
      yield Buffer.alloc(256 * 1024)
    }
  })()
  const inserting = insertInto(
    (request) => {
      request.pause()
      stalled.resolve()
    },
    body,
    { abort: abort.signal },
  )
  await stalled.promise
  // The stream has stalled when a while passes in which nothing is pulled.
  for (let before = -1; before !== pulled; ) {
    before = pulled
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  assert(pulled < 200, `${pulled} pieces of 256 KiB were taken from the body while nobody read them`)
  abort.abort()
  expect(await inserting).toMatchObject({ kind: 'in_doubt' })
})
