import { describe, expect, it } from 'vitest'
import { readInsertHead } from './statement-insert.ts'

describe('insert head', () => {
  it.each<readonly [string, string | undefined, string | undefined, string]>([
    ['INSERT INTO t FORMAT Native\nrest', 'INSERT INTO t', 'Native', 'rest'],
    ['insert into t format JSONEachRow {"a":1}', 'insert into t', 'JSONEachRow', '{"a":1}'],
    ['INSERT INTO t FORMAT CSV\r\n\n1', 'INSERT INTO t', 'CSV', '\n1'],
    ['INSERT INTO `a b`.t (x, `y)`, z) FORMAT RowBinary\n\0', 'INSERT INTO `a b`.t (x, `y)`, z)', 'RowBinary', '\0'],
    [
      "INSERT INTO t SETTINGS insert_deduplication_token = 'FORMAT CSV' FORMAT Native\n",
      "INSERT INTO t SETTINGS insert_deduplication_token = 'FORMAT CSV'",
      'Native',
      '',
    ],
    ['INSERT INTO db.format (format) FORMAT CSV\n1', 'INSERT INTO db.format (format)', 'CSV', '1'],
    ['INSERT INTO values VALUES (1)', 'INSERT INTO values', 'Values', ' (1)'],
    ['INSERT INTO t (a) VALUES', 'INSERT INTO t (a)', 'Values', ''],
    ['INSERT INTO t /* FORMAT CSV */ FORMAT TSV\n1', 'INSERT INTO t', 'TSV', '1'],
    ["INSERT INTO FUNCTION null('a Int') FORMAT TSV\n1", "INSERT INTO FUNCTION null('a Int')", 'TSV', '1'],
    ['  -- why\nINSERT INTO t FORMAT TSV\n1', 'INSERT INTO t', 'TSV', '1'],
    ['INSERT INTO t', 'INSERT INTO t', undefined, ''],
    ['INSERT INTO t (a, b);', 'INSERT INTO t (a, b)', undefined, ''],
  ])('%j', (sql, into, format, data) => {
    const head = readInsertHead(sql)
    expect(head?.into).toBe(into)
    expect(head?.format).toBe(format)
    expect(sql.slice(head?.dataStart)).toBe(data)
  })

  it.each([
    'SELECT 1',
    '',
    'INSERT',
    'INSERT INTO',
    'INSERT INTO t SELECT 1',
    'INSERT INTO t (a) WITH 1 AS x SELECT x',
    'INSERT INTO t (SELECT 1)',
    "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
    'SELECT insert FROM into FORMAT CSV',
  ])('%j carries no data', (sql) => {
    expect(readInsertHead(sql)).toBeUndefined()
  })
})
