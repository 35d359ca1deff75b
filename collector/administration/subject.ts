// Whose records are looked for: a user's or a conversation's of one tenant. The name is asked for as it is in statements that
// are run and gone; in those that the server keeps (a mutation stands in a file and in system.mutations) only its salted hash.
import { hash, randomBytes } from 'node:crypto'
import { quoteText } from '@tallylight/storage/clickhouse/schema.ts'
import type { TenantId } from '../receive/request.ts'

export const subjectKinds = ['user', 'conversation'] as const
export type SubjectKind = (typeof subjectKinds)[number]

export type Subject = { readonly tenantId: TenantId; readonly kind: SubjectKind; readonly name: string }

/** Makes of an expression the condition that it is the subject's name. */
export type IsName = (expression: string) => string

export function isNameOf({ name }: Subject): IsName {
  return (expression) => `${expression} = ${quoteText(name)}`
}

export function isHashedNameOf({ name }: Subject, salt: string): IsName {
  return (expression) =>
    `SHA256(concat(${quoteText(salt)}, ${expression})) = unhex(${quoteText(nameHashOf(salt, name))})`
}

export function makeSalt(): string {
  return randomBytes(16).toString('hex')
}

/** SHA-256 in hex. */
export function nameHashOf(salt: string, name: string): string {
  return hash('sha256', salt + name, 'hex')
}
