// `run.json`: which process has the data directory, and on which ports. A collector that was killed leaves its file, and its ports
// may be anybody's by now: who would ask there with the admin key gives it away.
import { join } from 'node:path'
import { isRunning } from '@tallylight/storage/predecessor.ts'
import { readIfPresent } from '@tallylight/storage/private-file.ts'
import { isLocked } from '../journal/lock.ts'

export type Run = {
  readonly pid: number
  readonly ports: {
    readonly otlpHttp: number
    readonly api: number
    readonly clickhouse: number | null
    readonly postgres: number | null
  }
  readonly versions: { readonly tallylight: string; readonly node: string; readonly clickhouse: string | null }
}

export type FoundRun =
  | { readonly kind: 'running'; readonly run: Run }
  /** `why` is for who asks for a collector. */
  | { readonly kind: 'none'; readonly why: string }

const collectorMarker = 'main.ts'

export async function findRun(directory: string): Promise<FoundRun> {
  const path = join(directory, 'run.json')
  const advice = 'start one with npm start, or set TALLYLIGHT_URL'
  const text = await readIfPresent(path)
  if (text === undefined)
    return { kind: 'none', why: `no collector runs on ${directory} (there is no ${path}); ${advice}` }
  const run = JSON.parse(text) as Run
  // A collector in another container has a number that means nothing here, and the lock all the same. The lock is not asked first:
  // it must be taken for that, and a collector that starts at this moment would not get it.
  if ((await isRunning(run.pid, collectorMarker)) || isLocked(join(directory, 'journal')))
    return { kind: 'running', run }
  return {
    kind: 'none',
    why: `no collector runs on ${directory}: process ${run.pid}, which had port ${run.ports.api}, is gone and has left ${path}; ${advice}`,
  }
}
