import { expect, test } from 'vitest'
import { openBodies } from './bodies.ts'
import { tenantOf } from './fixtures/receiver.ts'

const [a, b, c] = ['a', 'b', 'c'].map(tenantOf) as [
  ReturnType<typeof tenantOf>,
  ReturnType<typeof tenantOf>,
  ReturnType<typeof tenantOf>,
]

test('bodies: a tenant with nothing in flight gets one body up to all there is', () => {
  const bodies = openBodies({ bytesMax: 100, bodyBytesMax: 100 })
  const whole = bodies.open(a, 100)
  expect(whole).toBeDefined()
  expect(bodies.open(b, 1)).toBeUndefined()
  whole?.release()
  expect(bodies.open(b, 1)).toBeDefined()
})

test('bodies: one tenant holds half of all at most, however many requests it has', () => {
  const bodies = openBodies({ bytesMax: 1000, bodyBytesMax: 100 })
  let opened = 0
  while (bodies.open(a, 10)) opened++
  expect(opened).toBe(50)
  expect(bodies.open(b, 100)).toBeDefined()
})

test('bodies: busy tenants share, and always leave room for one more', () => {
  const bodies = openBodies({ bytesMax: 1000, bodyBytesMax: 100 })
  const held = new Map([a, b].map((tenant) => [tenant, 0]))
  for (let round = 0; round < 1000; round++) {
    for (const tenant of [a, b]) if (bodies.open(tenant, 10)) held.set(tenant, (held.get(tenant) ?? 0) + 10)
  }
  expect([...held.values()]).toEqual([330, 330])
  expect(bodies.open(c, 100)).toBeDefined()
})

test('bodies: a body of unknown length is counted as it grows, and refused where it may not', () => {
  const bodies = openBodies({ bytesMax: 200_000, bodyBytesMax: 100_000 })
  const body = bodies.open(a, undefined)
  expect(bodies.heldBytes()).toBe(0)
  expect(body?.append(Buffer.alloc(1))).toBe('kept')
  expect(bodies.heldBytes()).toBe(16 * 1024)
  expect(body?.append(Buffer.alloc(99_999))).toBe('kept')
  expect(body?.append(Buffer.alloc(1))).toBe('too_large')
  expect(bodies.open(a, 100_000)).toBeUndefined()
  body?.release()
  body?.release()
  expect(bodies.heldBytes()).toBe(0)
})

test('bodies: a body that finds no room while it grows says so', () => {
  const bodies = openBodies({ bytesMax: 100_000, bodyBytesMax: 100_000 })
  const growing = bodies.open(a, undefined)
  bodies.open(b, 90_000)
  expect(growing?.append(Buffer.alloc(5_000))).toBe('no_room')
})

test('bodies: pieces of any size come out in order; one piece comes out as it is', () => {
  const bodies = openBodies({ bytesMax: 1 << 20, bodyBytesMax: 1 << 20 })
  const text = 'abcdefghij'.repeat(10_000)
  for (const expected of [undefined, text.length]) {
    const body = bodies.open(a, expected)
    for (let at = 0, step = 1; at < text.length; at += step, step = (step * 7) % 4001) {
      body?.append(Buffer.from(text.slice(at, at + step)))
    }
    expect(body?.bytes().toString()).toBe(text)
  }
  const piece = Buffer.from(text)
  const whole = bodies.open(a, piece.length)
  whole?.append(piece)
  expect(whole?.bytes()).toBe(piece)
})

test('bodies: more than was announced is refused', () => {
  const body = openBodies({ bytesMax: 100, bodyBytesMax: 100 }).open(a, 10)
  expect(body?.append(Buffer.alloc(11))).toBe('too_large')
})
