// Recordings of instrumented services as somebody of a tenant could have sent them: their times come to an hour ago, their
// traces and users are made one's own.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'

const fixtures = new URL('../../collector/genai/fixtures/', import.meta.url)

export type RecordedRequest = { readonly signal: 'traces' | 'logs'; readonly body: string }

export type Sender = {
  /** Takes the place of the recorded user. */
  readonly user: string
  /** Makes the ids of traces other ones. */
  readonly seed: string
  /** Takes the place of this text, wherever it stands, also in JSON inside of a string. */
  readonly texts?: readonly (readonly [recorded: string, sent: string])[]
}

/** The user of the recordings that have one. */
const recordedUser = 'user-7'

export function recordingOf(name: string, { user, seed, texts = [] }: Sender): readonly RecordedRequest[] {
  const files = [`${name}.json`, `${name}.logs.json`].filter((file) => existsSync(new URL(file, fixtures)))
  const recorded = files.map((file) => readFileSync(new URL(file, fixtures), 'utf8'))
  const times = recorded.flatMap((text) =>
    [...text.matchAll(/"\w*[tT]imeUnixNano": ?"?(\d{19})"?/g)].map(([, time]) => BigInt(time ?? 0)),
  )
  const shift = BigInt(Date.now() - 3_600_000) * 1_000_000n - (times.toSorted()[0] ?? 0n)
  return recorded.map((text, at) => {
    let body = text
      .replaceAll(
        /"(\w*[tT]imeUnixNano)": ?"?(\d{19})"?/g,
        (_all, key: string, time: string) => `"${key}":"${BigInt(time) + shift}"`,
      )
      .replaceAll(/"traceId": ?"([0-9a-f]{32})"/g, (_all, id: string) => `"traceId":"${traceIdOf(id, seed)}"`)
      .replaceAll(recordedUser, user)
    for (const [before, sent] of texts) body = body.replaceAll(before, sent)
    return { signal: files[at]?.endsWith('.logs.json') ? 'logs' : 'traces', body }
  })
}

export function traceIdOf(id: string, seed: string): string {
  return createHash('sha256').update(`${seed} ${id}`).digest('hex').slice(0, 32)
}
