// From a request to what a statement is run with. The collector sets what it likes; a reader only what the list below has,
// and less than its bound. Drivers send much unasked, so what a reader may not set in the URL is left out, not refused.

import type { StatementSetup } from './embedded-engine.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { Refusal } from './http-exception.ts'
import { readFilters, type TailSetting } from './statement-guard.ts'
import { quoteString } from './statement-tokens.ts'

/** Parameters of the URL that are HTTP's and not settings. */
const ownParameters: ReadonlySet<string> = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'user',
  'password',
  'quota_key',
  'client_protocol_version',
  'enable_http_compression',
  'http_zlib_compression_level',
  'wait_end_of_query',
  'buffer_size',
  'send_progress_in_http_headers',
  'http_headers_progress_interval_ms',
  'add_http_cors_header',
  'stacktrace',
  'close_session',
  'session_timeout',
  'session_check',
  'http_write_exception_in_output_format',
  'log_comment',
])
/** What would change the meaning of the request, and what this endpoint does not do. */
const missingParameters: Readonly<Record<string, string>> = {
  session_id: 'sessions: each request stands alone, so send its settings with it',
  role: 'roles',
  compress: "ClickHouse's own compression of bodies; use enable_http_compression=1 and Accept-Encoding",
  decompress: "ClickHouse's own compression of bodies; use Content-Encoding",
}

type ReaderSetting = (value: string) => string | undefined
const atMost =
  (max: number): ReaderSetting =>
  (value) =>
    /^\d{1,15}$/.test(value) ? String(Math.min(Number(value), max)) : undefined
const oneOf =
  (...values: readonly string[]): ReaderSetting =>
  (value) =>
    values.includes(value) ? value : undefined
const flag = oneOf('0', '1', 'true', 'false')

const readerSettings: Readonly<Record<string, ReaderSetting>> = {
  limit: atMost(Number.MAX_SAFE_INTEGER),
  offset: atMost(Number.MAX_SAFE_INTEGER),
  max_result_rows: atMost(Number.MAX_SAFE_INTEGER),
  max_rows_to_read: atMost(Number.MAX_SAFE_INTEGER),
  max_bytes_to_read: atMost(Number.MAX_SAFE_INTEGER),
  max_block_size: (value) => (Number(value) > 0 ? atMost(65_409)(value) : undefined),
  max_threads: (value) => (Number(value) > 0 ? atMost(limits.readerThreadsMax)(value) : undefined),
  // 0 is "no bound" to the engine.
  max_execution_time: (value) =>
    Number(value) > 0 ? String(Math.min(Number(value), limits.readerSecondsMax)) : undefined,
  result_overflow_mode: oneOf('throw', 'break'),
  read_overflow_mode: oneOf('throw', 'break'),
  final: flag,
  join_use_nulls: flag,
  extremes: flag,
  output_format_json_quote_64bit_integers: flag,
  output_format_json_quote_64bit_floats: flag,
  output_format_json_quote_denormals: flag,
  output_format_json_quote_decimals: flag,
  date_time_output_format: oneOf('simple', 'iso', 'unix_timestamp'),
  session_timezone: (value) => (/^[A-Za-z0-9_+/-]{0,64}$/.test(value) ? value : undefined),
}

export function isReaderSetting(name: string): boolean {
  return name === 'additional_table_filters' || Object.hasOwn(readerSettings, name)
}

/** For the collector. */
export function ownerSetup(
  url: URLSearchParams,
  parameters: ReadonlyMap<string, string>,
  database: string | undefined,
  memoryBytesMax: number,
): StatementSetup {
  const settings = new Map<string, string>([
    ['max_memory_usage', String(Math.floor(memoryBytesMax * limits.ownerMemoryShare))],
    ['max_query_size', String(limits.statementBytesMax * 2)],
  ])
  for (const [name, value] of url) {
    if (!ownParameters.has(name) && !name.startsWith('param_') && /^[a-z]\w*$/i.test(name)) settings.set(name, value)
  }
  const asked = Number(settings.get('max_execution_time'))
  settings.set('max_execution_time', String(asked > 0 ? Math.min(asked, limits.ownerSecondsMax) : limits.ownerSeconds))
  return { database, settings, parameters, isReadonly: false }
}

/** For a reader; `tail` is what stood at the end of its statement. */
export function readerSetup(
  url: URLSearchParams,
  parameters: ReadonlyMap<string, string>,
  database: string | undefined,
  memoryBytesMax: number,
  tail: readonly TailSetting[],
): StatementSetup & { readonly filters: readonly string[] } {
  const memoryBytes = Math.floor(memoryBytesMax * limits.readerMemoryShare)
  const settings = new Map<string, string>([
    ['max_memory_usage', String(memoryBytes)],
    ['max_bytes_before_external_group_by', String(Math.floor(memoryBytes / 2))],
    ['max_bytes_before_external_sort', String(Math.floor(memoryBytes / 2))],
    ['max_temporary_data_on_disk_size_for_query', String(limits.readerSpillBytesMax)],
    ['max_query_size', String(limits.statementBytesMax * 2)],
    ['max_execution_time', String(limits.readerSeconds)],
    ['max_result_bytes', String(limits.readerResultBytesMax)],
  ])
  for (const [name, value] of url) {
    const bounded = Object.hasOwn(readerSettings, name) ? readerSettings[name]?.(value) : undefined
    if (bounded !== undefined) settings.set(name, bounded)
  }
  const literals = new Map<string, string>()
  const filters: string[] = []
  for (const { name, value } of tail) {
    if (name === 'additional_table_filters') {
      const found = readFilters(value)
      if (found === undefined)
        throw new Refusal(36, 'BAD_ARGUMENTS', "additional_table_filters must be {'table': 'condition', …}")
      literals.set(
        name,
        `{${[...found].map(([table, filter]) => `${quoteString(table)}: ${quoteString(filter)}`).join(', ')}}`,
      )
      filters.push(...found.values())
      continue
    }
    const text = value
      .map((token) => token.text)
      .join('')
      .replace(/^'(.*)'$/, '$1')
    const bounded = readerSettings[name]?.(text)
    if (bounded === undefined)
      throw new Refusal(
        36,
        'BAD_ARGUMENTS',
        `${text.slice(0, 40)} is no value that a reader may give to the setting ${name}`,
      )
    settings.set(name, bounded)
  }
  return { database, settings, parameters, literals, isReadonly: true, filters }
}

/** `param_x=…` of the URL, and of the form that `@clickhouse/client` sends when the URL would get too long. */
export function parametersOf(url: URLSearchParams, form: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>()
  for (const [name, value] of [...url, ...form]) {
    if (/^param_\w+$/.test(name)) parameters.set(name.slice('param_'.length), value)
  }
  return parameters
}

export function assertSupported(url: URLSearchParams): void {
  for (const [name, what] of Object.entries(missingParameters)) {
    const value = url.get(name)
    if (value !== null && value !== '' && value !== '0')
      throw new Refusal(48, 'NOT_IMPLEMENTED', `the embedded ClickHouse does not have ${what} (${name})`)
  }
}
