import { expect, test } from 'vitest'
import { type ConfigFile, maskingOf } from '../config.ts'
import { field } from '../otlp/envelope.ts'
import { type Identity, parseTenantId } from '../receive/request.ts'
import { openRequestMask } from './request-mask.ts'
import { secretExamples } from './testing.ts'

const address = 'somebody@example.com'
const secret = secretExamples()[0]?.secret ?? ''

const text = (value: string): Buffer => field(1, Buffer.from(value))
const attribute = (key: string, value: Buffer): Buffer => field(6, Buffer.concat([text(key), field(2, value)]))

function logOf(tenant?: string): Buffer {
  const named = tenant === undefined ? [] : [attribute('tallylight.tenant.id', text(tenant))]
  return field(
    2,
    Buffer.concat([
      field(5, text(`${address} ${secret}`)),
      ...named,
      attribute('blob', field(7, Buffer.from(address))),
    ]),
  )
}

function mask(masking: ConfigFile['masking'], identity: Partial<Identity>, ...records: readonly Buffer[]) {
  const tenant = parseTenantId('acme')
  if (tenant === undefined) throw new Error('acme is a tenant')
  const request = field(1, field(2, Buffer.concat(records)))
  const before = request.length
  const whole = { tenant, roles: new Set(['ingest' as const]), manyTenants: false, keyId: '', ...identity }
  const counts = openRequestMask(maskingOf(masking === undefined ? {} : { masking }))('logs', whole, request)
  expect(request.length).toBe(before)
  return { counts: Object.fromEntries(counts), text: request.toString('latin1') }
}

test('masking: without a word secrets are masked and addresses are not', () => {
  const masked = mask(undefined, {}, logOf())
  expect(masked.counts).toEqual({ tallylight: 1 })
  expect(masked.text).toContain(address)
})

test('masking: what is switched off is left as it is', () => {
  expect(mask({ secrets: false }, {}, logOf()).text).toContain(`${address} ${secret}`)
})

test('masking: everywhere is for all tenants, or for those that are named, and leaves bytes values', () => {
  const gone = `[masked:email]****** [masked:tallylight]`
  const everywhere = mask({ everywhere: true }, {}, logOf())
  expect(everywhere.counts).toEqual({ tallylight: 1, email: 1 })
  expect(everywhere.text).toContain(gone)
  expect(everywhere.text).toContain(address)
  expect(mask({ tenants: { acme: { everywhere: true } } }, {}, logOf()).text).toContain(gone)
  expect(mask({ tenants: { other: { everywhere: true } } }, {}, logOf()).text).not.toContain(gone)
  expect(mask({ everywhere: true, tenants: { acme: { everywhere: false } } }, {}, logOf()).text).not.toContain(gone)
})

test('masking: a request of a key of many tenants is masked when it names one that wants it, and names stay names', () => {
  const masking = { tenants: { 'ops@example.com': { everywhere: true } } }
  const many = { manyTenants: true }
  expect(mask(masking, many, logOf(), logOf('quiet')).counts).toEqual({ tallylight: 2 })
  const masked = mask(masking, many, logOf(), logOf('ops@example.com'))
  expect(masked.counts).toEqual({ tallylight: 2, email: 2 })
  expect(masked.text).toContain('ops@example.com')
  // Of a key of one tenant the attribute is a label, and decides nothing.
  expect(mask(masking, {}, logOf('ops@example.com')).counts).toEqual({ tallylight: 1 })
})
