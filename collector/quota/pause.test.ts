import { getEventListeners } from 'node:events'
import { expect, test } from 'vitest'
import { pause } from './pause.ts'

test('pause: ends by its time, when it is woken, and at the signal, and leaves nothing with the signal', async () => {
  const stop = new AbortController()
  const { promise, resolve } = Promise.withResolvers<void>()
  await pause(1, stop.signal)
  await pause(1, stop.signal, promise)
  let isOver = false
  const long = pause(3_600_000, stop.signal, promise).then(() => {
    isOver = true
  })
  await pause(5, stop.signal)
  expect(isOver).toBe(false)
  resolve()
  await long
  expect(getEventListeners(stop.signal, 'abort')).toEqual([])
  const stopped = pause(3_600_000, stop.signal)
  stop.abort()
  await stopped
  await pause(3_600_000, stop.signal)
  expect(getEventListeners(stop.signal, 'abort')).toEqual([])
})
