// The servers that the configuration file names are looked at from the start on, and anew when the file changes.
import { parseConfigFile } from '../config.ts'
import { watchFile } from '../file-watch.ts'
import { limits } from '../limits.ts'
import type { Environment } from '../probes/check.ts'
import { openProbes } from '../probes/probes.ts'
import { openTurns } from '../probes/turns.ts'
import { defaultTenant } from '../receive/key-rules.ts'
import { type Accept, parseTenantId } from '../receive/request.ts'
import { openOwnSender } from '../self/self-check.ts'
import type { Engines } from './engines.ts'
import type { Start } from './start.ts'

/** Ends with the last looks, which must come before the journal's end. */
export function startProbes(
  { config, file, fileText: text, metrics, log, stack, loops }: Start,
  { database, keysPrepared }: Engines,
  accept: Accept,
  collectorId: string,
  environment: Environment,
): AsyncDisposable {
  const turns = openTurns({
    database,
    pollMs: limits.probeTurnsPollMs,
    idleMsMax: limits.probeTurnsIdleMsMax,
    log,
  })
  const send = (tenant: string, body: Buffer): Promise<boolean> =>
    openOwnSender(accept, parseTenantId(tenant) ?? defaultTenant)('traces', body)
  const probes = stack.use(openProbes({ turns, environment, collectorId, send, metrics, now: Date.now, log }))
  probes.apply(file.probes ?? [])
  loops.add(keysPrepared.then(() => turns.run(loops.signal)))
  const { configPath: path } = config
  const onChange = async (changed: string | undefined): Promise<void> => {
    // That a file cannot be used is said by whoever applies its limits.
    const read = changed === undefined ? undefined : parseConfigFile(changed, path)
    if (read?.kind === 'file') probes.apply(read.file.probes ?? [])
  }
  loops.add(watchFile({ path, pollMs: limits.configPollMs, text, onChange }, loops.signal))
  return probes
}
