// Every recording yields exactly what its expected file says, in whatever order its records come, one by one or at once, and
// through the stored form of facts.
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseJson } from './attributes.ts'
import { estimateUsage } from './estimate.ts'
import { type Content, decodeFact, encodeFact, estimateFact, type Fact } from './fact.ts'
import { factsOf, linkOf, nowhere } from './lift.ts'
import { openPrices } from './price.ts'
import type { LiftedRecord } from './record.ts'
import { resolve } from './resolve/resolve.ts'
import type { LlmCallRow, MessageRow, Resolved, ToolCallRow } from './rows.ts'
import { isContentKey } from './speaks.ts'
import { fixtures, readJson, recordsOf, seededRandom } from './testing.ts'

type Expected = {
  readonly calls: readonly Readonly<Record<string, unknown>>[]
  readonly toolCalls: readonly Readonly<Record<string, unknown>>[]
  readonly embeddings: readonly Readonly<Record<string, unknown>>[]
  readonly healthChecks: readonly Readonly<Record<string, unknown>>[]
  readonly agents: readonly string[]
}

const priceOf = openPrices([])
const names = readdirSync(new URL('expected/', fixtures)).map((file) => file.replace(/\.json$/, ''))

function recordsOfFixture(name: string): readonly LiftedRecord[] {
  const files = readdirSync(fixtures).filter((file) => file === `${name}.json` || file === `${name}.logs.json`)
  return files.flatMap((file) => recordsOf(readJson(new URL(file, fixtures))))
}

type Lift = { readonly facts: readonly Fact[]; readonly texts: ReadonlyMap<string, string> }

/** A span that says nothing may be an ancestor that says whose its descendants are. */
function liftAll(records: readonly LiftedRecord[]): Lift {
  const lifted = records.map((record) => factsOf(record))
  return {
    facts: lifted.flatMap(({ facts }, at) => {
      const record = records[at]
      return facts.length === 0 && record?.kind === 'span' ? [linkOf(record)] : facts
    }),
    texts: new Map(lifted.flatMap((one) => [...one.texts])),
  }
}

/** What people and models said: every sentence in a value, however deep in JSON it stands. */
function sentencesIn(value: unknown): readonly string[] {
  if (typeof value === 'string') {
    const json = /^\s*[[{"]/.test(value) ? parseJson(value) : undefined
    return json === undefined ? (/\S\s+\S/.test(value) ? [value] : []) : sentencesIn(json)
  }
  if (value instanceof Map) return [...value.values()].flatMap(sentencesIn)
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(sentencesIn) : []
}

/** In the order of time, over all traces of the recording. */
function rowsOf(facts: readonly Fact[]): Resolved[] {
  return [...Map.groupBy(facts, (fact) => fact.traceId).entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, ofTrace]) => resolve(ofTrace, priceOf))
}

const orNull = (text: string) => (text === '' ? null : text)
const byTime = (a: { Timestamp: bigint }, b: { Timestamp: bigint }) => Number(a.Timestamp - b.Timestamp)

function asExpected(facts: readonly Fact[], texts: ReadonlyMap<string, string>) {
  const resolved = rowsOf(facts)
  const all = <Row>(pick: (rows: Resolved) => readonly Row[]) => resolved.flatMap(pick)
  const messages = all((rows) => rows.messages)
  return {
    calls: all((rows) => rows.llmCalls)
      .sort(byTime)
      .map((row) =>
        callOf(
          row,
          messages.filter((message) => message.SpanId === row.SpanId),
          texts,
        ),
      ),
    toolCalls: sortedTools(all((rows) => rows.toolCalls).map((row) => toolOf(row, texts))),
    agents: facts.flatMap((fact) => (fact.says.kind === 'agent' ? [fact.says.name] : [])),
    embeddings: all((rows) => rows.embeddings).map((row) => ({
      provider: row.Provider,
      model: row.Model,
      tokens: { input: row.InputTokens },
      conversationId: orNull(row.ConversationId),
      costUsd: usd(row.CostNanoUsd),
    })),
    healthChecks: all((rows) => rows.healthChecks).map((row) => ({ target: row.Target, ok: row.Status === 'healthy' })),
  }
}

/** Several may begin in one millisecond. */
function sortedTools<Tool extends Readonly<Record<string, unknown>>>(tools: readonly Tool[]): readonly Tool[] {
  const key = (tool: Tool) => JSON.stringify([tool.name, tool.arguments, tool.callId])
  return tools.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

function usd(nano: bigint | null): number | null {
  return nano === null ? null : Number(nano) / 1e9
}

function callOf(row: LlmCallRow, messages: readonly MessageRow[], texts: ReadonlyMap<string, string>) {
  const textOf = (message: MessageRow | undefined) => texts.get(message?.Content.hash ?? '') ?? null
  const output = messages.filter((message) => message.Direction === 'output')
  const spoken = output.filter((message) => message.ContentType === 'text').map(textOf)
  return {
    provider: row.Provider,
    requestModel: row.RequestModel,
    model: row.Model,
    conversationId: orNull(row.ConversationId),
    userId: orNull(row.UserId),
    tenantId: orNull(row.TenantLabel),
    tokens: {
      input: row.InputTokens,
      cacheRead: row.CacheReadTokens,
      cacheWrite: row.CacheWriteTokens,
      output: row.OutputTokens,
      reasoning: row.ReasoningTokens,
    },
    finishReason: orNull(row.FinishReason),
    error: row.ErrorType === '' ? null : { type: row.ErrorType },
    streaming: row.Streaming,
    lastUserText: textOf(
      messages.findLast(
        (message) => message.Direction === 'input' && message.Role === 'user' && message.ContentType === 'text',
      ),
    ),
    assistantText: spoken.length === 0 ? null : spoken.join(''),
    requestedTools: output
      .filter((message) => message.ContentType === 'tool_call')
      .map((message) => (JSON.parse(textOf(message) ?? '') as { name: string }).name),
    costUsd: usd(row.CostNanoUsd),
  }
}

function toolOf(row: ToolCallRow, texts: ReadonlyMap<string, string>) {
  const args = row.Arguments === null ? null : texts.get(row.Arguments.hash)
  return {
    name: row.Name,
    status: row.Status === 'success' ? 'ok' : row.Status === 'failure' ? 'error' : row.Status,
    callId: orNull(row.CallId),
    ...(args === null || args === undefined ? {} : { arguments: JSON.parse(args) as unknown }),
    hasResult: row.Result !== null,
    mcpServer: orNull(row.McpServer),
    errorType: orNull(row.ErrorType),
    conversationId: orNull(row.ConversationId),
    userId: orNull(row.UserId),
    tenantId: orNull(row.TenantLabel),
  }
}

/** The files name a conversation that is random `*`, and explain themselves in notes. */
function expectedOf(name: string): Expected {
  const { calls, toolCalls, embeddings, healthChecks, agents } = readJson(
    new URL(`expected/${name}.json`, fixtures),
  ) as unknown as Expected
  const withoutNote = (one: Readonly<Record<string, unknown>>) => {
    const { note: _note, ...rest } = one
    return rest.conversationId === '*' ? { ...rest, conversationId: expect.stringMatching(/./) as string } : rest
  }
  return {
    calls: calls.map(withoutNote),
    toolCalls: sortedTools(toolCalls.map(withoutNote)),
    embeddings,
    healthChecks,
    agents,
  }
}

test.each(names)('dialects: %s yields its calls, tool calls, embeddings and health checks', (name) => {
  const { facts, texts } = liftAll(recordsOfFixture(name))
  expect(asExpected(facts, texts)).toEqual(expectedOf(name))
})

const around = new Set(['turn', 'agent', 'wrapper', 'embedding'])

test.each(names)(
  'content: what is taken out of the raw records of %s stands in rows, and around calls all is',
  (name) => {
    const records = recordsOfFixture(name)
    const { facts, texts } = liftAll(records)
    const resolved = rowsOf(facts)
    const messages = resolved.flatMap((rows) => [...rows.messages, ...rows.wrapperMessages])
    const tools = resolved.flatMap((rows) => rows.toolCalls).flatMap((row) => [row.Arguments, row.Result])
    const sentencesOf = (contents: readonly (Content | null)[]) =>
      new Set(contents.flatMap((content) => sentencesIn(texts.get(content?.hash ?? ''))))
    const everywhere = sentencesOf([...messages.map((row) => row.Content), ...tools])
    for (const record of records) {
      const { understood, leftover, facts: said } = factsOf(record)
      const isAround = said.some(({ says }) => around.has(says.kind))
      const own = messages.filter((row) => row.SpanId === record.spanId).map((row) => row.Content)
      const shown = isAround ? sentencesOf(own) : everywhere
      const out = understood.attributes.map((key) => record.attributes.get(key))
      const events = record.kind === 'span' ? understood.events.map((at) => record.events[at]?.attributes) : []
      const body = record.kind === 'log' && understood.body ? [record.body] : []
      for (const sentence of [...out, ...events, ...body].flatMap(sentencesIn)) expect(shown).toContain(sentence)
      if (isAround) expect(leftover).toEqual(nowhere)
    }
  },
)

test('content: what becomes rows is known as content, so it is masked, and kept from those who store metadata only', () => {
  const read = names.flatMap(recordsOfFixture).flatMap((record) => factsOf(record).understood.attributes)
  expect(read.filter((key) => !isContentKey(key))).toEqual([])
})

test.each([
  ['otel-openai-chat-basic', 'provider'],
  ['openllmetry-anthropic-cached', 'provider'],
  ['openllmetry-openai-chat-cached-workflow', 'provider'],
  ['openinference-old-anthropic-cached', 'recovered'],
  ['logfire-openai-chat-cached', 'recovered'],
  ['vercel-ai5-anthropic-cached', 'recovered'],
  ['vercel-ai6-anthropic-cached', 'provider'],
  ['otel-py-openai-stream-cut', 'none'],
])('dialects: the usage of %s is from: %s', (name, source) => {
  const resolved = rowsOf(liftAll(recordsOfFixture(name)).facts)
  expect(resolved.flatMap((rows) => rows.llmCalls).map((row) => row.UsageSource)).toEqual([source])
})

test.each([
  ['openllmetry-openai-chat-stream', 'estimated', 13],
  ['openllmetry-openai-chat-cached-workflow', 'provider', 1200],
  ['openlit-openai-chat-stream', 'estimated', 7],
] as const)('dialects: %s, whose sender is doubted, is %s once its texts were counted', (name, source, input) => {
  const { facts, texts } = liftAll(recordsOfFixture(name))
  const [doubted] = rowsOf(facts).flatMap((rows) => rows.estimable)
  const textsOf = (hashes: readonly string[] = []) => hashes.map((hash) => texts.get(hash) ?? '')
  const estimate = estimateUsage({ input: textsOf(doubted?.input), output: textsOf(doubted?.output) })
  const span = facts.find((fact) => fact.spanId === doubted?.spanId) as Fact
  const resolved = rowsOf([...facts, estimateFact(span, estimate)])
  expect(resolved.flatMap((rows) => rows.llmCalls)).toMatchObject([{ UsageSource: source, InputTokens: input }])
  expect(resolved.flatMap((rows) => rows.estimable)).toEqual([])
})

test.each(names)('dialects: %s yields the same rows in every order and through stored facts', (name) => {
  const records = recordsOfFixture(name)
  const { facts } = liftAll(records)
  const rows = rowsOf(facts)
  expect(rowsOf(facts.map(encodeFact).map(decodeFact))).toEqual(rows)
  expect(rowsOf(facts.toReversed())).toEqual(rows)
  for (const seed of [1, 2, 3]) expect(rowsOf(seededRandom(seed).shuffle(facts))).toEqual(rows)
  expect(rowsOf([...facts, ...facts])).toEqual(rows)
  // One request per log record: none has a position in its request.
  const alone = records.map((record) => (record.kind === 'log' ? { ...record, ordinal: 0 } : record))
  expect(rowsOf(liftAll(alone).facts)).toEqual(rows)
})
