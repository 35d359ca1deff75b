// Secrets are masked in every string of a request before anything reads it: before the walk, and so before the journal, the
// quarantine and every table. They are written over in the request's own bytes, `[masked:openai]*****`, with the length they
// had. Decision 10 says why there, and what is not found.
import { viewOf } from '@tallylight/storage/clickhouse/stream.ts'
import type { Signal } from '../receive/request.ts'
import { openEscapeSearch, unescapeJson } from './escapes.ts'
import { openLiteralScan } from './literals.ts'
import {
  findAwsSecret,
  isNaming,
  judgeNamedValue,
  type SecretKind,
  secretKinds,
  secretRules,
  type Text,
  type Verdict,
} from './secret-rules.ts'
import { openTexts, type TextVisitor } from './texts.ts'

/** Masks in place, and adds how many of each kind there were. */
export type MaskSecrets = (signal: Signal, bytes: Buffer, counts: Map<string, number>) => void

const nobody = Buffer.alloc(0)
const asterisk = 0x2a
/** Candidates of one string that wait for the others. Of a text of nothing but candidates the rest is not worth the memory:
 *  judged at once, a secret in there is masked all the same, and named after what is before it and not after its owner. */
const lateMax = 4096
const labels = new Map(secretKinds.map((kind) => [kind, Buffer.from(`[masked:${kind}]`)]))

export function openSecretMask(): MaskSecrets {
  const scan = openLiteralScan(secretRules)
  const { hit } = scan
  const texts = openTexts()
  let bytes: Buffer = nobody
  let counted = new Map<string, number>()
  /** Up to where the strings are values of an attribute whose key says that they are secret. */
  let namedEnd = 0
  /** Per rule: up to where its candidates need no judgement. */
  const judgedTo = new Int32Array(secretRules.length)
  let late: { readonly at: number; readonly literal: number }[] = []
  const escapes = openEscapeSearch()
  /** What was masked in the text that is looked through. */
  let masked: { readonly of: SecretKind; readonly from: number; readonly to: number }[] = []

  function mask(of: SecretKind, from: number, to: number): void {
    writeOver(bytes, of, from, to)
    masked.push({ of, from, to })
    counted.set(of, (counted.get(of) ?? 0) + 1)
  }

  /** Masks what the verdict says; undefined when it says that there is nothing. */
  function maskFound(verdict: Verdict): number | undefined {
    if (verdict.kind === 'none') return undefined
    mask(verdict.of, verdict.from, verdict.to)
    return verdict.to
  }

  function judge(text: Text, at: number, literal: number): void {
    const rule = secretRules[literal]
    // An earlier mask may have been written over it.
    if (rule === undefined || at < (judgedTo[literal] as number) || !scan.isStillAt(at, literal)) return
    const verdict = rule.judge(text, at)
    judgedTo[literal] = verdict.kind === 'none' ? verdict.judgedTo : verdict.to
    const end = maskFound(verdict)
    if (end !== undefined && verdict.kind === 'secret' && verdict.of === 'aws') maskFound(findAwsSecret(text, end))
  }

  const visitor: TextVisitor = {
    skipsBytes: false,
    wants: (start, end) => {
      while (hit.at < start) scan.next()
      return hit.at < end || start < namedEnd
    },
    visit: (start, end, pairEnd, isUnknown) => {
      const text = { bytes, start, end, isUnknown }
      late = []
      for (; hit.at < end; scan.next()) {
        const rule = secretRules[hit.literal]
        // It may begin before the string, in its length, or end behind it.
        if (rule === undefined || hit.at < start || hit.at + rule.text.length > end) continue
        if (isNaming(rule, text, hit.at)) namedEnd = Math.max(namedEnd, pairEnd)
        if (rule.isLate && late.length < lateMax) late.push({ at: hit.at, literal: hit.literal })
        else judge(text, hit.at, hit.literal)
      }
      for (const { at, literal } of late) judge(text, at, literal)
      if (start < namedEnd && pairEnd === 0) maskFound(judgeNamedValue(text))
    },
  }

  /** Whether there is any candidate. */
  function start(looked: Buffer): boolean {
    scan.start(looked, viewOf(looked))
    bytes = looked
    namedEnd = 0
    masked = []
    judgedTo.fill(0)
    return hit.at < Number.POSITIVE_INFINITY
  }

  /** Before the others: a secret of which a part is masked is no secret any more, and its rest would stay. */
  function maskEscaped(signal: Signal, body: Buffer): void {
    escapes.start(body)
    if (!escapes.hasAny(0, body.length)) return
    texts(signal, body, {
      skipsBytes: false,
      wants: escapes.hasAny,
      visit: (from, to, _pairEnd, isUnknown) => {
        const read = unescapeJson(body, from, to)
        if (read === undefined || !start(read.bytes)) return
        visitor.visit(0, read.bytes.length, 0, isUnknown)
        for (const { of, from, to } of masked.sort((one, other) => one.from - other.from)) {
          const place = read.placeOf(from)
          writeOver(body, of, place, read.placeOf(to))
        }
      },
    })
  }

  return (signal, body, counts) => {
    counted = counts
    maskEscaped(signal, body)
    if (start(body)) texts(signal, body, visitor)
    bytes = nobody
    masked = []
  }
}

function writeOver(bytes: Buffer, of: SecretKind, from: number, to: number): void {
  const label = labels.get(of) as Buffer
  bytes.fill(asterisk, from, to)
  if (to - from >= label.length) label.copy(bytes, from)
}
