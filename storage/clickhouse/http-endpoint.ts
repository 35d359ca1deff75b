// ClickHouse's HTTP interface over the embedded engine, as `@clickhouse/client`, clickhouse-go (Grafana) and curl use it.
//
// One request is one statement. It takes a place in the engine before it does anything there, so that a dashboard of long
// SELECTs holds up neither the collector's inserts, which have places of their own, nor /ping, which needs none.
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Engine, RunningStatement, StatementOutcome, StatementSetup } from './embedded-engine.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { type Access, assertNotFromPage, type Role } from './http-access.ts'
import {
  contentTypeOf,
  frameOf,
  helloBlock,
  isHello,
  sendException,
  sendRows,
  sendSmall,
  setSummary,
  tagResponse,
} from './http-answer.ts'
import { type BodyReader, discardBody, readBody, readForm } from './http-body.ts'
import { exceptionOf, HttpException, Refusal } from './http-exception.ts'
import { insertSpooled, spoolBody } from './http-insert.ts'
import { assertSupported, isReaderSetting, ownerSetup, parametersOf, readerSetup } from './http-settings.ts'
import {
  type Judged,
  judgeOwner,
  judgeParameters,
  judgeReading,
  kindOf,
  type StatementKind,
  takeTail,
} from './statement-guard.ts'
import { type InsertHead, readInsertHead } from './statement-insert.ts'
import { openPlaces } from './statement-places.ts'
import { tokensOf } from './statement-tokens.ts'

export type EndpointOptions = {
  readonly engine: Engine
  readonly access: Access
  readonly memoryBytesMax: number
  readonly isLoopback: boolean
}

/** One request, read as far as its head. */
type Asked = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URLSearchParams
  readonly database: string | undefined
  readonly format: string | undefined
  readonly signal: AbortSignal
}

/** What is to be done with a statement that is allowed. */
type Prepared = {
  readonly setup: StatementSetup
  readonly sql: string
  readonly format: string | undefined
  readonly kind: StatementKind
}

export function createEndpoint(options: EndpointOptions): Server {
  const { engine, access, memoryBytesMax } = options
  const places = {
    owner: openPlaces(limits.ownerStatementsMax, limits.waitingStatementsMax),
    reader: openPlaces(limits.readerStatementsMax, limits.waitingStatementsMax),
  }

  const server = createServer(
    { requestTimeout: 0, keepAliveTimeout: 65_000, maxHeaderSize: limits.urlBytesMax },
    (request, response) => {
      answer(request, response).catch((error: unknown) => {
        discardBody(request)
        sendException(response, exceptionOf(error), engine.version)
      })
    },
  )
  server.on('timeout', (socket) => socket.destroy(new Error(`no byte came within ${limits.stallMs} ms`)))
  return server

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    assertNotFromPage(request, options.isLoopback)
    const [path = '/', search = ''] = splitUrl(request.url ?? '/')
    const url = new URLSearchParams(search)
    if (/\/(ping|replicas_status)$/.test(path) || (request.method !== 'POST' && !url.has('query'))) {
      return sendPlain(response, 'Ok.\n')
    }
    if (request.method !== 'POST' && request.method !== 'GET' && request.method !== 'HEAD') {
      throw new Refusal(
        48,
        'NOT_IMPLEMENTED',
        `the method ${request.method} is not known here; GET reads, POST does everything`,
      )
    }
    const role = access.identify(request, url)
    assertSupported(url)
    response.setHeader('X-ClickHouse-Server-Display-Name', 'embedded')
    response.setHeader('X-ClickHouse-Query-Id', headerValue(url.get('query_id')) ?? randomUUID())
    response.setHeader('X-ClickHouse-Timezone', engine.timezone)
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    await serve(role, {
      request,
      response,
      url,
      database: url.get('database') || headerOf(request, 'x-clickhouse-database') || undefined,
      format: headerOf(request, 'x-clickhouse-format') ?? url.get('default_format') ?? undefined,
      signal: gone.signal,
    })
  }

  async function serve(role: Role, asked: Asked): Promise<void> {
    const { request, url } = asked
    const body = readBody(request)
    const urlQuery = url.get('query')
    if (role === 'owner' && request.method === 'POST') {
      const inUrl = urlQuery === null ? undefined : readInsertHead(urlQuery)
      if (inUrl !== undefined) return insert(asked, body, inUrl, Buffer.from((urlQuery ?? '').slice(inUrl.dataStart)))
      if (!urlQuery) {
        const head = await body.head(limits.insertHeadBytesMax)
        // Read as bytes: what follows the statement may be anything, and its place is needed to the byte.
        const found = readInsertHead(head.toString('latin1'))
        if (found !== undefined) return insert(asked, afterHead(body, found.dataStart), utf8Of(found), Buffer.alloc(0))
      }
    }
    const text = await body.whole(limits.statementBytesMax)
    const form = readForm(request.headers['content-type'], text)
    const sql =
      form === undefined
        ? [urlQuery, text.toString()].filter(Boolean).join('\n')
        : (form.get('query') ?? urlQuery ?? '')
    if (sql.trim() === '') throw new Refusal(62, 'SYNTAX_ERROR', 'Empty query')
    const sqlBytes = Buffer.byteLength(sql)
    if (role === 'reader' && sqlBytes > limits.readerStatementBytesMax) {
      throw new Refusal(
        229,
        'QUERY_IS_TOO_LARGE',
        `a reader's statement may have ${limits.readerStatementBytesMax} bytes, ${sqlBytes} came; long values go as parameters`,
      )
    }
    if (sql.includes('\0')) throw new Refusal(62, 'SYNTAX_ERROR', 'a statement has a NUL byte')
    if (isHello(sql, url)) return sendSmall(request, asked.response, url, helloBlock(engine.version, engine.timezone))
    const parameters = parametersOf(url, form ?? new Map())
    const giveBack = await places[role].take(asked.signal)
    try {
      const prepared =
        role === 'owner' ? prepareOwner(asked, sql, parameters) : await prepareReader(asked, sql, parameters)
      await answerPrepared(asked, prepared)
    } finally {
      giveBack()
    }
  }

  async function answerPrepared(asked: Asked, prepared: Prepared): Promise<void> {
    const { setup, sql, kind } = prepared
    const format = prepared.format ?? asked.format ?? 'TabSeparated'
    if (!engine.names.outputFormats.has(format.toLowerCase()))
      throw new Refusal(73, 'UNKNOWN_FORMAT', `Unknown format ${format.slice(0, 40)}`)
    asked.signal.throwIfAborted()
    switch (kind) {
      case 'selects':
        return await answerRows(asked, engine.stream(setup, sql, format), format)
      case 'describes':
        asked.response.setHeader('X-ClickHouse-Format', format)
        return await answerDone(asked, await engine.run(setup, sql, format, asked.signal), format)
      case 'acts':
        // To its end, whether or not its client waits for it.
        return await answerDone(asked, await engine.run(setup, sql, format), format)
      default:
        return kind satisfies never
    }
  }

  function prepareOwner(asked: Asked, sql: string, parameters: ReadonlyMap<string, string>): Prepared {
    const setup = ownerSetup(asked.url, parameters, asked.database, memoryBytesMax)
    const { tokens } = tokensOf(sql)
    assertAllowed(judgeOwner(tokens))
    const kind = kindOf(tokens)
    if (kind === 'acts' && asked.request.method !== 'POST') {
      throw new Refusal(
        164,
        'READONLY',
        'Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries',
      )
    }
    return kind === 'acts' ? { setup, kind, sql, format: undefined } : { setup, kind, ...takeTail(sql, engine.names) }
  }

  async function prepareReader(asked: Asked, sql: string, parameters: ReadonlyMap<string, string>): Promise<Prepared> {
    const tail = takeTail(sql, engine.names, isReaderSetting)
    const judged = judgeReading(tail.sql, engine.names)
    // What is no statement at all is a syntax error: refused with 403, a slip of the pen would look like a wrong key.
    if (judged.kind === 'refused') await canonicalOf(tail.sql)
    assertAllowed(judged)
    const { filters, ...setup } = readerSetup(asked.url, parameters, asked.database, memoryBytesMax, tail.settings)
    // A filter is SQL too, and the engine puts it into the statement.
    for (const filter of filters) await canonicalReading(`SELECT 1 WHERE ${filter}`, parameters)
    const canonical = await canonicalReading(tail.sql, parameters)
    return { setup, sql: canonical, format: tail.format, kind: kindOf(tokensOf(canonical).tokens) }
  }

  async function canonicalReading(sql: string, parameters: ReadonlyMap<string, string>): Promise<string> {
    const canonical = await canonicalOf(sql)
    assertAllowed(judgeReading(canonical, engine.names))
    assertAllowed(judgeParameters(canonical, parameters))
    return canonical
  }

  async function canonicalOf(sql: string): Promise<string> {
    const canonical = await engine.canonical(sql)
    if (canonical.kind === 'failed') throw new HttpException(canonical.exception)
    return canonical.text
  }

  async function insert(asked: Asked, body: Pick<BodyReader, 'rest'>, head: InsertHead, before: Buffer): Promise<void> {
    assertAllowed(judgeOwner(tokensOf(head.into).tokens))
    const setup = ownerSetup(asked.url, parametersOf(asked.url, new Map()), asked.database, memoryBytesMax)
    const giveBack = await places.owner.take(asked.signal)
    try {
      await using spool = await spoolBody(engine, joined(before, body.rest()))
      await answerDone(
        asked,
        await insertSpooled(engine, setup, head.into, head.format ?? asked.format ?? 'Values', spool),
        'TabSeparated',
      )
    } finally {
      giveBack()
    }
  }

  async function answerDone(asked: Asked, done: StatementOutcome, format: string): Promise<void> {
    if (done.kind === 'failed') throw new HttpException(done.exception)
    setSummary(asked.response, { elapsed_ns: done.elapsedNs })
    asked.response.setHeader('Content-Type', contentTypeOf(format))
    await sendSmall(asked.request, asked.response, asked.url, Buffer.from(done.body))
  }

  async function answerRows(asked: Asked, running: RunningStatement, format: string): Promise<void> {
    const { request, response, url } = asked
    const leave = (): void => void running.rows.destroy()
    asked.signal.addEventListener('abort', leave, { once: true })
    try {
      const chunks: AsyncIterator<Buffer> = running.rows[Symbol.asyncIterator]()
      const heldMax = /^(1|true)$/.test(url.get('wait_end_of_query') ?? '')
        ? limits.heldOnRequestBytesMax
        : limits.heldBytesMax
      const { held, isAll } = await hold(chunks, heldMax)
      response.setHeader('Content-Type', contentTypeOf(format))
      response.setHeader('X-ClickHouse-Format', format)
      const tag = tagResponse(response)
      if (isAll) {
        const done = await running.outcome
        if (done.kind === 'failed') throw new HttpException(done.exception)
        setSummary(response, { result_rows: done.rows, elapsed_ns: done.elapsedNs })
        return await sendSmall(request, response, url, Buffer.concat(held))
      }
      await sendRows(request, response, url, joinedAll(held, chunks), async () => {
        const done = await running.outcome
        return done.kind === 'failed' ? frameOf(done.exception, engine.version, tag) : undefined
      })
    } finally {
      running.rows.destroy()
      await running.released
    }
  }
}

function assertAllowed(judged: Judged): void {
  if (judged.kind === 'refused') throw new Refusal(497, 'ACCESS_DENIED', `Not enough privileges: ${judged.reason}`)
}

/** The first bytes of the rows: all of them, or more than `bytesMax`. */
async function hold(
  chunks: AsyncIterator<Buffer>,
  bytesMax: number,
): Promise<{ readonly held: readonly Buffer[]; readonly isAll: boolean }> {
  const held: Buffer[] = []
  for (let size = 0; size <= bytesMax; ) {
    const next = await chunks.next()
    if (next.done) return { held, isAll: true }
    held.push(next.value)
    size += next.value.length
  }
  return { held, isAll: false }
}

async function* joinedAll(held: readonly Buffer[], chunks: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield* held
  for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value
}

/** Data that stands behind the statement in the URL, then the body. */
async function* joined(before: Buffer, body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (before.toString('latin1').trim() !== '') yield Buffer.concat([before, Buffer.from('\n')])
  yield* body
}

function afterHead(body: BodyReader, bytes: number): Pick<BodyReader, 'rest'> {
  return {
    rest: async function* () {
      let left = bytes
      for await (const chunk of body.rest()) {
        if (chunk.length > left) yield chunk.subarray(left)
        left = Math.max(0, left - chunk.length)
      }
    },
  }
}

function utf8Of(head: InsertHead): InsertHead {
  return { ...head, into: Buffer.from(head.into, 'latin1').toString() }
}

function splitUrl(url: string): readonly [string, string] {
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

function headerOf(request: IncomingMessage, name: string): string | undefined {
  return request.headers[name]?.toString()
}

/** A header cannot hold what a parameter can. */
function headerValue(text: string | null): string | undefined {
  return text !== null && /^[\x21-\x7e]{1,200}$/.test(text) ? text : undefined
}

function sendPlain(response: ServerResponse, text: string): void {
  response
    .writeHead(200, { 'Content-Type': 'text/html; charset=UTF-8', 'Content-Length': Buffer.byteLength(text) })
    .end(text)
}
