import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { insertSettings } from './client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from './embedded.ts'

const MiB = 1024 * 1024
const readerKey = 'tl_reader'
let directory: string
let engine: EmbeddedClickHouse
let owner: Readonly<Record<string, string>>
const reader = { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': readerKey }

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-endpoint-'))
  engine = await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined })
  engine.setReaderKeys([createHash('sha256').update(readerKey).digest('hex')])
  owner = { 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': engine.password }
})
afterAll(async () => {
  await engine[Symbol.asyncDispose]()
  await rm(directory, { recursive: true, force: true })
})

type Parameters = Readonly<Record<string, string | number>>
type Answer = { readonly status: number; readonly headers: Headers; readonly body: Buffer; readonly text: string }

function urlOf(parameters: Parameters = {}): string {
  return `${engine.url}/?${new URLSearchParams(Object.entries(parameters).map(([name, value]): [string, string] => [name, String(value)]))}`
}

async function post(
  body: string | Buffer,
  parameters: Parameters = {},
  headers: Readonly<Record<string, string>> = owner,
): Promise<Answer> {
  const response = await fetch(urlOf(parameters), {
    method: 'POST',
    body: typeof body === 'string' ? body : new Uint8Array(body),
    headers,
  })
  const bytes = Buffer.from(await response.arrayBuffer())
  return { status: response.status, headers: response.headers, body: bytes, text: bytes.toString() }
}

/** For statements that must work. */
async function ask(sql: string, parameters: Parameters = {}): Promise<string> {
  const answer = await post(sql, parameters)
  expect(answer.text, sql).not.toMatch(/^Code: /)
  return answer.text.trimEnd()
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error('it did not come true within 20 s')
  }
}

const processesLike = async (text: string): Promise<string> =>
  ask(`SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT ${text}')`)

async function residentBytes(): Promise<number> {
  return Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${engine.pid()}/status`, 'utf8'))?.[1]) * 1024
}

/** An answer as it comes, with Node's own client: `fetch` hides how a body ended. */
async function open(
  parameters: Parameters,
  headers: Readonly<Record<string, string>> = owner,
): Promise<IncomingMessage> {
  const asked = httpRequest(urlOf(parameters), { method: 'POST', headers }).end()
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  return response
}

describe('@clickhouse/client', () => {
  it('works as with a server: ping, parameters, rows, inserts, commands, errors', async () => {
    const client = createClient({
      url: engine.url,
      username: engine.user,
      password: engine.password,
      compression: { request: true, response: true },
      log: { level: ClickHouseLogLevel.OFF },
    })
    expect(await client.ping()).toMatchObject({ success: true })
    expect(await client.ping({ select: true })).toMatchObject({ success: true })
    await client.command({
      query:
        "CREATE TABLE client (a UInt64, b String DEFAULT concat('of ', toString(a))) ENGINE = MergeTree ORDER BY a",
    })
    await client.insert({
      table: 'client',
      values: [{ a: 1, b: "it's\n\\ ü" }, { a: '18446744073709551615' }],
      format: 'JSONEachRow',
    })
    await client.insert({
      table: 'client',
      values: Readable.from(['3\tthree\n', '4\tfour\n'], { objectMode: false }),
      format: 'TabSeparated',
    })
    await client.command({
      query: 'INSERT INTO client VALUES ({a:UInt64}, {b:String})',
      query_params: { a: 5, b: "'); DROP TABLE client --" },
    })
    const rows = await client.query({
      query:
        'SELECT toString(a) AS a, b FROM client WHERE toString(a) IN {some:Array(String)} OR b = {text:String} ORDER BY client.a',
      query_params: { some: ['18446744073709551615', '4'], text: "it's\n\\ ü" },
    })
    expect((await rows.json()).data).toEqual([
      { a: '1', b: "it's\n\\ ü" },
      { a: '4', b: 'four' },
      { a: '18446744073709551615', b: 'of 18446744073709551615' },
    ])
    const long = 'x'.repeat(100_000)
    const form = await client.query({
      query: 'SELECT length({long:String}) AS length',
      query_params: { long },
      use_multipart_params_auto: true,
      format: 'JSONEachRow',
    })
    expect(await form.json()).toEqual([{ length: long.length }])
    const streamed = await client.query({ query: 'SELECT number FROM numbers(300000)', format: 'JSONEachRow' })
    let count = 0
    for await (const chunk of streamed.stream()) count += chunk.length
    expect(count).toBe(300_000)
    const executed = await client.exec({ query: 'SELECT 1 FORMAT CSV', query_id: 'mine' })
    expect([executed.query_id, await new Response(Readable.toWeb(executed.stream) as ReadableStream).text()]).toEqual([
      'mine',
      '1\n',
    ])
    await expect(client.query({ query: 'SELECT * FROM nowhere' })).rejects.toMatchObject({
      code: '60',
      type: 'UNKNOWN_TABLE',
    })
    await expect(client.insert({ table: 'client', values: [{ a: 'x' }], format: 'JSONEachRow' })).rejects.toMatchObject(
      { code: '27' },
    )
    await client.close()
  })

  it.each([{ response: false }, { response: true }])(
    'hears of a statement that fails behind its first rows (%j)',
    async (compression) => {
      const client = createClient({
        url: engine.url,
        username: engine.user,
        password: engine.password,
        compression,
        log: { level: ClickHouseLogLevel.OFF },
      })
      const rows = await client.query({
        query: "SELECT throwIf(number = 400000, 'in the middle') AS failed, number FROM numbers(1000000)",
        format: 'JSONEachRow',
        clickhouse_settings: { max_block_size: '1000' },
      })
      let count = 0
      const read = async (): Promise<void> => {
        for await (const chunk of rows.stream()) count += chunk.length
      }
      // The client takes the exception out of the last chunk it read. When the network has cut that in two it says so
      // instead; what the frame holds is tested below, byte for byte.
      await expect(read()).rejects.toThrow(/in the middle|there was an error in the stream/)
      expect(count).toBeGreaterThan(0)
      await client.close()
    },
  )
})

describe('clickhouse-go', () => {
  it('gets the hello of revision 0 in the framing that it asked with', async () => {
    const hello = await post(
      'SELECT displayName(), version(), revision(), timezone()',
      { client_protocol_version: 54460, database: 'default', default_format: 'Native', max_execution_time: 14 },
      reader,
    )
    const version = Buffer.from(engine.version).toString('hex')
    const zone = await ask('SELECT lower(hex(timezone())), length(timezone())')
    const [zoneHex, zoneLength] = zone.split('\t')
    const column = (name: string, type: string): string =>
      [name, type]
        .map((text) => Buffer.from([text.length]).toString('hex') + Buffer.from(text).toString('hex'))
        .join('')
    expect(hello.body.toString('hex')).toBe(
      `010002ffffffff000401${column('displayName()', 'String')}0008${Buffer.from('embedded').toString('hex')}${column('version()', 'String')}00${Buffer.from([engine.version.length]).toString('hex')}${version}${column('revision()', 'UInt32')}0000000000${column('timezone()', 'String')}00${Number(zoneLength).toString(16).padStart(2, '0')}${zoneHex}`,
    )
  })

  it('gets plain Native with the settings that it always sends, and nothing for no rows', async () => {
    const parameters = {
      client_protocol_version: 54460,
      database: 'default',
      default_format: 'Native',
      max_execution_time: 65,
    }
    expect((await post('SELECT 1', parameters, reader)).body.toString('hex')).toBe('010101310555496e743801')
    expect((await post('SELECT 1 WHERE 0', parameters, reader)).body.length).toBe(0)
  })
})

describe('answers', () => {
  it.each<readonly [string, string, RegExp | string]>([
    ['TabSeparated', 'text/tab-separated-values; charset=UTF-8', '0\n1\n2\n'],
    ['CSVWithNames', 'text/csv; charset=UTF-8; header=present', '"n"\n0\n1\n2\n'],
    ['JSONEachRow', 'application/x-ndjson; charset=UTF-8', '{"n":0}\n{"n":1}\n{"n":2}\n'],
    ['JSON', 'application/json; charset=UTF-8', /"rows": 3,/],
    ['XML', 'application/xml; charset=UTF-8', /<rows>3<\/rows>/],
    ['Parquet', 'application/octet-stream', /^PAR1[\s\S]*PAR1$/],
    ['Null', 'text/plain; charset=UTF-8', ''],
  ])('of the format %s', async (format, contentType, body) => {
    const sql = 'SELECT toUInt8(number) AS n FROM numbers(3)'
    const byClause = await post(`${sql} FORMAT ${format}`)
    const byUrl = await post(sql, { default_format: format })
    const byHeader = await post(sql, {}, { ...owner, 'X-ClickHouse-Format': format })
    for (const answer of [byClause, byUrl, byHeader]) {
      expect(answer.status).toBe(200)
      expect(answer.headers.get('content-type')).toBe(contentType)
      expect(answer.headers.get('x-clickhouse-format')).toBe(format)
      if (typeof body === 'string') expect(answer.text).toBe(body)
      else expect(answer.body.toString('latin1')).toMatch(body)
    }
    // Nobody counts the rows of Null.
    const summary = JSON.parse(byUrl.headers.get('x-clickhouse-summary') ?? '')
    expect(summary.result_rows).toBe(format === 'Null' ? '0' : '3')
  })

  it('of any path, to GET and HEAD too, where GET changes nothing', async () => {
    const get = (path: string, method = 'GET') => fetch(`${engine.url}${path}`, { method, headers: owner })
    expect(await (await get('/ping')).text()).toBe('Ok.\n')
    expect((await get('/ping', 'HEAD')).status).toBe(200)
    expect(await (await fetch(`${engine.url}/prefix/ping`)).text()).toBe('Ok.\n')
    expect(await (await get('/some/prefix?query=SELECT+1')).text()).toBe('1\n')
    const changing = await get('/?query=CREATE+DATABASE+by_get')
    expect([changing.status, changing.headers.get('x-clickhouse-exception-code')]).toEqual([500, '164'])
  })

  it.each<readonly [string, Parameters, number, number]>([
    ['SELECT nothing', {}, 404, 47],
    ['SELECT * FROM nowhere', {}, 404, 60],
    ['SELECT 1 FROM', {}, 400, 62],
    ['', {}, 400, 62],
    ['SELECT 1', { database: 'nowhere' }, 404, 81],
    ['SELECT 1', { no_such_setting: 1 }, 404, 115],
    ['SELECT 1 FORMAT Nonsense', {}, 404, 73],
    ['SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1', { max_execution_time: 1 }, 408, 159],
    ["SELECT throwIf(1, 'x')", {}, 500, 395],
    ['SELECT groupArray(number) FROM numbers(1000000000)', { max_memory_usage: 50_000_000 }, 500, 241],
    ['SELECT 1', { session_id: 'x' }, 501, 48],
    ['SYSTEM SHUTDOWN', {}, 403, 497],
    ["SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a Int')", {}, 403, 497],
    ["CREATE TABLE u (a Int) ENGINE = URL('http://127.0.0.1:1/', CSV)", {}, 403, 497],
    ["SELECT 1 INTO OUTFILE '/tmp/x'", {}, 403, 497],
  ])('%j with %j is status %i and code %i', async (sql, parameters, status, code) => {
    const answer = await post(sql, parameters)
    expect([answer.status, answer.headers.get('x-clickhouse-exception-code')]).toEqual([status, String(code)])
    expect(answer.text).toMatch(
      new RegExp(`^Code: ${code}\\. DB::Exception: .+ \\([A-Z_]+\\) \\(version [\\d.]+\\)\\n$`, 's'),
    )
  })

  it.each<readonly [string, string, string]>([
    ['UInt8', '7', '7'],
    ['String', "a\\tb\\\\ ' ü", "a\\tb\\\\ \\' ü"],
    ['Array(String)', "['a','b\\'c']", "['a','b\\'c']"],
    ['Map(String, UInt8)', "{'k':1}", "{'k':1}"],
    ['Nullable(String)', '\\N', '\\N'],
    ['Tuple(UInt8, String)', "(1,'x')", "(1,'x')"],
    ['Date', '2024-02-29', '2024-02-29'],
  ])('bind a parameter of type %s', async (type, value, expected) => {
    expect((await post(`SELECT {p:${type}}`, { param_p: value })).text).toBe(`${expected}\n`)
    expect((await post(`SELECT {p:${type}}`, { param_p: value }, reader)).text).toBe(`${expected}\n`)
  })

  it('are compressed when asked with enable_http_compression, with gzip and zstd, small or streamed', async () => {
    for (const count of [3, 300_000]) {
      const sql = `SELECT number FROM numbers(${count})`
      const plain = await ask(sql)
      for (const [encoding, inflate] of [
        ['gzip', gunzipSync],
        ['zstd', zstdDecompressSync],
      ] as const) {
        const response = await open(
          { query: sql, enable_http_compression: 1 },
          { ...owner, 'Accept-Encoding': encoding },
        )
        expect(response.headers['content-encoding']).toBe(encoding)
        expect(
          inflate(Buffer.concat(await response.toArray()))
            .toString()
            .trimEnd(),
        ).toBe(plain)
        const unasked = await open({ query: sql }, { ...owner, 'Accept-Encoding': encoding })
        expect(unasked.headers['content-encoding']).toBeUndefined()
        unasked.resume()
      }
    }
  })

  it('that break in the middle end with the frame of the tag, and without the last chunk', async () => {
    const response = await open({
      query: "SELECT throwIf(number = 900000, 'too late') FROM numbers(1000000)",
      max_block_size: 1000,
    })
    expect(response.statusCode).toBe(200)
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    await expect(once(response, 'end')).rejects.toMatchObject({ code: 'ECONNRESET' })
    const tag = response.headers['x-clickhouse-exception-tag']
    const found = new RegExp(
      `\\r\\n__exception__\\r\\n${tag}\\r\\n(Code: 395[\\s\\S]*\\n)(\\d+) ${tag}\\r\\n__exception__\\r\\n$`,
    ).exec(Buffer.concat(chunks).toString())
    expect(Number(found?.[2])).toBe(found?.[1]?.length)
  })

  it('of 5 million rows are streamed: the engine holds a small part, and waits for a slow client', async () => {
    await ask('SELECT number, toString(number) FROM numbers(500000) FORMAT Null')
    const before = await residentBytes()
    const response = await open({ query: "SELECT number, repeat('x', 100) FROM numbers(5000000) FORMAT RowBinary" })
    await once(response, 'readable')
    let highest = 0
    let size = 0
    for await (const chunk of response) {
      size += (chunk as Buffer).length
      if (size % 64 === 0) highest = Math.max(highest, await residentBytes())
    }
    expect(size).toBe(5_000_000 * (8 + 1 + 100))
    expect(highest - before).toBeLessThan(150 * MiB)
  })
})

describe('many at once', () => {
  it('long statements of readers hold up neither inserts nor the ping', async () => {
    await ask('CREATE TABLE beside (a UInt32) ENGINE = MergeTree ORDER BY a')
    const gone = new AbortController()
    const long = Array.from({ length: 20 }, () =>
      fetch(urlOf(), {
        method: 'POST',
        body: 'SELECT sleepEachRow(0.5), 20 FROM numbers(100) SETTINGS max_block_size = 1',
        headers: reader,
        signal: gone.signal,
      }),
    )
    const ended = Promise.allSettled(long)
    await until(async () => (await processesLike('sleepEachRow(0.5), 20')) === '6')
    const start = performance.now()
    for (let a = 0; a < 10; a++) {
      await ask(`INSERT INTO beside FORMAT CSV\n${a}\n`)
      expect(await (await fetch(`${engine.url}/ping`)).text()).toBe('Ok.\n')
    }
    expect(await ask('SELECT count() FROM beside')).toBe('10')
    expect(performance.now() - start).toBeLessThan(5_000)
    // Clients that go take their statements with them, waiting ones too.
    gone.abort()
    await ended
    await until(async () => (await processesLike('sleepEachRow(0.5), 20')) === '0')
  })

  it('an analysis that runs a query of its own does not hold up the others', async () => {
    const slow = post('SELECT (SELECT count() FROM numbers(3) WHERE sleepEachRow(1) = 0) AS a', { max_block_size: 1 })
    await until(async () => (await processesLike('(SELECT count() FROM numbers')) === '1')
    expect(await ask('SELECT 1')).toBe('1')
    expect(await processesLike('(SELECT count() FROM numbers')).toBe('1')
    expect((await slow).status).toBe(200)
  })

  it('a client that stops reading and leaves frees its place', async () => {
    for (let round = 0; round < 20; round++) {
      const response = await open({ query: `SELECT number, ${round}, 'left' FROM numbers(1000000000)` }, reader)
      await once(response, 'readable')
      response.destroy()
    }
    await until(
      async () =>
        (await ask(
          "SELECT count() FROM system.processes WHERE query LIKE '%''left''%'  AND query NOT LIKE '%processes%'",
        )) === '0',
    )
    expect((await post('SELECT 1', {}, reader)).text).toBe('1\n')
  })

  it('answers never mix, whoever reads how fast', async () => {
    const one = async (number: number): Promise<void> => {
      const response = await open({ query: `SELECT ${number} FROM numbers(50000)` }, number % 2 === 0 ? owner : reader)
      expect((await response.toArray()).join('')).toBe(`${number}\n`.repeat(50_000))
    }
    const leave = async (): Promise<void> => {
      const response = await open({ query: "SELECT 'another' FROM numbers(10000000)" })
      await once(response, 'readable')
      response.destroy()
    }
    await Promise.all(Array.from({ length: 60 }, (_, number) => (number % 5 === 4 ? leave() : one(number))))
  })
})

describe('inserts', () => {
  const formats = [
    'Native',
    'RowBinary',
    'RowBinaryWithNamesAndTypes',
    'JSONEachRow',
    'JSONCompactEachRow',
    'CSV',
    'CSVWithNames',
    'TabSeparated',
    'Values',
    'Parquet',
    'ArrowStream',
  ] as const
  it.each(formats)(
    '%s comes back as it was, in the body with its statement or without, compressed or not',
    async (format) => {
      await ask(
        'CREATE OR REPLACE TABLE source (a UInt32, b String, c Map(LowCardinality(String), String), t DateTime64(9)) ENGINE = MergeTree ORDER BY a',
      )
      await ask('CREATE OR REPLACE TABLE copy AS source')
      await ask(
        "INSERT INTO source SELECT number, concat('\\'\\n\\t\\\\ü', char(number)), map('k', toString(number)), toDateTime64('2024-01-01 00:00:00.123456789', 9) + number FROM numbers(100) WHERE number > 0",
      )
      const rows = (await post(`SELECT * FROM source ORDER BY a FORMAT ${format}`)).body
      const inUrl = { query: `INSERT INTO copy FORMAT ${format}` }
      const sent = [
        await post(rows, inUrl),
        await post(gzipSync(rows), inUrl, { ...owner, 'Content-Encoding': 'gzip' }),
        await post(zstdCompressSync(rows), inUrl, { ...owner, 'Content-Encoding': 'zstd' }),
        await post(Buffer.concat([Buffer.from(`INSERT INTO copy (a, b, c, t) FORMAT ${format}\n`), rows])),
      ]
      expect(sent.map((answer) => [answer.status, answer.text])).toEqual(sent.map(() => [200, '']))
      expect(await ask('SELECT count(), uniqExact(tuple(*)) FROM copy')).toBe('396\t99')
      expect(await ask('SELECT count() FROM copy WHERE tuple(*) IN (SELECT tuple(*) FROM source)')).toBe('396')
    },
  )

  it('columns that are left out get their defaults; one that the table lacks is an error when settings say so', async () => {
    await ask(
      "CREATE TABLE defaults (a UInt32, b String DEFAULT concat('of ', toString(a)), t DateTime DEFAULT '2024-01-01 00:00:00') ENGINE = MergeTree ORDER BY a",
    )
    await ask('INSERT INTO defaults FORMAT JSONEachRow\n{"a":1}\n{"a":2,"b":"two"}\n')
    await ask('INSERT INTO defaults (a) FORMAT CSV\n3\n')
    const native = (await post("SELECT toUInt64(4) AS a, toDateTime64('2025-01-01 00:00:00', 9) AS t FORMAT Native"))
      .body
    await post(native, { query: 'INSERT INTO defaults (a, t) FORMAT Native', ...insertSettings })
    expect(await ask('SELECT a, b, t FROM defaults ORDER BY a FORMAT CSV')).toBe(
      '1,"of 1","2024-01-01 00:00:00"\n2,"two","2024-01-01 00:00:00"\n3,"of 3","2024-01-01 00:00:00"\n4,"of 4","2025-01-01 00:00:00"',
    )
    const foreign = (await post('SELECT toUInt32(5) AS a, 1 AS foreign FORMAT Native')).body
    const refused = await post(foreign, { query: 'INSERT INTO defaults FORMAT Native', ...insertSettings })
    expect(refused.headers.get('x-clickhouse-exception-code')).toBe('117')
    expect(refused.text).toContain('foreign')
    expect(await ask('SELECT count() FROM defaults')).toBe('4')
  })

  it('a block of 1,000,000 rows makes one part, and the same token a second time nothing', async () => {
    await ask(
      'CREATE TABLE blocks (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100',
    )
    await ask('SYSTEM STOP MERGES blocks')
    const block = (
      await post("SELECT number AS a, repeat('x', 100) AS s FROM numbers(1000000) FORMAT Native", {
        max_block_size: 1_000_000,
        max_threads: 1,
      })
    ).body
    const insert = (token: string) =>
      post(block, {
        query: 'INSERT INTO blocks (a, s) FORMAT Native',
        ...insertSettings,
        insert_deduplication_token: token,
      })
    expect((await insert('first')).text).toBe('')
    expect((await insert('first')).text).toBe('')
    expect(await ask("SELECT rows FROM system.parts WHERE table = 'blocks' AND active")).toBe('1000000')
    expect((await insert('second')).text).toBe('')
    expect(await ask("SELECT rows FROM system.parts WHERE table = 'blocks' AND active")).toBe('1000000\n1000000')
    expect(
      await readdir(join(directory, 'spool')).then((names) => names.filter((name) => !name.startsWith('pipe'))),
    ).toEqual([])
  })

  it('a body of 256 MiB is taken in within the bound of memory', async () => {
    await ask('CREATE TABLE large (s String) ENGINE = Null')
    const line = Buffer.from(`${'y'.repeat(1023)}\n`)
    const part = Buffer.concat(Array.from({ length: 1024 }, () => line))
    let highest = 0
    async function* body(): AsyncGenerator<Buffer> {
      for (let sent = 0; sent < 256; sent++) {
        yield part
        if (sent % 16 === 0) highest = Math.max(highest, await residentBytes())
      }
    }
    const asked = httpRequest(urlOf({ query: 'INSERT INTO large FORMAT TabSeparated' }), {
      method: 'POST',
      headers: owner,
    })
    const answered = once(asked, 'response') as Promise<[IncomingMessage]>
    Readable.from(body(), { objectMode: false }).pipe(asked)
    const [response] = await answered
    expect([response.statusCode, (await response.toArray()).join('')]).toEqual([200, ''])
    expect(Math.max(highest, await residentBytes())).toBeLessThan(1024 * MiB)
  })

  it('a client that leaves in the middle has inserted nothing, and left no file', async () => {
    await ask('CREATE TABLE torn (s String) ENGINE = MergeTree ORDER BY s')
    const asked = httpRequest(urlOf({ query: 'INSERT INTO torn FORMAT TabSeparated' }), {
      method: 'POST',
      headers: owner,
    })
    asked.on('error', () => undefined)
    asked.write('whole line\n'.repeat(200_000))
    const spooled = async (): Promise<number> =>
      (await readdir(join(directory, 'spool'))).filter((name) => name.startsWith('body')).length
    await until(async () => (await spooled()) === 1)
    asked.destroy()
    await until(async () => (await spooled()) === 0)
    expect(await ask('SELECT count() FROM torn')).toBe('0')
  })

  it.each<readonly [string, Buffer, Readonly<Record<string, string>>, string]>([
    ['is no gzip', Buffer.from('nonsense'), { 'Content-Encoding': 'gzip' }, '33'],
    [
      'ends in the middle of its gzip',
      gzipSync(Buffer.alloc(100_000, '1\n')).subarray(0, 60),
      { 'Content-Encoding': 'gzip' },
      '33',
    ],
    ['has an unknown encoding', Buffer.from('1\n'), { 'Content-Encoding': 'lzma' }, '48'],
    ['does not parse', Buffer.from('1\nx\n'), {}, '117'],
  ])('a body that %s inserts nothing', async (_, body, headers, code) => {
    await ask('CREATE TABLE IF NOT EXISTS broken (a UInt8) ENGINE = MergeTree ORDER BY a')
    const answer = await post(body, { query: 'INSERT INTO broken FORMAT CSV' }, { ...owner, ...headers })
    expect(answer.headers.get('x-clickhouse-exception-code')).toBe(code)
    expect(await ask('SELECT count() FROM broken')).toBe('0')
  })
})

describe('access', () => {
  it.each<readonly [string, () => Readonly<Record<string, string>>, number, string | null]>([
    ['no credentials', () => ({}), 401, '194'],
    ['a user without password', () => ({ 'X-ClickHouse-User': 'default' }), 403, '516'],
    ['a wrong key', () => ({ ...reader, 'X-ClickHouse-Key': 'tl_other' }), 403, '516'],
    [
      'the hash of a key',
      () => ({ ...reader, 'X-ClickHouse-Key': createHash('sha256').update(readerKey).digest('hex') }),
      403,
      '516',
    ],
    [
      "the collector's user with a reader's key",
      () => ({ 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': readerKey }),
      403,
      '516',
    ],
    ["a reader with the collector's password", () => ({ ...reader, 'X-ClickHouse-Key': engine.password }), 403, '516'],
    [
      'Basic',
      () => ({ Authorization: `Basic ${Buffer.from(`tallylight:${readerKey}`).toString('base64')}` }),
      200,
      null,
    ],
    ['a page with a name of its own', () => ({ ...reader, Host: 'evil.example:8123' }), 403, '497'],
    ['a page of another origin', () => ({ ...reader, Origin: 'http://evil.example' }), 403, '497'],
    ['localhost', () => ({ ...reader, Host: 'localhost:8123' }), 200, null],
  ])('%s', async (_, headers, status, code) => {
    const response = await open({ query: 'SELECT 1' }, headers())
    expect([response.statusCode, response.headers['x-clickhouse-exception-code'] ?? null]).toEqual([status, code])
    expect(Object.keys(response.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
    response.resume()
  })

  it.each<readonly [string, () => Readonly<Record<string, string>>, string]>([
    ['with a wrong key', () => ({ ...reader, 'X-ClickHouse-Key': 'x' }), '516'],
    ['of a reader', () => reader, '229'],
    ['for a table that is not there', () => owner, '60'],
  ])('a body of 64 MiB %s is refused with its reason, not with a reset', async (_, headers, code) => {
    const answer = await post(Buffer.alloc(64 * MiB, '1\n'), { query: 'INSERT INTO not_there FORMAT CSV' }, headers())
    expect(answer.headers.get('x-clickhouse-exception-code')).toBe(code)
  })

  it('a key that is taken back is refused at once', async () => {
    const hash = createHash('sha256').update('short').digest('hex')
    const known = createHash('sha256').update(readerKey).digest('hex')
    const asShort = () => post('SELECT 1', {}, { ...reader, 'X-ClickHouse-Key': 'short' })
    engine.setReaderKeys([known, hash])
    expect((await asShort()).status).toBe(200)
    engine.setReaderKeys([known])
    // The message and the question take different ways; the next question is behind the message.
    await until(async () => (await asShort()).status === 403)
  })

  it('a request without end or nonsense for HTTP does not keep others out', async () => {
    const socket = connect(engine.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write('POST /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf')
    const noise = connect(engine.port, '127.0.0.1')
    noise.on('error', () => undefined).resume()
    noise.write('\0\x01nonsense\r\n\r\n')
    await once(noise, 'close')
    expect(await ask('SELECT 1')).toBe('1')
    socket.destroy()
  })
})

describe('readers', () => {
  const read = (sql: string, parameters: Parameters = {}) => post(sql, parameters, reader)
  beforeAll(async () => {
    await ask('CREATE TABLE IF NOT EXISTS seen (a UInt32) ENGINE = MergeTree ORDER BY a')
    await ask('INSERT INTO seen SELECT number FROM numbers(10)')
  })

  it.each([
    'SHOW DATABASES',
    'SHOW TABLES FROM "default"',
    'DESC TABLE "default"."seen"',
    'EXPLAIN SELECT * FROM seen',
    'EXISTS TABLE seen',
    'SHOW CREATE TABLE seen',
    "SELECT name, type, table FROM system.columns WHERE database = 'default'",
    'SELECT name, is_aggregate, case_insensitive FROM system.functions LIMIT 10000',
    "WITH 3 AS x SELECT count() FROM seen WHERE a < x AND 'INTO OUTFILE; DROP' != ''",
    'SELECT toStartOfInterval(toDateTime(a), INTERVAL 5 second) AS t, quantile(0.9)(a), count() FROM seen GROUP BY t ORDER BY t',
    '(SELECT a FROM seen) UNION ALL (SELECT a FROM seen)',
    'SELECT a, count() FILTER (WHERE a > 1) FROM seen GROUP BY a WITH TOTALS ORDER BY a DESC NULLS LAST LIMIT 1 BY a',
    "SELECT * EXCEPT (a), COLUMNS('a') APPLY (x -> x + 1), [1, 2][1], (1, 2).1, CASE WHEN a = 1 THEN 2 ELSE 3 END FROM seen",
    'SELECT s.a FROM seen AS s ASOF JOIN seen AS t ON s.a = t.a AND s.a >= t.a',
    'SELECT a, sum(a) OVER (PARTITION BY a % 2 ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM seen QUALIFY a > 1',
  ])('%s', async (sql) => {
    const answer = await read(sql)
    expect([answer.status, answer.text.startsWith('Code')], answer.text).toEqual([200, false])
    expect(answer.text).not.toBe('')
    // What ran is the engine's rendering of it; the collector's runs as it stands.
    if (!sql.startsWith('SHOW CREATE')) expect(answer.text).toBe((await post(sql)).text)
  })

  it('have as many bytes for a statement as with a server, and more for its parameters', async () => {
    const names = (bytes: number): string => `${"'ab',".repeat(Math.floor((bytes - 60) / 5))}'ab'`
    expect((await read(`SELECT 'ab' IN (${names(256 * 1024)}) SETTINGS max_threads = 1;`)).text).toBe('1\n')
    // Taken apart, what follows would take more memory than the process has.
    for (const sql of [`SELECT 'ab' IN (${names(3 * MiB)})`, `SELECT ${'('.repeat(4 * MiB - 7)}`]) {
      const refused = await read(sql)
      expect([refused.status, refused.headers.get('x-clickhouse-exception-code')]).toEqual([413, '229'])
    }
    const long = new FormData()
    long.set('query', 'SELECT length({text:String})')
    long.set('param_text', 'a'.repeat(2 * MiB))
    const bound = await fetch(urlOf(), { method: 'POST', headers: reader, body: long })
    expect(await bound.text()).toBe(`${2 * MiB}\n`)
  })

  it.each<readonly [string, RegExp]>([
    ['SHOW DATABASES', /^default$/m],
    ['SHOW TABLES FROM "default"', /^seen$/m],
    ["SHOW TABLES LIKE 'see%'", /^seen\n$/],
    ['SHOW COLUMNS FROM seen', /^a\tUInt32\t/],
    ["SHOW FUNCTIONS LIKE 'abs'", /^abs\t/],
    ['DESC TABLE seen', /^a\tUInt32\t/],
    ['EXISTS TABLE seen', /^1$/m],
    ['EXPLAIN AST SELECT 1', /^SelectWithUnionQuery/],
    ['EXPLAIN PIPELINE SELECT 1', /ReadFromSystemOne/],
  ])('%s answers with its rows, in the format asked for', async (sql, rows) => {
    expect((await read(sql)).text).toMatch(rows)
    expect((await post(sql)).text).toMatch(rows)
    const json = await read(`${sql} FORMAT JSON`)
    expect(json.headers.get('content-type')).toBe('application/json; charset=UTF-8')
    expect(json.headers.get('x-clickhouse-format')).toBe('JSON')
    expect(JSON.parse(json.text).rows).toBeGreaterThan(0)
    const native = await read(sql, { default_format: 'Native', client_protocol_version: 54460 })
    expect(native.headers.get('content-type')).toBe('application/octet-stream')
    expect(native.body.length).toBeGreaterThan(0)
  })

  it('that leave an EXPLAIN, whose analysis may run a query of its own, give its place back', async () => {
    const gone = new AbortController()
    const sql = 'EXPLAIN SELECT (SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) % 7 = 0)'
    const left = fetch(urlOf(), { method: 'POST', body: sql, headers: reader, signal: gone.signal })
    const running = (): Promise<string> =>
      ask("SELECT count() FROM system.processes WHERE startsWith(query, 'EXPLAIN SELECT (')")
    await until(async () => (await running()) === '1')
    gone.abort()
    await expect(left).rejects.toThrow('aborted')
    await until(async () => (await running()) === '0')
  })

  it.each(['SELEC 1', 'SELECT 1 FROM', "SELECT 'a", 'SELECT 1 /* a', 'SELECT 1; DROP TABLE seen'])(
    '%s is a syntax error, as 403 reads like a wrong key',
    async (sql) => {
      const answer = await read(sql)
      expect([answer.status, answer.headers.get('x-clickhouse-exception-code')], answer.text).toEqual([400, '62'])
      expect(answer.text).not.toContain('formatQuery')
    },
  )

  it.each<readonly [string, string]>([
    ['INSERT INTO seen VALUES (1)', '497'],
    ['DROP TABLE seen', '497'],
    ['SELECT 1; DROP TABLE seen', '62'],
    ["SELECT * FROM file('/etc/hostname', LineAsString)", '497'],
    ["SELECT * FROM `f\\x69le`('/etc/hostname', LineAsString)", '497'],
    ["SELECT `f\\x69le`('/etc/hostname')", '497'],
    ["SELECT file('/etc/hostname')", '497'],
    ["SELECT arrayMap(file, ['/etc/hostname'])", '497'],
    ["SELECT arrayMap(ALL `f\\x69le`, ['/etc/hostname'])", '497'],
    ["SELECT * APPLY file FROM (SELECT '/etc/hostname')", '497'],
    ["SELECT COLUMNS('p') APPLY(`f\\x69le`) FROM (SELECT '/etc/hostname' AS p)", '497'],
    [
      "SELECT * FROM seen SETTINGS additional_table_filters = {'seen': 'arrayMap(file, [\\'/etc/hostname\\']) != []'}",
      '497',
    ],
    ['SELECT * FROM `/etc/hostname`', '60'],
    ["SELECT * FROM '/etc/hostname'", '60'],
    ['SELECT * FROM default.`/etc/hostname`', '60'],
    ["SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a Int')", '497'],
    ["SELECT * FROM merge('default', '.*')", '497'],
    ['KILL QUERY WHERE 1', '497'],
    ['SYSTEM FLUSH LOGS', '497'],
    ['SET readonly = 0', '497'],
    ['SELECT 1 SETTINGS readonly = 0', '497'],
    ['SELECT 1 SETTINGS max_memory_usage = 0', '497'],
    ['SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)', '497'],
    [
      "SELECT * FROM seen SETTINGS additional_table_filters = {'seen': 'a IN (SELECT 1 FROM file(\\'/etc/hostname\\'))'}",
      '497',
    ],
    [
      "SELECT * FROM seen SETTINGS additional_table_filters = {'seen': '`f\\\\x69le`(\\'/etc/hostname\\') != \\'\\''}",
      '497',
    ],
    ['SELECT 1 SETTINGS max_threads = 0', '36'],
    ['CREATE TEMPORARY TABLE x (a Int)', '497'],
  ])('%s is refused with code %s', async (sql, code) => {
    const answer = await read(sql)
    expect(answer.headers.get('x-clickhouse-exception-code'), answer.text).toBe(code)
    expect(await ask('SELECT count() FROM seen')).toBe('10')
  })

  it('cannot have a parameter name a function that reads files', async () => {
    const answer = await read("SELECT arrayMap({f:Identifier}, ['/etc/hostname'])", { param_f: 'file' })
    expect(answer.headers.get('x-clickhouse-exception-code'), answer.text).toBe('497')
  })

  it.each([
    "SELECT 1 INTO OUTFILE '%'",
    "SELECT 1 // '\nINTO OUTFILE '%' // '",
    "SELECT 1 /* /* */ ' */ INTO OUTFILE '%' -- '",
    "SELECT 1 AS a$b$ INTO OUTFILE '%' -- $b$",
    "SHOW TABLES INTO OUTFILE '%'",
    "EXPLAIN SELECT 1 INTO OUTFILE '%'",
  ])('%s writes no file', async (sql) => {
    const answer = await read(sql.replace('%', join(directory, 'leaked')))
    expect(answer.status).toBe(403)
    expect(await readdir(directory)).not.toContain('leaked')
  })

  it("may add Grafana's filters and ask for less, but not for more", async () => {
    expect(
      (await read("SELECT a FROM seen ORDER BY a settings additional_table_filters={'seen' : 'a IN (3, 4)'}")).text,
    ).toBe('3\n4\n')
    expect((await read('SELECT a FROM seen ORDER BY a', { limit: 2 })).text).toBe('0\n1\n')
    expect((await read("SELECT getSetting('max_execution_time')", { max_execution_time: 100_000 })).text).toBe('120\n')
    expect((await read("SELECT getSetting('max_execution_time')", { max_execution_time: 0 })).text).toBe('60\n')
    expect((await read("SELECT getSetting('max_execution_time') SETTINGS max_execution_time = 7")).text).toBe('7\n')
    expect((await read("SELECT getSetting('readonly')", { readonly: 0, nonsense: 1 })).text).toBe('1\n')
    expect(
      (await read('SELECT groupArray(number) FROM numbers(1000000000)', { max_memory_usage: 0 })).headers.get(
        'x-clickhouse-exception-code',
      ),
    ).toBe('241')
  })
})
