import { expect, test } from 'vitest'
import { openProxyBench } from './proxy-run.ts'

test('bench proxy: at smoke size every event arrives, every call is recorded, and a slow reader costs no more than 64 KiB', async () => {
  await using bench = await openProxyBench({ isPinned: false })
  const load = { streams: 20, events: 5, everyMs: 20, quietMs: 0 }
  for (const way of ['straight', 'relayed', 'proxied'] as const)
    expect((await bench.measureStreams(way, load)).events).toBe(100)
  await bench.collector.drained()
  expect(
    await bench.collector.query(
      'SELECT count() AS calls, sum(OutputTokens) AS tokens FROM tallylight.llm_calls SETTINGS output_format_json_quote_64bit_integers = 0',
    ),
  ).toEqual([{ calls: 20, tokens: 100 }])
  // So many that what the rest of the collector does meanwhile is little of it.
  const { slowKiB } = await bench.measureSlowReaders(240)
  expect(slowKiB).toBeLessThanOrEqual(64)
}, 120_000)
