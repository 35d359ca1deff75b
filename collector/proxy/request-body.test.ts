import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { expect, test } from 'vitest'
import { openBodyRoom } from './request-body.ts'

/** A body that has come whole, and that nobody has read. */
function requestWith(body: string): IncomingMessage {
  const request = new IncomingMessage(new Socket())
  request.push(body)
  request.push(null)
  request.complete = true
  return request
}

test('body: counts until its call is over, and not longer', async () => {
  const room = openBodyRoom({ bodyBytesMax: 4, bytesMax: 6 })
  const read = await room.read(requestWith('four'))
  expect(read).toMatchObject({ kind: 'whole', bytes: Buffer.from('four') })
  expect(await room.read(requestWith('four'))).toEqual({ kind: 'no_room' })
  if (read.kind === 'whole') read.release()
  expect(await room.read(requestWith('four'))).toMatchObject({ kind: 'whole' })
  expect(await room.read(requestWith('longer'))).toEqual({ kind: 'too_large' })
})

test('body: of a client that has left, whole or not, before it was read or while it is, is left, and counts no more', async () => {
  const room = openBodyRoom({ bodyBytesMax: 4, bytesMax: 4 })
  const gone = requestWith('four')
  gone.destroy(new Error('aborted'))
  expect(await room.read(gone)).toEqual({ kind: 'left' })
  const going = requestWith('four')
  const reading = room.read(going)
  // As Node does it when a connection is lost: the bytes have been handed over, and the end is not any more.
  going.on('data', () => going.destroy(new Error('aborted')))
  expect(await reading).toEqual({ kind: 'left' })
  expect(await room.read(requestWith('four'))).toMatchObject({ kind: 'whole' })
})
