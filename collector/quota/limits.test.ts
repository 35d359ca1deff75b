import { expect, test } from 'vitest'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import { type Limit, limitOf, limitSchema, openLimits, type Subject } from './limits.ts'

const tenant = parseTenantId('acme') as TenantId
const call: Subject = { user: 'ada', key: '', model: 'm', provider: '', conversation: '' }

function limit(id: string, more: object, of: TenantId = tenant): Limit {
  return limitOf(
    of,
    id,
    limitSchema.parse({ measure: 'cost', amount: 1, window: 'day', action: 'block', ...more }),
    'api',
  )
}

test('limits: those of a call are those whose names are all its own, in the order of their ids, each in its account', () => {
  const limits = openLimits('1', [
    limit('a', { subject: { user: 'ada' } }),
    limit('b', {}),
    limit('c', { each: 'user' }),
    limit('d', { subject: { user: 'ada', model: 'm' }, each: 'model' }),
    limit('e', { subject: { user: 'ada', model: 'other' } }),
    limit('f', { subject: { model: 'm' }, each: 'conversation' }),
    limit('g', { subject: { user: 'm' } }),
    limit('h', { subject: { user: 'ada' } }, parseTenantId('rival')),
  ])
  const found = limits.match(tenant, call).map(({ limit: { id }, subject }) => [id, subject])
  expect(found).toEqual([
    ['a', ''],
    ['b', ''],
    ['c', 'ada'],
    ['d', 'm'],
    ['f', ''],
  ])
})

test('limits: of a tenant with a limit for each user, a call looks at those of its own user', () => {
  let looks = 0
  const all = Array.from({ length: 10_000 }, (_, at): Limit => {
    const { subject, ...rest } = limit(`l${at}`, { subject: { user: `u${at}` } })
    return {
      ...rest,
      get subject() {
        looks++
        return subject
      },
    }
  })
  const limits = openLimits('1', all)
  looks = 0
  expect(limits.match(tenant, { ...call, user: 'u7' })).toMatchObject([{ limit: { id: 'l7' } }])
  expect(looks).toBeLessThan(100)
})
