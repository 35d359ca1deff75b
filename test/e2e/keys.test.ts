// Keys as their users meet them: made, listed and taken back on the command line, asked for by a running collector, and
// known to it while Postgres is away.
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startEmbeddedPostgres } from '@tallylight/storage/postgres/embedded.ts'
import pg from 'pg'
import { expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'

const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
let requests = 0

/** The status of a request with one span. */
async function send(collector: CollectorProcess, key?: string): Promise<number> {
  const id = (++requests).toString(16).padStart(16, '0')
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: new Uint8Array(spansRequest([{ id, name: 'key', startUnixNano: BigInt(Date.now()) * 1_000_000n }])),
    headers: {
      'Content-Type': 'application/x-protobuf',
      ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }),
    },
  })
  await response.arrayBuffer()
  return response.status
}

async function tallylight(
  collector: CollectorProcess,
  ...args: string[]
): Promise<{ readonly code: number; readonly out: string; readonly said: string }> {
  const env = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  return promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', commandPath, ...args], {
    env,
  }).then(
    ({ stdout, stderr }) => ({ code: 0, out: stdout.trim(), said: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: stdout.trim(), said: stderr }),
  )
}

async function postgresPid(collector: CollectorProcess): Promise<number> {
  const text = await readFile(join(collector.directory, 'postgres', 'cluster', 'postmaster.pid'), 'utf8')
  return Number(text.split('\n')[0])
}

test('keys: made, listed and revoked on the command line; a second tenant ends requests without a key', async () => {
  await using collector = await startCollector()
  expect(await send(collector)).toBe(200)
  const made = await tallylight(collector, 'keys', 'create', '--tenant', 'acme', '--roles', 'ingest', '--name', 'ci')
  expect(made).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^tl_[0-9a-f]{8}_[0-9a-f]{64}$/),
    said: expect.stringContaining('acme is the second tenant: from now on no request without a key is let in'),
  })
  expect(await send(collector)).toBe(401)
  expect(await send(collector, made.out)).toBe(200)
  expect(await send(collector, collector.adminKey)).toBe(403)
  const listed = (await tallylight(collector, 'keys', 'list')).out.split('\n').map((line) => JSON.parse(line))
  expect(listed).toMatchObject([
    { tenant: 'default', roles: ['admin'], manyTenants: true },
    { tenant: 'acme', roles: ['ingest'], manyTenants: false, name: 'ci', revokedAt: null },
  ])
  expect(JSON.stringify(listed)).not.toContain(made.out.slice(-64))
  expect(await tallylight(collector, 'keys', 'revoke', listed[1].id)).toMatchObject({ code: 0 })
  expect(await send(collector, made.out)).toBe(401)
  expect(await tallylight(collector, 'keys', 'revoke', 'ffffffff')).toMatchObject({
    code: 1,
    said: expect.stringContaining('404: there is no key ffffffff'),
  })
  expect(await tallylight(collector, 'keys', 'create', '--tenant', 'a b', '--roles', 'root')).toMatchObject({
    code: 1,
    said: expect.stringMatching(
      /400: tenant: a tenant is 1–128 letters.*roles.0: .*"ingest"\|"query"\|"quota"\|"admin"/,
    ),
  })
  expect(await tallylight(collector, 'keys', 'make')).toMatchObject({
    code: 2,
    said: expect.stringContaining('usage:'),
  })
  // A word too many is not ignored: who revokes two keys would take both for revoked.
  for (const [words, said] of [
    [['keys', 'revoke', listed[0].id, listed[1].id], `does not take the word ${listed[1].id}`],
    [['keys', 'list', 'extra'], 'does not take the word extra'],
    [['reprice', '--dry-run'], 'reprice does not take --dry-run'],
    [['keys', 'revoke', listed[0].id, '--tenant', 'acme'], 'keys revoke does not take --tenant'],
  ] as const)
    expect(await tallylight(collector, ...words)).toMatchObject({ code: 2, said: expect.stringContaining(said) })
  expect((await tallylight(collector, 'keys', 'list')).out.split('\n')).toHaveLength(2)
  await collector.drained()
  expect(
    await collector.query(
      'SELECT TenantId, toUInt32(count()) AS rows FROM tallylight.otel_traces GROUP BY 1 ORDER BY 1',
    ),
  ).toEqual([
    { TenantId: 'acme', rows: 1 },
    { TenantId: 'default', rows: 1 },
  ])
})

test('keys: the admin key is rotated where it lies, the last one is not revoked, and one that is over is made anew at a start without it', async () => {
  await using collector = await startCollector()
  const path = join(collector.directory, 'admin.key')
  const ids = async () =>
    (await tallylight(collector, 'keys', 'list')).out.split('\n').map((line) => JSON.parse(line).id as string)
  const [first = ''] = await ids()
  expect(await tallylight(collector, 'keys', 'revoke', first)).toMatchObject({
    code: 1,
    said: expect.stringMatching(/409: .* is the last key that administers all tenants.*keys rotate.*keys create/),
  })

  const rotated = await tallylight(collector, 'keys', 'rotate', first, '--grace-seconds', '0')
  expect(rotated).toMatchObject({ code: 0, said: expect.stringContaining(`written to ${path}`) })
  expect(await readFile(path, 'utf8')).toBe(rotated.out)
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  const second = rotated.out.slice(3, 11)
  expect(await ids()).toEqual([first, second])

  // Another's: the file stays as it is.
  const other = await tallylight(
    collector,
    'keys',
    'create',
    '--tenant',
    'default',
    '--roles',
    'admin',
    '--many-tenants',
  )
  expect((await tallylight(collector, 'keys', 'rotate', other.out.slice(3, 11))).said).not.toContain('written')
  expect(await readFile(path, 'utf8')).toBe(rotated.out)

  expect(await tallylight(collector, 'keys', 'revoke', second)).toMatchObject({ code: 0 })
  const wayOut = `rm ${path}, and restart the collector`
  expect(await tallylight(collector, 'keys', 'list')).toMatchObject({ code: 1, said: expect.stringContaining(wayOut) })
  expect((await tallylight(collector, 'doctor')).out).toContain(wayOut)
  await collector.kill('SIGTERM')
  await collector.start()
  expect(collector.log()).toContain(`the key in ${path} is revoked or over`)
  await rm(path)
  await collector.kill('SIGTERM')
  await collector.start()
  expect(await ids()).toHaveLength(5)
})

test('keys: ingest goes on while Postgres is killed, which comes back by itself', async () => {
  await using collector = await startCollector({ TALLYLIGHT_REQUIRE_KEYS: '1' })
  const { out: key } = await tallylight(collector, 'keys', 'create', '--tenant', 'default', '--roles', 'ingest')
  expect(await send(collector)).toBe(401)
  const pid = await postgresPid(collector)
  process.kill(pid, 'SIGKILL')
  expect(await send(collector, key)).toBe(200)
  await vi.waitUntil(async () => (await tallylight(collector, 'keys', 'list')).code === 0, { timeout: 20_000 })
  expect(collector.log()).not.toContain(key.slice(-64))
})

test('keys: with a Postgres of one’s own, a revocation elsewhere is seen within 10 s, and a restart without it knows the keys', async () => {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-postgres-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const readerKeyPath = join(directory, 'reader.key')
  const server = stack.use(await startEmbeddedPostgres({ directory, port: 0, readerKeyPath, log: () => undefined }))
  const environment = { TALLYLIGHT_POSTGRES_URL: server.url, TALLYLIGHT_REQUIRE_KEYS: '1' }
  const collector = stack.use(await startCollector(environment))
  await vi.waitUntil(async () => (await tallylight(collector, 'keys', 'list')).code === 0, { timeout: 20_000 })
  const create = async () =>
    (await tallylight(collector, 'keys', 'create', '--tenant', 'acme', '--roles', 'ingest')).out
  const [kept, lost] = [await create(), await create()]
  expect([await send(collector, kept), await send(collector, lost)]).toEqual([200, 200])

  // As another collector would, and with nothing told of it.
  const elsewhere = new pg.Client(server.url)
  await elsewhere.connect()
  await elsewhere.query(`create or replace function note_key_change() returns trigger language plpgsql as
    $$ begin update key_changes set version = version + 1; return null; end $$`)
  await elsewhere.query('update keys set revoked_at = now() where id = $1', [lost.slice(3, 11)])
  await elsewhere.end()
  await vi.waitUntil(async () => (await send(collector, lost)) === 401, { timeout: 10_000, interval: 50 })
  expect(await send(collector, kept)).toBe(200)

  await server[Symbol.asyncDispose]()
  await collector.kill('SIGKILL')
  await collector.start()
  expect(await send(collector, kept)).toBe(200)
  expect(await send(collector, lost)).toBe(401)
  expect(await send(collector)).toBe(401)
  // It may have been made while we could not look, so its client is asked to try again.
  expect(await send(collector, `tl_ffffffff_${'0'.repeat(64)}`)).toBe(503)
  expect(await tallylight(collector, 'keys', 'list')).toMatchObject({ code: 1, said: expect.stringContaining('503') })
})
