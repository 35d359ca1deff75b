// Connections to Postgres: a pool that outlives its server, and one connection of it for as long as some work needs the same
// one: a transaction, a lock, a LISTEN.
import pg from 'pg'

const keepAliveMs = 10_000

/** A pool that hears of every connection that is lost, also of one that is lost while it is being handed out, when neither
 *  the pool nor its user listens: that would end the process. */
export function openPool(config: pg.PoolConfig, onLost: (error: Error) => void): pg.Pool {
  // A peer that is gone without a word answers no probe: idle connections to it are found by the kernel, not never.
  const pool = new pg.Pool({ keepAlive: true, keepAliveInitialDelayMillis: keepAliveMs, ...config })
  pool.on('error', (error: Error & { client?: unknown }) => {
    // The whole connection, with what may cancel its queries: a log would write it down.
    delete error.client
    onLost(error)
  })
  pool.on('connect', (client) => {
    client.on('error', () => undefined)
  })
  return pool
}

/** A connection that failed is not given back: what state it is in is not known. */
export async function withConnection<Result>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<Result>,
): Promise<Result> {
  const client = await pool.connect()
  let lost: Error | undefined
  // The pool listens only while the connection is idle. Without a listener of ours, a server that goes away in between
  // would end the process.
  const noteLost = (error: Error): void => {
    lost = error
  }
  client.on('error', noteLost)
  try {
    return await work(client)
  } catch (error) {
    lost ??= error instanceof Error ? error : new Error(String(error))
    throw error
  } finally {
    client.off('error', noteLost)
    client.release(lost)
  }
}

/** All of the work or nothing of it. */
export async function inTransaction<Result>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<Result>,
): Promise<Result> {
  return withConnection(pool, async (client) => {
    await client.query('begin')
    try {
      const result = await work(client)
      await client.query('commit')
      return result
    } catch (error) {
      // What it was lost for is the error to tell.
      await client.query('rollback').catch(() => undefined)
      throw error
    }
  })
}
