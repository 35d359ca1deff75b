// The limits of the configuration file: put in force at the start and whenever the file changes. A file that cannot be used
// changes nothing: the limits stay as they are, records and calls go on, and the log and a metric say so until it is mended.
// Postgres being away is no fault of the file: then what the file said last is tried again.
import { type ConfigFile, parseConfigFile } from '../config.ts'
import { watchFile } from '../file-watch.ts'
import { limits } from '../limits.ts'
import type { ConfigApplied, LimitBook } from '../quota/limit-book.ts'
import { limitOf } from '../quota/limits.ts'
import { pause } from '../quota/pause.ts'
import { defaultTenant } from '../receive/key-rules.ts'
import { parseTenantId } from '../receive/request.ts'
import type { Start } from './start.ts'

/** Follows the file from the moment that Postgres has its tables. Resolves after the first try, whatever came of it. */
export function followFileLimits(start: Start, limitBook: LimitBook, keysPrepared: Promise<void>): Promise<void> {
  const { config, file, fileText, metrics, log, loops } = start
  const { configPath: path } = config
  /** What the file says and what is not in force yet. */
  let wanted: ConfigFile | undefined = file
  let isOfStart = true
  let isTextRefused = false
  let areLimitsRefused = false
  let said = ''
  metrics.onRead(() => [
    {
      name: 'tallylight_config_refused',
      type: 'gauge',
      help: '1 while the configuration file says what cannot be used, and the limits are those from before; the log says why.',
      labels: {},
      value: isTextRefused || areLimitsRefused ? 1 : 0,
    },
  ])

  async function onChange(text: string | undefined): Promise<void> {
    const read = text === undefined ? undefined : parseConfigFile(text, path)
    isOfStart = false
    isTextRefused = read?.kind !== 'file'
    if (read?.kind === 'file') wanted = read.file
    else {
      const reasons = read?.reasons ?? [`${path} cannot be read`]
      log.error(
        { path, reasons },
        'the configuration file has changed and cannot be used; limits and probes stay as they are',
      )
    }
  }

  async function tryWanted(): Promise<void> {
    const tried = wanted
    if (tried === undefined || loops.signal.aborted) return
    let applied: ConfigApplied
    try {
      applied = await limitBook.applyConfig(limitsOf(tried))
    } catch (error) {
      if (String(error) !== said)
        log.error({ err: error }, 'the limits of the configuration file cannot be put in force yet')
      said = String(error)
      return
    }
    said = ''
    // The file may have changed meanwhile, and what it says now is wanted.
    if (wanted === tried) wanted = undefined
    areLimitsRefused = applied.kind === 'refused'
    if (applied.kind === 'refused') {
      log.error(
        { path, reasons: applied.reasons },
        'limits of the configuration file cannot be used; all limits stay as they are, until it is mended',
      )
      return
    }
    const { diff } = applied
    if (diff.added.length + diff.changed.length + diff.removed.length > 0) log.info(diff, 'quota limits were changed')
    if (!isOfStart)
      log.info(
        { path },
        'the limits and probes of the configuration file are in force; its other settings are read at the next start',
      )
  }

  const first = keysPrepared.then(tryWanted)
  async function run(signal: AbortSignal): Promise<void> {
    await first
    while (!signal.aborted) {
      await pause(limits.configPollMs, signal)
      await tryWanted()
    }
  }
  loops.add(run(loops.signal))
  loops.add(watchFile({ path, pollMs: limits.configPollMs, text: fileText, onChange }, loops.signal))
  return first
}

function limitsOf(file: ConfigFile): readonly ReturnType<typeof limitOf>[] {
  return (file.quota?.limits ?? []).map(({ tenant, ...input }) =>
    limitOf(parseTenantId(tenant) ?? defaultTenant, input.id, input, 'config'),
  )
}
