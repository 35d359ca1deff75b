import { expect, test } from 'vitest'
import { field } from '../otlp/envelope.ts'
import { secretKinds } from './secret-rules.ts'
import { openSecretMask } from './secrets.ts'
import { jsonWriters, logRequest, secretExamples, signs } from './testing.ts'

const maskSecrets = openSecretMask()

function mask(text: string): { readonly text: string; readonly counts: Readonly<Record<string, number>> } {
  const body = Buffer.from(text)
  const request = logRequest(body)
  const counts = new Map<string, number>()
  maskSecrets('logs', request, counts)
  return {
    text: request.toString('utf8', request.length - body.length),
    counts: Object.fromEntries(counts),
  }
}

/** Masked with the length it had. */
function masked({ kind, secret }: { readonly kind: string; readonly secret: string }): string {
  const label = `[masked:${kind}]`
  return secret.length < label.length ? '*'.repeat(secret.length) : label.padEnd(secret.length, '*')
}

const examples = secretExamples()

test('secrets: there is an example of every kind', () => {
  expect(new Set(examples.map(({ kind }) => kind))).toEqual(new Set(secretKinds))
})

test.each(examples.map((example, index) => [`${example.kind} ${index}`, example] as const))(
  'secrets: %s is masked alone, at the beginning, in the middle and at the end of a text, also among escapes',
  (_, example) => {
    const { text, secret, kind } = example
    const expected = text.replace(secret, masked(example))
    for (const [before, behind] of [
      ['', ''],
      ['', ' is what I use'],
      ['my key is ', ', keep it'],
      ['ключ: ', ''],
      ['{"a":"', '"}'],
      ['line\\n', '\\nline'],
      ['a=b&c=%22', '%22&d=e'],
    ] as const) {
      expect(mask(before + text + behind)).toEqual({ text: before + expected + behind, counts: { [kind]: 1 } })
    }
  },
)

test.each(Object.entries(jsonWriters))(
  'secrets: in JSON of %s each is masked, in JSON in JSON too, and the JSON says the same besides',
  (_, write) => {
    for (const { text, secret, kind } of examples) {
      const once = mask(write(`é "${text}" \n`))
      expect(once.counts, text).toEqual({ [kind]: 1 })
      const said = JSON.parse(once.text) as string
      expect(said).not.toContain(secret)
      const [before, behind] = text.split(secret) as [string, string]
      expect(said.startsWith(`é "${before}`) && said.endsWith(`${behind}" \n`), said).toBe(true)
      const twice = mask(JSON.stringify(write(`é "${text}" \n`)))
      expect(twice.counts, text).toEqual({ [kind]: 1 })
      expect(JSON.parse(JSON.parse(twice.text))).not.toContain(secret)
    }
  },
)

test('secrets: an even and an odd place are the same', () => {
  for (const { text, secret } of examples)
    for (let shift = 0; shift < 5; shift++) expect(mask(' '.repeat(shift) + text).text).not.toContain(secret)
})

test('secrets: several in one text are all masked, the owner named even behind a name or Bearer', () => {
  const text = examples.map((example) => example.text).join('\n')
  const found = mask(text)
  for (const { secret } of examples) expect(found.text).not.toContain(secret)
  const openai = examples.find(({ kind }) => kind === 'openai')?.text ?? ''
  expect(mask(`Authorization: Bearer ${openai}`).counts).toEqual({ openai: 1 })
  expect(mask(`OPENAI_API_KEY=${openai}`).counts).toEqual({ openai: 1 })
})

test('secrets: a private key that was cut off by a limit is masked as far as it goes', () => {
  const whole = examples.find(({ kind }) => kind === 'private_key')?.secret ?? ''
  const cut = whole.slice(0, 130)
  expect(mask(`key: ${cut}`).text).toBe(`key: ${'[masked:private_key]'.padEnd(130, '*')}`)
  expect(mask(`${cut}… (truncated)`).text).toBe(`${'[masked:private_key]'.padEnd(130, '*')}… (truncated)`)
})

test('secrets: the secret behind an AWS access key id is masked with it', () => {
  const id = examples.find(({ kind }) => kind === 'aws')?.secret ?? ''
  const secret = signs(40, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+', 99)
  for (const between of [':', ' / ', '\n', '","secret":"', '\nkey=']) {
    const found = mask(`${id}${between}${secret}`)
    expect(found.text).toBe(`${'[masked:aws]'.padEnd(20, '*')}${between}${'[masked:aws]'.padEnd(40, '*')}`)
  }
  expect(mask(`${id} at ${'0123456789abcdef'.repeat(3).slice(0, 40)}`).counts).toEqual({ aws: 1 })
})

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const stays: readonly string[] = [
  'da39a3ee5e6b4b0d3255bfef95601890afd80709',
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '550e8400-e29b-41d4-a716-446655440000',
  '4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  `data:image/png;base64,${signs(20_000, `${alphabet}+/`, 1)}==`,
  `data:application/octet-stream;base64,${signs(20_000, `${alphabet}-_`, 2)}`,
  // JSON in base64, a cursor of a list: it has no dots.
  Buffer.from(JSON.stringify({ after: 'b'.repeat(60), limit: 100 })).toString('base64url'),
  'eyJhbGciOi.. is how a token begins',
  'sk-learn-classification-pipeline-2024-final',
  'helpdesk-admin-dashboard-7d9f8b6c5d-x2x4z',
  'disk-or-memory-pressure-threshold-exceeded-2',
  'task-proj-overview-of-the-quarter',
  'risk_test_internationalization2024',
  'sk-123',
  'sk-proj-...',
  'sk-YOUR-KEY-GOES-HERE',
  'chatcmpl-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O',
  'resp_68a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3',
  'toolu_01A09q90qw90lq917835lq9',
  'call_7UWpWPw4vmgIyHcYwfTyYlVt',
  'apiKey: process.env.OPENAI_API_KEY',
  'api_key=YOUR_API_KEY_GOES_HERE',
  'the api_key 0123456789abcdef0123 has a space and no sign',
  '"authorization": "see the page on internationalization20240101"',
  '["api_key", "client_secret", "session_token", "the_columns_of_a_table"]',
  'Bearer%20authentication',
  'Bearer authentication required',
  'the bearer of these good tidings',
  'Basic knowledge of chemistry',
  'Basic authentication',
  'AKIATOOSHORT',
  'ASIAPACIFICREGIONALHEADQUARTERS',
  'hf_hub_download',
  'xoxo-hugs',
  'ghp_short',
  '-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----',
  '-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\n-----END CERTIFICATE-----',
  'a file that begins with -----BEGIN PRIVATE KEY----- holds a key, and ends with -----END PRIVATE KEY-----',
  'tl_abcdefgh_tooshort',
  'npm_config_registry=https://registry.example/',
  'max_tokens=12345678901234567890',
]

test.each(stays.map((text) => [text.slice(0, 40), text] as const))('secrets: %s stays', (_, text) => {
  expect(mask(text)).toEqual({ text, counts: {} })
})

/** A log record's attribute. */
const attribute = (key: string, value: Buffer): Buffer =>
  field(6, Buffer.concat([field(1, Buffer.from(key)), field(2, value)]))
const stringValue = (text: string): Buffer => field(1, Buffer.from(text))
const logs = (...fields: readonly Buffer[]): Buffer => field(1, field(2, field(2, Buffer.concat(fields))))

function maskRequest(request: Buffer): { readonly request: Buffer; readonly counts: Readonly<Record<string, number>> } {
  const counts = new Map<string, number>()
  const copy = Buffer.from(request)
  maskSecrets('logs', copy, counts)
  return { request: copy, counts: Object.fromEntries(counts) }
}

test('secrets: two strings that only together would be one stay, wherever they are cut', () => {
  const whole = examples.find(({ kind }) => kind === 'anthropic')?.secret ?? ''
  for (let cut = 1; cut < 16; cut++) {
    const request = logs(
      attribute('first', stringValue(whole.slice(0, cut))),
      attribute(whole.slice(cut), stringValue('')),
      // The tag of an event's name is a letter, and so may its length be.
      field(5, stringValue(whole.slice(0, cut))),
      field(12, Buffer.from(whole.slice(cut))),
    )
    expect(maskRequest(request)).toEqual({ request, counts: {} })
  }
})

test('secrets: a string that ends where the next one begins like a secret is masked to its own end', () => {
  const secret = examples.find(({ kind }) => kind === 'openai')?.secret ?? ''
  const request = logs(field(3, Buffer.from(secret)), field(12, Buffer.from('abcdefgh'.repeat(8))))
  const found = maskRequest(request)
  expect(found.counts).toEqual({ openai: 1 })
  expect(found.request).toEqual(
    logs(
      field(3, Buffer.from('[masked:openai]'.padEnd(secret.length, '*'))),
      field(12, Buffer.from('abcdefgh'.repeat(8))),
    ),
  )
})

test('secrets: an attribute whose key names a secret has its value masked, in lists and maps too, and nothing beside it', () => {
  const secret = '0123456789abcdef0123456789abcdef'
  const gone = '[masked:named]'.padEnd(secret.length, '*')
  const list = (text: string): Buffer => field(5, field(1, stringValue(text)))
  const map = (text: string): Buffer =>
    field(6, field(1, Buffer.concat([field(1, Buffer.from('value')), field(2, stringValue(text))])))
  const request = (text: string): Buffer =>
    logs(
      attribute('http.request.header.api-key', list(text)),
      attribute('X-API-KEY', stringValue(text)),
      attribute('credentials.client_secret', map(text)),
      attribute('http.request.header.authorization', list(`Token ${text}`)),
      attribute('etag', stringValue(secret)),
    )
  expect(maskRequest(request(secret))).toEqual({ request: request(gone), counts: { named: 4 } })
  const harmless = logs(attribute('api_key', stringValue('a name of the key, in words')))
  expect(maskRequest(harmless)).toEqual({ request: harmless, counts: {} })
})

test('secrets: bytes values, unknown fields, long ids and malformed bytes hide nothing', () => {
  const secret = examples.find(({ kind }) => kind === 'github')?.secret ?? ''
  const text = Buffer.from(secret)
  for (const request of [
    logs(attribute('blob', field(7, text))),
    logs(field(14, text)),
    logs(field(14, field(1, text))),
    logs(field(9, text)),
    field(2, text),
    Buffer.concat([logs(field(3, Buffer.from('a'))), text]),
    Buffer.concat([Buffer.from([0x0a, 0xff, 0x7f]), text]),
    text,
  ]) {
    const found = maskRequest(request)
    expect(found.request.length).toBe(request.length)
    expect(found.request.includes(text), request.toString('latin1')).toBe(false)
  }
})

test('secrets: values in each other, as deep as they are stored and far deeper, hide nothing', () => {
  const secret = examples.find(({ kind }) => kind === 'groq')?.secret ?? ''
  for (const depth of [1, 63, 64, 65, 500, 5_000]) {
    let value = stringValue(secret)
    for (let level = 0; level < depth; level++) value = field(5, field(1, value))
    expect(maskRequest(logs(field(5, value))).request.includes(secret)).toBe(false)
  }
})

// Read to its end from each beginning, one such text would take hours.
test('secrets: text made of beginnings of secrets is read once and not from each of them', { timeout: 60_000 }, () => {
  const starts = [
    'sk-',
    'sk-ant-',
    'tl_',
    'eyJ',
    'eyJa.',
    'AKIA',
    'ghp_',
    'Bearer ',
    'api_key=',
    '8Q~',
    'ACDb',
    'xoxb-',
    '-----BEGIN ',
    '\\/',
    '\\u0073k-',
    '\\',
  ]
  const pem = `-----BEGIN ${'PRIVATE'} KEY-----!`
  for (const start of [...starts, pem, `tl_${'a'.repeat(8)}_`, `eyJ${'a'.repeat(12)}.`, `AKIA${'B'.repeat(15)}`]) {
    const request = logRequest(Buffer.from(start.repeat((1 << 22) / start.length)))
    maskSecrets('logs', request, new Map())
  }
})
