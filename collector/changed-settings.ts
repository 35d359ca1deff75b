// Whether the configuration file says something else by now than the collector runs with. All but limits and probes is read at the
// start, so what is asked for to bring a changed setting to the records that are there would bring them the old one.
import { readFile } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import { type ConfigFile, parseConfigFile } from './config.ts'

export type AppliedSetting = 'retention' | 'quota.prices'

/** A file that cannot be read or used changes nothing; the log says so. */
export async function isSettingChanged(path: string, file: ConfigFile, setting: AppliedSetting): Promise<boolean> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  const now = text === undefined ? undefined : parseConfigFile(text, path)
  return now?.kind === 'file' && !isDeepStrictEqual(settingOf(now.file, setting), settingOf(file, setting))
}

function settingOf(file: ConfigFile, setting: AppliedSetting): unknown {
  return setting === 'retention' ? (file.retention ?? {}) : (file.quota?.prices ?? [])
}
