// ClickHouse's lexer, as far as telling code from strings, names and comments goes. It must agree with the engine's own to
// the byte: where the two part, a statement hides in what only one of them takes for a string. A test compares it with the
// engine's `tokenizeQuery` on random text. Where the engine is more lenient (typographic quotes), text is refused instead.

export type Token = {
  readonly kind: 'word' | 'quoted' | 'string' | 'heredoc' | 'number' | 'mark'
  readonly text: string
  readonly start: number
  readonly end: number
}

export type NextToken =
  | { readonly kind: 'token'; readonly token: Token }
  | { readonly kind: 'end' }
  | { readonly kind: 'broken'; readonly reason: string; readonly at: number }

/** Spaces as the engine knows them; a pasted statement often holds a non-breaking one. */
const space = /[\s\v\u0085\u180e\u200b-\u200d\u2060\ufeff]+/y
const lineComment = /(?:--|\/\/|#[ !])[^\n]*/y
const commentEdge = /\/\*|\*\//g
const heredocTag = /\$\w*\$/y
const word = /[A-Za-z_$][\w$]*/y
/** No dot inside: what follows `1.` must stay visible, and the engine refuses a number that runs into a word. */
const number = /\d\w*/y

export function nextToken(text: string, from: number): NextToken {
  let at = from
  for (;;) {
    const skipped = matchAt(space, text, at) || matchAt(lineComment, text, at)
    if (skipped > 0) {
      at += skipped
    } else if (text.startsWith('/*', at)) {
      const end = endOfComment(text, at)
      if (end === undefined) return { kind: 'broken', reason: 'a comment does not end', at }
      at = end
    } else {
      break
    }
  }
  if (at >= text.length) return { kind: 'end' }
  const found = tokenAt(text, at)
  return found === undefined ? { kind: 'broken', reason: reasonAt(text, at), at } : { kind: 'token', token: found }
}

/** All tokens, or where the text stops making sense. */
export function tokensOf(text: string): { readonly tokens: readonly Token[]; readonly broken: string | undefined } {
  const tokens: Token[] = []
  for (let at = 0; ; ) {
    const next = nextToken(text, at)
    switch (next.kind) {
      case 'token':
        tokens.push(next.token)
        at = next.token.end
        break
      case 'end':
        return { tokens, broken: undefined }
      case 'broken':
        return { tokens, broken: `${next.reason} (at position ${next.at + 1})` }
      default:
        return next satisfies never
    }
  }
}

export function isWord(token: Token | undefined, ...words: readonly string[]): boolean {
  return token?.kind === 'word' && words.includes(token.text.toLowerCase())
}

export function isMark(token: Token | undefined, mark: string): boolean {
  return token?.kind === 'mark' && token.text === mark
}

/** How many brackets each token stands in. */
export function depthsOf(tokens: readonly Token[]): readonly number[] {
  let depth = 0
  return tokens.map((token) => {
    if (token.kind === 'mark' && '([{'.includes(token.text)) return depth++
    if (token.kind === 'mark' && ')]}'.includes(token.text)) depth--
    return depth
  })
}

/** The text of a string token in single quotes. */
export function valueOf(token: Token): string {
  const escapes: Readonly<Record<string, string>> = {
    n: '\n',
    t: '\t',
    r: '\r',
    b: '\b',
    f: '\f',
    a: '\x07',
    v: '\v',
    '0': '\0',
  }
  return token.text
    .slice(1, -1)
    .replaceAll(/''|\\x([0-9a-fA-F]{2})|\\([^])/g, (all, hex: string | undefined, escaped: string | undefined) => {
      if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16))
      if (escaped !== undefined) return escapes[escaped] ?? escaped
      return all.slice(1)
    })
}

export function quoteString(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\0', '\\0')}'`
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``
}

function tokenAt(text: string, at: number): Token | undefined {
  const make = (kind: Token['kind'], length: number): Token => ({
    kind,
    text: text.slice(at, at + length),
    start: at,
    end: at + length,
  })
  const character = text[at] as string
  if (character === "'" || character === '`' || character === '"') {
    const end = endOfQuoted(text, at, character)
    return end === undefined ? undefined : make(character === "'" ? 'string' : 'quoted', end - at)
  }
  if (character === '$') {
    const end = endOfHeredoc(text, at)
    if (end !== undefined) return make('heredoc', end - at)
  }
  const wordLength = matchAt(word, text, at)
  if (wordLength > 0) return make('word', wordLength)
  const numberLength = matchAt(number, text, at)
  if (numberLength > 0) return make('number', numberLength)
  return character > ' ' && character < '\x7f' ? make('mark', 1) : undefined
}

/** A loop and not a pattern: a pattern keeps a way back for each character, which a string of some MiB overflows. */
function endOfQuoted(text: string, start: number, quote: string): number | undefined {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === quote && text[at + 1] === quote) at++
    else if (text[at] === quote) return at + 1
  }
  return undefined
}

function endOfHeredoc(text: string, start: number): number | undefined {
  const tagLength = matchAt(heredocTag, text, start)
  if (tagLength === 0) return undefined
  const end = text.indexOf(text.slice(start, start + tagLength), start + tagLength)
  return end < 0 ? undefined : end + tagLength
}

function matchAt(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0].length ?? 0
}

/** Comments nest. */
function endOfComment(text: string, start: number): number | undefined {
  let depth = 1
  commentEdge.lastIndex = start + 2
  for (let edge = commentEdge.exec(text); edge !== null; edge = commentEdge.exec(text)) {
    depth += edge[0] === '/*' ? 1 : -1
    if (depth === 0) return edge.index + 2
  }
  return undefined
}

function reasonAt(text: string, at: number): string {
  const character = text[at] as string
  if (character === "'") return 'a string does not end'
  if (character === '`' || character === '"') return 'a quoted name does not end'
  return `the character U+${text.codePointAt(at)?.toString(16).toUpperCase().padStart(4, '0')} stands outside of quotes`
}
