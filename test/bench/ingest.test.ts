import { expect, test } from 'vitest'
import { type CorpusName, usualRecords } from './corpora.ts'
import { openBench } from './ingest-run.ts'

/** What is in the tables after each corpus, times left out: of another hash, it is not the same benchmark. */
const hashes: Readonly<Partial<Record<CorpusName, string>>> = {
  web: 'b848b00a6c91bd5d',
  'logs-300': 'adf8229108a55915',
  metrics: '7373b20579191e80',
}

test('bench ingest: spans, logs and metrics at smoke size are stored whole, and the result has the hash it always had', async () => {
  await using bench = await openBench('real')
  const found: Partial<Record<CorpusName, string>> = {}
  for (const corpus of ['web', 'logs-300', 'metrics'] as const) {
    const records = 4 * usualRecords[corpus]
    const sent = {
      connections: 2,
      encoding: 'protobuf',
      compression: 'gzip',
      isPinned: false,
      warmUpCpuSeconds: 0,
    } as const
    const result = await bench.measure({ corpus, records, ...sent })
    expect(result.records).toBe(records)
    expect(result.cpuSecondsPerMillion).toBeGreaterThan(0)
    found[corpus] = String(result.resultHash)
  }
  expect(found).toEqual(hashes)
})
