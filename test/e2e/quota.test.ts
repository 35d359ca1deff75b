// The quota service as its clients see it: fetch and nothing else, against a collector with its Postgres, killed in between.
import { createHmac } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { startEmbeddedPostgres } from '@tallylight/storage/postgres/embedded.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

type Reply = { readonly status: number; readonly headers: Headers; readonly body: Readonly<Record<string, unknown>> }

const stack = new AsyncDisposableStack()
let collector: CollectorProcess

beforeAll(async () => {
  collector = stack.use(await startCollector())
}, 60_000)
afterAll(() => stack.disposeAsync())

async function call(method: string, path: string, body?: unknown, key?: string): Promise<Reply> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/${path}`, {
    method,
    headers: key === undefined ? {} : { Authorization: `Bearer ${key}` },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) }
}

const asAdmin = (method: string, path: string, body?: unknown): Promise<Reply> =>
  call(method, path, body, collector.adminKey)

function reservation(callId: string, costNanoUsd: number, more: object = {}): object {
  return { callId, model: 'gpt-4o', provider: 'openai', user: 'ada', estimate: { costNanoUsd }, ...more }
}

async function limitOf(id: string, more: object): Promise<void> {
  const put = await asAdmin('PUT', `limits/${id}`, {
    measure: 'cost',
    amount: 500,
    window: 'ever',
    action: 'block',
    ...more,
  })
  expect(put.status).toBe(201)
}

async function usageOf(limit: string): Promise<unknown> {
  const { body } = await call('GET', `usage?limit=${limit}`)
  return (body.usage as readonly Readonly<Record<string, unknown>>[])[0]
}

describe('one collector', () => {
  test('quota: a service reserves, calls, settles, and what it did not use is free again', async () => {
    await limitOf('first', { subject: { user: 'first' } })
    const reserved = await call('POST', 'reservations', reservation('first', 300, { user: 'first' }))
    expect(reserved).toMatchObject({
      status: 201,
      body: {
        holds: [{ limitId: 'first', measure: 'cost', amount: 300 }],
        remaining: [{ limitId: 'first', amount: 200 }],
        warnings: [],
      },
    })
    expect(await call('GET', `reservations/${reserved.body.id}`)).toMatchObject({
      status: 200,
      body: { state: 'held' },
    })
    const settled = await call('POST', `reservations/${reserved.body.id}/settle`, { costNanoUsd: 120 })
    expect(settled).toMatchObject({
      status: 200,
      body: { state: 'settled', booked: [{ limitId: 'first', amount: 120 }] },
    })
    expect(await call('POST', `reservations/${reserved.body.id}/settle`, { costNanoUsd: 120 })).toMatchObject({
      status: 200,
    })
    expect(await call('POST', `reservations/${reserved.body.id}/settle`, { costNanoUsd: 121 })).toMatchObject({
      status: 409,
      body: { first: { state: 'settled' } },
    })
    expect(await usageOf('first')).toMatchObject({ granted: 500, held: 0, spent: 120, free: 380, debt: 0 })
  })

  test('quota: of 20 parallel reservations of 75 against 500, exactly 6 are granted; the others are told which limit, and when', async () => {
    await limitOf('parallel', { subject: { user: 'parallel' }, window: 'day' })
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        call('POST', 'reservations', reservation(`p${at}`, 75, { user: 'parallel' })),
      ),
    )
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(6)
    const denied = replies.filter(({ status }) => status === 429)
    expect(denied).toHaveLength(14)
    const granted = replies.filter(({ status }) => status === 201)
    expect(granted.map(({ headers }) => headers.get('ratelimit')?.replace(/;t=\d+$/, '')).sort()).toEqual(
      [50, 125, 200, 275, 350, 425].map((free) => `"parallel";r=${free}`).sort(),
    )
    expect(granted[0]?.headers.get('ratelimit-policy')).toBe('"parallel";q=500;w=86400')
    expect(denied[0]?.body).toMatchObject({
      status: 429,
      title: 'Quota exceeded',
      limitId: 'parallel',
      requested: 75,
      limit: 500,
      used: 0,
      held: 450,
      free: 50,
    })
    expect(denied[0]?.headers.get('content-type')).toBe('application/problem+json')
    expect(denied[0]?.headers.get('ratelimit')).toMatch(/^"parallel";r=50;t=\d+$/)
    expect(denied[0]?.headers.get('ratelimit-policy')).toBe('"parallel";q=500;w=86400')
    expect(Number(denied[0]?.headers.get('retry-after'))).toBeGreaterThan(0)
  })

  test('quota: a refusal has the RateLimit headers of all limits of the call, as a grant has', async () => {
    const subject = { user: 'headers' }
    await limitOf('headers-calls', { subject, measure: 'requests', amount: 9 })
    await limitOf('headers-cost', { subject, amount: 50 })
    const policies = '"headers-calls";q=9, "headers-cost";q=50'
    const granted = await call('POST', 'reservations', reservation('h1', 30, subject))
    expect([granted.headers.get('ratelimit'), granted.headers.get('ratelimit-policy')]).toEqual([
      '"headers-calls";r=8, "headers-cost";r=20',
      policies,
    ])
    const denied = await call('POST', 'reservations', reservation('h2', 30, subject))
    expect(denied).toMatchObject({ status: 429, body: { limitId: 'headers-cost' } })
    expect([denied.headers.get('ratelimit'), denied.headers.get('ratelimit-policy')]).toEqual([
      '"headers-calls";r=8, "headers-cost";r=20',
      policies,
    ])
  })

  test('quota: the same call id gets the same answer, and another body is a conflict', async () => {
    await limitOf('repeated', { subject: { user: 'repeated' } })
    const first = await call('POST', 'reservations', reservation('again', 10, { user: 'repeated' }))
    const second = await call('POST', 'reservations', reservation('again', 10, { user: 'repeated' }))
    expect(second.body).toEqual(first.body)
    expect((await call('POST', 'reservations', reservation('again', 11, { user: 'repeated' }))).status).toBe(409)
    expect(await usageOf('repeated')).toMatchObject({ held: 10 })
  })

  test('quota: the usage of a user is asked for by a name with a question mark, too', async () => {
    await limitOf('asked', { subject: { user: 'who?' }, each: 'user' })
    await call('POST', 'reservations', reservation('asked', 10, { user: 'who?' }))
    expect((await call('GET', 'usage?user=who?&limit=asked')).body.usage).toMatchObject([{ held: 10 }])
  })

  test('quota: tokens are priced by the list; a model without a price is refused where a limit on cost blocks', async () => {
    await limitOf('priced', { subject: { user: 'priced' }, amount: '10000000000' })
    const estimate = { inputTokens: 1000, outputTokensMax: 100 }
    // 2.50 and 10 dollars per million tokens.
    expect(await call('POST', 'reservations', reservation('priced', 0, { user: 'priced', estimate }))).toMatchObject({
      status: 201,
      body: { holds: [{ amount: 3_500_000 }] },
    })
    expect(
      await call('POST', 'reservations', reservation('no price', 0, { user: 'priced', model: 'none-such', estimate })),
    ).toMatchObject({ status: 400, body: { detail: expect.stringContaining('no price is known') } })
  })

  test('quota: a dry run and a batch answer for each, and a release frees', async () => {
    await limitOf('batch', { subject: { user: 'batch' }, measure: 'requests', amount: 2 })
    expect(await call('POST', 'check', { ...reservation('', 1, { user: 'batch' }) })).toMatchObject({
      status: 200,
      body: { allowed: true },
    })
    const batch = await call(
      'POST',
      'reservations',
      ['x', 'y', 'z'].map((callId) => reservation(callId, 1, { user: 'batch' })),
    )
    const items = batch.body as unknown as readonly { readonly status: number; readonly id: string }[]
    expect(items.map(({ status }) => status)).toEqual([201, 201, 429])
    const released = await call('POST', 'reservations/release', [{ id: items[0]?.id }, { id: items[1]?.id }])
    expect((released.body as unknown as readonly object[]).map((each) => (each as { status: number }).status)).toEqual([
      200, 200,
    ])
    expect(await usageOf('batch')).toMatchObject({ held: 0, spent: 0, free: 2 })
  })

  test('quota: a limit set below what is spent is taken and says so; its shape cannot change; a removed one counts no more', async () => {
    await limitOf('lowered', { subject: { user: 'lowered' } })
    const { body } = await call('POST', 'reservations', reservation('lowered', 400, { user: 'lowered' }))
    await call('POST', `reservations/${body.id}/settle`, { costNanoUsd: 400 })
    const limit = { subject: { user: 'lowered' }, measure: 'cost', amount: 100, window: 'ever', action: 'block' }
    expect(await asAdmin('PUT', 'limits/lowered', limit)).toMatchObject({
      status: 200,
      body: { warning: expect.stringContaining('already') },
    })
    expect(await usageOf('lowered')).toMatchObject({ granted: 100, spent: 400, free: 0, debt: 300 })
    expect((await asAdmin('PUT', 'limits/lowered', { ...limit, window: 'day' })).status).toBe(409)
    expect((await call('POST', 'reservations', reservation('l2', 1, { user: 'lowered' }))).status).toBe(429)
    expect((await asAdmin('DELETE', 'limits/lowered')).status).toBe(204)
    expect((await call('POST', 'reservations', reservation('l2', 1, { user: 'lowered' }))).status).toBe(201)
  })

  const bad: readonly (readonly [string, string, unknown, string])[] = [
    ['a negative amount', 'limits', { measure: 'cost', amount: -1, window: 'day', action: 'block' }, 'amount'],
    ['a broken number', 'limits', { measure: 'cost', amount: 1.5, window: 'day', action: 'block' }, 'amount'],
    [
      'an amount above 2^53 as a number',
      'limits',
      { measure: 'cost', amount: 2 ** 60, window: 'day', action: 'block' },
      'amount',
    ],
    ['an unknown measure', 'limits', { measure: 'euros', amount: 1, window: 'day', action: 'block' }, 'measure'],
    ['an unknown window', 'limits', { measure: 'cost', amount: 1, window: 'fortnight', action: 'block' }, 'window'],
    [
      'an unknown time zone',
      'limits',
      { measure: 'cost', amount: 1, window: 'day', timeZone: 'Mars', action: 'block' },
      'timeZone',
    ],
    ...['+05:30', 'PST', 'SystemV/PST8', 'Asia/Atlantis', 'US/Pacific-New'].map(
      (timeZone) =>
        [
          `the time zone ${timeZone}`,
          'limits',
          { measure: 'cost', amount: 1, window: 'day', timeZone, action: 'block' },
          'timeZone',
        ] as const,
    ),
    ['an amount of null', 'limits', { measure: 'cost', amount: null, window: 'day', action: 'block' }, 'whole number'],
    [
      'an estimate of both kinds',
      'reservations',
      { callId: 'a', model: 'm', estimate: { costNanoUsd: 1, inputTokens: 1, outputTokensMax: 1 } },
      'estimate: either inputTokens and outputTokensMax',
    ],
    [
      'a field that is none',
      'limits',
      { measure: 'cost', amount: 1, window: 'day', action: 'block', per: 'user' },
      'per',
    ],
    ['no call id', 'reservations', { model: 'm', estimate: { costNanoUsd: 1 } }, 'callId'],
    ['no estimate', 'reservations', { callId: 'a', model: 'm' }, 'estimate'],
    [
      'a negative estimate',
      'reservations',
      { callId: 'a', model: 'm', estimate: { inputTokens: -1, outputTokensMax: 1 } },
      'estimate',
    ],
    [
      'a charge of a call that ends next year',
      'charges',
      { eventKey: 'a', model: 'm', costNanoUsd: 1, endedAt: new Date(Date.now() + 365 * 86_400_000).toISOString() },
      'endedAt',
    ],
    ['no JSON', 'reservations', '{', 'not JSON'],
    [
      'a user with a NUL',
      'reservations',
      { callId: 'a', user: 'a\0', model: 'm', estimate: { costNanoUsd: 1 } },
      'user',
    ],
    ['half a character', 'reservations', { callId: '\ud800', model: 'm', estimate: { costNanoUsd: 1 } }, 'callId'],
  ]
  for (const [what, path, body, field] of bad) {
    test(`quota: ${what} is 400 and names the field`, async () => {
      const reply = await asAdmin('POST', path, body)
      expect(reply.status).toBe(400)
      expect(reply.body.detail).toContain(field)
    })
  }

  for (const id of ['a b', 'a"b', 'a\nb', 'a\0b', 'é€', 'x'.repeat(201), '']) {
    test(`quota: a limit put under ${JSON.stringify(id).slice(0, 20)} is 400 and names the id, which would stand in the headers of every answer`, async () => {
      const limit = { measure: 'cost', amount: 1, window: 'day', action: 'observe' }
      const reply = await asAdmin('PUT', `limits/${encodeURIComponent(id)}`, limit)
      expect(reply).toMatchObject({ status: 400, body: { detail: expect.stringMatching(/^id: /) } })
    })
  }

  for (const zone of ['Asia/Kolkata', 'America/Argentina/Buenos_Aires', 'Europe/Kyiv', 'Etc/GMT+5', 'US/Pacific']) {
    test(`quota: a day of ${zone} is counted, as every name of the IANA database`, async () => {
      const id = `zone-${zone.replaceAll(/\W/g, '-')}`
      await limitOf(id, { subject: { user: id }, window: 'day', timeZone: zone })
      expect((await call('POST', 'reservations', reservation(id, 1, { user: id }))).status).toBe(201)
    })
  }

  test('quota: usage asked for by a name with a NUL is 400, as no database holds it', async () => {
    expect((await call('GET', 'usage?user=a%00b')).status).toBe(400)
    expect((await call('GET', 'usage?limit=%00')).status).toBe(400)
  })

  test('quota: what is not there, not allowed, or another tenant’s is answered so', async () => {
    expect((await call('POST', 'limits', { measure: 'cost', amount: 1, window: 'day', action: 'block' })).status).toBe(
      403,
    )
    expect((await call('GET', 'reservations/00000000-0000-0000-0000-000000000000')).status).toBe(404)
    expect((await call('POST', 'reservations/nonsense/settle', { costNanoUsd: 1 })).status).toBe(404)
    expect((await call('GET', 'nowhere')).status).toBe(404)
    await limitOf('kept', { subject: { user: 'kept' } })
    expect((await asAdmin('DELETE', 'limits/kept/thresholds')).status).toBe(404)
    expect((await asAdmin('GET', 'limits/kept')).status).toBe(200)
    expect((await call('PUT', 'reservations', {})).status).toBe(405)
    expect((await call('GET', 'usage', undefined, 'tl_aaaaaaaa_00')).status).toBe(401)
  })

  test('quota: with Postgres killed answers are 503 and never a grant too many; afterwards the same call ids get their answers', async () => {
    await limitOf('killed', { subject: { user: 'killed' }, amount: 10, measure: 'requests' })
    const ids = Array.from({ length: 40 }, (_, at) => `k${at}`)
    const ask = (callId: string): Promise<Reply> =>
      call('POST', 'reservations', reservation(callId, 1, { user: 'killed' }))
    const pid = Number(
      (await readFile(join(collector.directory, 'postgres', 'cluster', 'postmaster.pid'), 'utf8')).split('\n')[0],
    )
    const asked = ids.map(ask)
    process.kill(pid, 'SIGKILL')
    const first = await Promise.all(asked)
    expect(first.every(({ status }) => status === 201 || status === 429 || status === 503)).toBe(true)
    const final = new Map<string, Reply>()
    for (const id of ids) {
      let reply = await ask(id)
      while (reply.status === 503) reply = await ask(id)
      final.set(id, reply)
    }
    expect([...final.values()].filter(({ status }) => status === 201)).toHaveLength(10)
    for (const [at, id] of ids.entries()) {
      const before = first[at]
      if (before?.status === 201) expect(final.get(id)?.body).toEqual(before.body)
    }
    expect(await usageOf('killed')).toMatchObject({ held: 10, free: 0 })
  })
})

test('quota: each threshold is told to the webhook, signed, also when it did not take it at first', async () => {
  await using hooks = new AsyncDisposableStack()
  const told: { readonly signature: string; readonly body: string }[] = []
  let refusals = 1
  const { promise: allTold, resolve: onAllTold } = Promise.withResolvers<void>()
  const server = createServer(async (request, response) => {
    const body = await text(request)
    if (refusals-- > 0) return response.writeHead(500).end()
    told.push({ signature: String(request.headers['tallylight-signature']), body })
    response.end()
    if (told.length === 2) onAllTold()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  hooks.defer(() => new Promise((resolve) => server.close(() => resolve())))
  const secret = 'a secret of sixteen or more'
  const path = join(collector.directory, 'webhook.json')
  const webhook = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, secret }
  const limits = [{ id: 'told', measure: 'cost', amount: 100, window: 'ever', action: 'block' }]
  await writeFile(path, JSON.stringify({ quota: { webhook, limits } }))
  const own = hooks.use(await startCollector({ TALLYLIGHT_CONFIG: path }))
  const charge = { eventKey: 'once', model: 'm', costNanoUsd: 85 }
  const charged = await fetch(`http://127.0.0.1:${own.ports().api}/v1/quota/charges`, {
    method: 'POST',
    body: JSON.stringify(charge),
  })
  expect(charged.status).toBe(201)
  await allTold
  expect(told.map(({ body }) => (JSON.parse(body) as { readonly percent: number }).percent).sort()).toEqual([50, 80])
  for (const { signature, body } of told) {
    const [, seconds, digest] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature) ?? []
    expect(createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex')).toBe(digest)
  }
})

test('quota: limits of the configuration file are applied at start and when it changes; a file that is wrong or gone changes nothing', async () => {
  const path = join(collector.directory, 'limits.json')
  const limit = { id: 'not an id', measure: 'requests', amount: 1, window: 'ever', action: 'block' }
  const write = (limits: readonly object[]): Promise<void> => writeFile(path, JSON.stringify({ quota: { limits } }))
  await write([limit])
  await expect(startCollector({ TALLYLIGHT_CONFIG: path })).rejects.toThrow(/quota\.limits\.0\.id/)
  await write([{ ...limit, id: 'from-file', subject: { user: 'ada', model: 'm' } }])
  await using own = await startCollector({ TALLYLIGHT_CONFIG: path })
  const limitsNow = async (): Promise<unknown> => {
    const response = await fetch(`http://127.0.0.1:${own.ports().api}/v1/quota/limits`)
    const { limits } = (await response.json()) as { readonly limits: readonly Record<string, unknown>[] }
    return limits.map(({ id, amount }) => ({ id, amount }))
  }
  expect(await limitsNow()).toEqual([{ id: 'from-file', amount: 1 }])
  const said = (text: string): Promise<void> =>
    expect.poll(own.log, { timeout: 10_000 }).toContain(text) as Promise<void>
  await write([{ ...limit, id: 'from-file', subject: { model: 'm', user: 'ada' }, amount: 2 }])
  await said('"changed":[{"before":')
  expect(await limitsNow()).toEqual([{ id: 'from-file', amount: 2 }])
  await writeFile(path, '{')
  await said('cannot be used; limits and probes stay as they are')
  await rm(path)
  await said('limits.json cannot be read')
  expect(await limitsNow()).toEqual([{ id: 'from-file', amount: 2 }])
  await own.kill('SIGTERM')
  await writeFile(path, JSON.stringify({}))
  await own.start()
  expect(await limitsNow()).toEqual([])
  expect(own.log()).toContain('"removed":[{"tenant":"default","id":"from-file"')
})

for (const postgres of ['embedded', 'of one’s own'])
  test(`quota: a file that gives a limit another shape is refused by a start, and nothing else is: with a Postgres ${postgres}, holds expire, the limits are those from before, and the mended file is applied`, async () => {
    await using engines = new AsyncDisposableStack()
    const directory = await mkdtemp(join(tmpdir(), 'tallylight-quota-'))
    engines.defer(() => rm(directory, { recursive: true, force: true }))
    const path = join(directory, 'limits.json')
    const limit = { id: 'shaped', measure: 'cost', amount: 500, window: 'ever', action: 'block' }
    const write = (limits: readonly object[]): Promise<void> =>
      writeFile(path, JSON.stringify({ quota: { limits, prices: [{ model: 'm', ...price }] } }))
    const price = { inputNanoUsdPerMillion: 1, outputNanoUsdPerMillion: 1 }
    const environment: Record<string, string> = { TALLYLIGHT_CONFIG: path }
    if (postgres !== 'embedded') {
      const readerKeyPath = join(directory, 'reader.key')
      const options = { directory: join(directory, 'postgres'), port: 0, readerKeyPath, log: () => undefined }
      environment.TALLYLIGHT_POSTGRES_URL = engines.use(await startEmbeddedPostgres(options)).url
    }
    await write([limit])
    await using own = await startCollector(environment)
    await own.kill('SIGTERM')
    await write([
      { ...limit, window: 'day', amount: 900 },
      { ...limit, id: 'another' },
    ])
    await own.start()
    const ask = async (path: string, body?: object): Promise<Reply['body']> => {
      const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
      const response = await fetch(`http://127.0.0.1:${own.ports().api}/v1/quota/${path}`, init)
      return (await response.json()) as Reply['body']
    }
    const limitsNow = async (): Promise<unknown> =>
      ((await ask('limits')).limits as readonly Reply['body'][]).map(({ id, amount, window }) => [id, amount, window])
    await expect.poll(own.log).toContain('shaped of default has another measure, window, time zone or dimension')
    expect(await limitsNow()).toEqual([['shaped', 500, 'ever']])
    expect(await own.metric('tallylight_config_refused')).toBe(1)

    const held = { callId: 'held', model: 'm', ttlMs: 1_000, estimate: { costNanoUsd: 400 } }
    expect(await ask('reservations', held)).toMatchObject({ holds: [{ limitId: 'shaped' }] })
    const usage = async (): Promise<unknown> => ((await ask('usage?limit=shaped')).usage as readonly unknown[])[0]
    await expect.poll(usage, { timeout: 10_000 }).toMatchObject({ held: 0, free: 500 })

    await write([
      { ...limit, amount: 700 },
      { ...limit, id: 'another' },
    ])
    const mended = [
      ['another', 500, 'ever'],
      ['shaped', 700, 'ever'],
    ]
    await expect.poll(limitsNow, { timeout: 10_000 }).toEqual(mended)
    expect(await own.metric('tallylight_config_refused')).toBe(0)
  })
