// What may be asked of the embedded engine. Its own `readonly=1` is one wall against readers; this is the one in front of
// it, because readonly still writes INTO OUTFILE, runs KILL, and reads files through the scalar function `file`.
//
// A reader's statement is judged twice: as it came, and as the engine's own parser writes it back (`formatQuery`), and the
// second is what runs. So a string, comment or name that we read in another way than the engine hides nothing.
import { depthsOf, isMark, isWord, stringValueOf, type Token, tokensOf } from './statement-tokens.ts'

export type EngineNames = {
  /** The engine's own table functions and output formats, in lower case. */
  readonly tableFunctions: ReadonlySet<string>
  readonly outputFormats: ReadonlySet<string>
}

export type Judged = { readonly kind: 'allowed' } | { readonly kind: 'refused'; readonly reason: string }

export type Tail = {
  /** The statement without FORMAT, without a last semicolon, and without the settings below. */
  readonly sql: string
  readonly format: string | undefined
  readonly settings: readonly TailSetting[]
}
export type TailSetting = { readonly name: string; readonly value: readonly Token[] }

const selectingWords = ['select', 'with'] as const
const describingWords = ['show', 'desc', 'describe', 'explain', 'exists'] as const

/** Table functions that make rows of nothing but their arguments; every other one reaches files, networks or other tables. */
const harmlessTableFunctions: ReadonlySet<string> = new Set([
  'numbers',
  'numbers_mt',
  'zeros',
  'zeros_mt',
  'primes',
  'generateseries',
  'generate_series',
  'values',
  'sqlstandardvalues',
  'view',
  'format',
  'null',
  'generaterandom',
])

/** Scalar functions that read files, load libraries, look into the process or call out. */
const reachingFunctions: ReadonlySet<string> = new Set([
  'file',
  'catboostevaluate',
  'evalmlmethod',
  'reversednsquery',
  'addresstoline',
  'addresstolinewithinlines',
  'addresstosymbol',
  'generateserialid',
  'aigenerate',
  'aiclassify',
  'aiextract',
  'aitranslate',
  'aiembed',
  'getclienthttpheader',
])

/** Behind these a name is that of a column or table, and never of a function that another is to call. */
const columnWords = ['select', 'as', 'with', 'from', 'join', 'where', 'and', 'or', 'by'] as const

/** Judges a statement, or the engine's rendering of it, for a reader. */
export function judgeReading(text: string, names: EngineNames): Judged {
  const { tokens, broken } = tokensOf(text)
  if (broken !== undefined) return refused(broken)
  const first = tokens.find((token) => !isMark(token, '('))
  if (first === undefined) return refused('the statement is empty')
  if (!isWord(first, ...selectingWords, ...describingWords)) {
    return refused(
      `readers may SELECT, SHOW, DESCRIBE, EXPLAIN and EXISTS; this statement begins with ${first.text.slice(0, 20)}`,
    )
  }
  for (const [at, token] of tokens.entries()) {
    const reason = reasonAgainst(tokens[at - 1], token, tokens[at + 1], tokens[at + 2], names)
    if (reason !== undefined) return refused(reason)
  }
  return { kind: 'allowed' }
}

/** `{name:Identifier}` may stand for a function, too: `arrayMap({f:Identifier}, …)`. */
export function judgeParameters(text: string, parameters: ReadonlyMap<string, string>): Judged {
  const { tokens } = tokensOf(text)
  for (const [at, token] of tokens.entries()) {
    const isIdentifier =
      isMark(tokens[at - 1], '{') && isMark(tokens[at + 1], ':') && isWord(tokens[at + 2], 'identifier')
    const name = isIdentifier ? parameters.get(token.text)?.toLowerCase() : undefined
    if (name !== undefined && reachingFunctions.has(name)) return refused(reachingReason(name))
  }
  return { kind: 'allowed' }
}

function reasonAgainst(
  previous: Token | undefined,
  token: Token,
  next: Token | undefined,
  afterNext: Token | undefined,
  names: EngineNames,
): string | undefined {
  if (isMark(token, ';')) return 'one statement at a time'
  if (isWord(token, 'into') && isWord(next, 'outfile')) return 'INTO OUTFILE writes a file'
  if (isWord(token, 'insert') && isWord(next, 'into')) return 'readers insert nothing'
  // The engine refuses these at the end of a statement and overlooks them in a part of it.
  if (isWord(token, 'settings') && next?.kind === 'word' && isMark(afterNext, '='))
    return `the setting ${next.text} is not a reader's to set here`
  const name = nameOf(token)
  // `arrayMap(file, …)` and `* APPLY file` call a function by its name alone.
  if (name !== undefined && reachingFunctions.has(name) && !isMark(previous, '.') && !isWord(previous, ...columnWords))
    return reachingReason(name)
  if (!isMark(next, '(')) return undefined
  // `{name:Identifier}(…)` would let a parameter choose the function.
  if (isMark(token, '}')) return 'a parameter cannot name a function'
  if (name === undefined) return undefined
  const isReaching =
    reachingFunctions.has(name) || (names.tableFunctions.has(name) && !harmlessTableFunctions.has(name))
  return isReaching ? reachingReason(name) : undefined
}

function nameOf(token: Token): string | undefined {
  if (token.kind === 'word') return token.text.toLowerCase()
  return token.kind === 'quoted' ? token.text.slice(1, -1).toLowerCase() : undefined
}

function reachingReason(name: string): string {
  return `the function ${name} reaches outside of the tables; a column of that name needs its table before it`
}

/** The collector may do all that the engine grants, save what the endpoint does itself with files. */
export function judgeOwner(tokens: readonly Token[]): Judged {
  for (const [at, token] of tokens.entries()) {
    const next = tokens[at + 1]
    if (isWord(token, 'into') && isWord(next, 'outfile'))
      return refused('INTO OUTFILE writes a file beside the database')
    if (isWord(token, 'from') && isWord(next, 'infile')) return refused('FROM INFILE reads a file beside the database')
  }
  return { kind: 'allowed' }
}

/** `selects`: rows without end, to be streamed. `describes`: a few rows, which the engine makes by putting another statement in
 *  the place of this one; it loses an INTO OUTFILE in doing so, without a word. `acts`: everything else. */
export type StatementKind = 'selects' | 'describes' | 'acts'

export function kindOf(tokens: readonly Token[]): StatementKind {
  const first = tokens.find((token) => !isMark(token, '('))
  if (isWord(first, ...describingWords)) return 'describes'
  if (!isWord(first, ...selectingWords)) return 'acts'
  return tokens.some((token, at) => isWord(token, 'insert') && isWord(tokens[at + 1], 'into')) ? 'acts' : 'selects'
}

/** Takes `FORMAT f` off the end of a statement, and with `takes` the SETTINGS there when each has a name that it accepts.
 *  `[SETTINGS …] [FORMAT f] [SETTINGS …]` is the engine's order. */
export function takeTail(text: string, names: EngineNames, takes: (name: string) => boolean = () => false): Tail {
  const { tokens: all, broken } = tokensOf(text)
  // Nothing is known of what stands behind the break, and a statement cut off there would answer another question.
  if (broken !== undefined) return { sql: text, format: undefined, settings: [] }
  let tokens: readonly Token[] = all.slice(0, all.findLastIndex((token) => !isMark(token, ';')) + 1)
  const settings: TailSetting[] = []
  let kept = ''
  const takeSettings = (): boolean => {
    const at = settingsAt(tokens)
    const found = at === undefined ? undefined : readSettings(tokens.slice(at + 1))
    if (found === undefined || !found.every((setting) => takes(setting.name))) return false
    settings.unshift(...found)
    tokens = tokens.slice(0, at)
    return true
  }
  const settingsStart = settingsAt(tokens) ?? tokens.length
  const isFormatFirst =
    formatAt(tokens, names) === undefined && formatAt(tokens.slice(0, settingsStart), names) !== undefined
  if (isFormatFirst && !takeSettings()) {
    kept = ` ${text.slice(tokens[settingsStart]?.start, tokens.at(-1)?.end)}`
    tokens = tokens.slice(0, settingsStart)
  }
  const format = formatAt(tokens, names)
  if (format !== undefined) tokens = tokens.slice(0, -2)
  takeSettings()
  return { sql: text.slice(0, tokens.at(-1)?.end ?? 0) + kept, format, settings }
}

/** `FORMAT f` as the last two tokens. A column may be named `format` too: then an operator or a clause stands before it, or
 *  what follows is no format. */
function formatAt(tokens: readonly Token[], names: EngineNames): string | undefined {
  const at = tokens.length - 2
  const name = tokens[at + 1]
  if (at < 1 || !isWord(tokens[at], 'format') || name?.kind !== 'word') return undefined
  const before = tokens[at - 1] as Token
  if (before.kind === 'mark' && !')]}*'.includes(before.text)) return undefined
  if (isWord(before, 'by', 'as', 'select', 'where', 'and', 'or', 'not', 'on', 'having', 'prewhere', 'distinct'))
    return undefined
  if (!names.outputFormats.has(name.text.toLowerCase()) && isWord(name, 'asc', 'desc', 'end', 'nulls', 'limit'))
    return undefined
  return name.text
}

function settingsAt(tokens: readonly Token[]): number | undefined {
  const depths = depthsOf(tokens)
  const at = tokens.findLastIndex(
    (token, index) => depths[index] === 0 && isWord(token, 'settings') && isMark(tokens[index + 2], '='),
  )
  return at < 1 ? undefined : at
}

/** `name = value, …`; undefined when it is anything else. */
function readSettings(tokens: readonly Token[]): readonly TailSetting[] | undefined {
  const depths = depthsOf(tokens)
  const found: TailSetting[] = []
  for (let at = 0; at < tokens.length; ) {
    const name = tokens[at]
    if (name?.kind !== 'word' || !isMark(tokens[at + 1], '=')) return undefined
    let end = at + 2
    while (end < tokens.length && !(depths[end] === 0 && isMark(tokens[end], ','))) end++
    // One token, or what stands in brackets.
    if (end !== at + 3 && !(depths[at + 2] === 0 && isMark(tokens[at + 2], '{') && isMark(tokens[end - 1], '}')))
      return undefined
    found.push({ name: name.text.toLowerCase(), value: tokens.slice(at + 2, end) })
    at = end + 1
  }
  return found.length > 0 ? found : undefined
}

/** The value of `additional_table_filters`: `{'table': 'filter', …}`; undefined when it is anything else. */
export function readFilters(tokens: readonly Token[]): ReadonlyMap<string, string> | undefined {
  const filters = new Map<string, string>()
  if (!isMark(tokens[0], '{') || !isMark(tokens.at(-1), '}')) return undefined
  const inner = tokens.slice(1, -1)
  for (let at = 0; at < inner.length; at += 4) {
    const [table, colon, filter, comma] = inner.slice(at, at + 4)
    if (table?.kind !== 'string' || !isMark(colon, ':') || filter?.kind !== 'string') return undefined
    if (comma !== undefined && !isMark(comma, ',')) return undefined
    filters.set(stringValueOf(table), stringValueOf(filter))
  }
  return filters
}

function refused(reason: string): Judged {
  return { kind: 'refused', reason }
}
