// Where in a JSON document a byte stands: "resourceSpans[0].scopeSpans[0].spans[3].traceId". Only asked for when something is
// wrong, so that the reader itself keeps no path; it then reads the document once more up to that byte, which is known to be
// well-formed that far.
import { type Source, scanText, skipSpace } from './json-source.ts'

const segmentsMax = 12

type Level = { name: string; index: number }

/** The path to what stands at `offset`; '' for the document itself. */
export function pathAt(source: Source, offset: number): string {
  const { bytes } = source
  const levels: Level[] = []
  let at = skipSpace(source, 0)
  while (at < offset) {
    const byte = bytes[at]
    const top = levels.at(-1)
    if (byte === 0x22) {
      const end = textEnd(source, at + 1)
      const next = skipSpace(source, end)
      if (top && top.index < 0 && bytes[next] === 0x3a && end <= offset)
        top.name = safeName(bytes.toString('latin1', at + 1, end - 1))
      at = end
      continue
    }
    if (byte === 0x7b) levels.push({ name: '', index: -1 })
    else if (byte === 0x5b) levels.push({ name: '', index: 0 })
    else if (byte === 0x7d || byte === 0x5d) levels.pop()
    else if (byte === 0x2c && top) {
      top.name = ''
      if (top.index >= 0) top.index += 1
    }
    at += 1
  }
  const shown = levels
    .slice(0, segmentsMax)
    .map((level) => (level.index >= 0 ? `[${level.index}]` : level.name && `.${level.name}`))
  return `${shown.join('').replace(/^\./, '')}${levels.length > segmentsMax ? '…' : ''}`
}

/** The names of the members of the object at `start`, which is known to be well-formed; at most `max`. */
export function memberNames(source: Source, start: number, max: number): string[] {
  const { bytes, end } = source
  const names: string[] = []
  let depth = 0
  let at = start
  while (at < end && names.length < max) {
    const byte = bytes[at]
    if (byte === 0x22) {
      const after = textEnd(source, at + 1)
      if (depth === 1 && bytes[skipSpace(source, after)] === 0x3a)
        names.push(safeName(bytes.toString('latin1', at + 1, after - 1)))
      at = after
      continue
    }
    if (byte === 0x7b || byte === 0x5b) depth += 1
    else if (byte === 0x7d || byte === 0x5d) depth -= 1
    at += 1
  }
  return names
}

function textEnd(source: Source, start: number): number {
  let at = start
  for (;;) {
    at = scanText(source, at)
    const byte = source.bytes[at]
    if (byte === 0x22 || byte === undefined) return Math.min(at + 1, source.end)
    at += byte === 0x5c ? 2 : 1
  }
}

/** A name we do not know may be anything, a secret included: only what looks like a field's name is repeated. */
function safeName(name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_]{0,39}$/.test(name) ? name : '?'
}
