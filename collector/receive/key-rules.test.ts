import { hash, randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Authentication, Credentials } from './admission.ts'
import { type KnownKey, openKeyRules, parseKeyId } from './key-rules.ts'
import { parseTenantId, type Role, type TenantId } from './request.ts'

const acme = parseTenantId('acme') as TenantId

function makeKnown(id: string, more: Partial<KnownKey> = {}): { readonly text: string; readonly key: KnownKey } {
  const text = `tl_${id}_${randomBytes(32).toString('hex')}`
  const roles: readonly Role[] = ['ingest']
  return {
    text,
    key: {
      id,
      hash: hash('sha256', text),
      tenant: acme,
      roles,
      manyTenants: false,
      isRevoked: false,
      expiresAtMs: null,
      ...more,
    },
  }
}

const good = makeKnown('00000001', { roles: ['query', 'quota'], manyTenants: true })
const revoked = makeKnown('00000002', { isRevoked: true })
const known = { keys: [good.key, revoked.key], tenants: 1 }

const local: Credentials = {
  authorization: undefined,
  peerAddress: '127.0.0.1',
  hostHeader: 'localhost:4318',
  originHeader: undefined,
  localBoundToLoopback: true,
}

function check(credentials: Partial<Credentials>, options: { tenants?: number; requireKeys?: boolean } = {}): string {
  const { tenants = 1, requireKeys = false } = options
  const authenticate = openKeyRules({ known: { ...known, tenants }, requireKeys, isCurrent: () => true, now: () => 0 })
  return say(authenticate({ ...local, ...credentials }))
}

function say(answer: Authentication): string {
  if (answer.kind !== 'identified') return answer.kind
  const { tenant, roles, manyTenants, keyId } = answer.identity
  return `${tenant} ${[...roles]}${manyTenants ? ' many' : ''} ${keyId}`.trim()
}

const loopback = 'default ingest,quota'

for (const [what, credentials, expected] of [
  ['from this machine', {}, loopback],
  ['over IPv6', { peerAddress: '::1', hostHeader: '[::1]:4318' }, loopback],
  ['over IPv4 in IPv6', { peerAddress: '::ffff:127.0.0.1', hostHeader: '127.0.0.1' }, loopback],
  ['from any address of loopback', { peerAddress: '127.1.2.3', hostHeader: '127.9.9.9:1' }, loopback],
  ['with the host in capitals', { hostHeader: 'LocalHost:4318' }, loopback],
  ['without a Host', { hostHeader: undefined }, loopback],
  ['from another machine', { peerAddress: '10.0.0.9' }, 'missing'],
  ['from an unknown peer', { peerAddress: undefined }, 'missing'],
  ['from a machine whose address only begins alike', { peerAddress: '::10' }, 'missing'],
  ['from a page of this machine', { originHeader: 'http://localhost:5173' }, loopback],
  ['from a page of the web', { originHeader: 'https://page.example' }, 'missing'],
  ['from a page that is a file or hides where it is', { originHeader: 'null' }, 'missing'],
  ['with a Host that leads here by DNS', { hostHeader: 'rebound.example:4318' }, 'missing'],
  ['with a Host that only begins alike', { hostHeader: 'localhost.example' }, 'missing'],
  ['with a Host like an address', { hostHeader: '127.0.0.1.example' }, 'missing'],
  ['to a port that is open to others, or through a proxy', { localBoundToLoopback: false }, 'missing'],
] as const)
  test(`keys: a request without a key ${what} is ${expected === 'missing' ? 'refused' : 'taken for tenant default'}`, () => {
    expect(check(credentials)).toBe(expected)
  })

test('keys: once a second tenant exists, or keys are required, nobody goes without one', () => {
  expect(check({}, { tenants: 0 })).toBe(loopback)
  expect(check({}, { tenants: 2 })).toBe('missing')
  expect(check({}, { requireKeys: true })).toBe('missing')
})

for (const [what, authorization, expected] of [
  ['a key', `Bearer ${good.text}`, 'acme query,quota many 00000001'],
  ['a scheme in other letters', `bEARER  ${good.text}`, 'acme query,quota many 00000001'],
  ['a revoked key', `Bearer ${revoked.text}`, 'revoked'],
  ['the id of one key with the secret of another', `Bearer tl_00000001_${revoked.text.slice(12)}`, 'unknown'],
  ['a key cut short', `Bearer ${good.text.slice(0, -1)}`, 'no_key'],
  ['a key with more behind it', `Bearer ${good.text}0`, 'no_key'],
  ['a key and a word', `Bearer ${good.text} x`, 'no_key'],
  ['a key in capitals', `Bearer ${good.text.toUpperCase()}`, 'no_key'],
  ['a key without its scheme', good.text, 'no_key'],
  ['another scheme', `Basic ${Buffer.from(`:${good.text}`).toString('base64')}`, 'no_key'],
  ['an empty header', '', 'no_key'],
  ['nothing behind the scheme', 'Bearer ', 'no_key'],
  ['the hash itself', `Bearer tl_00000001_${good.key.hash}`, 'unknown'],
  ['a key that does not exist', `Bearer tl_0000000f_${'0'.repeat(64)}`, 'unknown'],
  ['ten thousand letters', `Bearer ${'a'.repeat(10_000)}`, 'no_key'],
] as const)
  test(`keys: ${what} is judged by itself, from this machine and from others: ${expected}`, () => {
    expect(check({ authorization })).toBe(expected)
    expect(check({ authorization, peerAddress: '10.0.0.9', localBoundToLoopback: false }, { tenants: 5 })).toBe(
      expected,
    )
  })

test('keys: a rotated key is good until its time of grace is over, also when it was judged before', () => {
  let nowMs = 0
  const old = makeKnown('00000003', { expiresAtMs: 1_000 })
  const rules = { known: { keys: [old.key], tenants: 1 }, requireKeys: true, isCurrent: () => true, now: () => nowMs }
  const ask = openKeyRules(rules)
  const credentials = { ...local, authorization: `Bearer ${old.text}` }
  expect(ask(credentials).kind).toBe('identified')
  nowMs = 999
  expect(ask(credentials).kind).toBe('identified')
  nowMs = 1_000
  expect(ask(credentials).kind).toBe('revoked')
})

test('keys: while the list cannot be read, a key that is not in it may be new, and one that is, or is none, is judged', () => {
  let isCurrent = false
  const authenticate = openKeyRules({ known, requireKeys: true, isCurrent: () => isCurrent, now: () => 0 })
  const ask = (authorization: string): string => say(authenticate({ ...local, authorization }))
  const strange = `Bearer ${makeKnown('0000000f').text}`
  expect(ask(strange)).toBe('unavailable')
  expect(ask(`Bearer ${good.text}`)).toBe('acme query,quota many 00000001')
  expect(ask(`Bearer ${revoked.text}`)).toBe('revoked')
  expect(ask('Bearer nonsense')).toBe('no_key')
  isCurrent = true
  expect(ask(strange)).toBe('unknown')
})

test('keys: the id is the only part of a key that is public', () => {
  expect(parseKeyId(good.text)).toBe('00000001')
  expect(parseKeyId(good.text.slice(1))).toBeUndefined()
  expect(parseKeyId('')).toBeUndefined()
})
