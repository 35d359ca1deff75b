// The process that holds the embedded ClickHouse: chdb behind a ClickHouse-compatible HTTP endpoint. It is a process of its
// own because the engine has threads, memory and crashes of its own; it ends when its parent does, however that ends.
//
// Each request gets a session of its own (2 ms): settings, database and parameters of one never reach another, and
// sessions run side by side where one session would queue.
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, rm, unlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip, createZstdCompress, createZstdDecompress } from 'node:zlib'
import { Session } from 'chdb'
import { guardStatement, lex, readInsert } from './reader-guard.ts'

export type ChildStart = {
  readonly kind: 'start'
  readonly directory: string
  readonly host: string
  readonly port: number
  readonly memoryBytesMax: number
  readonly ownerPassword: string
}
export type ChildReaders = { readonly kind: 'readers'; readonly keyHashes: readonly string[] }
export type ChildReport =
  | { readonly kind: 'ready'; readonly port: number; readonly version: string }
  | { readonly kind: 'failed'; readonly message: string; readonly code: string | undefined }

export const ownerUser = 'tallylight_collector'
export const readerUser = 'tallylight'

type Role = 'owner' | 'reader'

/** A request that cannot be served, in ClickHouse's words. */
class Refusal extends Error {
  readonly code: number
  readonly status: number
  constructor(code: number, status: number, message: string) {
    super(message)
    this.code = code
    this.status = status
  }
}

/** Statuses that ClickHouse gives to its exception codes; everything else is 500. */
const statusOfCode: Readonly<Record<number, number>> = {
  36: 400,
  47: 404,
  60: 404,
  62: 400,
  73: 400,
  81: 404,
  115: 404,
  117: 400,
  159: 408,
  164: 500,
  202: 503,
  241: 500,
  252: 500,
  27: 400,
  26: 400,
  53: 400,
  6: 400,
  10: 404,
  16: 404,
  41: 400,
  44: 400,
  46: 404,
  50: 400,
  70: 400,
  158: 500,
  194: 401,
  193: 401,
  516: 403,
}

/** Formats of which a result may be sent block by block: their blocks stand behind each other without head or tail. */
const streamedFormats = new Set([
  'native',
  'rowbinary',
  'jsoneachrow',
  'jsoncompacteachrow',
  'tsv',
  'tabseparated',
  'tsvraw',
  'tabseparatedraw',
  'csv',
  'jsonlines',
  'ndjson',
])
const bufferedResultBytesMax = 256 * 1024 * 1024
const statementBytesMax = 4 * 1024 * 1024

/** Parameters of a request that are the endpoint's and not the engine's settings. */
const ownParameters = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'session_id',
  'session_timeout',
  'session_check',
  'user',
  'password',
  'quota_key',
  'role',
  'client_protocol_version',
  'enable_http_compression',
  'http_zlib_compression_level',
  'compress',
  'decompress',
  'wait_end_of_query',
  'buffer_size',
  'send_progress_in_http_headers',
  'http_headers_progress_interval_ms',
  'add_http_cors_header',
  'stacktrace',
  'close_session',
  'framing',
])
/** Settings that a reader may send in the URL; the others are left out, as drivers send many unasked. */
const readerParameters = new Set([
  'max_result_rows',
  'max_rows_to_read',
  'limit',
  'output_format_json_quote_64bit_integers',
  'date_time_output_format',
])
const readerSecondsMax = 120

process.once('message', (message: ChildStart) => {
  serve(message).then(
    (ready) => report(ready),
    (error: NodeJS.ErrnoException) => {
      report({ kind: 'failed', message: error.message, code: error.code })
      process.exit(1)
    },
  )
})
// Not process.exit: the engine's own way out hangs when queries were under way (seen with chdb 3.4), and holds the directory.
// Nothing is lost by a kill: what was answered is on the disk.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))

function report(message: ChildReport): void {
  process.send?.(message)
}

async function serve(start: ChildStart): Promise<ChildReport> {
  const incoming = join(start.directory, 'incoming')
  await rm(incoming, { recursive: true, force: true })
  await mkdir(incoming, { recursive: true, mode: 0o700 })
  const configPath = join(start.directory, 'config.xml')
  await writeFile(configPath, engineConfig(start, incoming), { mode: 0o600 })
  const dataPath = join(start.directory, 'store')
  await mkdir(dataPath, { recursive: true, mode: 0o700 })
  const openSession = (): Session => new Session(dataPath, { connectionArgs: [`--config-file=${configPath}`] })
  // Held open for as long as we live: the engine closes with its last session.
  const root = openSession()
  const version = root.query('SELECT version()', 'TSV').trim()
  const tableFunctions = new Set(root.query('SELECT lower(name) FROM system.table_functions', 'TSV').trim().split('\n'))
  tableFunctions.add('file').add('dictionary')
  let readerHashes: readonly Buffer[] = []
  process.on('message', (message: ChildReaders) => {
    if (message.kind === 'readers') readerHashes = message.keyHashes.map((hash) => Buffer.from(hash, 'hex'))
  })
  const ownerHash = sha256(start.ownerPassword)
  const isLoopback = start.host === '127.0.0.1' || start.host === '::1' || start.host === 'localhost'

  const server = createServer({ requestTimeout: 0, keepAliveTimeout: 65_000 }, (request, response) => {
    handle(request, response).catch((error: unknown) => answerError(response, error))
  })

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page in a browser reaches us under its own name once its DNS says 127.0.0.1.
    if (isLoopback && !/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/i.test(request.headers.host ?? '')) {
      throw new Refusal(516, 403, 'this endpoint answers to loopback names only')
    }
    const url = new URL(request.url ?? '/', 'http://localhost')
    if (url.pathname.endsWith('/ping')) {
      response.writeHead(200, { 'Content-Type': 'text/html; charset=UTF-8' }).end('Ok.\n')
      return
    }
    const role = identify(request, url)
    const queryId = url.searchParams.get('query_id') ?? randomUUID()
    response.setHeader('X-ClickHouse-Query-Id', queryId)
    response.setHeader('X-ClickHouse-Timezone', 'UTC')
    response.setHeader('X-ClickHouse-Server-Display-Name', 'embedded')
    const inUrl = url.searchParams.get('query')
    const insertInUrl =
      inUrl === null ? undefined : readInsert(inUrl, url.searchParams.get('default_format') ?? 'TabSeparated')
    if (insertInUrl !== undefined) {
      await insert(role, url, insertInUrl, request, response)
      return
    }
    const body = await readBody(request, statementBytesMax)
    const sql = inUrl === null ? body.toString() : `${inUrl}\n${body.toString()}`
    if (isHello(sql, url)) {
      response.writeHead(200, { 'Content-Type': 'application/octet-stream' }).end(hello(version))
      return
    }
    await runStatement(role, url, sql, request, response)
  }

  function identify(request: IncomingMessage, url: URL): Role {
    const [basicUser, basicPassword] = basicCredentials(request.headers.authorization)
    const user = header(request, 'x-clickhouse-user') ?? basicUser ?? url.searchParams.get('user') ?? 'default'
    const password = header(request, 'x-clickhouse-key') ?? basicPassword ?? url.searchParams.get('password') ?? ''
    const hash = sha256(password)
    if (user === ownerUser && timingSafeEqual(hash, ownerHash)) return 'owner'
    if (user === readerUser && readerHashes.some((known) => timingSafeEqual(known, hash))) return 'reader'
    throw new Refusal(
      516,
      403,
      `${user}: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)`,
    )
  }

  function prepare(session: Session, role: Role, url: URL, settings: ReadonlyMap<string, string>): void {
    const set = (name: string, value: string): void => {
      session.query(`SET ${name} = ${quote(value)}`, 'TSV')
    }
    const database = url.searchParams.get('database')
    if (database !== null && database !== '') session.query(`USE ${quoteName(database)}`, 'TSV')
    for (const [name, value] of url.searchParams) {
      if (name.startsWith('param_') && /^param_\w+$/.test(name)) set(name, value)
      else if (!ownParameters.has(name) && /^[a-z]\w*$/.test(name) && (role === 'owner' || readerParameters.has(name)))
        set(name, value)
    }
    if (role === 'owner') return
    const seconds = Math.min(Number(url.searchParams.get('max_execution_time')) || readerSecondsMax, readerSecondsMax)
    set('max_execution_time', String(seconds))
    set('max_result_bytes', String(bufferedResultBytesMax))
    set('max_memory_usage', String(Math.floor(start.memoryBytesMax / 4)))
    for (const [name, value] of settings) session.query(`SET ${name} = ${value}`, 'TSV')
    set('readonly', '1')
  }

  async function runStatement(
    role: Role,
    url: URL,
    text: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { sql, format: asked, settings } = statementOf(role, text)
    const format =
      asked ?? url.searchParams.get('default_format') ?? header(request, 'x-clickhouse-format') ?? 'TabSeparated'
    const session = openSession()
    try {
      prepare(session, role, url, settings)
      response.setHeader('X-ClickHouse-Format', format)
      response.setHeader('Content-Type', contentType(format))
      if (streamedFormats.has(format.toLowerCase()) && /^[\s(]*(select|with)\b/i.test(sql)) {
        await streamResult(session, sql, format, request, response)
        return
      }
      const result = await session.queryAsync(sql, { format })
      response.setHeader('X-ClickHouse-Summary', summary({ read_rows: result.rowsRead, read_bytes: result.bytesRead }))
      await send(request, response, [Buffer.from(result.bytes())])
    } finally {
      session.close()
    }
  }

  function statementOf(
    role: Role,
    text: string,
  ): { sql: string; format: string | undefined; settings: ReadonlyMap<string, string> } {
    if (role === 'reader') {
      const guarded = guardStatement(text, tableFunctions)
      if (guarded.kind === 'refused')
        throw new Refusal(497, 403, `Not enough privileges: ${guarded.reason}. (ACCESS_DENIED)`)
      return guarded
    }
    const tokens = lex(text) ?? []
    while (tokens.at(-1)?.text === ';') tokens.pop()
    const end = tokens.at(-1)?.end ?? text.length
    if (tokens.at(-2)?.text.toLowerCase() !== 'format' || /^\s*insert/i.test(text)) {
      return { sql: text.slice(0, end), format: undefined, settings: new Map() }
    }
    return { sql: text.slice(0, tokens.at(-3)?.end ?? 0), format: tokens.at(-1)?.text, settings: new Map() }
  }

  async function streamResult(
    session: Session,
    sql: string,
    format: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const chunks = session.queryStream(sql, { format })
    const iterator = chunks[Symbol.asyncIterator]()
    try {
      // The first block decides the status: what fails before it is an answer of its own, what fails later cuts the body.
      const first = await iterator.next()
      async function* blocks(): AsyncGenerator<Buffer> {
        for (let next = first; !next.done; next = await iterator.next()) yield Buffer.from(next.value.raw())
      }
      await send(request, response, blocks())
    } finally {
      chunks.cancel()
    }
  }

  /** The body goes to a file first: a client that leaves half way has inserted nothing, and the engine reads it as one. */
  async function insert(
    role: Role,
    url: URL,
    statement: { readonly target: string; readonly format: string },
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (role !== 'owner') throw new Refusal(497, 403, 'Not enough privileges: readers insert nothing. (ACCESS_DENIED)')
    const path = join(incoming, randomUUID())
    const session = openSession()
    try {
      await pipeline(inflated(request), createWriteStream(path, { mode: 0o600, highWaterMark: 1024 * 1024 }))
      prepare(session, role, url, new Map())
      const result = await session.queryAsync(
        `${statement.target} SELECT * FROM file(${quote(path)}, ${quote(statement.format)})`,
        { format: 'Null' },
      )
      response.setHeader('X-ClickHouse-Summary', summary({ read_rows: result.rowsRead, written_rows: result.rowsRead }))
      response.writeHead(200, { 'Content-Type': 'text/plain; charset=UTF-8' }).end()
    } finally {
      session.close()
      await unlink(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
    }
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(start.port, start.host, () => resolve())
  })
  return { kind: 'ready', port: (server.address() as AddressInfo).port, version }
}

function answerError(response: ServerResponse, error: unknown): void {
  const { code, status, message } = describe(error)
  if (response.headersSent) {
    // Too late for a status: a body that ends without its last chunk is what clients take for a failure.
    response.destroy()
    return
  }
  response.removeHeader('Content-Encoding')
  response.removeHeader('Content-Length')
  response.writeHead(status, { 'X-ClickHouse-Exception-Code': code, 'Content-Type': 'text/plain; charset=UTF-8' })
  response.end(`Code: ${code}. DB::Exception: ${message}\n`)
}

function describe(error: unknown): { readonly code: number; readonly status: number; readonly message: string } {
  if (error instanceof Refusal) return error
  const text = error instanceof Error ? error.message : String(error)
  const found = /Code: (\d+)\. DB::Exception: ([\s\S]*)/.exec(text)
  if (found === null) return { code: 1002, status: 500, message: text }
  const code = Number(found[1])
  return { code, status: statusOfCode[code] ?? 500, message: (found[2] as string).trim() }
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  blocks: Iterable<Buffer> | AsyncIterable<Buffer>,
): Promise<void> {
  const encoder = encoderOf(request)
  if (encoder !== undefined) {
    response.setHeader('Content-Encoding', encoder.name)
    response.writeHead(200)
    await pipeline(Readable.from(blocks), encoder.transform, response)
    return
  }
  response.writeHead(200)
  await pipeline(Readable.from(blocks), response)
}

function encoderOf(request: IncomingMessage): { readonly name: string; readonly transform: Transform } | undefined {
  if (!/[?&]enable_http_compression=1(&|$)/.test(request.url ?? '')) return undefined
  const accepted = header(request, 'accept-encoding') ?? ''
  if (/\bzstd\b/.test(accepted)) return { name: 'zstd', transform: createZstdCompress() }
  if (/\bgzip\b/.test(accepted)) return { name: 'gzip', transform: createGzip({ level: 1 }) }
  return undefined
}

function inflated(request: IncomingMessage): Readable {
  const encoding = header(request, 'content-encoding') ?? 'identity'
  if (encoding === 'identity') return request
  const decoder = encoding === 'gzip' ? createGunzip() : encoding === 'zstd' ? createZstdDecompress() : undefined
  if (decoder === undefined)
    throw new Refusal(36, 400, `unknown Content-Encoding ${encoding.slice(0, 20)}; gzip and zstd are known`)
  request.on('error', (error) => decoder.destroy(error))
  return request.pipe(decoder)
}

async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of inflated(request)) {
    size += (chunk as Buffer).length
    if (size > bytesMax)
      throw new Refusal(
        62,
        413,
        `a statement may have ${bytesMax} bytes; rows to insert go behind the statement in the URL`,
      )
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks)
}

/** The first question of clickhouse-go on each connection. */
function isHello(sql: string, url: URL): boolean {
  return (
    url.searchParams.has('client_protocol_version') &&
    /^\s*SELECT\s+displayName\(\),\s*version\(\),\s*revision\(\),\s*timezone\(\)\s*$/i.test(sql)
  )
}

/** Its answer, framed for the revision that the driver asked with, and naming revision 0: from then on the driver reads
 *  plain Native, which is what the engine writes. */
function hello(version: string): Buffer {
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)])
  const column = (name: string, type: string, value: Buffer): Buffer =>
    Buffer.concat([text(name), text(type), Buffer.from([0]), value])
  return Buffer.concat([
    Buffer.from('010002ffffffff00', 'hex'),
    Buffer.from([4, 1]),
    column('displayName()', 'String', text('embedded')),
    column('version()', 'String', text(version)),
    column('revision()', 'UInt32', Buffer.alloc(4)),
    column('timezone()', 'String', text('UTC')),
  ])
}

function basicCredentials(authorization: string | undefined): readonly [string | undefined, string | undefined] {
  const encoded = /^Basic (.+)$/i.exec(authorization ?? '')?.[1]
  if (encoded === undefined) return [undefined, undefined]
  const text = Buffer.from(encoded, 'base64').toString()
  const colon = text.indexOf(':')
  return colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)]
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name]
  return Array.isArray(value) ? value[0] : value
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}

function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``
}

function summary(fields: Readonly<Record<string, number>>): string {
  const all = {
    read_rows: 0,
    read_bytes: 0,
    written_rows: 0,
    written_bytes: 0,
    total_rows_to_read: 0,
    result_rows: 0,
    result_bytes: 0,
    elapsed_ns: 0,
    ...fields,
  }
  return JSON.stringify(Object.fromEntries(Object.entries(all).map(([name, value]) => [name, String(value)])))
}

function contentType(format: string): string {
  if (/^json$|^jsoncompact$/i.test(format)) return 'application/json; charset=UTF-8'
  if (/^json/i.test(format)) return 'application/x-ndjson; charset=UTF-8'
  if (/^native$|^rowbinary|^parquet$|^arrow/i.test(format)) return 'application/octet-stream'
  return 'text/plain; charset=UTF-8'
}

/** Sized for two cores and a bounded memory: the engine's own defaults are those of a server that has the machine alone. */
function engineConfig(start: ChildStart, incoming: string): string {
  const entries: Readonly<Record<string, string | number>> = {
    max_server_memory_usage: start.memoryBytesMax,
    mark_cache_size: 64 * 1024 * 1024,
    index_mark_cache_size: 16 * 1024 * 1024,
    uncompressed_cache_size: 0,
    index_uncompressed_cache_size: 0,
    query_condition_cache_size: 16 * 1024 * 1024,
    background_pool_size: 2,
    background_merges_mutations_concurrency_ratio: 2,
    background_schedule_pool_size: 4,
    background_move_pool_size: 1,
    background_fetches_pool_size: 1,
    background_common_pool_size: 1,
    background_buffer_flush_schedule_pool_size: 1,
    background_message_broker_schedule_pool_size: 1,
    background_distributed_schedule_pool_size: 1,
    max_thread_pool_size: 256,
    user_files_path: incoming,
    timezone: 'UTC',
  }
  const mergeTree = { merge_selecting_sleep_ms: 5000, max_merge_selecting_sleep_ms: 60000, cleanup_delay_period: 60 }
  const xml = (fields: Readonly<Record<string, string | number>>): string =>
    Object.entries(fields)
      .map(([name, value]) => `<${name}>${String(value).replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</${name}>`)
      .join('')
  return `<clickhouse>${xml(entries)}<merge_tree>${xml(mergeTree)}</merge_tree></clickhouse>\n`
}
