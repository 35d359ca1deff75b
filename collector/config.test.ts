import { readdir, readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { contentPolicyOf, failurePolicyOf, maskingOf, parseConfigFile, retentionDaysOf } from './config.ts'
import { exampleFile, pagePath, renderPage } from './config-page.ts'
import { environmentNames, readConfig } from './environment.ts'
import { limits } from './limits.ts'

function reasonsOf(environment: Record<string, string>): readonly string[] {
  const read = readConfig(environment)
  return read.kind === 'refused' ? read.reasons : []
}

function refusalsOf(file: unknown): readonly string[] {
  const parsed = parseConfigFile(JSON.stringify(file), 'f.json')
  return parsed.kind === 'refused' ? parsed.reasons : []
}

test('config: every example of the pages is a file that a collector takes', async () => {
  const folder = new URL('../docs/', import.meta.url)
  const taken: string[] = []
  for (const name of (await readdir(folder)).filter((each) => each.endsWith('.md'))) {
    const page = await readFile(new URL(name, folder), 'utf8')
    for (const [, example = ''] of page.matchAll(/```json\n(.*?)```/gs)) {
      expect(parseConfigFile(example, name)).toMatchObject({ kind: 'file' })
      taken.push(name)
    }
  }
  expect(taken.sort()).toEqual(['health-checks.md', 'proxy.md', 'quota.md', 'tenants.md'])
})

test('config: without a word it is loopback, the usual ports, and everything embedded', () => {
  expect(readConfig({})).toEqual({
    kind: 'config',
    config: {
      dataDirectory: './data',
      configPath: './tallylight.json',
      isConfigNamed: false,
      bind: '127.0.0.1',
      ports: { otlpGrpc: 4317, otlpHttp: 4318, api: 4319, proxy: 4320, clickhouse: 8123, postgres: 5433 },
      clickhouseUrl: undefined,
      postgresUrl: undefined,
      requireKeys: false,
      selfCheckMs: 60_000,
      tls: undefined,
    },
  })
})

test('config: every name of the table is taken, and so are the names of an instrumented service', () => {
  const values: Readonly<Record<string, string>> = {
    DATA_DIR: '/d',
    CONFIG: '/c.json',
    BIND: '0.0.0.0',
    OTLP_GRPC_PORT: '1',
    OTLP_HTTP_PORT: '2',
    API_PORT: '3',
    PROXY_PORT: '4',
    CLICKHOUSE_PORT: '5',
    POSTGRES_PORT: '65535',
    CLICKHOUSE_URL: 'https://u:p@host:8443/books',
    POSTGRES_URL: 'postgresql://u:p@host/books',
    REQUIRE_KEYS: '0',
    TLS_CERT: '/cert',
    TLS_KEY: '/key',
    TLS_CLIENT_CA: '/ca',
    SELF_CHECK_MS: '0',
    ALLOW_PLAINTEXT: '1',
  }
  expect(Object.keys(values)).toEqual(environmentNames.map(({ name }) => name))
  const service = {
    TALLYLIGHT_URL: 'x',
    TALLYLIGHT_KEY: 'x',
    TALLYLIGHT_CONTENT: 'off',
    TALLYLIGHT_QUOTA: 'observe',
    TALLYLIGHT_MCP: 'link',
  }
  const given = Object.fromEntries(Object.entries(values).map(([name, value]) => [`TALLYLIGHT_${name}`, value]))
  expect(
    readConfig({ ...given, ...service, PATH: '/bin', TALLYLIGHTNESS: 'ours is the prefix with its line' }),
  ).toEqual({
    kind: 'config',
    config: {
      dataDirectory: '/d',
      configPath: '/c.json',
      isConfigNamed: true,
      bind: '0.0.0.0',
      ports: { otlpGrpc: 1, otlpHttp: 2, api: 3, proxy: 4, clickhouse: 5, postgres: 65_535 },
      clickhouseUrl: 'https://u:p@host:8443/books',
      postgresUrl: 'postgresql://u:p@host/books',
      requireKeys: true,
      selfCheckMs: 0,
      tls: { certPath: '/cert', keyPath: '/key', clientCaPath: '/ca' },
    },
  })
})

const refused: readonly (readonly [environment: Record<string, string>, reason: string | RegExp])[] = [
  [{ DATADIR: '/d' }, 'TALLYLIGHT_DATADIR is not known; did you mean TALLYLIGHT_DATA_DIR?'],
  [{ REQUIRE_KEY: '1' }, 'TALLYLIGHT_REQUIRE_KEYS'],
  [{ OTLP_HTTP_PROT: '1' }, 'did you mean TALLYLIGHT_OTLP_HTTP_PORT?'],
  [{ JOURNAL_BYTES_MAX: '1' }, /is not known; known are TALLYLIGHT_DATA_DIR, .*TALLYLIGHT_ALLOW_PLAINTEXT$/],
  [{ API_PORT: '65536' }, 'TALLYLIGHT_API_PORT is a port from 0 to 65535, not "65536"'],
  [{ API_PORT: '-1' }, 'not "-1"'],
  [{ API_PORT: '80a' }, 'not "80a"'],
  [{ API_PORT: '8e1' }, 'not "8e1"'],
  [{ REQUIRE_KEYS: 'true' }, 'TALLYLIGHT_REQUIRE_KEYS is 1 or 0, not "true"'],
  [{ BIND: '0.0.0.0' }, /^TALLYLIGHT_BIND=0.0.0.0 is reachable from elsewhere: set TALLYLIGHT_TLS_CERT and/],
  [{ BIND: '127.evil.example' }, 'TALLYLIGHT_BIND is an IP address or localhost, not "127.evil.example"'],
  [{ TLS_CERT: '/c' }, 'TALLYLIGHT_TLS_CERT and TALLYLIGHT_TLS_KEY go together'],
  [{ TLS_CLIENT_CA: '/c' }, 'TALLYLIGHT_TLS_CLIENT_CA needs TALLYLIGHT_TLS_CERT and TALLYLIGHT_TLS_KEY'],
  [{ CLICKHOUSE_URL: 'http://ada:half%of@host:8123' }, /^TALLYLIGHT_CLICKHOUSE_URL has a % .* written %25$/],
  [{ CLICKHOUSE_URL: 'host:8123' }, 'TALLYLIGHT_CLICKHOUSE_URL is not a URL that begins with http:// or https://'],
  [
    { POSTGRES_URL: 'http://u:secret@h' },
    /^TALLYLIGHT_POSTGRES_URL is not a URL that begins with postgres:\/\/ or postgresql:\/\/$/,
  ],
]

for (const [environment, reason] of refused)
  test(`config: ${JSON.stringify(environment)} is refused with what was allowed`, () => {
    const given = Object.fromEntries(Object.entries(environment).map(([name, value]) => [`TALLYLIGHT_${name}`, value]))
    const reasons = reasonsOf(given)
    expect(reasons).toHaveLength(1)
    expect(reasons[0]).toMatch(reason)
  })

test('config: everything that is wrong is said at once', () => {
  expect(reasonsOf({ TALLYLIGHT_X: '1', TALLYLIGHT_API_PORT: 'x', TALLYLIGHT_TLS_KEY: '/k' })).toHaveLength(3)
})

test('config: loopback by any of its names needs no TLS; another address needs keys, and TLS or the word that none is wanted', () => {
  for (const bind of ['127.0.0.1', '127.8.8.8', '::1', 'localhost'])
    expect(readConfig({ TALLYLIGHT_BIND: bind })).toMatchObject({ config: { requireKeys: false } })
  for (const more of [{ TALLYLIGHT_ALLOW_PLAINTEXT: '1' }, { TALLYLIGHT_TLS_CERT: '/c', TALLYLIGHT_TLS_KEY: '/k' }])
    expect(readConfig({ TALLYLIGHT_BIND: '::', ...more })).toMatchObject({ config: { requireKeys: true } })
})

const refusedFiles: readonly (readonly [file: unknown, reason: string | RegExp])[] = [
  [{ retenton: {} }, 'f.json: retenton is not known; did you mean retention?'],
  [{ retention: { defualt: {} } }, 'f.json: retention.defualt is not known; did you mean retention.default?'],
  [
    { retention: { tenants: { acme: { spans: 3 } } } },
    'retention.tenants.acme.spans is not known; known are retention.tenants.acme.traces, ',
  ],
  [{ retention: { default: { traces: 0 } } }, /f\.json: retention\.default\.traces: .*>=1; it is 0$/],
  [{ retention: { default: { traces: 4000 } } }, /<=3650; it is 4000$/],
  [{ retention: { default: { traces: 1.5 } } }, /int.*1\.5$/],
  [{ retention: { default: { traces: '30' } } }, /retention\.default\.traces: .*received string$/],
  [{ retention: { tenants: { 'a b': {} } } }, /retention\.tenants\.a b: a tenant is 1–128 letters/],
  [{ ingestLimits: { default: { bytesPerSecond: 0 } } }, />=1; it is 0$/],
  [{ deduplicateRequests: 'no' }, /deduplicateRequests: .*expected boolean/],
  [{ clickhouse: { memoryBytesMax: 1 } }, /clickhouse\.memoryBytesMax: .*>=536870912; it is 1$/],
  [{ journal: { reserveBytes: -1 } }, />=0; it is -1$/],
  [[], /f\.json: the file: /],
]

for (const [file, reason] of refusedFiles)
  test(`config: a file with ${JSON.stringify(file)} is refused with the field and what was allowed`, () => {
    const reasons = refusalsOf(file)
    expect(reasons).toHaveLength(1)
    expect(reasons[0]).toMatch(reason)
  })

test('config: a file that is not JSON is refused by name, and what stands in it is not repeated', () => {
  for (const text of ['{"key": "tl_secret', '{"key": tl_secret}', `{"key": "tl_secret"${' '.repeat(100)}x}`]) {
    const parsed = parseConfigFile(text, 'f.json')
    expect(parsed).toMatchObject({ kind: 'refused', reasons: [expect.stringMatching(/^f\.json is not JSON: .+/)] })
    expect(JSON.stringify(parsed)).not.toContain('secret')
  }
})

test('config: a limit is named once, as which of two holds would change with each start; another tenant may have its id', () => {
  const limit = { id: 'day', measure: 'cost', amount: 1, window: 'day', action: 'block' }
  const parse = (...limits: readonly object[]) => parseConfigFile(JSON.stringify({ quota: { limits } }), 'f.json')
  expect(parse(limit, { ...limit, tenant: 'acme' })).toMatchObject({ kind: 'file' })
  expect(parse(limit, { ...limit, amount: 2, tenant: 'default' })).toEqual({
    kind: 'refused',
    reasons: ['f.json: quota.limits: a tenant has an id once'],
  })
})

test('config: a tenant’s retention goes before the default, field by field, and that before ours', () => {
  const parsed = parseConfigFile(JSON.stringify(exampleFile), 'f.json')
  if (parsed.kind !== 'file') throw new Error(parsed.reasons.join())
  expect(retentionDaysOf(parsed.file, 'traces', 'acme')).toBe(7)
  expect(retentionDaysOf(parsed.file, 'metrics', 'acme')).toBe(90)
  expect(retentionDaysOf({ retention: { default: { logs: 5 } } }, 'logs', 'acme')).toBe(5)
  expect(retentionDaysOf({}, 'logs', 'acme')).toBe(30)
})

test('config: CONFIG.md is what `npm run config:page` writes, names every setting, and its numbers are those in use', async () => {
  expect(await readFile(pagePath, 'utf8')).toBe(renderPage())
  for (const { name } of environmentNames) expect(renderPage()).toContain(`| \`${name}\``)
  expect(
    renderPage()
      .split('\n')
      .filter((line) => /^\|.*\| +\|$/.test(line)),
  ).toEqual([])
  expect(renderPage()).toMatch(/quota\.failure\.default` .*\| {"policy": "closed"} /)
  expect(renderPage()).toMatch(new RegExp(`journal\\.bytesMax\` .*\\| ${limits.journalBytesMax} `))
})

test('config: without a word secrets and personal data in content are masked, elsewhere secrets alone', () => {
  const masking = maskingOf({})
  expect(masking).toMatchObject({
    secrets: true,
    personal: { kinds: ['email', 'phone', 'card', 'iban', 'national_id'], patterns: [] },
  })
  expect(masking.isEverywhere('acme')).toBe(false)
  expect(contentPolicyOf({}, 'acme')).toBe('masked')
})

test('config: what is kept of content, and where it is masked, is said for all and for a tenant', () => {
  const parsed = parseConfigFile(
    JSON.stringify({
      masking: { personal: ['email'], everywhere: true, tenants: { quiet: { everywhere: false } } },
      content: { default: 'full', tenants: { bank: 'metadata' } },
    }),
    'f.json',
  )
  if (parsed.kind === 'refused') throw new Error(parsed.reasons.join())
  const { isEverywhere, personal } = maskingOf(parsed.file)
  expect([isEverywhere('acme'), isEverywhere('quiet'), personal.kinds]).toEqual([true, false, ['email']])
  expect([contentPolicyOf(parsed.file, 'acme'), contentPolicyOf(parsed.file, 'bank')]).toEqual(['full', 'metadata'])
})

test('config: a tenant that is called as what every object has is one of those of which the file says nothing', () => {
  const file = {
    content: { default: 'metadata', tenants: { bank: 'full' } },
    quota: { failure: { tenants: { bank: { policy: 'open' } } } },
  } as const
  for (const tenant of ['constructor', 'toString', 'hasOwnProperty']) {
    expect(contentPolicyOf(file, tenant)).toBe('metadata')
    expect(failurePolicyOf(file, tenant)).toEqual({ policy: 'closed' })
  }
})

test('config: a pattern is refused with its name and the reason', () => {
  const refusals = (name: string, pattern: string) => refusalsOf({ masking: { patterns: [{ name, pattern }] } })
  expect(refusals('employee', 'E-[0-9]{6}')).toEqual([])
  expect(refusals('employee', 'E-[0-9')).toEqual([
    'f.json: masking.patterns.0.pattern: of employee: error parsing regexp: missing closing ]: `[0-9`',
  ])
  expect(refusals('employee', '(?=E)')).toEqual([expect.stringContaining('of employee: ')])
  expect(refusals('employee', 'E*')).toEqual([
    'f.json: masking.patterns.0.pattern: of employee: it matches the empty text',
  ])
  expect(refusals('email', 'E')).toEqual(['f.json: masking.patterns.0.name: the name is that of a built-in kind'])
  expect(refusals('Employee number', 'E')).toEqual([expect.stringContaining('small letters')])
})
