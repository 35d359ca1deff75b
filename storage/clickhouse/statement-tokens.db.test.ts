import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openClickHouse } from './client.ts'
import { startEmbeddedClickHouse } from './embedded.ts'
import { tokensOf } from './statement-tokens.ts'

type EngineToken = { readonly begin: number; readonly end: number; readonly type: string }

/** What can open, close or hide something, among harmless characters. */
const pieces = [
  "'",
  "''",
  "\\'",
  '\\',
  '`',
  '"',
  '$',
  '$$',
  '$a$',
  '--',
  '//',
  '#',
  '# ',
  '#!',
  '/*',
  '*/',
  '/',
  '*',
  '-',
  '\n',
  ' ',
  '\t',
  '(',
  ')',
  ';',
  '.',
  ',',
  '1',
  '1.',
  '0x',
  'e',
  'a',
  'file',
  'INTO OUTFILE',
  '_',
  '{',
  '}',
  '=',
  '<',
  '|',
  '||',
  '!',
  '!=',
  ':',
  '::',
  '@',
  '?',
  '^',
  '%',
  '~',
  '&',
  '\r',
  '\v',
  '\f',
]

/** mulberry32: the same statements in each run. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** For each character whether it is code, in a string, in a quoted name, or skipped. */
function classesOf(
  length: number,
  tokens: readonly { readonly start: number; readonly end: number; readonly as: string }[],
): string {
  const classes = Array.from({ length }, () => ' ')
  for (const { start, end, as } of tokens) classes.fill(as, start, end)
  return classes.join('')
}

const classOfType: Readonly<Record<string, string>> = {
  StringLiteral: 's',
  HereDoc: 's',
  QuotedIdentifier: 'q',
  Whitespace: ' ',
  Comment: ' ',
  EndOfStream: ' ',
}
const classOfKind = { string: 's', heredoc: 's', quoted: 'q', word: 'c', number: 'c', mark: 'c' } as const

it("tokens: 20,000 random statements are cut as the engine's own lexer cuts them", async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-tokens-'))
  let compared = 0
  {
    await using engine = await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined })
    await using client = openClickHouse({
      url: engine.url,
      user: engine.user,
      password: engine.password,
      database: 'default',
    })
    await client.command('CREATE TABLE statements (at UInt32, text String) ENGINE = Memory')
    const random = randomOf(26)
    const statements = Array.from({ length: 20_000 }, () =>
      Array.from({ length: 1 + Math.floor(random() * 12) }, () => pieces[Math.floor(random() * pieces.length)]).join(
        '',
      ),
    )
    const sent = await fetch(`${engine.url}/?query=INSERT+INTO+statements+FORMAT+JSONEachRow`, {
      method: 'POST',
      body: statements.map((text, at) => JSON.stringify({ at, text })).join('\n'),
      headers: { 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': engine.password },
    })
    expect(sent.status).toBe(200)
    const rows = await client.query<{ at: number; tokens: readonly EngineToken[] }>(
      "SELECT at, arrayMap(t -> CAST(t, 'Tuple(begin UInt32, end UInt32, type String)'), tokenizeQuery(text)) AS tokens FROM statements ORDER BY at",
    )
    expect(rows.length).toBe(statements.length)
    for (const { at, tokens } of rows) {
      const text = statements[at] as string
      // The engine refuses these whole, whatever we make of them.
      if (tokens.some((token) => token.type.startsWith('Error'))) continue
      compared++
      const ours = tokensOf(text)
      expect(ours.broken, JSON.stringify(text)).toBeUndefined()
      const theirs = tokens.map(({ begin, end, type }) => ({ start: begin, end, as: classOfType[type] ?? 'c' }))
      const mine = ours.tokens.map(({ start, end, kind }) => ({ start, end, as: classOfKind[kind] }))
      expect(classesOf(text.length, mine), JSON.stringify(text)).toBe(classesOf(text.length, theirs))
      const words = tokens
        .filter((token) => token.type === 'BareWord')
        .map((token) => text.slice(token.begin, token.end))
      const ourWords = ours.tokens.filter((token) => token.kind === 'word').map((token) => token.text)
      expect(ourWords, JSON.stringify(text)).toEqual(words)
    }
  }
  await rm(directory, { recursive: true, force: true })
  expect(compared).toBeGreaterThan(1_000)
})
