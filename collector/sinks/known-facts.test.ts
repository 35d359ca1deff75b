import { expect, test } from 'vitest'
import { defaultTenant } from '../receive/key-rules.ts'
import { openKnownFacts } from './known-facts.ts'

/** `max_query_size` of a ClickHouse that nobody has set otherwise. */
const statementBytesMax = 262_144

test('known facts: of a trace with any number of texts all are asked for, in statements that every server takes', async () => {
  const statements: string[] = []
  const query = async (sql: string): Promise<never[]> => {
    statements.push(sql)
    return []
  }
  const known = openKnownFacts({ query }, () => ({ name: 'contents', hasTenant: true, hoursBegin: 0 }))
  const hashes = Array.from({ length: 20_000 }, (_, at) => at.toString(16).padStart(32, '0'))
  await known.textsOf(defaultTenant, hashes)
  expect(Math.max(...statements.map((sql) => sql.length))).toBeLessThan(statementBytesMax)
  expect(statements.flatMap((sql) => [...sql.matchAll(/[0-9a-f]{32}/g)].map(([hash]) => hash))).toEqual(hashes)
})
