import { describe, expect, it } from 'vitest'
import { tokensOf } from './statement-tokens.ts'

const texts = (sql: string): readonly string[] => tokensOf(sql).tokens.map((token) => token.text)

describe('tokens', () => {
  it.each<readonly [string, string, readonly string[]]>([
    ['comments nest', "a /* b /* c */ ' */ d", ['a', 'd']],
    ['an opening that also looks like an end', 'a /*/ b */ c', ['a', 'c']],
    [
      '// and -- and "# " and #! are comments to the end of the line',
      "a // it's\nb -- it's\nc # it's\nd #! it's\ne",
      ['a', 'b', 'c', 'd', 'e'],
    ],
    ['# without a space is none', 'a #b', ['a', '#', 'b']],
    ['a comment in a string is text', "'/* ' a ' */'", ["'/* '", 'a', "' */'"]],
    ['a doubled quote stays in the string', "'a''b' c", ["'a''b'", 'c']],
    ['a backslash keeps a quote in the string', "'a\\'b' c", ["'a\\'b'", 'c']],
    ['a backslash at the end of a string is one of two', "'a\\\\' b", ["'a\\\\'", 'b']],
    ['names in backticks and double quotes', '`a``b` "c\\"d"', ['`a``b`', '"c\\"d"']],
    ['a heredoc hides quotes', "$$it's$$ a $x$ $$ $x$ b", ["$$it's$$", 'a', '$x$ $$ $x$', 'b']],
    ['a heredoc that does not end is a word', '$x$ a', ['$x$', 'a']],
    ['a dollar inside a word begins nothing', "a$b$ 'c' $b$", ['a$b$', "'c'", '$b$']],
    ['what follows a number and a dot stays visible', 'a.1.file(', ['a', '.', '1', '.', 'file', '(']],
    ['a non-breaking space is a space', 'a\u00a0b\ufeffc', ['a', 'b', 'c']],
  ])('%s', (_, sql, expected) => {
    expect(tokensOf(sql).broken).toBeUndefined()
    expect(texts(sql)).toEqual(expected)
  })

  it.each([
    ['a string', "select 'a", 'a string does not end (at position 8)'],
    ['a string that escapes its end', "select 'a\\'", 'a string does not end (at position 8)'],
    ['a name', 'select `a', 'a quoted name does not end (at position 8)'],
    ['a comment', 'select /* a /* b */', 'a comment does not end (at position 8)'],
    [
      'a typographic quote, which the engine would take for one',
      'select ‘a’',
      'the character U+2018 stands outside of quotes (at position 8)',
    ],
  ])('%s that is broken is refused with its place', (_, sql, reason) => {
    expect(tokensOf(sql).broken).toBe(reason)
  })

  it('a string of 16 MiB is one token', () => {
    const sql = `select '${"a\\'b".repeat(4 * 1024 * 1024)}' from t`
    expect(texts(sql).length).toBe(4)
  })
})
