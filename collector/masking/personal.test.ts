import { expect, test } from 'vitest'
import { judgeOwnPattern, openPersonalMask, personalKinds } from './personal.ts'
import { jsonWriters } from './testing.ts'

const { maskText, maskBytes } = openPersonalMask({ kinds: personalKinds, patterns: [] })

/** The text with what is masked between ‹ and ›, and what each of it is, in order. */
const cases: readonly (readonly [marked: string, ...kinds: readonly string[]])[] = [
  ['write to ‹a.b+c@example.co.uk›.', 'email'],
  ['<‹somebody_else@mail.example.com›>, "‹x@y.io›"', 'email', 'email'],
  ['请发邮件到‹zhang@example.com›谢谢', 'email'],
  ['/search?user=‹jane%40example.org›&page=2', 'email'],
  ['mü‹ller@xn--bcher-kva.example›', 'email'],
  ['card ‹4111 1111 1111 1111› 12/27', 'card'],
  ['‹5555-5555-5555-4444›, ‹378282246310005›, ‹3782 822463 10005›', 'card', 'card', 'card'],
  ['{"number":"‹6011111111111117›"}', 'card'],
  ['‹DE89 3704 0044 0532 0130 00› BIC COBADEFF', 'iban'],
  ['IBAN:‹GB29NWBK60161331926819›.', 'iban'],
  ['‹MT84MALT011000012345MTLCAST001S› and ‹NO9386011117947›', 'iban', 'iban'],
  ['SSN ‹123-45-6789›', 'national_id'],
  ['NINO ‹AB 12 34 56 C›', 'national_id'],
  ['DNI ‹12345678Z›, NIE ‹X1234567L›', 'national_id', 'national_id'],
  ['NIR ‹1 84 12 76 451 089 46›', 'national_id'],
  ['codice fiscale ‹RSSMRA85T10A562S›', 'national_id'],
  ['CPF ‹529.982.247-25›', 'national_id'],
  ['call ‹+49 30 1234567› or ‹+1 (212) 555-0123›', 'phone', 'phone'],
  ['‹212-555-0123›, ‹(212) 555-0123›, ‹212.555.0123›', 'phone', 'phone', 'phone'],
  ['‹06 12 34 56 78›, ‹0612345678›', 'phone', 'phone'],
  ['‹020 7946 0958›, ‹0171/1234567›', 'phone', 'phone'],
]

test.each(cases)('personal: %s', (marked, ...kinds) => {
  const text = marked.replace(/[‹›]/g, '')
  const left = [...kinds]
  const masked = maskText(text)
  expect(masked.text).toBe(marked.replace(/‹[^›]*›/g, () => `[masked:${left.shift()}]`))
  expect([...masked.counts.values()].reduce((sum, count) => sum + count, 0)).toBe(kinds.length)
})

test.each(Object.entries(jsonWriters))(
  'personal: in JSON of %s it is masked wherever its line begins, in JSON in JSON too, and the JSON says the same besides',
  (_, write) => {
    for (const [marked] of cases) {
      const text = `«\n${marked.replace(/[‹›]/g, '')}\tC:\\new "so"`
      const parts = [...marked.matchAll(/‹([^›]*)›/g)].map(([, part]) => part as string)
      for (const json of [write(text), JSON.stringify(write(text))]) {
        const bytes = Buffer.from(json)
        const counts = new Map<string, number>()
        maskBytes(bytes, 0, bytes.length, counts)
        expect(bytes.length).toBe(Buffer.byteLength(json))
        expect(counts.values().reduce((sum, count) => sum + count, 0)).toBe(parts.length)
        let said = JSON.parse(bytes.toString()) as string
        if (json !== write(text)) said = JSON.parse(said) as string
        const rest = parts.reduce((left, part) => left.replace(part, ''), text)
        expect(said.replace(/\[masked:\w+\]\**|\*{5,}/g, '')).toBe(rest)
      }
    }
  },
)

test('personal: a number of JSON becomes null, at any depth, and one in a sentence does not', () => {
  const mask = (text: string): string => {
    const bytes = Buffer.from(text)
    maskBytes(bytes, 0, bytes.length, new Map())
    return bytes.toString()
  }
  const card = 4111111111111111
  const cards = JSON.stringify({ number: card, all: [card, 7, card], text: `card: ${card}, and so on` })
  const gone = { number: null, all: [null, 7, null], text: 'card: [masked:card]***, and so on' }
  expect(JSON.parse(mask(cards))).toEqual({ ...gone, text: expect.stringMatching(/^card: .*, and so on$/) })
  const inside = mask(JSON.stringify([{ arguments: cards }]))
  expect(JSON.parse((JSON.parse(inside) as [{ arguments: string }])[0].arguments)).toMatchObject({ all: gone.all })
  expect(mask(`card: ${card}, and so on`)).toBe('card: [masked:card]***, and so on')
})

test.each([
  '2026-11-20 12:00:05.123, 20/11/2026 and 12.11.2026',
  '1753142400000000000 ns, 1753142400000 ms',
  '0.0032103579999998148 and 4111111111.111111',
  '192.168.100.200:8080, 2001:db8::1',
  '550e8400-e29b-41d4-a716-446655440000',
  '4bf92f3577b34da6a3ce929d0e0e4736',
  'da39a3ee5e6b4b0d3255bfef95601890afd80709',
  '4111 1111 1111 1112 fails Luhn, 7111111111111111 is no card',
  '4111 11 111 11 11111 is not how cards are grouped',
  'DE88370400440532013000 fails modulo 97; ZZ89370400440532013000 is no country',
  '000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567 are no SSN',
  '12345678A, X1234567A, 529.982.247-26, RSSMRA85T10A562T fail their checks',
  'pkg@0.5b0.dev, @scope/pkg@1.2.3, git@github.com:org/repo, user@localhost, a@b',
  'GMT+0200 (2024), 1e+21, +12',
  '12345678 tokens, 1,234,567,890 bytes, 100 200 300 400',
  'gpt-4o-2024-08-06, claude-sonnet-4-5-20250929, v1.2.3-4567890123',
  'chatcmpl-123456789012345678, call_4111111111111111',
])('personal: %s stays', (text) => {
  expect(maskText(text)).toEqual({ text, counts: new Map() })
})

test('personal: only the kinds that are wanted are masked', () => {
  const text = 'a@example.com, +49 30 1234567, 4111 1111 1111 1111'
  expect(openPersonalMask({ kinds: ['phone'], patterns: [] }).maskText(text).text).toBe(
    'a@example.com, [masked:phone], 4111 1111 1111 1111',
  )
  expect(openPersonalMask({ kinds: [], patterns: [] }).maskText(text).text).toBe(text)
})

test('personal: own patterns are masked under their names, and what two find is masked once', () => {
  const patterns = [
    { name: 'employee', pattern: 'E-[0-9]{6}' },
    { name: 'street', pattern: '(?i)[a-zäöüß]+straße [0-9]+' },
    { name: 'mail', pattern: '[a-z]+@corp' },
  ]
  const mask = openPersonalMask({ kinds: ['email'], patterns })
  const masked = mask.maskText('E-123456 of Grüne Königstraße 12 is x@corp.example, E-12')
  expect(masked.text).toBe('[masked:employee] of Grüne [masked:street] is [masked:email], E-12')
  expect(masked.counts).toEqual(new Map(Object.entries({ employee: 1, street: 1, email: 1 })))
})

test('personal: a pattern that is none, that would need to go back, or that matches nothing is refused with the reason', () => {
  expect(judgeOwnPattern({ name: 'a', pattern: '[0-9' })).toMatch(/missing closing \]/)
  expect(judgeOwnPattern({ name: 'a', pattern: '(a)\\1' })).toMatch(/invalid escape/)
  expect(judgeOwnPattern({ name: 'a', pattern: '[0-9]*' })).toBe('it matches the empty text')
  expect(judgeOwnPattern({ name: 'a', pattern: '[0-9]+' })).toBeUndefined()
})

test('personal: bytes are masked in their place and keep their length, between signs of several bytes too', () => {
  const patterns = [{ name: 'street', pattern: '[A-Za-zöß]+straße' }]
  const mask = openPersonalMask({ kinds: personalKinds, patterns })
  const text = '日本 a@b.io 日本 4111 1111 1111 1111 é Königstraße ü'
  const bytes = Buffer.from(`<${text}>`)
  const counts = new Map<string, number>()
  mask.maskBytes(bytes, 1, bytes.length - 1, counts)
  expect(bytes.toString()).toBe('<日本 ****** 日本 [masked:card]****** é ************* ü>')
  expect(counts).toEqual(new Map(Object.entries({ email: 1, card: 1, street: 1 })))
  maskBytes(bytes, 1, bytes.length - 1, counts)
  expect(counts.size).toBe(3)
})

test('personal: text made of beginnings is read in time that grows with its length', () => {
  const starts = [
    '@',
    'a@',
    `${'a'.repeat(64)}@`,
    '1 ',
    '1 2',
    'GB29 ',
    '+1 ',
    '4111 ',
    '0123 ',
    '1.',
    'A1',
    '12-',
    '%40',
  ]
  for (const start of starts) {
    const time = (length: number): number => {
      const text = start.repeat(length / start.length)
      const before = process.cpuUsage().user
      maskText(text)
      return process.cpuUsage().user - before
    }
    time(1 << 15)
    expect(time(1 << 19), start).toBeLessThan(64 * time(1 << 15) + 50_000)
  }
})
