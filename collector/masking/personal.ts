// Personal data in a text: where it is, and the text without it. Pure, but for the patterns, which are compiled once.
//
// Users' own patterns run on re2js, in time linear in the text for each match; ours are bounded, and asked only where a cheap
// sign of them stands: an `@`, or digits close together.
import { RE2JS, RE2JSException } from 're2js'
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
  /** Masks UTF-8 in its place, as secrets are: with the length it had. Counts are added to `counts`. */
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
    // A sign per byte, so that places in the text are places in the bytes.
    const text = bytes.toString('latin1', start, end)
    for (const { kind, from, to } of find(text, own.length === 0 ? text : bytes.subarray(start, end))) {
      const label = `[masked:${kind}]`
      bytes.fill(asterisk, start + from, start + to)
      if (label.length <= to - from) bytes.write(label, start + from, 'latin1')
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
    }
  }

  return { maskText, maskBytes }
}

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
