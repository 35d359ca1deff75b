// The expansions of the plugin, vector by vector, as its own tests have them.
import { expect, test } from 'vitest'
import { type Dialect, expand, type Values } from './expand.ts'

const range = { fromUnixMs: 1_668_100_000_000, toUnixMs: 1_668_103_600_500 }

function check(
  name: string,
  sql: string,
  expected: string,
  values: Values = {},
  dialect: Dialect = 'clickhouse',
): void {
  test(`expand: ${name}`, () => {
    expect(expand(dialect, sql, { range, intervalSeconds: 20, values, options: { tenant: ['a', "b'c"] } })).toBe(
      expected,
    )
  })
}

check(
  'a time filter is whole seconds',
  '$__timeFilter(t)',
  't >= toDateTime(1668100000) AND t <= toDateTime(1668103600)',
)
check('from and to take no argument', '$__fromTime - $__toTime', 'toDateTime(1668100000) - toDateTime(1668103600)')
check(
  'a bucket is as wide as the panel asks',
  '$__timeInterval(t), $__interval_s',
  'toStartOfInterval(toDateTime(t), INTERVAL 20 second), 20',
)
check(
  'brackets inside of an argument are its own',
  '$__timeFilter(f(a, g(b)))',
  'f(a, g(b)) >= toDateTime(1668100000) AND f(a, g(b)) <= toDateTime(1668103600)',
)
check('an empty text is everything', `$__conditionalAll(c = \${v:singlequote}, $v)`, '1=1', { v: [''] })
check('all of a variable is everything', `$__conditionalAll(c IN (\${v:singlequote}), $v)`, '1=1', { v: '$__all' })
check('nothing of a variable is everything', `$__conditionalAll(c IN (\${v:singlequote}), $v)`, '1=1', { v: [] })
check(
  'two conditions are replaced one by one',
  `$__conditionalAll(c = \${v:singlequote}, $v) AND $__conditionalAll(d = \${w:singlequote}, $w)`,
  `c = 'x' AND 1=1`,
  { v: ['x'], w: '$__all' },
)
check('a quote is escaped in ClickHouse', `c IN (\${v:singlequote})`, `c IN ('it\\'s','b')`, { v: ["it's", 'b'] })
check(
  'what is encoded has neither quotes nor backslashes',
  `decodeURLComponent('\${v:percentencode}')`,
  `decodeURLComponent('it%27s%20%5Cb')`,
  { v: [String.raw`it's \b`] },
)
check(
  'a quote is doubled in Postgres',
  `c = ANY(ARRAY[\${v:sqlstring}])`,
  `c = ANY(ARRAY['it''s'])`,
  { v: ["it's"] },
  'postgres',
)
check(
  'all in Postgres is the list of what is offered',
  `ARRAY[\${tenant:sqlstring}]`,
  `ARRAY['a','b''c']`,
  { tenant: '$__all' },
  'postgres',
)
check(
  'a time filter of Postgres is BETWEEN',
  '$__timeFilter(at)',
  `at BETWEEN '2022-11-10T17:06:40.000Z' AND '2022-11-10T18:06:40.500Z'`,
  {},
  'postgres',
)

test('expand: what neither a board nor the plugin knows is an error, and so is a variable that is not quoted', () => {
  const with_ = (sql: string) => () => expand('clickhouse', sql, { range, intervalSeconds: 20, values: { v: ['x'] } })
  expect(with_('$__timeFiltre(t)')).toThrow('$__timeFiltre is neither')
  expect(with_(`\${w:singlequote}`)).toThrow('neither')
  expect(with_(`\${v}`)).toThrow('not nothing')
})

test('expand: a condition that the plugin would cut elsewhere is an error', () => {
  const with_ = (sql: string) => () => expand('clickhouse', sql, { range, intervalSeconds: 20, values: { v: ['x'] } })
  expect(with_('$__conditionalAll(a = 1, b = 2, $v)')).toThrow('without commas')
  expect(with_(`$__conditionalAll(a = ')', $v)`)).toThrow('without commas')
  expect(with_('$__conditionalAll(f(a, b) = 1, $v)')()).toBe('f(a, b) = 1')
  expect(with_('$__conditionalAll(a = 1, $w)')).toThrow('no variable w')
})
