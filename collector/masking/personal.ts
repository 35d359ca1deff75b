// Personal data in a text: where it is, and the text without it. Pure, but for the patterns, which are compiled once.
//
// Users' own patterns run on re2js, in time linear in the text for each match; ours are bounded, and asked only where a cheap
// sign of them stands: an `@`, or digits close together.
import { RE2JS, RE2JSException } from 're2js'
import { unescapeJson } from './escapes.ts'
import { type Found, findNumbers } from './personal-numbers.ts'

export const personalKinds = ['email', 'phone', 'card', 'iban', 'national_id'] as const
export type PersonalKind = (typeof personalKinds)[number]

export type OwnPattern = { readonly name: string; readonly pattern: string }

export type PersonalOptions = {
  readonly kinds: readonly PersonalKind[]
  readonly patterns: readonly OwnPattern[]
}

export type Masked = {
  readonly text: string
  /** How many of each kind, or of each own pattern by its name. */
  readonly counts: ReadonlyMap<string, number>
}

export type PersonalMask = {
  /** The text with `[masked:email]` where an address was. The same text when nothing was. */
  maskText(text: string): Masked
  /** Masks UTF-8 in its place, as secrets are: with the length it had, and so that JSON stays JSON. Counts are added to
   *  `counts`. */
  maskBytes(bytes: Buffer, start: number, end: number, counts: Map<string, number>): void
}

/** Why a pattern cannot be used; undefined when it can. */
export function judgeOwnPattern({ pattern }: OwnPattern): string | undefined {
  try {
    return RE2JS.compile(pattern).matches('') ? 'it matches the empty text' : undefined
  } catch (error) {
    if (error instanceof RE2JSException) return error.message
    throw error
  }
}

const asterisk = 0x2a
const space = 0x20
const nothing: ReadonlyMap<string, number> = new Map()

export function openPersonalMask({ kinds, patterns }: PersonalOptions): PersonalMask {
  const wanted = new Set<string>(kinds)
  const wantsNumbers = kinds.some((kind) => kind !== 'email')
  const own = patterns.map(({ name, pattern }) => ({ name, compiled: RE2JS.compile(pattern) }))

  /** In order and without overlap. `text` has a sign per byte where `source` is bytes. */
  function find(text: string, source: string | Buffer): readonly Found<string>[] {
    const found: Found<string>[] = wanted.has('email') ? findEmails(text) : []
    if (wantsNumbers) for (const number of findNumbers(text, wanted)) found.push(number)
    for (const { name, compiled } of own) {
      const matcher = compiled.matcher(source)
      while (matcher.find()) {
        if (matcher.end() > matcher.start()) found.push({ kind: name, from: matcher.start(), to: matcher.end() })
      }
    }
    if (found.length < 2) return found
    found.sort((one, other) => one.from - other.from)
    let end = 0
    return found.filter(({ from, to }) => {
      if (from < end) return false
      end = to
      return true
    })
  }

  function maskText(text: string): Masked {
    const found = find(text, text)
    if (found.length === 0) return { text, counts: nothing }
    const counts = new Map<string, number>()
    const pieces: string[] = []
    let at = 0
    for (const { kind, from, to } of found) {
      pieces.push(text.slice(at, from), `[masked:${kind}]`)
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
      at = to
    }
    pieces.push(text.slice(at))
    return { text: pieces.join(''), counts }
  }

  function maskBytes(bytes: Buffer, start: number, end: number, counts: Map<string, number>): void {
    const unescaped = unescapeJson(bytes, start, end)
    const read = unescaped?.bytes ?? bytes.subarray(start, end)
    const placeOf = unescaped?.placeOf ?? ((at: number) => start + at)
    // A sign per byte, so that places in the text are places in the bytes.
    const text = read.toString('latin1')
    for (const found of find(text, own.length === 0 ? text : read)) {
      const from = placeOf(found.from)
      writeOver(bytes, found.kind, from, placeOf(found.to), isNumberOfJson(text, found))
      counts.set(found.kind, (counts.get(found.kind) ?? 0) + 1)
    }
  }

  return { maskText, maskBytes }
}

function writeOver(bytes: Buffer, kind: string, from: number, to: number, isNumber: boolean): void {
  const label = isNumber ? 'null' : `[masked:${kind}]`
  bytes.fill(isNumber ? space : asterisk, from, to)
  if (label.length <= to - from) bytes.write(label, from, 'latin1')
}

/** A number in JSON without quotes, where a label would be an error and null is a value at any depth: from the last quote to it
 *  there is nothing but numbers and what stands between values. */
function isNumberOfJson(text: string, { from, to }: Found<string>): boolean {
  if (to - from < 'null'.length || /\D/.test(text.slice(from, to))) return false
  if (!/^\s*[,\]}]/.test(text.slice(to, to + lookMax))) return false
  const lookedFrom = Math.max(0, from - lookMax)
  const looked = text.slice(lookedFrom, from)
  const quoteAt = looked.lastIndexOf('"')
  const isList = quoteAt < 0 && lookedFrom === 0 && /^\s*\[[\s\d.,[\]]*$/.test(looked)
  return isList || (quoteAt >= 0 && /^\s*[:,][\s\d.,[\]{}]*$/.test(looked.slice(quoteAt + 1)))
}

/** How far a number's place in JSON is looked for on each side of it. */
const lookMax = 256

/** Signs before and behind the `@` (RFC 5321 allows 64 and 255). ASCII alone: in Chinese an address stands between letters
 *  without a space, and none of them is its own. */
const localMax = 64
const domainMax = 255
const localSigns = /[\w.%+'-]/
const domainSigns = /[\w.-]/
/** As it is, and as it is spelled in a URL. */
const atSigns = ['@', '%40'] as const

function findEmails(text: string): Found<string>[] {
  const found: Found<string>[] = []
  for (const sign of atSigns) {
    for (let at = text.indexOf(sign); at >= 0; at = text.indexOf(sign, at + 1)) {
      let from = at
      while (from > 0 && at - from < localMax && localSigns.test(text[from - 1] as string)) from--
      while (/[.'-]/.test(text[from] as string)) from++
      const domainAt = at + sign.length
      let to = domainAt
      while (to < text.length && to - domainAt < domainMax && domainSigns.test(text[to] as string)) to++
      while (/[.-]/.test(text[to - 1] as string)) to--
      // `pkg@0.5b0.dev` is a version, `git@github.com:org/repo` a place.
      const isDomain = /^(?!\d+\.\d)(?!.*\.\.).+\.[a-zA-Z]{2,}$/.test(text.slice(domainAt, to))
      const isPlace = text[to] === ':' && /[\w/]/.test(text[to + 1] ?? '')
      if (from < at && isDomain && !isPlace) found.push({ kind: 'email', from, to })
    }
  }
  return found
}
