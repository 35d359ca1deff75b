// Calls of a model whose price nobody knew, priced later: told by a metric, priced by a command, superseded by nothing less.
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
const startUnixNano = BigInt(Date.now() - 60_000) * 1_000_000n

async function send(collector: CollectorProcess, spans: readonly object[]): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] }),
    headers: { 'Content-Type': 'application/json' },
  })
  expect(response.status).toBe(200)
  await collector.drained()
}

function span(id: string, parent: string, attributes: Readonly<Record<string, string | number>>): object {
  return {
    traceId: 'c'.repeat(32),
    spanId: id.padStart(16, '0'),
    parentSpanId: parent === '' ? '' : parent.padStart(16, '0'),
    name: id,
    startTimeUnixNano: String(startUnixNano),
    endTimeUnixNano: String(startUnixNano + 1_000_000_000n),
    attributes: Object.entries(attributes).map(([key, value]) => ({
      key,
      value: typeof value === 'string' ? { stringValue: value } : { intValue: String(value) },
    })),
  }
}

function callSpan(id: string, model: string): object {
  return span(id, '9', {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'house',
    'gen_ai.request.model': model,
    'gen_ai.usage.input_tokens': 1000,
    'gen_ai.usage.output_tokens': 100,
  })
}

async function reprice(collector: CollectorProcess, ...args: readonly string[]): Promise<unknown> {
  const env = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  const node = ['--disable-warning=ExperimentalWarning', commandPath, 'reprice', ...args]
  return JSON.parse((await promisify(execFile)(process.execPath, node, { env })).stdout)
}

function calls(collector: CollectorProcess): Promise<readonly unknown[]> {
  return collector.query(
    'SELECT RequestModel AS model, CostNanoUsd AS cost, PriceVersion AS version, ConversationId AS conversation FROM tallylight.llm_calls ORDER BY model',
  )
}

test('reprice: calls without a price are counted, get it when there is one, and keep it when their trace goes on', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-reprice-'))
  const configPath = join(directory, 'tallylight.json')
  await writeFile(configPath, '{}')
  await using collector = await startCollector({ TALLYLIGHT_CONFIG: configPath })
  await send(collector, [callSpan('1', 'house-1'), callSpan('2', 'house-2')])
  expect(await collector.metric('tallylight_unpriced_calls_total')).toBe(2)
  const unpriced = { cost: null, version: '', conversation: '' }
  expect(await calls(collector)).toEqual([
    { model: 'house-1', ...unpriced },
    { model: 'house-2', ...unpriced },
  ])
  expect(await reprice(collector)).toEqual({ priced: 0, unpriced: 2 })

  const price = { model: 'house-1', inputNanoUsdPerMillion: 2_000_000_000, outputNanoUsdPerMillion: 10_000_000_000 }
  await writeFile(configPath, JSON.stringify({ quota: { prices: [price] } }))
  await expect(reprice(collector)).rejects.toThrow(/409: the file has another quota.prices .* restart it first/)
  await collector.kill('SIGTERM')
  await collector.start()
  expect(await reprice(collector, '--to', '2020-01-01')).toEqual({ priced: 0, unpriced: 0 })
  expect(await reprice(collector)).toEqual({ priced: 1, unpriced: 1 })
  const priced = { model: 'house-1', cost: 3_000_000, version: 'own 1970-01-01' }
  expect(await calls(collector)).toEqual([
    { ...priced, conversation: '' },
    { model: 'house-2', ...unpriced },
  ])
  const [turn] = await collector.query<{ cost: number }>('SELECT CostNanoUsd AS cost FROM tallylight.turns')
  expect(turn?.cost).toBe(3_000_000)
  // Once more changes nothing, and a late wrapper that knows the conversation supersedes the correction.
  expect(await reprice(collector)).toEqual({ priced: 0, unpriced: 1 })
  const wrapper = { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.conversation.id': 'c-1' }
  await send(collector, [span('9', '', wrapper)])
  expect(await calls(collector)).toEqual([
    { ...priced, conversation: 'c-1' },
    { model: 'house-2', ...unpriced, conversation: 'c-1' },
  ])
  await rm(directory, { recursive: true })
})
