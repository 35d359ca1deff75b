// chdb's sessions, opened and closed a few times a second for as long as the process lives.
import { createRequire } from 'node:module'
import { Session } from 'chdb'
import { resolveLibchdb } from 'chdb/libchdb'

export type Sessions = { open(): Session; close(session: Session): void }

type NativeConnections = { CloseConnection(connection: unknown): void }

/** `Session.close` of chdb 3.4 waits until no statement runs in the whole process, not only on this connection: beside one
 *  long SELECT, each request would leave 136 KiB behind until that has ended. So the connection is closed as the session would
 *  do it; it must have no statement under way. Ran 3,000 times beside long statements without growth. */
export function openSessions(storePath: string, connectionArgs: readonly string[]): Sessions {
  const { packageName } = resolveLibchdb({ env: {} })
  if (packageName === undefined)
    throw new Error('the embedded ClickHouse is not installed: there is no package of chdb for this platform')
  const load = createRequire(createRequire(import.meta.url).resolve('chdb'))
  const native = load(packageName) as NativeConnections
  return {
    open: () => new Session(storePath, { connectionArgs }),
    close: (session) => {
      const { connection } = session
      session.connection = null
      if (connection !== null) native.CloseConnection(connection)
      // Takes it off the list of what is closed at exit.
      session.close()
    },
  }
}
