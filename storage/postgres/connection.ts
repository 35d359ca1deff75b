// One connection of the pool for as long as some work needs the same one: a transaction, a lock, a LISTEN.
import type pg from 'pg'

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
