import { describe, expect, it } from 'vitest'
import {
  type EngineNames,
  judgeOwner,
  judgeParameters,
  judgeReading,
  kindOf,
  readFilters,
  takeTail,
} from './statement-guard.ts'
import { tokensOf } from './statement-tokens.ts'

const names: EngineNames = {
  tableFunctions: new Set([
    'file',
    'url',
    's3',
    'merge',
    'remote',
    'numbers',
    'view',
    'format',
    'values',
    'executable',
    'eval',
    'loop',
    'input',
    'cluster',
    'mergetreeindex',
  ]),
  outputFormats: new Set(['json', 'csv', 'native', 'tabseparated', 'null']),
}

describe('guard: hostile statements are refused', () => {
  it.each<readonly [string, RegExp]>([
    ['', /empty/],
    [';', /begins with ;/],
    ['-- only a comment', /empty/],
    ['INSERT INTO t VALUES (1)', /begins with INSERT/],
    ['DROP TABLE t', /begins with DROP/],
    ['SET readonly = 0', /begins with SET/],
    ['KILL QUERY WHERE 1', /begins with KILL/],
    ['SYSTEM SHUTDOWN', /begins with SYSTEM/],
    ['USE system', /begins with USE/],
    ['GRANT ALL ON *.* TO default', /begins with GRANT/],
    ['ATTACH TABLE t', /begins with ATTACH/],
    ['(DROP TABLE t)', /begins with DROP/],
    ['1 + 1', /begins with 1/],
    ['SELECT 1; DROP TABLE t', /one statement/],
    ['SELECT 1;;', /one statement/],
    ["SELECT ';' ; SELECT 2", /one statement/],
    ['WITH 1 AS x INSERT INTO t SELECT x', /insert nothing/],
    ["SELECT 1 INTO OUTFILE '/tmp/x'", /INTO OUTFILE/],
    ["SELECT 1 into/**/outfile '/tmp/x'", /INTO OUTFILE/],
    ["SELECT 1 INTO -- to\n OUTFILE '/tmp/x'", /INTO OUTFILE/],
    ["(SELECT 1 INTO OUTFILE '/tmp/x')", /INTO OUTFILE/],
    ["SELECT 1+.5INTO OUTFILE '/tmp/x'", /INTO OUTFILE/],
    ["SELECT x'41\\' INTO OUTFILE '/tmp/x' -- '", /stands outside|INTO OUTFILE/],
    ["SELECT 1.e$a$ ' $a$ INTO OUTFILE '/tmp/x' -- '", /INTO OUTFILE/],
    ["SELECT $$a$ ' $a$ INTO OUTFILE '/tmp/x' -- '", /INTO OUTFILE/],
    ["SHOW TABLES INTO OUTFILE '/tmp/x'", /INTO OUTFILE/],
    // What looks like a string to a lexer without // comments, or without nested ones, is code to the engine.
    ["SELECT 1 // '\nINTO OUTFILE '/tmp/x' // '", /INTO OUTFILE/],
    ["SELECT 1 /* /* */ ' */ INTO OUTFILE '/tmp/x' -- '", /INTO OUTFILE/],
    ["SELECT 1 AS a$b$ INTO OUTFILE '/tmp/x' -- $b$", /INTO OUTFILE/],
    ["SELECT 'a\\\\' INTO OUTFILE '/tmp/x' -- '", /INTO OUTFILE/],
    ["SELECT * FROM file('/etc/passwd')", /function file/],
    ["SELECT * FROM FILE ('/etc/passwd')", /function file/],
    ["SELECT * FROM file/**/('/etc/passwd')", /function file/],
    ["SELECT * FROM `file`('/etc/passwd')", /function file/],
    ['SELECT * FROM "file"(\'/etc/passwd\')', /function file/],
    ["SELECT file('/etc/passwd')", /function file/],
    ["SELECT a.1.file('/etc/passwd')", /function file/],
    ["SELECT * FROM view(SELECT * FROM url('http://x', CSV))", /function url/],
    ["SELECT (SELECT count() FROM s3('http://x'))", /function s3/],
    ["SELECT 1 WHERE 1 IN (SELECT 1 FROM remote('h', system.one))", /function remote/],
    ["SELECT * FROM merge('default', '.*')", /function merge/],
    // A function that is called by another, or by APPLY, stands there by its name alone.
    ["SELECT arrayMap(file, ['/etc/passwd'])", /function file/],
    ["SELECT arrayMap(ALL /**/ `file`, ['/etc/passwd'])", /function file/],
    ["SELECT arrayFold(x, file, [''], '')", /function file/],
    ["SELECT * APPLY(file) FROM (SELECT '/etc/passwd')", /function file/],
    ["SELECT COLUMNS('x') APPLY file FROM t", /function file/],
    ["DESCRIBE TABLE url('http://x', CSV)", /function url/],
    ["DESC s3('http://x')", /function s3/],
    ["EXPLAIN SELECT * FROM executable('x', CSV, 'a Int')", /function executable/],
    ["SELECT * FROM eval('SELECT 1')", /function eval/],
    ["SELECT * FROM loop(file('x'))", /function loop/],
    ["SELECT catboostEvaluate('/tmp/m', 1)", /function catboostevaluate/],
    ["SELECT aiGenerate('x')", /function aigenerate/],
    ['SELECT 1 SETTINGS readonly = 0', /setting readonly/],
    ['SELECT * FROM (SELECT 1 settings/**/max_execution_time = 0)', /setting max_execution_time/],
    ["SELECT * FROM {f:Identifier}('/etc/passwd')", /cannot name a function/],
    ["SELECT 'unfinished", /does not end/],
    ['SELECT ‘a’', /outside of quotes/],
  ])('%j', (sql, reason) => {
    const judged = judgeReading(sql, names)
    expect(judged).toEqual({ kind: 'refused', reason: expect.stringMatching(reason) })
  })
})

it('guard: a statement of nothing but heredocs that do not end is not read to its end for each', () => {
  const sql = `SELECT ${Array.from({ length: 30_000 }, (_, at) => `$${at}$`).join(' ')}`
  expect(judgeReading(sql, names)).toEqual({ kind: 'refused', reason: expect.stringMatching(/names begin with \$/) })
})

describe('guard: harmless statements pass', () => {
  it.each([
    'SELECT 1',
    'select * from otel_traces',
    '(SELECT 1) UNION ALL (SELECT 2)',
    'WITH 1 AS x SELECT x',
    'SHOW DATABASES',
    'SHOW TABLES FROM "db"',
    'DESC TABLE "db"."otel_traces"',
    'DESCRIBE (SELECT 1)',
    'EXPLAIN SELECT 1',
    'EXISTS TABLE t',
    "SELECT 'INTO OUTFILE ''x''; DROP TABLE t'",
    "SELECT $$file('/etc/passwd'); KILL QUERY WHERE 1$$",
    "SELECT 1 -- it's; DROP TABLE t",
    "SELECT 1 // it's; INTO OUTFILE 'x'",
    "SELECT 1 /* file('x') /* ; */ */",
    'SELECT file, url, merge, remote FROM t',
    'SELECT `file` FROM t WHERE url IN (1, 2)',
    'WITH file AS (SELECT 1 AS a) SELECT a FROM file',
    'SELECT file FROM t JOIN file ON t.file = 1 GROUP BY file',
    "SELECT upper(t.file) AS file FROM (SELECT 'x' AS file) AS t WHERE file != ''",
    'SELECT outfile FROM t',
    'SELECT settings, Settings[1] FROM system.processes WHERE settings = 1',
    "SELECT * FROM numbers(10), view(SELECT 1), values('a Int', 1)",
    "SELECT format('{}', 1), kill, system FROM t",
    "SELECT {name:String}, {list:Array(String)}['x']",
    "SELECT Body FROM otel_logs WHERE Body ILIKE '%insert into%' AND Body != 'ü ‘’ 日本'",
  ])('%j', (sql) => {
    expect(judgeReading(sql, names)).toEqual({ kind: 'allowed' })
  })
})

describe('guard: parameters', () => {
  it.each<readonly [string, string, string]>([
    ['SELECT arrayMap({f:Identifier}, [{p:String}])', 'file', 'refused'],
    ['SELECT arrayMap({ f : Identifier }, [{p:String}])', 'aiGenerate', 'refused'],
    ['SELECT {f:Identifier} FROM t', 'Body', 'allowed'],
    ['SELECT {f:String}', 'file', 'allowed'],
  ])('%s with %s is %s', (sql, f, kind) => {
    expect(judgeParameters(sql, new Map([['f', f]])).kind).toBe(kind)
  })
})

describe('guard: the collector', () => {
  it.each([
    ["SELECT 1 INTO OUTFILE '/tmp/x'", 'refused'],
    ["INSERT INTO t FROM INFILE '/tmp/x' FORMAT CSV", 'refused'],
    ['CREATE TABLE t (a Int) ENGINE = MergeTree ORDER BY a', 'allowed'],
    ["SELECT 'INTO OUTFILE'", 'allowed'],
  ])('%j is %s', (sql, kind) => {
    expect(judgeOwner(tokensOf(sql).tokens).kind).toBe(kind)
  })

  it.each([
    ['SELECT 1', 'selects'],
    ['((SELECT 1))', 'selects'],
    ['WITH 1 AS x SELECT x', 'selects'],
    ['WITH 1 AS x INSERT INTO t SELECT x', 'acts'],
    ['CREATE TABLE t AS SELECT 1', 'acts'],
    ['OPTIMIZE TABLE t', 'acts'],
    ['show tables', 'describes'],
    ['EXPLAIN INSERT INTO t SELECT 1', 'describes'],
    ['', 'acts'],
  ])('%j %s', (sql, expected) => {
    expect(kindOf(tokensOf(sql).tokens)).toBe(expected)
  })
})

describe('tail', () => {
  const takes = (name: string): boolean => name === 'max_threads' || name === 'additional_table_filters'
  it.each<readonly [string, string, string | undefined, readonly string[]]>([
    ['SELECT 1', 'SELECT 1', undefined, []],
    ['SELECT 1;', 'SELECT 1', undefined, []],
    ['SELECT 1 FORMAT JSON', 'SELECT 1', 'JSON', []],
    ['SELECT 1 format Nonsense ;', 'SELECT 1', 'Nonsense', []],
    ['SELECT 1 FORMAT JSON -- why', 'SELECT 1', 'JSON', []],
    ['SELECT a FROM t ORDER BY format DESC', 'SELECT a FROM t ORDER BY format DESC', undefined, []],
    ['SELECT a FROM t ORDER BY a, format CSV', 'SELECT a FROM t ORDER BY a, format CSV', undefined, []],
    ['SELECT t.format JSON', 'SELECT t.format JSON', undefined, []],
    ['SELECT count() FORMAT CSV', 'SELECT count()', 'CSV', []],
    ['SELECT 1 SETTINGS max_threads = 2', 'SELECT 1', undefined, ['max_threads=2']],
    ['SELECT 1 SETTINGS max_threads = 2 FORMAT JSON', 'SELECT 1', 'JSON', ['max_threads=2']],
    ['SELECT 1 FORMAT JSON SETTINGS max_threads = 2', 'SELECT 1', 'JSON', ['max_threads=2']],
    [
      "SELECT 1 settings additional_table_filters={'t': 'a = 1, b'}, max_threads=1",
      'SELECT 1',
      undefined,
      ["additional_table_filters={'t':'a = 1, b'}", 'max_threads=1'],
    ],
    // One that may not be taken stays, for the engine to refuse.
    [
      'SELECT 1 SETTINGS max_threads = 2, readonly = 0',
      'SELECT 1 SETTINGS max_threads = 2, readonly = 0',
      undefined,
      [],
    ],
    ['SELECT 1 FORMAT JSON SETTINGS readonly = 0', 'SELECT 1 SETTINGS readonly = 0', 'JSON', []],
    [
      'SELECT * FROM (SELECT 1 SETTINGS max_threads = 2)',
      'SELECT * FROM (SELECT 1 SETTINGS max_threads = 2)',
      undefined,
      [],
    ],
    ['SELECT settings FROM t', 'SELECT settings FROM t', undefined, []],
    // Cut off where it breaks, it would be another statement, and run.
    ['SELECT 1 /* a', 'SELECT 1 /* a', undefined, []],
    ['SELECT count() FROM t ‘WHERE’ FORMAT JSON', 'SELECT count() FROM t ‘WHERE’ FORMAT JSON', undefined, []],
  ])('%j', (sql, left, format, settings) => {
    const tail = takeTail(sql, names, takes)
    expect(tail.sql).toBe(left)
    expect(tail.format).toBe(format)
    expect(tail.settings.map(({ name, value }) => `${name}=${value.map((token) => token.text).join('')}`)).toEqual(
      settings,
    )
  })

  it('is found in one go, however many semicolons or settings there are', () => {
    const many = 50_000
    expect(takeTail(`SELECT 1${';'.repeat(4 * many)}`, names).sql).toBe('SELECT 1')
    expect(
      takeTail(`SELECT 1 SETTINGS ${Array(many).fill('max_threads=1').join()}`, names, takes).settings,
    ).toHaveLength(many)
  })

  it.each<readonly [string, Readonly<Record<string, string>> | undefined]>([
    ["{'t': 'a = \\'x\\''}", { t: "a = 'x'" }],
    ["{'t': 'a', 'u': 'b'}", { t: 'a', u: 'b' }],
    ['{}', {}],
    ["{'t': file('x')}", undefined],
    ["{'t': 'a' 'u': 'b'}", undefined],
    ["'t'", undefined],
  ])('filters: %s', (text, expected) => {
    const found = readFilters(tokensOf(text).tokens)
    expect(found === undefined ? undefined : Object.fromEntries(found)).toEqual(expected)
  })
})
