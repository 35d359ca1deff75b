// Server-sent events out of bytes cut anywhere: line ends of all three kinds, fields without a space, comments, a byte order
// mark, several data lines. The data of an event goes into a JSON document as it comes, so that one event may be as long
// as it likes. An event without its closing empty line still counts at the end: its bytes were served.
import { limits } from '../limits.ts'
import { type JsonRead, openJsonDocument } from './json-document.ts'

export type SseReader = {
  /** Gives whether all of it was plain events, each of them whole. */
  write(bytes: Uint8Array): boolean
  end(): void
}

/** `event` is all of its bytes, where they came in one piece. */
export type OnSseEvent = (name: string, data: JsonRead, event: Uint8Array | undefined) => void

const lineFeed = 0x0a
const carriageReturn = 0x0d
const colon = 0x3a
const space = 0x20
const newline = Uint8Array.of(lineFeed)

const decoder = new TextDecoder()

/** Gives the end of an event that begins there and was taken, else -1. */
type TakeEvent = (bytes: Uint8Array, at: number) => number

export function openSse(onEvent: OnSseEvent, takePlain: TakeEvent = () => -1): SseReader {
  const document = openJsonDocument()
  let field: 'name' | 'data' | 'event' | 'other' = 'name'
  let fieldName = ''
  let eventName = ''
  let hasData = false
  let isLineEmpty = true
  let isValueStart = false
  let isAfterReturn = false
  let isFirstByte = true

  function write(bytes: Uint8Array): boolean {
    let at = plainEnd(bytes, 0)
    if (at === bytes.length) return true
    let eventFrom = isBetween() ? at : -1
    let nextFeed = bytes.indexOf(lineFeed, at)
    let nextReturn = bytes.indexOf(carriageReturn, at)
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
      if (end === bytes.length) return false
      isAfterReturn = end === nextReturn
      at++
      lineEnd(eventFrom === -1 ? undefined : bytes.subarray(eventFrom, at))
      if (!isBetween()) continue
      at = plainEnd(bytes, at)
      eventFrom = at
    }
    return false
  }

  function isBetween(): boolean {
    return isLineEmpty && !hasData && eventName === '' && !isAfterReturn
  }

  /** Where the plain events that begin there end. */
  function plainEnd(bytes: Uint8Array, from: number): number {
    let at = from
    if (!isBetween()) return at
    for (let end = at; end !== -1 && at < bytes.length; end = takePlain(bytes, at)) at = end
    return at
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

  function lineEnd(event: Uint8Array | undefined): void {
    if (isLineEmpty) dispatch(event)
    isFirstByte = false
    field = 'name'
    fieldName = ''
    isLineEmpty = true
  }

  function dispatch(event: Uint8Array | undefined): void {
    if (hasData) {
      const data = document.end()
      if (data.kind !== 'empty') onEvent(eventName, data, event)
    }
    hasData = false
    eventName = ''
  }

  return { write, end: () => dispatch(undefined) }
}
