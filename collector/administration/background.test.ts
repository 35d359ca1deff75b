import { expect, test, vi } from 'vitest'
import { openBackgrounds } from './background.ts'

test('background: each tenant has its own, none is told of another’s or refused for it, and one is done at a time', async () => {
  const runs = openBackgrounds<string>(new AbortController().signal)
  const ofAcme = Promise.withResolvers<string>()
  const begun: string[] = []
  const begin = (tenant: string | undefined, result: string | Promise<string>): boolean =>
    runs(tenant).begin(async () => {
      begun.push(`${tenant}`)
      return result
    })
  expect([begin('acme', ofAcme.promise), begin('globex', 'of globex'), begin('acme', 'again')]).toEqual([
    true,
    true,
    false,
  ])
  await vi.waitUntil(() => begun.length > 0)
  expect(begun).toEqual(['acme'])
  expect([runs('acme'), runs('globex'), runs(undefined)].map((run) => run.state().state)).toEqual([
    'running',
    'running',
    'idle',
  ])
  ofAcme.reject(new Error('acme has no rows'))
  await vi.waitUntil(() => runs('globex').state().state === 'done')
  expect(runs('acme').state()).toMatchObject({ state: 'failed', reason: 'Error: acme has no rows' })
  expect(runs('globex').state()).toMatchObject({ state: 'done', result: 'of globex' })
})
