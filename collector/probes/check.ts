// One look at a configured server: a request over HTTP, or `initialize` and `ping` of MCP, over streamable HTTP or with a command.
// Values of headers are read anew for each look, because tokens are rotated, and are in no error that it throws.
import { readFile } from 'node:fs/promises'
import { checkHttp } from '@tallylight/instrumentation/health/looks.ts'
import type { ProbeSetting } from '../config.ts'
import { limits } from '../limits.ts'

/** Of our side: the look was not made, and nothing is said of the server. */
export class NotLooked extends Error {}

export type Environment = Readonly<Record<string, string | undefined>>

export async function checkServer(
  probe: ProbeSetting,
  environment: Environment,
  signal: AbortSignal,
  finishLater: (work: Promise<void>) => void,
): Promise<object> {
  const headers = await readHeaders(probe, environment)
  try {
    if (probe.kind === 'http') return await checkHttp(probe.url, signal, headers)
    // Loaded only when it is wanted.
    const { checkMcp } = await import('./check-mcp.ts')
    return await checkMcp(probe, headers ?? {}, signal, finishLater)
  } catch (error) {
    throw withoutSecrets(error, Object.values(headers ?? {}))
  }
}

async function readHeaders(
  { target, headers }: ProbeSetting,
  environment: Environment,
): Promise<Readonly<Record<string, string>> | undefined> {
  if (headers === undefined) return undefined
  const read = Object.entries(headers).map(async ([name, source]) => {
    const place = 'file' in source ? `the file ${source.file}` : `the variable ${source.environment}`
    const text = 'file' in source ? await readValue(source.file) : environment[source.environment]
    const value = text?.trim()
    if (value === undefined)
      throw new NotLooked(`${target}: the header ${name} is to be had from ${place}, which is not there`)
    // A value that no header can have would be quoted by whoever refuses it.
    if (!/^[\t\x20-\x7e\x80-\xff]+$/.test(value))
      throw new NotLooked(`${target}: what ${place} holds is not the value of a header`)
    return [name, value] as const
  })
  return Object.fromEntries(await Promise.all(read))
}

async function readValue(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new NotLooked(`${path} cannot be read: ${code}`)
  }
}

/** Servers answer with pages, and with what they were sent. `fetch` hides what happened in the cause. */
function withoutSecrets(error: unknown, secrets: readonly string[]): Error {
  const { name, message, cause } = error instanceof Error ? error : new Error(String(error))
  // What is no HTTP at all has a code that is undefined.
  const reason = cause instanceof Error ? String(('code' in cause && cause.code) || cause.message) : ''
  let text = reason === '' ? message : `${message}: ${reason}`
  // A bearer token may come back without the word before it.
  const parts = secrets.flatMap((secret) => [secret, ...secret.split(/\s+/)]).filter((part) => part.length >= 6)
  for (const part of parts) text = text.replaceAll(part, '[masked]')
  const clean = new Error(text.slice(0, limits.probeMessageCharsMax))
  clean.name = name
  return clean
}
