// Where the data of an INSERT begins. Everything before it is SQL, everything behind it is bytes of any format, so this
// reads no further than it must.
import { isMark, isWord, nextToken, type Token } from './statement-tokens.ts'

export type InsertHead = {
  /** `INSERT INTO t (columns) SETTINGS …`, to which a SELECT can be put. */
  readonly into: string
  /** Undefined when the statement names none. */
  readonly format: string | undefined
  /** Where the data begins in the text. */
  readonly dataStart: number
}

/** Undefined for every statement that carries no data: INSERT … SELECT among them. */
export function readInsertHead(text: string): InsertHead | undefined {
  const first = tokenAfter(text, undefined)
  const second = first === undefined ? undefined : tokenAfter(text, first)
  if (first === undefined || second === undefined || !isWord(first, 'insert') || !isWord(second, 'into'))
    return undefined
  let depth = 0
  let last = second
  for (;;) {
    const token = tokenAfter(text, last)
    // Not a token: the end of the text, or a table and nothing behind it.
    if (token === undefined || isMark(token, ';')) {
      return last === second
        ? undefined
        : { into: text.slice(first.start, last.end), format: undefined, dataStart: token?.end ?? text.length }
    }
    // The first word behind INTO is a name, and so is what follows a dot.
    const isClause = depth === 0 && last !== second && !isMark(last, '.')
    if (isClause && isWord(token, 'select', 'with', 'from')) return undefined
    if (isClause && isWord(token, 'values')) {
      return { into: text.slice(first.start, last.end), format: 'Values', dataStart: token.end }
    }
    if (isClause && isWord(token, 'format')) {
      const name = tokenAfter(text, token)
      if (name?.kind !== 'word') return undefined
      return { into: text.slice(first.start, last.end), format: name.text, dataStart: dataAfter(text, name.end) }
    }
    // A bracket that opens a SELECT, not a list of columns.
    if (isMark(token, '(') && isWord(tokenAfter(text, token), 'select', 'with')) return undefined
    if (token.kind === 'mark' && '([{'.includes(token.text)) depth++
    if (token.kind === 'mark' && ')]}'.includes(token.text)) depth--
    last = token
  }
}

/** Spaces up to the end of the line and the line's end belong to the statement; any more belongs to the data. */
function dataAfter(text: string, end: number): number {
  let at = end
  while (text[at] === ' ' || text[at] === '\t' || text[at] === '\f') at++
  if (text[at] === '\r') at++
  if (text[at] === '\n') at++
  return at
}

function tokenAfter(text: string, previous: Token | undefined): Token | undefined {
  const next = nextToken(text, previous?.end ?? 0, previous)
  return next.kind === 'token' ? next.token : undefined
}
