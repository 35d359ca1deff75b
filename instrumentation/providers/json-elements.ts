// The elements of one JSON array that arrives in pieces, each as soon as it ends: Gemini streams so where nobody asked for
// events. What is not an array is one element.
import { type JsonRead, openJsonDocument } from './json-document.ts'

export type JsonElements = { write(bytes: Uint8Array): void; end(): void }

const quote = 0x22
const backslash = 0x5c

export function openJsonElements(onElement: (element: JsonRead) => void): JsonElements {
  const document = openJsonDocument()
  let isArray: boolean | undefined
  let depth = 0
  let isInString = false
  let isEscaped = false

  function write(bytes: Uint8Array): void {
    let from = 0
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at] as number
      if (isArray === undefined) {
        if (byte <= 0x20) continue
        isArray = byte === 0x5b
        if (isArray) from = at + 1
        depth = isArray ? 0 : 1
        if (isArray) continue
      }
      if (!isArray) break
      if (isEscaped) isEscaped = false
      else if (isInString) {
        if (byte === backslash) isEscaped = true
        else if (byte === quote) isInString = false
      } else if (byte === quote) isInString = true
      else if (byte === 0x7b || byte === 0x5b) depth++
      else if (depth > 0 && (byte === 0x7d || byte === 0x5d)) depth--
      else if (depth === 0 && (byte === 0x2c || byte === 0x5d)) {
        document.write(bytes.subarray(from, at))
        from = at + 1
        emit()
      }
    }
    document.write(bytes.subarray(from))
  }

  function emit(): void {
    const element = document.end()
    const isSpace = element.kind === 'broken' && element.text.trim() === ''
    if (element.kind !== 'empty' && !isSpace) onElement(element)
  }

  return { write, end: emit }
}
