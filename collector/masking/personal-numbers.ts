// Numbers of persons in a text: cards, accounts, national ids, telephones. Text is read once, for digits; only where enough of
// them stand close together are the patterns asked, and of what is only a number or a decimal fraction nothing is asked that
// needs a separator. All patterns are of bounded length, so reading stays linear.
import { isCodiceFiscale, isCpf, isDni, isIban, isLuhn, isNir } from './checksums.ts'

export type NumberKind = 'card' | 'iban' | 'national_id' | 'phone'

export type Found<Kind extends string> = { readonly kind: Kind; readonly from: number; readonly to: number }

/** Digits in a cluster, below which it is no number of a person: a UK national insurance number has six. */
const clusterDigitsMin = 6
/** Signs between two digits of a cluster: letters in a Maltese account, with spaces around them. */
const gapMax = 12
/** Looked at before a cluster: the six letters of an Italian tax code, and its border. */
const headMax = 8
const tailMax = 3

const isDigit = (code: number): boolean => code >= 48 && code <= 57
const isUpper = (code: number): boolean => code >= 65 && code <= 90
/** Space, `(`, `)`, `-`, `.`, `/` and the no-break space. */
const isSeparator = (code: number): boolean =>
  code === 32 || code === 40 || code === 41 || (code >= 45 && code <= 47) || code === 0xa0

/** Finds what is wanted, in order and without overlap. */
export function findNumbers(text: string, wanted: ReadonlySet<string>): readonly Found<NumberKind>[] {
  const found: Found<NumberKind>[] = []
  const asked = patterns.filter(({ kind }) => wanted.has(kind))
  let behind = 0
  // Found by the engine's own search: a loop over the signs takes thirty times as long, and most texts have few digits.
  const nextDigit = /\d/g
  for (let digit = nextDigit.exec(text); digit !== null; digit = nextDigit.exec(text)) {
    const at = digit.index
    const cluster = readCluster(text, at)
    if (cluster.digits >= clusterDigitsMin && mayBePersonal(text, at, cluster)) {
      const from = Math.max(behind, at - headMax)
      for (const each of findInWindow(text, from, cluster.end + tailMax, asked)) found.push(each)
    }
    behind = cluster.end
    nextDigit.lastIndex = cluster.end
  }
  return found
}

type Cluster = {
  readonly end: number
  readonly digits: number
  readonly separators: number
  readonly letters: number
}

function readCluster(text: string, start: number): Cluster {
  let end = start
  let digits = 0
  let separators = 0
  let letters = 0
  let open = { separators: 0, letters: 0 }
  for (let at = start; at < text.length && at - end <= gapMax; at++) {
    const code = text.charCodeAt(at)
    if (isDigit(code)) {
      digits++
      separators += open.separators
      letters += open.letters
      if (open.separators + open.letters > 0) open = { separators: 0, letters: 0 }
      end = at + 1
    } else if (isUpper(code)) open.letters++
    else if (isSeparator(code)) open.separators++
    else break
  }
  return { end, digits, separators, letters }
}

/** Counts, ids, times and fractions are nearly all the digits of telemetry, and none of them comes further than here. */
function mayBePersonal(text: string, start: number, { end, digits, separators, letters }: Cluster): boolean {
  const before = text.charCodeAt(start - 1)
  const after = text.charCodeAt(end)
  if (letters > 0 || isUpper(before) || isUpper(after) || before === 43) return true
  if (separators === 0) return (digits >= 13 && digits <= 19) || (digits === 10 && text[start] === '0')
  const isFraction = separators === 1 && text.slice(start, end).includes('.')
  return !isFraction && !(separators > 0 && before === 46)
}

type Pattern = {
  readonly kind: NumberKind
  readonly pattern: RegExp
  /** How much of the match it is, 0 for nothing. */
  readonly judge: (match: string, after: string) => number
}

const whole = (check: (plain: string) => boolean) => (match: string) =>
  check(match.replace(/[^0-9A-Z]/g, '')) ? match.length : 0
const always = (match: string): number => match.length

/** Those with a check first: what a weaker pattern would also take is theirs. */
const patterns: readonly Pattern[] = [
  { kind: 'iban', pattern: /(?<![0-9A-Za-z])[A-Z]{2}\d{2}(?:[ -]?[0-9A-Z]){11,30}/g, judge: judgeIban },
  { kind: 'card', pattern: /(?<!\w)(?<!\d[.-])[2-6](?:[ -]?\d){12,18}/g, judge: judgeCard },
  {
    kind: 'national_id',
    pattern: /(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])/g,
    judge: always,
  },
  {
    kind: 'national_id',
    pattern: /(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[ABCEGHJ-PR-TW-Z][ABCEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)/g,
    judge: always,
  },
  { kind: 'national_id', pattern: /(?<![\w-])(?:[XYZ]-?\d{7}|\d{8})-?[A-HJ-NP-TV-Z](?![\w-])/g, judge: whole(isDni) },
  {
    kind: 'national_id',
    pattern: /(?<![\w.-])[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?![\w.-])/g,
    judge: whole(isNir),
  },
  {
    kind: 'national_id',
    pattern: /(?<!\w)[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z](?!\w)/g,
    judge: whole(isCodiceFiscale),
  },
  { kind: 'national_id', pattern: /(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])/g, judge: whole(isCpf) },
  // International: a plus sign or 00, and 8 to 15 digits (E.164).
  { kind: 'phone', pattern: /(?<![\w+])(?:\+|00[ -]?)\(?[1-9](?:[ ()./-]{0,2}\d){7,14}(?!\w)/g, judge: always },
  // North America: an area and an exchange never begin with 0 or 1.
  {
    kind: 'phone',
    pattern: /(?<!\w)(?<!\d[.+-])\(?[2-9]\d{2}(?:\) ?|[-. ])[2-9]\d{2}[-. ]\d{4}(?![\w-]|\.\d)/g,
    judge: always,
  },
  // With a trunk prefix, in the groupings of France, and of Germany and the United Kingdom.
  { kind: 'phone', pattern: /(?<!\w)(?<!\d[.+-])0[1-9](?:[ .]?\d{2}){4}(?![\w-]|\.\d)/g, judge: always },
  {
    kind: 'phone',
    pattern: /(?<!\w)(?<!\d[.+-])\(?0[1-9]\d{1,3}(?:\) ?|[ /-])\d{3,4}[ -]?\d{3,5}(?![\w-]|\.\d)/g,
    judge: always,
  },
]

function findInWindow(text: string, from: number, to: number, asked: readonly Pattern[]): readonly Found<NumberKind>[] {
  let found: readonly Found<NumberKind>[] = []
  // One sign more on each side, for the patterns to see what stands next to the window.
  const start = Math.max(0, from - 1)
  const window = text.slice(start, to + 1)
  for (const { kind, pattern, judge } of asked) {
    const fresh: Found<NumberKind>[] = []
    let next = 0
    pattern.lastIndex = from - start
    for (let match = pattern.exec(window); match !== null; match = pattern.exec(window)) {
      const matchEnd = match.index + match[0].length
      const length = judge(match[0], window.slice(matchEnd, matchEnd + 1))
      const place = { kind, from: start + match.index, to: start + match.index + length }
      while ((found[next]?.to ?? Number.POSITIVE_INFINITY) <= place.from) next++
      const isTaken = (found[next]?.from ?? Number.POSITIVE_INFINITY) < place.to
      if (length > 0 && !isTaken) fresh.push(place)
      // A match that is none may hide one that begins inside it.
      pattern.lastIndex = match.index + Math.max(1, length)
    }
    if (fresh.length > 0) found = [...found, ...fresh].sort((one, other) => one.from - other.from)
  }
  return found
}

/** Signs of an IBAN per country, as the SWIFT registry has them. */
const ibanLengths: Readonly<Record<string, number>> = {
  ...{ AD: 24, AE: 23, AL: 28, AT: 20, AZ: 28, BA: 20, BE: 16, BG: 22, BH: 22, BI: 27, BR: 29, BY: 28, CH: 21, CR: 22 },
  ...{ CY: 28, CZ: 24, DE: 22, DJ: 27, DK: 18, DO: 28, EE: 20, EG: 29, ES: 24, FI: 18, FK: 18, FO: 18, FR: 27, GB: 22 },
  ...{ GE: 22, GI: 23, GL: 18, GR: 27, GT: 28, HR: 21, HU: 28, IE: 22, IL: 23, IQ: 23, IS: 26, IT: 27, JO: 30, KW: 30 },
  ...{ KZ: 20, LB: 28, LC: 32, LI: 21, LT: 20, LU: 20, LV: 21, LY: 25, MC: 27, MD: 24, ME: 22, MK: 19, MN: 20, MR: 27 },
  ...{ MT: 31, MU: 30, NI: 28, NL: 18, NO: 15, OM: 23, PK: 24, PL: 28, PS: 29, PT: 25, QA: 29, RO: 24, RS: 22, RU: 33 },
  ...{ SA: 24, SC: 31, SD: 18, SE: 24, SI: 19, SK: 24, SM: 27, SO: 23, ST: 25, SV: 28, TL: 23, TN: 24, TR: 26, UA: 29 },
  ...{ VA: 22, VG: 24, XK: 20, YE: 30 },
}

/** Digits of a card, by what they begin with. */
const cardForms: readonly (readonly [prefix: RegExp, lengths: readonly number[]])[] = [
  [/^4/, [16, 19]],
  [/^(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)/, [16]],
  [/^3[47]/, [15]],
  [/^3(?:0[0-5]|[689])/, [14]],
  [/^35(?:2[89]|[3-8])/, [16]],
  [/^(?:6011|64[4-9]|65)/, [16, 19]],
  [/^62/, [16, 17, 18, 19]],
]

/** In fours, as American Express and Diners print them, or in one piece. */
const cardGroups = /^(?:(?:\d{4}[ -]){3,4}\d{1,4}|\d{4}[ -]\d{6}[ -]\d{4,5}|\d+)$/

function judgeIban(match: string, after: string): number {
  const length = ibanLengths[match.slice(0, 2)]
  if (length === undefined) return 0
  const taken = takeSigns(match, length, after)
  return taken > 0 && isIban(match.slice(0, taken).replace(/[ -]/g, '')) ? taken : 0
}

function judgeCard(match: string, after: string): number {
  const digits = match.replace(/\D/g, '')
  const lengths = cardForms.find(([prefix]) => prefix.test(digits))?.[1] ?? []
  for (const length of lengths) {
    const taken = takeSigns(match, length, after)
    if (taken > 0 && cardGroups.test(match.slice(0, taken)) && isLuhn(digits.slice(0, length))) return taken
  }
  return 0
}

/** The length of the first `count` letters and digits with what stands between them; 0 when there are fewer, or when the
 *  next sign goes on without a gap. */
function takeSigns(match: string, count: number, after: string): number {
  let seen = 0
  for (let at = 0; at < match.length; at++) {
    if (!/[0-9A-Z]/.test(match[at] as string)) continue
    seen++
    if (seen === count) return /\w/.test(match[at + 1] ?? after) ? 0 : at + 1
  }
  return 0
}
