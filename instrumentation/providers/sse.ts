// Server-sent events out of bytes cut anywhere: line ends of all three kinds, fields without a space, comments, a byte order
// mark, several data lines. The data of an event goes into a JSON document as it comes, so that one event may be as long
// as it likes. An event without its closing empty line still counts at the end: its bytes were served.
import { limits } from '../limits.ts'
import { type JsonRead, openJsonDocument } from './json-document.ts'

export type SseReader = { write(bytes: Uint8Array): void; end(): void }

const lineFeed = 0x0a
const carriageReturn = 0x0d
const colon = 0x3a
const space = 0x20
const newline = Uint8Array.of(lineFeed)

const decoder = new TextDecoder()

export function openSse(onEvent: (name: string, data: JsonRead) => void): SseReader {
  const document = openJsonDocument()
  let field: 'name' | 'data' | 'event' | 'other' = 'name'
  let fieldName = ''
  let eventName = ''
  let hasData = false
  let isLineEmpty = true
  let isValueStart = false
  let isAfterReturn = false
  let isFirstByte = true

  function write(bytes: Uint8Array): void {
    let nextFeed = bytes.indexOf(lineFeed)
    let nextReturn = bytes.indexOf(carriageReturn)
    let at = 0
    while (at < bytes.length) {
      const byte = bytes[at] as number
      if (isAfterReturn) {
        isAfterReturn = false
        if (byte === lineFeed) {
          at++
          continue
        }
      }
      if (field === 'name' && byte !== lineFeed && byte !== carriageReturn) {
        nameByte(byte)
        at++
        continue
      }
      if (isValueStart && byte === space) {
        isValueStart = false
        at++
        continue
      }
      isValueStart = false
      if (nextReturn !== -1 && nextReturn < at) nextReturn = bytes.indexOf(carriageReturn, at)
      if (nextFeed !== -1 && nextFeed < at) nextFeed = bytes.indexOf(lineFeed, at)
      const end = Math.min(nextFeed === -1 ? bytes.length : nextFeed, nextReturn === -1 ? bytes.length : nextReturn)
      value(bytes.subarray(at, end))
      at = end
      if (end === bytes.length) return
      isAfterReturn = end === nextReturn
      lineEnd()
      at++
    }
  }

  function nameByte(byte: number): void {
    if (isFirstByte && (byte === 0xef || byte === 0xbb || byte === 0xbf)) return
    isFirstByte = false
    isLineEmpty = false
    if (byte !== colon) {
      if (fieldName.length < 16) fieldName += String.fromCharCode(byte)
      return
    }
    field = fieldName === 'data' ? 'data' : fieldName === 'event' ? 'event' : 'other'
    isValueStart = true
    if (field === 'event') eventName = ''
    if (field === 'data') {
      if (hasData) document.write(newline)
      hasData = true
    }
  }

  function value(bytes: Uint8Array): void {
    if (field === 'data') document.write(bytes)
    else if (field === 'event' && eventName.length < limits.eventNameBytesMax)
      eventName += decoder.decode(bytes.subarray(0, limits.eventNameBytesMax))
  }

  function lineEnd(): void {
    if (isLineEmpty) dispatch()
    isFirstByte = false
    field = 'name'
    fieldName = ''
    isLineEmpty = true
  }

  function dispatch(): void {
    if (hasData) {
      const data = document.end()
      if (data.kind !== 'empty') onEvent(eventName, data)
    }
    hasData = false
    eventName = ''
  }

  return { write, end: dispatch }
}
