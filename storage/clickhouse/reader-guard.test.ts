import { expect, test } from 'vitest'
import { guardStatement, readInsert } from './reader-guard.ts'

const tableFunctions = new Set(['file', 'url', 'remote', 'merge', 'numbers', 'dictionary', 's3'])
const check = (sql: string): string => guardStatement(sql, tableFunctions).kind

test('guard: what only reads the database is allowed', () => {
  for (const sql of [
    'SELECT 1',
    '  /* note */ select count() from otel_traces -- end',
    'SELECT \'file(\' AS text, "select" FROM t',
    'WITH 1 AS x SELECT x FROM numbers(10);',
    '(SELECT 1) UNION ALL (SELECT 2)',
    'SHOW TABLES',
    'DESC TABLE otel_logs',
    'EXPLAIN SELECT 1',
    'SELECT "into", outfile FROM t',
    "SELECT 'a;b'",
  ]) {
    expect(check(sql), sql).toBe('allowed')
  }
})

test('guard: what writes, reaches outside or hides is refused', () => {
  for (const sql of [
    '',
    ';',
    'INSERT INTO t VALUES (1)',
    'DROP TABLE t',
    'SYSTEM FLUSH LOGS',
    'KILL QUERY WHERE 1',
    'SET readonly = 0',
    'SELECT 1; DROP TABLE t',
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    "SELECT 1 INTO /* so */ OUTFILE '/tmp/x'",
    "SELECT * FROM file('/etc/passwd')",
    "SELECT * FROM FILE ('/etc/passwd')",
    "SELECT * FROM `file`('/etc/passwd')",
    'SELECT * FROM "url"(\'http://localhost\')',
    "SELECT file/**/('/etc/passwd')",
    "SELECT * FROM merge('tallylight', '.*')",
    'SELECT 1 /* never closed',
    "SELECT 'never closed",
  ]) {
    expect(check(sql), sql).toBe('refused')
  }
})

test('guard: FORMAT and the settings a reader may choose are taken off, others are left for the engine to refuse', () => {
  const guarded = guardStatement(
    "SELECT 1 FROM t settings additional_table_filters={'t': 'a = 1'} FORMAT JSON",
    tableFunctions,
  )
  expect(guarded).toEqual({
    kind: 'allowed',
    sql: 'SELECT 1 FROM t',
    format: 'JSON',
    settings: new Map([['additional_table_filters', "{'t': 'a = 1'}"]]),
  })
  expect(guardStatement('SELECT 1 SETTINGS readonly = 0', tableFunctions)).toMatchObject({
    sql: 'SELECT 1 SETTINGS readonly = 0',
  })
})

test('guard: an INSERT with its rows in the body is told from every other statement', () => {
  expect(readInsert('INSERT INTO db.t (`a`, `b.c`) FORMAT Native', 'TSV')).toEqual({
    target: 'INSERT INTO db.t (`a`, `b.c`)',
    format: 'Native',
  })
  expect(readInsert('insert into t', 'JSONEachRow')).toEqual({ target: 'insert into t', format: 'JSONEachRow' })
  for (const sql of ['INSERT INTO t SELECT 1', 'INSERT INTO t VALUES (1)', 'SELECT 1'])
    expect(readInsert(sql, 'TSV'), sql).toBeUndefined()
})
