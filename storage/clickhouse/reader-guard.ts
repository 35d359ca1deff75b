// What a reader may ask the embedded engine. `readonly=1` of the engine is the wall against writing; this is the wall in
// front of it, because readonly still writes INTO OUTFILE, runs KILL, and reads local files through table functions.
// It works on tokens, so that nothing hides in comments or strings and no harmless text is refused.

export type Guarded =
  | {
      readonly kind: 'allowed'
      /** The statement without its FORMAT clause and without the settings that were taken off. */
      readonly sql: string
      readonly format: string | undefined
      readonly settings: ReadonlyMap<string, string>
    }
  | { readonly kind: 'refused'; readonly reason: string }

type Token = {
  readonly kind: 'word' | 'quoted' | 'string' | 'number' | 'mark'
  readonly text: string
  readonly start: number
  readonly end: number
}

const firstWords = new Set(['select', 'with', 'show', 'desc', 'describe', 'explain', 'exists', '('])

/** Functions of a FROM clause that make rows of nothing but their arguments. */
const harmlessTableFunctions = new Set([
  'numbers',
  'numbers_mt',
  'zeros',
  'zeros_mt',
  'generateseries',
  'generate_series',
  'values',
  'view',
  'format',
  'null',
  'one',
])

/** Settings that a reader may put at the end of a statement: Grafana's ad hoc filters, and asking for less. */
const readerSettings = new Set([
  'additional_table_filters',
  'max_threads',
  'max_rows_to_read',
  'max_result_rows',
  'limit',
])

/** Judges a reader's statement. `tableFunctions` are the engine's own (system.table_functions), in lower case. */
export function guardStatement(text: string, tableFunctions: ReadonlySet<string>): Guarded {
  const tokens = lex(text)
  if (tokens === undefined) return refused('a string, quoted name or comment does not end')
  while (tokens.at(-1)?.text === ';') tokens.pop()
  const first = tokens[0]
  if (first === undefined) return refused('the statement is empty')
  if (!firstWords.has(first.text.toLowerCase())) {
    return refused(
      `readers may SELECT, SHOW, DESCRIBE, EXPLAIN and EXISTS; this statement begins with ${first.text.slice(0, 20)}`,
    )
  }
  for (const [at, token] of tokens.entries()) {
    const word = token.text.toLowerCase()
    const next = tokens[at + 1]
    if (token.text === ';') return refused('one statement at a time')
    if (token.kind === 'word' && word === 'into' && next?.text.toLowerCase() === 'outfile') {
      return refused('INTO OUTFILE writes a file')
    }
    const name = nameOf(token)
    if (name === undefined || next?.text !== '(') continue
    if (tableFunctions.has(name) && !harmlessTableFunctions.has(name)) {
      return refused(`the function ${name} reaches outside the database`)
    }
  }
  return takeTail(text, tokens)
}

/** Takes `SETTINGS …` and `FORMAT …` off the end of any statement; what is not a reader's to set stays for the engine to
 *  refuse. */
function takeTail(text: string, tokens: readonly Token[]): Guarded {
  let end = tokens.at(-1)?.end ?? 0
  let rest = tokens
  let format: string | undefined
  const beforeLast = rest.at(-2)
  if (beforeLast?.kind === 'word' && beforeLast.text.toLowerCase() === 'format' && rest.at(-1)?.kind === 'word') {
    format = rest.at(-1)?.text
    rest = rest.slice(0, -2)
    end = rest.at(-1)?.end ?? 0
  }
  const settings = new Map<string, string>()
  const at = rest.findLastIndex((token) => token.kind === 'word' && token.text.toLowerCase() === 'settings')
  if (at > 0 && depthAt(rest, at) === 0) {
    const found = readSettings(text, rest.slice(at + 1))
    if (found !== undefined && [...found.keys()].every((name) => readerSettings.has(name))) {
      for (const [name, value] of found) settings.set(name, value)
      end = rest[at - 1]?.end ?? 0
    }
  }
  return { kind: 'allowed', sql: text.slice(0, end), format, settings }
}

function depthAt(tokens: readonly Token[], at: number): number {
  let depth = 0
  for (const token of tokens.slice(0, at)) {
    if (token.text === '(' && token.kind === 'mark') depth++
    if (token.text === ')' && token.kind === 'mark') depth--
  }
  return depth
}

/** `name = value, …` with values as they stand in the text. */
function readSettings(text: string, tokens: readonly Token[]): Map<string, string> | undefined {
  const found = new Map<string, string>()
  let at = 0
  while (at < tokens.length) {
    const name = tokens[at]
    if (name?.kind !== 'word' || tokens[at + 1]?.text !== '=' || tokens[at + 2] === undefined) return undefined
    const first = tokens[at + 2] as Token
    let depth = 0
    let last = first
    for (at += 2; at < tokens.length; at++) {
      const token = tokens[at] as Token
      if (depth === 0 && token.kind === 'mark' && token.text === ',') break
      if (token.kind === 'mark' && '({['.includes(token.text)) depth++
      if (token.kind === 'mark' && ')}]'.includes(token.text)) depth--
      last = token
    }
    found.set(name.text.toLowerCase(), text.slice(first.start, last.end))
    at++
  }
  return found
}

function nameOf(token: Token): string | undefined {
  if (token.kind === 'word') return token.text.toLowerCase()
  if (token.kind === 'quoted') return token.text.slice(1, -1).toLowerCase()
  return undefined
}

function refused(reason: string): Guarded {
  return { kind: 'refused', reason }
}

const patterns: readonly (readonly [Token['kind'] | 'space', RegExp])[] = [
  ['space', /(?:\s|--[^\n]*|#[! ][^\n]*|\/\*[\s\S]*?\*\/)+/y],
  ['string', /'(?:[^'\\]|\\[\s\S]|'')*'/y],
  ['string', /\$(\w*)\$[\s\S]*?\$\1\$/y],
  ['quoted', /`(?:[^`\\]|\\[\s\S]|``)*`|"(?:[^"\\]|\\[\s\S]|"")*"/y],
  ['number', /\d[\w.]*/y],
  ['word', /[\p{L}_][\p{L}\p{N}_$]*/uy],
  ['mark', /[^'"`]/uy],
]

/** Undefined when something is opened and never closed. */
export function lex(text: string): Token[] | undefined {
  const tokens: Token[] = []
  let at = 0
  while (at < text.length) {
    if (text.startsWith('/*', at) && !text.includes('*/', at + 2)) return undefined
    let matched = false
    for (const [kind, pattern] of patterns) {
      pattern.lastIndex = at
      const found = pattern.exec(text)
      if (found === null || found[0].length === 0) continue
      if (kind !== 'space') tokens.push({ kind, text: found[0], start: at, end: at + found[0].length })
      at += found[0].length
      matched = true
      break
    }
    if (!matched) return undefined
  }
  return tokens
}

export type InsertStatement = { readonly target: string; readonly format: string }

/** `INSERT INTO [TABLE] t [(columns)] [SETTINGS …] [FORMAT f]`: the part before FORMAT, and the format. Undefined for
 *  anything else, INSERT … SELECT and INSERT … VALUES (…) among it. */
export function readInsert(sql: string, defaultFormat: string): InsertStatement | undefined {
  const found =
    /^\s*(INSERT\s+INTO\s+(?:TABLE\s+)?[^\s(]+(?:\s*\([^()]*\))?(?:\s+SETTINGS\s+[^()]*?)?)(?:\s+FORMAT\s+(\w+))?\s*;?\s*$/i.exec(
      sql,
    )
  return found === null ? undefined : { target: found[1] as string, format: found[2] ?? defaultFormat }
}
