// What a service in JavaScript passes, whatever it is.
import { context, createContextKey, ROOT_CONTEXT } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { afterEach, expect, test } from 'vitest'
import { startProvider } from './hooks/fixtures/provider.ts'
import { type Instrumentation, instrument, recordUsage } from './index.ts'

let instrumentation: Instrumentation | undefined
afterEach(async () => {
  await instrumentation?.shutdown()
  instrumentation = undefined
})

const json = <T>(text: string): T => JSON.parse(text) as T

test('instrument: options that are none are told of and left out, and the usual ones are taken', () => {
  const said: string[] = []
  instrumentation = instrument({
    environment: {},
    content: json('false'),
    quota: json('"Enforce"'),
    quotaFailure: json('"bounded"'),
    baseUrls: [json('null'), { url: 'HTTP://LocalHost:80/v1/', provider: 'openai' }],
    write: (line) => said.push(line),
  })
  expect(instrumentation.settings).toMatchObject({
    content: 'metadata',
    quota: 'off',
    baseUrls: [{ url: 'http://localhost/v1', provider: 'openai' }],
  })
  for (const name of ['content', 'quota', 'quotaFailure', 'baseUrls'])
    expect(said).toContainEqual(expect.stringMatching(new RegExp(`^tallylight: (one of )?${name} `)))
})

test('instrument: options that come when it runs already are told of, once', () => {
  const said: string[] = []
  instrumentation = instrument({ environment: {}, write: (line) => said.push(line) })
  expect(instrument()).toBe(instrumentation)
  expect(said).toEqual([])
  for (let call = 0; call < 2; call++) expect(instrument({ quota: 'enforce', redact: () => '' })).toBe(instrumentation)
  expect(said).toEqual([expect.stringContaining('quota, redact of instrument() change nothing')])
})

test('instrument: a stderr of the service’s own that throws, and a stack that is no text, reach nobody', () => {
  const { prepareStackTrace } = Error
  instrumentation = instrument({
    environment: {},
    write: () => {
      throw new Error('the service’s own')
    },
  })
  try {
    Error.prepareStackTrace = (_error, sites) => sites
    recordUsage(json('null'))
  } finally {
    Error.prepareStackTrace = prepareStackTrace
  }
  expect(instrumentation.counters.read().failures).toBeGreaterThan(0)
})

test('fetch: headers that can be read once reach the server, and a base URL may stand alone', async () => {
  await using provider = await startProvider((_body, { headers }) => ({ pieces: [headers.authorization ?? ''] }))
  const { url } = provider
  const baseUrls = json<[]>(JSON.stringify({ url, provider: 'openai' }))
  instrumentation = instrument({ environment: {}, baseUrls, write: () => undefined })
  const headers = new Map([['authorization', 'Bearer key']]).entries() as unknown as [string, string][]
  const body = JSON.stringify({ model: 'gpt-4o', messages: [] })
  const reply = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })
  expect(await reply.text()).toBe('Bearer key')
  expect(instrumentation.counters.read().spansMade).toBe(1)
})

test('instrument: after a shutdown it begins anew, and what a service has set is the service’s', async () => {
  await using provider = await startProvider({ pieces: ['{}'] })
  await using receiver = await startProvider({ pieces: [] })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  for (let life = 0; life < 2; life++) {
    const { url } = provider
    const environment = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url }
    instrumentation = instrument({ environment, baseUrls: [{ url, provider: 'openai' }], write: () => undefined })
    await (await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: '{}' })).text()
    await instrumentation.shutdown()
    expect(instrumentation.counters.read()).toMatchObject({ spansMade: 1, spansExported: 1, spansDropped: 0 })
  }
  const own = ROOT_CONTEXT.setValue(createContextKey('own'), true)
  expect(context.with(own, () => context.active())).toBe(own)
  context.disable()
})
