import { expect, test } from 'vitest'
import { openGathering } from './gathering.ts'

/** No request waits this long in a test. */
const neverMs = 2 ** 31 - 1

/** A commit that takes `count` requests. */
async function commitOf(count: number, gathering: ReturnType<typeof openGathering>): Promise<void> {
  for (let left = count; left > 0; left--) gathering.arrived()
  await gathering.gather()
  gathering.taken()
}

test('gathering: behind a commit of eight the next waits until eight are there', async () => {
  const gathering = openGathering({ waitMsMax: neverMs, requestsMin: 8 })
  await commitOf(8, gathering)
  let isGathered = false
  const gathered = gathering.gather().then(() => {
    isGathered = true
  })
  for (let left = 7; left > 0; left--) {
    gathering.arrived()
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(isGathered).toBe(false)
  gathering.arrived()
  await gathered
})

test('gathering: what does not come is waited for as long as allowed, and then no longer expected', async () => {
  const gathering = openGathering({ waitMsMax: 5, requestsMin: 2 })
  await commitOf(8, gathering)
  gathering.arrived()
  const startedMs = performance.now()
  await gathering.gather()
  expect(performance.now() - startedMs).toBeGreaterThan(3)
  gathering.taken()
  const patient = openGathering({ waitMsMax: neverMs, requestsMin: 2 })
  await commitOf(1, patient)
  await commitOf(1, patient)
})

test('gathering: few requests do not wait for each other', async () => {
  const gathering = openGathering({ waitMsMax: neverMs, requestsMin: 8 })
  await commitOf(7, gathering)
  await commitOf(1, gathering)
  await commitOf(0, gathering)
})
