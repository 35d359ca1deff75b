// Rows on their way in. A body is spooled to a file beside the database, then read by the engine as one INSERT … SELECT: only
// what came whole is inserted, whatever the client does, and the engine takes every format it can read, in bounded memory. The
// file is never synced and is gone in a moment, so that mostly it never reaches the disk.
import { createWriteStream } from 'node:fs'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Engine, StatementOutcome, StatementSetup } from './embedded-engine.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { Refusal } from './http-exception.ts'
import { quoteString } from './statement-tokens.ts'

export type Spool = { readonly name: string; readonly bytes: number; [Symbol.asyncDispose](): Promise<void> }

let spooled = 0

export async function spoolBody(engine: Engine, body: AsyncIterable<Buffer>): Promise<Spool> {
  const name = `body${++spooled}`
  const path = join(engine.spoolDirectory, name)
  const remove = async (): Promise<void> => {
    await unlink(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
  }
  let bytes = 0
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of body) {
      bytes += chunk.length
      if (bytes > limits.insertBytesMax) {
        throw new Refusal(
          229,
          'QUERY_IS_TOO_LARGE',
          `one INSERT may carry ${limits.insertBytesMax} bytes; send it in several`,
        )
      }
      yield chunk
    }
  }
  try {
    await pipeline(
      Readable.from(counted(), { objectMode: false }),
      createWriteStream(path, { flags: 'wx', mode: 0o600, highWaterMark: 1024 * 1024 }),
    )
  } catch (error) {
    await remove()
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC')
      throw new Refusal(243, 'NOT_ENOUGH_SPACE', `no space left to take in a body of more than ${bytes} bytes`)
    throw error
  }
  return { name, bytes, [Symbol.asyncDispose]: remove }
}

/** The settings of `setup` hold for the file too: a block in it is a block in the engine, unless they say otherwise. */
export function insertSpooled(
  engine: Engine,
  setup: StatementSetup,
  into: string,
  format: string,
  spool: Spool,
): Promise<StatementOutcome> {
  if (!/^\w+$/.test(format)) throw new Refusal(73, 'UNKNOWN_FORMAT', `Unknown format ${format.slice(0, 40)}`)
  return engine.run(
    setup,
    `${into} SELECT * FROM file(${engine.fileArgument(spool.name)}, ${quoteString(format)})`,
    'Null',
  )
}
