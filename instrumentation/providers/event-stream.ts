// Amazon's event stream (`application/vnd.amazon.eventstream`) out of bytes cut anywhere: a prelude of two lengths and a
// checksum, headers, a JSON payload, a checksum. The prelude's checksum is verified, since its lengths decide where all
// that follows begins; after a wrong one nothing more is read. Payloads go into a JSON document as they come.
import { limits } from '../limits.ts'
import { type JsonRead, openJsonDocument } from './json-document.ts'

export type EventStreamEvent = {
  /** `event`, `exception` or `error`. */
  readonly messageType: string
  /** The name of the event or exception. */
  readonly name: string
  readonly data: JsonRead
}

export type EventStreamReader = {
  write(bytes: Uint8Array): void
  /** Half a message that never got its rest. */
  hasRest(): boolean
}

const preludeBytes = 12
const checksumBytes = 4
const decoder = new TextDecoder()

export function openEventStream(onEvent: (event: EventStreamEvent) => void, onBroken: () => void): EventStreamReader {
  const document = openJsonDocument()
  let state: 'prelude' | 'headers' | 'payload' | 'checksum' | 'broken' = 'prelude'
  let gathered = new Uint8Array(preludeBytes)
  let filled = 0
  let payloadLeft = 0
  let headers: EventHeaders = { messageType: '', name: '' }

  function write(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length && state !== 'broken') {
      if (state === 'payload') {
        const end = Math.min(bytes.length, at + payloadLeft)
        document.write(bytes.subarray(at, end))
        payloadLeft -= end - at
        at = end
        if (payloadLeft === 0) gather('checksum', checksumBytes)
        continue
      }
      const end = Math.min(bytes.length, at + gathered.length - filled)
      gathered.set(bytes.subarray(at, end), filled)
      filled += end - at
      at = end
      if (filled === gathered.length) complete()
    }
  }

  function gather(next: 'prelude' | 'headers' | 'checksum', length: number): void {
    state = next
    gathered = new Uint8Array(length)
    filled = 0
    if (length === 0) complete()
  }

  function complete(): void {
    if (state === 'prelude') readPrelude()
    else if (state === 'headers') {
      headers = readHeaders(gathered)
      state = 'payload'
      if (payloadLeft === 0) gather('checksum', checksumBytes)
    } else {
      onEvent({ ...headers, data: document.end() })
      gather('prelude', preludeBytes)
    }
  }

  function readPrelude(): void {
    const view = new DataView(gathered.buffer)
    const totalBytes = view.getUint32(0)
    const headersBytes = view.getUint32(4)
    payloadLeft = totalBytes - headersBytes - preludeBytes - checksumBytes
    if (
      crc32(gathered.subarray(0, 8)) !== view.getUint32(8) ||
      payloadLeft < 0 ||
      totalBytes > limits.eventStreamMessageBytesMax
    ) {
      state = 'broken'
      onBroken()
      return
    }
    gather('headers', headersBytes)
  }

  return { write, hasRest: () => state !== 'broken' && (state !== 'prelude' || filled > 0) }
}

type EventHeaders = { readonly messageType: string; readonly name: string }

/** Lengths of the values of each type; -1: two bytes of length stand before the value. */
const valueBytes = [0, 0, 1, 2, 4, 8, -1, -1, 8, 16] as const
const stringType = 7

function readHeaders(bytes: Uint8Array): EventHeaders {
  let messageType = ''
  let name = ''
  let at = 0
  while (at < bytes.length) {
    const nameLength = bytes[at] as number
    const header = decoder.decode(bytes.subarray(at + 1, at + 1 + nameLength))
    at += 1 + nameLength
    const type = bytes[at++] ?? 255
    let length: number | undefined = valueBytes[type]
    if (length === undefined) break
    if (length === -1) {
      length = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
      at += 2
    }
    if (type === stringType && length <= limits.eventNameBytesMax) {
      const value = decoder.decode(bytes.subarray(at, at + length))
      if (header === ':message-type') messageType = value
      if (header === ':event-type' || header === ':exception-type' || header === ':error-code') name = value
    }
    at += length
  }
  return { messageType, name }
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  return crc >>> 0
})

export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] as number)
  return (crc ^ 0xffffffff) >>> 0
}
