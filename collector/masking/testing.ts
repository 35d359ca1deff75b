// Secrets as providers make them, for tests: put together from pieces, so that nothing in the repository looks like one, and
// the same in every run. And the least request that holds a text.
import { field } from '../otlp/envelope.ts'
import type { SecretKind } from './secret-rules.ts'

export type SecretExample = {
  readonly kind: SecretKind
  /** What stands in the text. */
  readonly text: string
  /** What of it must be gone. */
  readonly secret: string
}

const digits = '0123456789'
const lower = 'abcdefghijklmnopqrstuvwxyz'
const alphanumeric = `${lower.toUpperCase()}${lower}${digits}`
const urlSafe = `${alphanumeric}-_`
const standard = `${alphanumeric}+/`

/** Signs of an alphabet, a different sequence for every seed. The first signs are a digit, a capital and a small letter, if
 *  there are: a random key without one of them is too rare to be what a test means. */
export function signs(length: number, alphabet: string, seed: number): string {
  let state = seed * 2_654_435_761
  const next = (): string => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9
    return alphabet[(state >>> 8) % alphabet.length] as string
  }
  const first = ['7', 'K', 'q'].filter((sign) => alphabet.includes(sign))
  return first.concat(Array.from({ length: length - first.length }, next)).join('')
}

const hex = `${digits}abcdef`
const json = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

export function secretExamples(): readonly SecretExample[] {
  let seed = 0
  const sign = (length: number, alphabet = alphanumeric): string => signs(length, alphabet, ++seed)
  const plain = (kind: SecretKind, secret: string): SecretExample => ({ kind, text: secret, secret })
  const within = (kind: SecretKind, before: string, secret: string, behind = ''): SecretExample => ({
    kind,
    text: before + secret + behind,
    secret,
  })
  const dashed = (...pieces: readonly string[]): string => pieces.join('-')
  const joined = (...pieces: readonly string[]): string => pieces.join('_')
  const jwtHead = json({ alg: 'HS256', typ: 'JWT' })
  const jwtBody = json({ sub: '1234567890', name: 'Somebody', iat: 1_516_239_022 })
  const pem = (name: string, lineEnd: string): string =>
    [`-----BEGIN ${name}`, sign(64, standard), sign(64, standard), sign(20, standard), `-----END ${name}`].join(lineEnd)
  return [
    plain('tallylight', joined('tl', sign(8, hex), sign(64, hex))),
    within('tallylight', 'http://127.0.0.1:4320/', joined('tl', sign(8, hex), sign(64, hex)), '/openai/v1/chat'),
    plain('openai', dashed('sk', sign(48))),
    plain('openai', dashed('sk', 'proj', sign(156, urlSafe))),
    plain('openai', dashed('sk', 'svcacct', sign(60, urlSafe))),
    plain('openai', dashed('sk', 'admin', sign(60, urlSafe))),
    // DeepSeek and DashScope, LiteLLM, a proxy.
    plain('openai', dashed('sk', sign(32, hex))),
    plain('openai', dashed('sk', sign(22, urlSafe))),
    plain('openai', dashed('sk', sign(24))),
    plain('anthropic', dashed('sk', 'ant', 'api03', sign(93, urlSafe), 'AA')),
    plain('anthropic', dashed('sk', 'ant', 'oat01', sign(93, urlSafe), 'AA')),
    plain('openrouter', dashed('sk', 'or', 'v1', sign(64, hex))),
    plain('langfuse', dashed('sk', 'lf', sign(8, hex), sign(4, hex), sign(4, hex), sign(4, hex), sign(12, hex))),
    plain('google', `AI${`za${sign(35, urlSafe)}`}`),
    plain('google', dashed('GOCSPX', sign(28, urlSafe))),
    plain('google', `ya${29}.${sign(120, urlSafe)}`),
    plain('aws', `AK${`IA${sign(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}`}`),
    plain('aws', `AS${`IA${sign(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}`}`),
    plain('aws', `AB${`SK${sign(128, standard)}`}==`),
    within('named', 'aws_secret_access_key = ', sign(40, standard)),
    within('named', '{"SecretAccessKey": "', sign(40, standard), '"}'),
    plain('azure', `${sign(52)}${'JQQ'}${'J99'}${sign(26)}`),
    within('azure', '/container/blob?sv=2024-11-04&sr=b&sig=', `${sign(43)}%3D`, '&se=2027'),
    within('named', 'AccountName=books;AccountKey=', `${sign(86, standard)}==`, ';EndpointSuffix=core.windows.net'),
    plain('azure', `${sign(3)}8${'Q'}~${sign(34)}`),
    within('named', 'api-key: ', sign(32, hex)),
    ...['p', 'o', 'u', 's', 'r'].map((letter) => plain('github', joined(`gh${letter}`, sign(36)))),
    plain('github', joined('github', 'pat', sign(22), sign(59))),
    plain('gitlab', dashed('glpat', sign(20, urlSafe))),
    plain('slack', dashed('xoxb', sign(12, digits), sign(13, digits), sign(24))),
    plain('slack', dashed('xoxp', sign(12, digits), sign(12, digits), sign(32, hex))),
    plain('slack', dashed('xapp', '1', sign(11), sign(13, digits), sign(64, hex))),
    within('slack', 'https://hooks.slack.com/services/', `T${sign(8)}/B${sign(10)}/${sign(24)}`),
    plain('stripe', joined('sk', 'live', sign(24))),
    plain('stripe', joined('rk', 'test', sign(99))),
    plain('stripe', joined('whsec', sign(32))),
    plain('huggingface', joined('hf', sign(34, lower + lower.toUpperCase()))),
    plain('groq', joined('gsk', sign(52))),
    plain('xai', dashed('xai', sign(80))),
    plain('perplexity', dashed('pplx', sign(48))),
    plain('replicate', joined('r8', sign(37))),
    plain('nvidia', dashed('nvapi', sign(64, urlSafe))),
    plain('langsmith', joined('lsv2', 'pt', sign(32, hex), sign(10, hex))),
    plain('pinecone', joined('pcsk', sign(6), sign(60))),
    plain('tavily', dashed('tvly', 'dev', sign(32))),
    plain('together', joined('tgp', 'v1', sign(43, urlSafe))),
    plain('cerebras', dashed('csk', sign(48, lower + digits))),
    plain('sendgrid', `S${'G'}.${sign(22, urlSafe)}.${sign(43, urlSafe)}`),
    plain('npm', joined('npm', sign(36))),
    plain('grafana', joined('glsa', sign(32), sign(8, hex))),
    plain('vault', `hv${'s'}.${sign(24)}`),
    plain('jwt', `${jwtHead}.${jwtBody}.${sign(43, urlSafe)}`),
    plain('jwt', `${json({ alg: 'none' })}.${jwtBody}.`),
    plain(
      'jwt',
      `${json({ alg: 'dir', enc: 'A256GCM' })}..${sign(16, urlSafe)}.${sign(60, urlSafe)}.${sign(22, urlSafe)}`,
    ),
    plain('private_key', pem(`${'PRIVATE'} KEY-----`, '\n')),
    plain('private_key', pem(`RSA ${'PRIVATE'} KEY-----`, '\\n')),
    plain('private_key', pem(`OPENSSH ${'PRIVATE'} KEY-----`, '\r\n')),
    plain('private_key', pem(`PGP ${'PRIVATE'} KEY BLOCK-----`, '\n')),
    within('bearer', 'Authorization: Bearer ', sign(32, urlSafe)),
    within('bearer', 'authorization: bearer ', sign(64, hex), ', accept: */*'),
    within('basic', 'Authorization: Basic ', Buffer.from(`${sign(8)}:${sign(16)}`).toString('base64')),
    within('named', 'OPENAI_API_KEY="', sign(40), '"'),
    within('named', 'https://host/path?access_token=', sign(40), '&page=2'),
    within('bearer', 'authorization=Bearer%20', sign(40), '&page=2'),
    within('named', 'Authorization: Token ', sign(40, hex)),
    within('named', 'Authorization: ApiKey ', `${sign(58)}==`),
    within('named', 'map[X-Api-Key:[', sign(40), '] Accept:[*/*]]'),
    within('named', '{"x-api-key":["', sign(40), '"]}'),
    within('named', '[{"name":"x-api-key","value":"', sign(40), '"}]'),
    within('named', '["Api-Key", "', sign(40), '"]'),
    within('named', 'CLOUD_API_TOKEN=', sign(40)),
    within('named', '/login?next=%2Fhome%3Faccess_token%3D', sign(40), '%26page%3D2'),
    within('named', '{\\"client_secret\\":\\"', sign(40, urlSafe), '\\"}'),
  ]
}

/** A request of one log record whose body is the text. The text is its end. */
export function logRequest(body: Buffer): Buffer {
  return field(1, field(2, field(2, field(5, field(1, body)))))
}

const codeUnit = (sign: string): string => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`

/** JSON as its writers spell it: all say the same. */
export const jsonWriters: Readonly<Record<string, (text: string) => string>> = {
  JavaScript: (text) => JSON.stringify(text),
  PHP: (text) => JSON.stringify(text).replace(/\//g, '\\/'),
  Python: (text) => JSON.stringify(text).replace(/[\u0080-\uffff]/g, codeUnit),
  '.NET': (text) =>
    `"${JSON.stringify(text)
      .slice(1, -1)
      .replace(/\\"/g, '\\u0022')
      .replace(/[&+'<>`\u0080-\uffff]/g, (sign) => codeUnit(sign).toUpperCase().replace('U', 'u'))}"`,
  'each sign escaped': (text) => `"${text.replace(/[^\\]/gs, codeUnit).replace(/\\(?!u)/g, '\\\\')}"`,
}
