import { expect, test } from 'vitest'
import { openRoom } from './room.ts'

test('room: a clock that is set back keeps nobody from seeing that there is room again, or none any more', async () => {
  let nowMs = 1_800_000_000_000
  let freeBytes = 100
  const room = openRoom({
    directory: '/journal',
    files: { space: async () => ({ freeBytes, totalBytes: 1000 }) },
    now: () => nowMs,
    bounds: { journalBytesMax: 1000, reserveBytes: () => 50, spaceCheckMs: 500 },
    bytes: () => 0,
    onFull: () => undefined,
  })
  await room.look()
  for (const [free, isThere] of [
    [10, false],
    [100, true],
  ] as const) {
    freeBytes = free
    nowMs -= 3_600_000
    await room.lookWhenDue()
    expect(room.missing() === undefined).toBe(isThere)
  }
})
