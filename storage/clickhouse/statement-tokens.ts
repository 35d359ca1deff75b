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

/** Each name that begins so may be a heredoc, whose end is looked for in all that follows: a statement of nothing else would
 *  take half a minute. */
const unclosedMax = 100

/** Spaces as the engine knows them; a pasted statement often holds a non-breaking one. */
const space = /[\s\v\u0085\u180e\u200b-\u200d\u2060\ufeff]+/y
const lineComment = /(?:--|\/\/|#[ !])[^\n]*/y
const commentEdge = /\/\*|\*\//g
const heredocTag = /\$\w*\$/y
/** A dollar that begins no heredoc and no word stands alone, and the next one may begin either. */
const word = /(?:[A-Za-z_]|\$\w)[\w$]*/y
/** Without escapes. */
const binaryString = /x'[\da-f]*'|b'[01]*'/iy
const digits = /\d(?:_?\d)*/y
const hexDigits = /[\da-f](?:_?[\da-f])*/iy
const wordCharacters = /\w+/y

/** `previous` is the token before: whether a dot begins a number hangs on it. */
export function nextToken(text: string, from: number, previous?: Token): NextToken {
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
  const found = tokenAt(text, at, previous)
  return found === undefined ? { kind: 'broken', reason: reasonAt(text, at), at } : { kind: 'token', token: found }
}

/** All tokens, or where the text stops making sense. */
export function tokensOf(text: string): { readonly tokens: readonly Token[]; readonly broken: string | undefined } {
  const tokens: Token[] = []
  let unclosed = 0
  for (let at = 0; ; ) {
    const next = nextToken(text, at, tokens.at(-1))
    switch (next.kind) {
      case 'token':
        if (next.token.text.startsWith('$') && next.token.kind !== 'heredoc' && ++unclosed > unclosedMax)
          return { tokens, broken: `more than ${unclosedMax} names begin with $` }
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
export function stringValueOf(token: Token): string {
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
    .replaceAll(/''|\\x([0-9a-fA-F]{2})|\\([\s\S])/g, (all, hex: string | undefined, escaped: string | undefined) => {
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

function tokenAt(text: string, at: number, previous: Token | undefined): Token | undefined {
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
  if (/[xb]/i.test(character) && text[at + 1] === "'") {
    const length = matchAt(binaryString, text, at)
    return length > 0 ? make('string', length) : undefined
  }
  const wordLength = matchAt(word, text, at)
  if (wordLength > 0) return make('word', wordLength)
  if (character >= '0' && character <= '9') return numberAt(text, at, previous, make)
  if (character === '.' && !isAccess(previous)) {
    const length = matchAt(digits, text, at + 1)
    // At the very beginning the engine takes a dot for a number even without digits.
    if (length > 0 || at === 0) return make('number', endOfExponent(text, at + 1 + length, 'e') - at)
  }
  return character > ' ' && character < '\x7f' ? make('mark', 1) : undefined
}

/** As the engine does it: what follows a number, and is no part of it, must come out as a word of its own. */
function numberAt(
  text: string,
  start: number,
  previous: Token | undefined,
  make: (kind: Token['kind'], length: number) => Token,
): Token | undefined {
  let at = start
  if (isMark(previous, '.')) {
    at += matchAt(digits, text, at)
  } else {
    const isHex = /^0x[\da-f]/i.test(text.slice(at, at + 3))
    const block = isHex ? hexDigits : digits
    if (isHex || /^0b[01]/i.test(text.slice(at, at + 3))) at += 2
    at += matchAt(block, text, at)
    if (text[at] === '.') at += 1 + matchAt(block, text, at + 1)
    at = endOfExponent(text, at, isHex ? 'p' : 'e')
  }
  const rest = matchAt(wordCharacters, text, at)
  if (rest === 0) return make('number', at - start)
  // A name may begin with digits, but only a whole one.
  return /^\w+$/.test(text.slice(start, at)) ? make('word', at + rest - start) : undefined
}

function endOfExponent(text: string, start: number, letter: string): number {
  if (text[start]?.toLowerCase() !== letter || start + 1 >= text.length) return start
  const isSigned = (text[start + 1] === '-' || text[start + 1] === '+') && start + 2 < text.length
  const at = start + (isSigned ? 2 : 1)
  return at + matchAt(digits, text, at)
}

/** Behind these a dot reaches into something. */
function isAccess(previous: Token | undefined): boolean {
  if (previous === undefined) return false
  if (previous.kind === 'mark') return previous.text === ')' || previous.text === ']'
  return previous.kind === 'word' || previous.kind === 'quoted' || previous.kind === 'number'
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
