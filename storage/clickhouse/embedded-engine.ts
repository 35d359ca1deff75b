// chdb, made to serve many statements at once. A statement gets a session of its own (0.3 ms): its settings, parameters and
// database never reach another, and sessions run side by side where one session would queue.
//
// Rows leave through a named pipe that the engine writes as if it were a file. chdb's own stream would do its analysis, scalar
// subqueries included, on our event loop, and starts the format anew with each block; its buffered call holds a result in
// whole. A pipe does neither, pushes back when the client is slow, and breaks when the client has gone.
import { mkdir, readlink, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { basename, join } from 'node:path'
import type { ChdbResult, Session } from 'chdb'
import { engineConfig, usersConfig } from './embedded-config.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { makePipes } from './embedded-pipes.ts'
import { openSessions } from './embedded-sessions.ts'
import { type Exception, exceptionOf } from './http-exception.ts'
import type { EngineNames } from './statement-guard.ts'
import { quoteName, quoteString } from './statement-tokens.ts'

export type StatementSetup = {
  readonly database: string | undefined
  /** Values as text; the engine makes them what the setting is. */
  readonly settings: ReadonlyMap<string, string>
  readonly parameters: ReadonlyMap<string, string>
  /** Map-typed settings, as literals. */
  readonly literals?: ReadonlyMap<string, string>
  readonly isReadonly: boolean
}

export type StatementOutcome =
  | { readonly kind: 'done'; readonly rows: number; readonly elapsedNs: number; readonly body: Uint8Array }
  | { readonly kind: 'failed'; readonly exception: Exception }

export type RunningStatement = {
  /** The rows in the format asked for; ends when the statement does, however that is. */
  readonly rows: Socket
  readonly outcome: Promise<StatementOutcome>
  /** When the engine is free of it, and its pipe too. Rows that nobody wants must be destroyed for this to come. */
  readonly released: Promise<unknown>
}

export type Engine = {
  readonly version: string
  readonly timezone: string
  readonly names: EngineNames
  /** Where bodies are spooled, and how the engine is told of a file there. */
  readonly spoolDirectory: string
  fileArgument(name: string): string
  /** Runs a statement whose answer is small or none; `signal` stops it inside the engine. */
  run(setup: StatementSetup, sql: string, format: string, signal?: AbortSignal): Promise<StatementOutcome>
  /** Runs a SELECT. To destroy the rows stops it inside the engine. */
  stream(setup: StatementSetup, sql: string, format: string): RunningStatement
  /** The statement as the engine's parser writes it back. */
  canonical(
    sql: string,
  ): Promise<
    { readonly kind: 'text'; readonly text: string } | { readonly kind: 'failed'; readonly exception: Exception }
  >
}

/** A parameter is part of the statement that sets it, and that has a bound of 256 KiB of its own until it is told otherwise. */
const longStatements = `SET max_query_size = ${limits.statementBytesMax * 4}`

/** How often a statement that is to be stopped is looked for: it may not have begun when its client went. */
const cancelEveryMs = 500

export async function openEngine(directory: string, memoryBytesMax: number): Promise<Engine> {
  const spoolDirectory = join(directory, 'spool')
  await rm(spoolDirectory, { recursive: true, force: true })
  await mkdir(spoolDirectory, { recursive: true, mode: 0o700 })
  const pipes = await makePipes(spoolDirectory, limits.ownerStatementsMax + limits.readerStatementsMax)
  // The engine reads the path of a file as a pattern, and a directory's name may look like one. A path that goes through
  // /proc never does; elsewhere such a directory is refused.
  process.chdir(spoolDirectory)
  const isPattern = /[*?{}[\]]/.test(spoolDirectory)
  if (isPattern && process.platform !== 'linux') {
    throw new Error(
      `the embedded ClickHouse cannot use the directory ${directory}: it reads *, ?, braces and brackets in a path as a pattern`,
    )
  }
  const fileArgument = (name: string): string =>
    quoteString(isPattern ? `/proc/self/cwd/${name}` : join(spoolDirectory, name))

  const usersPath = join(directory, 'users.xml')
  const configPath = join(directory, 'config.xml')
  await writeFile(usersPath, usersConfig(), { mode: 0o600 })
  await writeFile(configPath, engineConfig(memoryBytesMax, usersPath), { mode: 0o600 })
  const storePath = join(directory, 'store')
  await mkdir(storePath, { recursive: true, mode: 0o700 })
  const sessions = openSessions(storePath, [`--config-file=${configPath}`])
  // Held for as long as we live: the engine closes with its last session.
  const control = sessions.open()
  await replaceDefaultDatabase(control, storePath)
  const [version = '', timezone = ''] = (await textOf(control, 'SELECT version(), timezone()')).split('\t')
  const names: EngineNames = {
    tableFunctions: new Set((await textOf(control, 'SELECT lower(name) FROM system.table_functions')).split('\n')),
    outputFormats: new Set(
      (await textOf(control, 'SELECT lower(name) FROM system.formats WHERE is_output')).split('\n'),
    ),
  }
  let statements = 0

  async function withSession<Result>(
    setup: StatementSetup,
    mark: string,
    use: (session: Session) => Promise<Result>,
  ): Promise<Result> {
    const session = sessions.open()
    try {
      for (const statement of setupOf(setup, mark)) await session.queryAsync(statement, { format: 'Null' })
      return await use(session)
    } finally {
      sessions.close(session)
    }
  }

  function startCancelling(mark: string): NodeJS.Timeout {
    const cancel = (): void => {
      control
        .queryAsync(`KILL QUERY WHERE Settings['log_comment'] = ${quoteString(mark)} ASYNC`, { format: 'Null' })
        .catch((error: unknown) => {
          process.emitWarning(`a statement of a lost client could not be stopped: ${String(error)}`)
        })
    }
    cancel()
    return setInterval(cancel, cancelEveryMs)
  }

  return {
    version,
    timezone,
    names,
    spoolDirectory,
    fileArgument,
    run: async (setup, sql, format, signal) => {
      const mark = `${++statements}`
      let cancelling: NodeJS.Timeout | undefined
      const cancel = (): void => {
        cancelling = startCancelling(mark)
      }
      if (signal?.aborted) cancel()
      else signal?.addEventListener('abort', cancel, { once: true })
      try {
        return await withSession(setup, mark, async (session) => doneWith(await session.queryAsync(sql, { format })))
      } catch (error) {
        return failedWith(error)
      } finally {
        signal?.removeEventListener('abort', cancel)
        clearInterval(cancelling)
      }
    },
    stream: (setup, sql, format) => {
      const mark = `${++statements}`
      let cancelling: NodeJS.Timeout | undefined
      const pipe = pipes.open(() => {
        cancelling = startCancelling(mark)
      })
      const outcome = withSession(setup, mark, async (session) => {
        const streamed = `${sql} INTO OUTFILE ${quoteString(pipe.path)} TRUNCATE FORMAT ${format}`
        return doneWith(await session.queryAsync(streamed, { format: 'Null' }))
      })
        .catch(failedWith)
        .finally(() => {
          clearInterval(cancelling)
          pipe.finish()
        })
      return { rows: pipe.rows, outcome, released: Promise.all([outcome, pipe.released]) }
    },
    canonical: async (sql) => {
      const session = sessions.open()
      try {
        await session.queryAsync(longStatements, { format: 'Null' })
        await session.queryAsync(`SET param_statement = ${quoteString(escapeTsv(sql))}`, { format: 'Null' })
        const result = await session.queryAsync('SELECT formatQuerySingleLine({statement:String})', {
          format: 'TSVRaw',
        })
        return { kind: 'text', text: result.text().trimEnd() }
      } catch (error) {
        const exception = exceptionOf(error)
        // What follows is our own question, and the statement again.
        return {
          kind: 'failed',
          exception: {
            ...exception,
            message: exception.message.replace(/: In scope SELECT formatQuery[\s\S]*(\([A-Z_]+\))$/, ' $1'),
          },
        }
      } finally {
        sessions.close(session)
      }
    },
  }
}

/** chdb's `default` is an overlay that takes a table's name for the path of a file, for readers too. A plain database in its
 *  place, over the same tables. Read back, as the next chdb may do it otherwise and nobody would see. */
async function replaceDefaultDatabase(control: Session, storePath: string): Promise<void> {
  await control.queryAsync('DETACH DATABASE default')
  const metadataPath = join(storePath, 'metadata')
  const target = await readlink(join(metadataPath, 'default')).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (target === undefined) {
    // It never had a table. Its definition, if there is one, names a directory that the overlay has not seen.
    await rm(join(metadataPath, 'default.sql'), { force: true })
    await control.queryAsync('CREATE DATABASE default ENGINE = Atomic')
  } else {
    await control.queryAsync(`ATTACH DATABASE default UUID ${quoteString(basename(target))} ENGINE = Atomic`)
  }
  const engines = await textOf(
    control,
    "SELECT DISTINCT engine FROM system.databases WHERE engine NOT IN ('Atomic', 'Memory')",
  )
  if (engines !== '')
    throw new Error(`the embedded ClickHouse has a database of the engine ${engines}, which could read files by name`)
}

async function textOf(session: Session, sql: string): Promise<string> {
  return (await session.queryAsync(sql, { format: 'TSV' })).text().trimEnd()
}

function setupOf(setup: StatementSetup, mark: string): readonly string[] {
  const assignments = [
    ...[...setup.parameters].map(([name, value]) => `param_${name} = ${quoteString(value)}`),
    ...[...setup.settings].map(([name, value]) => `${name} = ${quoteString(value)}`),
    ...[...(setup.literals ?? [])].map(([name, literal]) => `${name} = ${literal}`),
    // By this a statement is found again when it has to be stopped.
    `log_comment = ${quoteString(mark)}`,
  ]
  return [
    ...(setup.database === undefined ? [] : [`USE ${quoteName(setup.database)}`]),
    ...(setup.parameters.size === 0 ? [] : [longStatements]),
    `SET ${assignments.join(', ')}`,
    // Last, as nothing can be set behind it.
    ...(setup.isReadonly ? ['SET readonly = 1'] : []),
  ]
}

function doneWith(result: ChdbResult): StatementOutcome {
  return { kind: 'done', rows: result.rowsRead, elapsedNs: Math.round(result.elapsed * 1e9), body: result.bytes() }
}

function failedWith(error: unknown): StatementOutcome {
  return { kind: 'failed', exception: exceptionOf(error) }
}

/** A parameter is read as an escaped value of a TSV file. */
function escapeTsv(text: string): string {
  return text
    .replaceAll('\\', '\\\\')
    .replaceAll('\t', '\\t')
    .replaceAll('\n', '\\n')
    .replaceAll('\r', '\\r')
    .replaceAll('\0', '\\0')
}
