// What a secret looks like: a literal that finds a candidate, and a judgement of the bytes around it. One line for a kind of
// key whose form its provider has published; a function where a line does not say it.
//
// No judgement looks at a byte again and again: each says how far it has read in vain, and later candidates of its rule in
// there are not judged. Regular expressions would read `sk-sk-sk-…` to its end once for each of its literals.
import {
  alphanumeric,
  base64,
  base64Sign,
  digit,
  digitsIn,
  dot,
  hasEach,
  hasRandomPiece,
  isMixed,
  isOf,
  lower,
  percent,
  runEnd,
  runStart,
  startsWith,
  tilde,
  upper,
  word,
} from './byte-runs.ts'
import type { Literal } from './literals.ts'

export const secretKinds = [
  'tallylight',
  'openai',
  'anthropic',
  'openrouter',
  'langfuse',
  'google',
  'aws',
  'azure',
  'github',
  'gitlab',
  'slack',
  'stripe',
  'huggingface',
  'groq',
  'xai',
  'perplexity',
  'replicate',
  'nvidia',
  'langsmith',
  'pinecone',
  'tavily',
  'together',
  'cerebras',
  'sendgrid',
  'npm',
  'grafana',
  'vault',
  'jwt',
  'private_key',
  'bearer',
  'basic',
  'named',
] as const
export type SecretKind = (typeof secretKinds)[number]

/** One string of a record, as a place in the body; or bytes of which nobody knows what they are. */
export type Text = {
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  readonly isUnknown: boolean
}

export type Verdict =
  | { readonly kind: 'secret'; readonly of: SecretKind; readonly from: number; readonly to: number }
  /** There is none, nor would another candidate of this rule before `judgedTo` be one. */
  | { readonly kind: 'none'; readonly judgedTo: number }

export type SecretRule = Literal & {
  /** Asked after the others: it knows that a secret stands here and not whose. */
  readonly isLate: boolean
  /** The literal names a secret that stands behind it. */
  readonly isName: boolean
  readonly judge: (text: Text, at: number) => Verdict
}

/** What may not stand before the literal. Short literals also occur in words, and in the base64 of images. */
type Before = 'anything' | 'no_letter' | 'no_word'

type Form = {
  readonly tail: number
  /** Bytes behind the literal. */
  readonly min: number
  readonly before?: Before
  /** What random signs have, and words between dashes do not. */
  readonly needs?: number
  /** The literal says where, and is no part of the secret. */
  readonly isPlace?: boolean
}

function key(of: SecretKind, literals: string, form: Form): readonly SecretRule[] {
  const { tail, min, before = 'anything', needs = 0, isPlace = false } = form
  return literals.split(' ').map((text) => ({
    text,
    isAnyCase: false,
    isLate: false,
    isName: false,
    judge: (field, at) => {
      if (!isFree(field, at, before)) return none(at + 1)
      const from = at + text.length
      const to = runEnd(field.bytes, from, field.end, tail)
      if (to - from < min || !hasEach(field.bytes, from, to, needs)) return none(to)
      return secret(of, isPlace ? from : at, to)
    },
  }))
}

function rule(literals: string, judge: SecretRule['judge']): readonly SecretRule[] {
  return literals.split('|').map((text) => ({ text, isAnyCase: false, isLate: false, isName: false, judge }))
}

function lateRule(
  literals: string,
  judge: (text: Text, at: number, literal: string) => Verdict,
  isName = false,
): readonly SecretRule[] {
  return literals
    .split('|')
    .map((text) => ({ text, isAnyCase: true, isLate: true, isName, judge: (field, at) => judge(field, at, text) }))
}

const secret = (of: SecretKind, from: number, to: number): Verdict => ({ kind: 'secret', of, from, to })
const none = (judgedTo: number): Verdict => ({ kind: 'none', judgedTo })

function isFree({ bytes, start, isUnknown }: Text, at: number, before: Before): boolean {
  // Among unknown bytes the letter before may be a length.
  if (before === 'anything' || at === start || isUnknown) return true
  if (!isOf(bytes[at - 1] as number, before === 'no_letter' ? alphanumeric : word)) return true
  return isEscape(bytes, start, at)
}

/** Whether the letter or digit before `at` belongs to an escape (`\n`, `\u0022`, `%22`) and stands for another sign. */
function isEscape(bytes: Buffer, start: number, at: number): boolean {
  return escapes.some(({ mark, size }) => at - size >= start && startsWith(bytes, at - size, at, mark))
}

const escapes = [
  { mark: '\\', size: 2 },
  { mark: '%', size: 3 },
  { mark: '\\u', size: 6 },
] as const

/** The same for a run that was read backwards, into the escape before it: where the run begins without it. */
function withoutEscape(bytes: Buffer, start: number, from: number): number {
  const sign = from > start ? bytes[from - 1] : 0
  if (sign === 0x25) return from + 2
  if (sign !== 0x5c) return from
  return from + (bytes[from] === 0x75 ? 5 : 1)
}

// Our own, as makeKey of receive/keys.ts writes them: also in the path of the provider proxy.
function judgeOwnKey({ bytes, end }: Text, at: number): Verdict {
  const idEnd = runEnd(bytes, at + 3, Math.min(end, at + 12), digit | lower)
  if (idEnd - at !== 11 || !startsWith(bytes, idEnd, end, '_')) return none(at + 3)
  const to = runEnd(bytes, idEnd + 1, end, alphanumeric)
  return to - idEnd > 64 ? secret('tallylight', at, to) : none(to)
}

const skProviders: readonly (readonly [prefix: string, of: SecretKind])[] = [
  ['ant-', 'anthropic'],
  ['or-', 'openrouter'],
  ['lf-', 'langfuse'],
  ['proj-', 'openai'],
  ['svcacct-', 'openai'],
  ['admin-', 'openai'],
  ['None-', 'openai'],
]

/** `sk-` is the prefix of OpenAI and of the many that speak its protocol (DeepSeek, Moonshot, DashScope, LiteLLM), and the
 *  beginning or end of words: `sk-learn`, `helpdesk-admin-7d9f8b6c5d`. */
function judgeSk(text: Text, at: number): Verdict {
  const { bytes, end } = text
  const from = at + 3
  const provider = skProviders.find(([prefix]) => startsWith(bytes, from, end, prefix))
  if (!isFree(text, at, provider === undefined ? 'no_word' : 'no_letter')) return none(at + 1)
  const to = runEnd(bytes, from, end, word)
  if (to - from < 20) return none(to)
  if (provider !== undefined) return digitsIn(bytes, from, to) > 0 ? secret(provider[1], at, to) : none(to)
  const looksRandom = hasRandomPiece(bytes, from, to) || (to - from === 22 && isMixed(bytes, from, to))
  return looksRandom ? secret('openai', at, to) : none(to)
}

/** The id, of 20 signs. Its secret has no form but 40 signs of base64: findAwsSecret looks behind the id for it. */
function judgeAwsId(text: Text, at: number): Verdict {
  if (!isFree(text, at, 'no_letter')) return none(at + 1)
  const to = runEnd(text.bytes, at + 4, text.end, alphanumeric)
  const isId = to - at === 20 && runEnd(text.bytes, at + 4, to, digit | upper) === to
  return isId ? secret('aws', at, to) : none(to)
}

/** How far behind its id the secret is looked for: the next field of a credentials file or of a JSON object. */
const awsSecretDistanceMax = 160

export function findAwsSecret({ bytes, start, end }: Text, idEnd: number): Verdict {
  const last = Math.min(end, idEnd + awsSecretDistanceMax)
  for (let at = idEnd; at < last; ) {
    const to = runEnd(bytes, at, end, base64)
    // `key=SECRET`: what names the value ends with a sign of base64, too.
    const from = Math.max(at, to - 40)
    const isWhole = from === withoutEscape(bytes, start, at) || bytes[from - 1] === 0x3d
    if (to - from === 40 && isWhole && isMixed(bytes, from, to)) return secret('aws', from, to)
    at = to + 1
  }
  return none(last)
}

/** Keys that carry Azure's mark, in text of 84 signs (AI services) or 88 (storage, Cosmos DB). */
function judgeAzureMark({ bytes, start, end }: Text, at: number): Verdict {
  const from = withoutEscape(bytes, start, runStart(bytes, Math.max(start, at - 96), at, base64))
  const to = runEnd(bytes, at, end, base64)
  const bytesOfKey = to - from
  return bytesOfKey === 84 || bytesOfKey === 88 ? secret('azure', from, to) : none(to)
}

/** A client secret of Entra ID: three signs, a digit, `Q~`, 31 to 34 more. */
function judgeEntraSecret({ bytes, start, end }: Text, at: number): Verdict {
  const signs = word | dot | tilde
  const from = withoutEscape(bytes, start, runStart(bytes, Math.max(start, at - 9), at, signs))
  const to = runEnd(bytes, at, end, signs)
  return at - from === 3 && to - from >= 37 && to - from <= 40 ? secret('azure', from, to) : none(to)
}

/** Signed (two dots), signed by nobody (the last part empty), or encrypted (four dots). JSON in base64 without dots stays:
 *  it is a cursor or an image's manifest. */
function judgeJwt(text: Text, at: number): Verdict {
  const { bytes, end } = text
  if (!isFree(text, at, 'no_word')) return none(at + 1)
  const headerEnd = runEnd(bytes, at, end, word)
  if (headerEnd - at < 12 || !startsWith(bytes, headerEnd, end, '.')) return none(headerEnd)
  // The claims of a signed one are JSON as its header is; the second part of an encrypted one is a key, or empty.
  const partsMax = startsWith(bytes, headerEnd + 1, end, 'eyJ') ? 3 : 5
  let to = headerEnd
  let parts = 1
  while (parts < partsMax && startsWith(bytes, to, end, '.')) {
    to = runEnd(bytes, to + 1, end, word)
    parts++
  }
  return parts === 5 || (partsMax === 3 && to - headerEnd >= 12) ? secret('jwt', at, to) : none(headerEnd)
}

const pemLabelBytesMax = 48
const pemLineBytesMin = 32

/** To its end line, or as far as the text of a key goes when that was cut off. Line ends may be `\n` as JSON spells them. */
function judgePem({ bytes, end }: Text, at: number): Verdict {
  const labelFrom = at + '-----BEGIN '.length
  const labelEnd = bytes.subarray(0, Math.min(end, labelFrom + pemLabelBytesMax)).indexOf('-----', labelFrom)
  if (labelEnd < 0 || !bytes.toString('latin1', labelFrom, labelEnd).includes('PRIVATE KEY')) return none(labelFrom)
  let to = labelEnd + 5
  let lineFrom = to
  let longestLine = 0
  for (; to < end && isOfPem(bytes[to] as number) && !startsWith(bytes, to, end, '-----'); to++) {
    if (!isOf(bytes[to] as number, base64)) lineFrom = to + 1
    longestLine = Math.max(longestLine, to + 1 - lineFrom)
  }
  // A text about keys has the first line of one, and then words.
  if (longestLine < pemLineBytesMin) return none(to)
  if (startsWith(bytes, to, end, '-----END ')) {
    const lineEnd = bytes.subarray(0, Math.min(end, to + 9 + pemLabelBytesMax)).indexOf('-----', to + 9)
    if (lineEnd >= 0) to = lineEnd + 5
  }
  return secret('private_key', at, to)
}

/** Base64, the white space and the escapes between its lines, and `DEK-Info: AES-128-CBC,…` of encrypted ones. */
function isOfPem(byte: number): boolean {
  return isOf(byte, word | base64Sign) || ' \r\n\t\\:,"'.includes(String.fromCharCode(byte))
}

const tokenSigns = word | base64Sign | dot | tilde

function judgeBearer({ bytes, end }: Text, at: number, literal: string): Verdict {
  let from = at + literal.length
  while (from < end && bytes[from] === 0x20) from++
  const to = runEnd(bytes, from, end, tokenSigns)
  // "Bearer authentication" is no token; of random signs few are without a digit, and those are longer than words.
  const isToken = to - from >= 16 && (to - from >= 24 || digitsIn(bytes, from, to) > 0)
  return isToken ? secret('bearer', from, to) : none(to)
}

const credentialsBytesMax = 1024

/** `user:password` in base64. "Basic knowledge" is base64 too, of no text. */
function judgeBasic({ bytes, end }: Text, at: number, literal: string): Verdict {
  const from = at + literal.length
  const to = runEnd(bytes, from, end, base64)
  if (to - from < 8 || to - from > credentialsBytesMax) return none(to)
  const credentials = Buffer.from(bytes.toString('latin1', from, to), 'base64').toString()
  return /^[^\p{C}\ufffd:]*:[^\p{C}\ufffd]*$/u.test(credentials) ? secret('basic', from, to) : none(to)
}

const valueSigns = word | base64Sign
/** In JSON in JSON in JSON each quote has seven backslashes before it. */
const separatorsMax = 32

/** `api_key: "…"`, `client_secret=…`, `X-Api-Key:[…]`, `["x-api-key","…"]`: the name says that a secret follows, whatever its
 *  form. */
function judgeNamed({ bytes, end }: Text, at: number, literal: string): Verdict {
  const nameEnd = at + literal.length
  let from = nameEnd
  let hasSeparator = false
  while (from < end && from < nameEnd + separatorsMax) {
    const size = separatorSize(bytes, from, end)
    const sign = readSign(bytes, from, size)
    if (':=,'.includes(sign)) hasSeparator = true
    else if (!' \t\r\n"\'\\>[('.includes(sign)) break
    from += size
  }
  if (!hasSeparator) return none(nameEnd)
  if (literal === 'authorization') from = schemeEnd(bytes, from, end)
  const to = runEnd(bytes, from, end, valueSigns)
  return isNamedValue(bytes, from, to) ? secret('named', from, to) : none(to)
}

/** What stands between a name and its value is a sign, one as URLs spell it, or in a list of both the word `value`. */
function separatorSize(bytes: Buffer, at: number, end: number): number {
  if (bytes[at] === 0x25 && at + 3 <= end) return 3
  const isValue = startsWith(bytes, at, end, 'value') && '"\'\\'.includes(String.fromCharCode(bytes[at + 5] as number))
  return isValue ? 'value'.length : 1
}

function readSign(bytes: Buffer, at: number, size: number): string {
  if (size === 1) return String.fromCharCode(bytes[at] as number)
  return size === 3 ? String.fromCharCode(Number.parseInt(bytes.toString('latin1', at + 1, at + 3), 16)) : '"'
}

const schemeBytesMax = 20

/** `Authorization: Token …`, `ApiKey …`: behind the scheme, or where there is none. Those with a rule of their own are left to it. */
function schemeEnd(bytes: Buffer, from: number, end: number): number {
  const to = runEnd(bytes, from, end, word)
  if (to === from || to - from > schemeBytesMax || to === end || bytes[to] !== 0x20) return from
  return /^(bearer|basic)$/i.test(bytes.toString('latin1', from, to)) ? from : to + 1
}

/** Of some length and with digits: `api_key=YOUR_API_KEY_GOES_HERE` and `apiKey: settings.openai.key` are no secrets. */
function isNamedValue(bytes: Buffer, from: number, to: number): boolean {
  return to - from >= 20 && (isMixed(bytes, from, to) || digitsIn(bytes, from, to) >= 3)
}

/** The same of an attribute whose key is the name: all of its value is the secret, apart from a scheme, or nothing. */
export function judgeNamedValue({ bytes, start, end }: Text): Verdict {
  const from = schemeEnd(bytes, start, end)
  const isValue = runEnd(bytes, from, end, valueSigns) === end && isNamedValue(bytes, from, end)
  return isValue ? secret('named', from, end) : none(end)
}

/** Also behind something: `x-goog-api-key`, `OPENAI_API_KEY`. */
const names =
  'api_key|api-key|apikey|secret_access_key|secret-access-key|secretaccesskey|secret_key|secret-key|secretkey|' +
  'client_secret|client-secret|clientsecret|access_token|access-token|accesstoken|refresh_token|refreshtoken|' +
  'auth_token|auth-token|authtoken|api_token|api-token|apitoken|bearer_token|session_token|sessiontoken|security-token|subscription-key|' +
  'accountkey|sharedaccesskey|authorization'

export const secretRules: readonly SecretRule[] = [
  ...rule('tl_', judgeOwnKey),
  ...rule('sk-', judgeSk),
  ...key('google', 'AIza', { tail: word, min: 35, before: 'no_letter' }),
  ...key('google', 'GOCSPX-', { tail: word, min: 20 }),
  ...key('google', 'ya29.', { tail: word | dot, min: 20 }),
  ...key('google', 'AQ.Ab8', { tail: word | dot, min: 24 }),
  ...rule('AKIA|ASIA', judgeAwsId),
  ...key('aws', 'ABSK', { tail: base64, min: 80, before: 'no_letter' }),
  ...key('aws', 'bedrock-api-key-', { tail: base64, min: 20 }),
  ...rule('JQQJ99|+ASt|ACDb', judgeAzureMark),
  ...rule('0Q~|1Q~|2Q~|3Q~|4Q~|5Q~|6Q~|7Q~|8Q~|9Q~', judgeEntraSecret),
  ...key('azure', 'sig=', { tail: base64 | percent, min: 43, before: 'no_letter', isPlace: true }),
  ...key('github', 'ghp_ gho_ ghu_ ghr_', { tail: alphanumeric, min: 36, before: 'no_letter' }),
  ...key('github', 'ghs_', { tail: word | dot, min: 36, before: 'no_letter', needs: digit }),
  ...key('github', 'github_pat_', { tail: word, min: 40 }),
  ...key('gitlab', 'glpat-', { tail: word | dot, min: 20 }),
  ...key('slack', 'xoxa- xoxb- xoxc- xoxe- xoxo- xoxp- xoxr- xoxs-', { tail: word, min: 20, needs: digit }),
  // A cookie, and so escaped.
  ...key('slack', 'xoxd-', { tail: word | percent, min: 20 }),
  ...key('slack', 'xoxe.xox', { tail: word, min: 20, needs: digit }),
  ...key('slack', 'xapp-', { tail: word, min: 20, needs: digit }),
  ...key('slack', 'hooks.slack.com/services/', { tail: word | base64Sign, min: 20, isPlace: true }),
  ...key('stripe', 'sk_live_ sk_test_ rk_live_ rk_test_', { tail: alphanumeric, min: 16, before: 'no_letter' }),
  ...key('stripe', 'whsec_', { tail: base64, min: 24 }),
  ...key('huggingface', 'hf_', { tail: alphanumeric, min: 30, before: 'no_word', needs: upper }),
  ...key('huggingface', 'api_org_', { tail: alphanumeric, min: 30 }),
  ...key('groq', 'gsk_', { tail: alphanumeric, min: 40, before: 'no_letter' }),
  ...key('xai', 'xai-', { tail: alphanumeric, min: 60, before: 'no_letter' }),
  ...key('perplexity', 'pplx-', { tail: alphanumeric, min: 40 }),
  ...key('replicate', 'r8_', { tail: alphanumeric, min: 36, before: 'no_word' }),
  ...key('nvidia', 'nvapi-', { tail: word, min: 40 }),
  ...key('langsmith', 'lsv2_pt_ lsv2_sk_', { tail: word, min: 32 }),
  ...key('pinecone', 'pcsk_', { tail: word, min: 40 }),
  ...key('tavily', 'tvly-', { tail: word, min: 20 }),
  ...key('together', 'tgp_v1_', { tail: word, min: 30 }),
  ...key('cerebras', 'csk-', { tail: alphanumeric, min: 40, before: 'no_letter' }),
  ...key('sendgrid', 'SG.', { tail: word | dot, min: 60, before: 'no_word' }),
  ...key('npm', 'npm_', { tail: alphanumeric, min: 36, before: 'no_letter' }),
  ...key('grafana', 'glsa_', { tail: word, min: 32, needs: digit }),
  ...key('grafana', 'glc_eyJ', { tail: base64, min: 32 }),
  ...key('vault', 'hvs.', { tail: word, min: 24, before: 'no_letter' }),
  ...rule('eyJ', judgeJwt),
  ...rule('-----BEGIN ', judgePem),
  ...lateRule('bearer |bearer%20|bearer+', judgeBearer),
  ...lateRule('basic |basic%20|basic+', judgeBasic),
  ...lateRule(names, judgeNamed, true),
]

/** Whether the key of an attribute says that its value is a secret: it ends with a name. */
export function isNaming({ isName, text }: SecretRule, field: Text, at: number): boolean {
  return isName && at + text.length === field.end
}
