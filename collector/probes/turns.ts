// Who looks at a server, of several collectors with the same configuration: the one that holds its name, as an advisory lock of
// Postgres. With Postgres away whoever holds a name goes on, and nobody else begins. The lock of a collector that died goes
// with its connection, at the latest when Postgres has not heard of it for a while.
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import type pg from 'pg'
import { pause } from '../quota/pause.ts'
import type { Log } from '../receive/admission.ts'

export type Turns = {
  /** `taken` when the name is this collector's, `lost` when it is another's after all. Answers with what gives it up. */
  want(name: string, taken: () => void, lost: () => void): () => void
  /** Asks for what is wanted, until the signal; then what is held is free. */
  run(signal: AbortSignal): Promise<void>
}

type Want = { readonly taken: () => void; readonly lost: () => void; isHeld: boolean }

export function openTurns(options: {
  readonly database: pg.Pool
  readonly pollMs: number
  readonly idleMsMax: number
  readonly log: Log
}): Turns {
  const { database, pollMs, idleMsMax, log } = options
  const wanted = new Map<string, Want>()

  /** `locked` is what this connection holds: after a lost one everything is asked for again. */
  async function ask(client: pg.PoolClient, locked: Set<string>): Promise<void> {
    for (const name of [...locked].filter((one) => !wanted.has(one))) {
      await client.query('select pg_advisory_unlock(hashtextextended($1, 0))', [name])
      locked.delete(name)
    }
    for (const [name, want] of wanted) {
      // It may be held since somebody wanted it who has given it up: a probe that was changed keeps its name.
      if (!locked.has(name)) {
        const { rows } = await client.query<{ got: boolean }>(
          'select pg_try_advisory_lock(hashtextextended($1, 0)) as got',
          [name],
        )
        if (rows[0]?.got === true) locked.add(name)
      }
      if (want.isHeld === locked.has(name)) continue
      want.isHeld = locked.has(name)
      if (want.isHeld) want.taken()
      else want.lost()
    }
  }

  async function hold(client: pg.PoolClient, signal: AbortSignal): Promise<void> {
    const locked = new Set<string>()
    await client.query(`set idle_session_timeout = ${idleMsMax}`)
    while (!signal.aborted) {
      await ask(client, locked)
      await pause(pollMs, signal)
      // Heard of in time, and hears when the connection is gone.
      await client.query('select 1')
    }
    await client.query('select pg_advisory_unlock_all()')
    await client.query('reset idle_session_timeout')
  }

  return {
    want: (name, taken, lost) => {
      wanted.set(name, { taken, lost, isHeld: false })
      return () => void wanted.delete(name)
    },
    run: async (signal) => {
      let isAway = false
      while (!signal.aborted) {
        try {
          await withConnection(database, (client) => {
            isAway = false
            return hold(client, signal)
          })
        } catch (error) {
          if (!isAway) log.warn({ err: error }, 'who probes cannot be settled without Postgres; who did goes on')
          isAway = true
          await pause(pollMs, signal)
        }
      }
    },
  }
}
