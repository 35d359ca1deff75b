// From a query as it is stored to the SQL that the data source sends: variables as Grafana's browser replaces them, macros as
// the plugins' backends do. For tests and benchmarks, which run every query without a Grafana.

export type Range = { readonly fromUnixMs: number; readonly toUnixMs: number }
/** A list of values, or All. */
export type Values = Readonly<Record<string, readonly string[] | '$__all'>>

export type Expansion = {
  readonly range: Range
  /** Width of a bucket: of the range by the pixels of the panel, at least the panel's own. */
  readonly intervalSeconds: number
  readonly values: Values
  /** What All stands for where no macro knows it. */
  readonly options?: Readonly<Record<string, readonly string[]>>
}

export type Dialect = 'clickhouse' | 'postgres'

export function expand(dialect: Dialect, sql: string, expansion: Expansion): string {
  const whole = dialect === 'clickhouse' ? replaceConditions(sql, expansion.values) : sql
  const filled = replaceVariables(whole, expansion)
  const macros = dialect === 'clickhouse' ? clickhouseMacros(expansion) : postgresMacros(expansion)
  const done = replaceMacros(filled, macros)
  const left = /\$\{?\w+/.exec(done)
  if (left !== null) throw new Error(`${left[0]} is neither a variable of the board nor a macro of the plugin`)
  return done
}

/** `$__conditionalAll(condition, $variable)`: everything when all are chosen. Replaced in the browser, before the variables. */
function replaceConditions(sql: string, values: Values): string {
  const name = '$__conditionalAll('
  let text = sql
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name)) {
    const { parts, end } = conditionFrom(text, at + name.length)
    const [condition = '', last = ''] = parts
    const variable = /^\s*\$(\w+)\s*$/.exec(last)?.[1]
    // The plugin leaves the macro as it stands when there are more, and ClickHouse refuses it.
    if (parts.length !== 2 || variable === undefined)
      throw new Error('$__conditionalAll takes a condition without commas of its own, and the bare variable')
    const chosen = values[variable]
    if (chosen === undefined) throw new Error(`the board has no variable ${variable}`)
    const isAll = chosen === '$__all' || chosen.length === 0 || chosen.join() === ''
    text = text.slice(0, at) + (isAll ? '1=1' : condition) + text.slice(end)
  }
  return text
}

/** Cut at the commas, as the plugin cuts it: brackets and commas count in quotes, too. */
function conditionFrom(text: string, from: number): { readonly parts: readonly string[]; readonly end: number } {
  const parts: string[] = []
  let depth = 1
  let start = from
  for (let at = from; at < text.length; at++) {
    const letter = text[at]
    if (letter === '(') depth++
    else if (letter === ')') depth--
    if ((letter === ',' && depth === 1) || depth === 0) {
      parts.push(text.slice(start, at))
      start = at + 1
    }
    if (depth === 0) return { parts, end: at + 1 }
  }
  throw new Error('a bracket of $__conditionalAll is not closed')
}

function replaceVariables(sql: string, { values, options = {} }: Expansion): string {
  return sql.replaceAll(/\$\{(\w+)(?::(\w+))?\}/g, (all, name: string, format: string | undefined) => {
    const value = values[name]
    if (value === undefined) return all
    const list = value === '$__all' ? (options[name] ?? []) : value
    return formatted(list, format)
  })
}

/** Grafana's formats: `singlequote` escapes a quote by a backslash, and no backslash; `sqlstring` doubles it; `percentencode` leaves
 *  nothing that SQL could read, of one value. */
function formatted(list: readonly string[], format: string | undefined): string {
  switch (format) {
    case 'singlequote':
      return list.map((value) => `'${value.replaceAll("'", "\\'")}'`).join(',')
    case 'sqlstring':
      return list.map((value) => `'${value.replaceAll("'", "''")}'`).join(',')
    case 'percentencode':
      return encodeURIComponent(list.join()).replaceAll(/[!'()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16)}`)
    default:
      throw new Error(
        `a variable in SQL says how it is quoted: singlequote, sqlstring or percentencode, not ${format ?? 'nothing'}`,
      )
  }
}

type Macro = (argument: string) => string

/** grafana-clickhouse-datasource, `pkg/macros`; only those that every 4.x has. */
function clickhouseMacros({ range, intervalSeconds }: Expansion): Readonly<Record<string, Macro>> {
  const [from, to] = [Math.floor(range.fromUnixMs / 1000), Math.floor(range.toUnixMs / 1000)]
  return {
    timeFilter: (column) => `${column} >= toDateTime(${from}) AND ${column} <= toDateTime(${to})`,
    timeInterval: (column) =>
      `toStartOfInterval(toDateTime(${column}), INTERVAL ${Math.max(intervalSeconds, 1)} second)`,
    fromTime: () => `toDateTime(${from})`,
    toTime: () => `toDateTime(${to})`,
    interval_s: () => `${Math.max(intervalSeconds, 1)}`,
  }
}

/** Grafana's own Postgres data source. */
function postgresMacros({ range }: Expansion): Readonly<Record<string, Macro>> {
  const [from, to] = [range.fromUnixMs, range.toUnixMs].map((unixMs) => new Date(unixMs).toISOString())
  return {
    timeFilter: (column) => `${column} BETWEEN '${from}' AND '${to}'`,
  }
}

function replaceMacros(sql: string, macros: Readonly<Record<string, Macro>>): string {
  let text = sql
  for (const [name, macro] of Object.entries(macros).toSorted(([a], [b]) => b.length - a.length)) {
    const mark = new RegExp(`\\$__${name}\\b`)
    for (let found = mark.exec(text); found !== null; found = mark.exec(text)) {
      const end = found.index + found[0].length
      const taken = text[end] === '(' ? argumentsFrom(text, end + 1) : { inner: '', end }
      text = text.slice(0, found.index) + macro(taken.inner) + text.slice(taken.end)
    }
  }
  return text
}

/** What stands up to the bracket that closes, quoted brackets aside. */
function argumentsFrom(text: string, from: number): { readonly inner: string; readonly end: number } {
  let depth = 1
  let isQuoted = false
  for (let at = from; at < text.length; at++) {
    const letter = text[at]
    if (letter === "'" && text[at - 1] !== '\\') isQuoted = !isQuoted
    if (isQuoted) continue
    if (letter === '(') depth++
    if (letter === ')' && --depth === 0) return { inner: text.slice(from, at), end: at + 1 }
  }
  throw new Error(`a bracket is not closed in ${text.slice(from, from + 60)}`)
}
