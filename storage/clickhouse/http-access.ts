// Who may speak to the embedded ClickHouse: the collector, and readers with a key. Everything else on the machine, pages in a
// browser among it, can reach the port too.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Refusal } from './http-exception.ts'

export type Role = 'owner' | 'reader'

export const ownerUser = 'tallylight_collector'
export const readerUser = 'tallylight'

export type Access = {
  /** Throws a Refusal for what is neither. */
  identify(request: IncomingMessage, parameters: URLSearchParams): Role
  setReaderKeys(keyHashes: readonly string[]): void
}

export function openAccess(ownerPassword: string): Access {
  const ownerHash = sha256(ownerPassword)
  let readerHashes: readonly Buffer[] = []
  return {
    identify: (request, parameters) => {
      const { user, password } = credentialsOf(request, parameters)
      if (user === undefined && password === undefined) {
        throw new Refusal(
          194,
          'REQUIRED_PASSWORD',
          `Authentication failed: password is required; read as user ${readerUser}, with a key as the password`,
        )
      }
      const hash = sha256(password ?? '')
      if (user === ownerUser && timingSafeEqual(hash, ownerHash)) return 'owner'
      if (user === readerUser && readerHashes.some((known) => timingSafeEqual(known, hash))) return 'reader'
      const name = (user ?? 'default').slice(0, 100)
      throw new Refusal(
        516,
        'AUTHENTICATION_FAILED',
        `${name}: Authentication failed: password is incorrect, or there is no user with such name`,
      )
    },
    setReaderKeys: (keyHashes) => {
      readerHashes = keyHashes
        .map((hash) => Buffer.from(hash, 'hex'))
        .filter((hash) => hash.length === ownerHash.length)
    },
  }
}

/** A page whose name was made to point at 127.0.0.1 sends that name as Host, and any page sends its Origin with a POST. */
export function assertNotFromPage(request: IncomingMessage, isLoopback: boolean): void {
  const { host, origin } = request.headers
  if (isLoopback && host !== undefined && !isLoopbackName(host)) {
    throw new Refusal(
      497,
      'ACCESS_DENIED',
      `this endpoint answers to loopback names only, not to ${host.slice(0, 100)}`,
    )
  }
  if (origin !== undefined && origin !== `http://${host ?? ''}`) {
    throw new Refusal(497, 'ACCESS_DENIED', `this endpoint does not answer pages of ${origin.slice(0, 100)}`)
  }
}

export function isLoopbackName(host: string): boolean {
  return /^(127(\.\d{1,3}){3}|localhost|\[::1\]|::1)(:\d+)?$/i.test(host)
}

function credentialsOf(
  request: IncomingMessage,
  parameters: URLSearchParams,
): { readonly user: string | undefined; readonly password: string | undefined } {
  const user = request.headers['x-clickhouse-user']
  const key = request.headers['x-clickhouse-key']
  if (user !== undefined || key !== undefined) return { user: user?.toString(), password: key?.toString() }
  const encoded = /^Basic +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (encoded !== undefined) {
    const text = Buffer.from(encoded, 'base64').toString()
    const colon = text.indexOf(':')
    return colon < 0
      ? { user: text, password: undefined }
      : { user: text.slice(0, colon), password: text.slice(colon + 1) }
  }
  return { user: parameters.get('user') ?? undefined, password: parameters.get('password') ?? undefined }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
