// Who asks the API for what: bodies judged, and kept to the tenants that the asking key may name.
import type { Response } from 'express'
import { z } from 'zod'
import { type Identity, parseTenantId, type TenantId } from '../receive/request.ts'
import { problem } from './problem.ts'

export const tenantName = z.string().transform((text, context) => {
  const tenant = parseTenantId(text)
  if (tenant === undefined) context.addIssue('a tenant is 1–128 letters, digits and ._:@/-')
  return tenant ?? z.NEVER
})

/** Text that Postgres can hold. */
export function withoutNul(textMax: number): z.ZodString {
  return z
    .string()
    .max(textMax)
    .refine((text) => !text.includes('\0'), 'must not hold a NUL')
}

/** Answers 400 or 403 itself, and then undefined. */
export function parse<Asked extends object>(
  schema: z.ZodType<Asked>,
  body: unknown,
  response: Response,
): Asked | undefined {
  const parsed = schema.safeParse(body)
  if (!parsed.success) {
    const wrong = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`)
    problem(response, 400, wrong.join('; '))
    return undefined
  }
  const { tenant } = parsed.data as { readonly tenant?: TenantId | undefined }
  const identity = identityOf(response)
  if (tenant !== undefined && tenant !== identity.tenant && !identity.manyTenants) {
    problem(response, 403, 'the key is not marked for many tenants and may name its own only')
    return undefined
  }
  return parsed.data
}

/** Who asks, as the gate in front of the routes has found. */
export function identityOf(response: Response): Identity {
  return (response.locals as { readonly identity: Identity }).identity
}

/** The tenant whose things a key may see; undefined sees all. */
export function ownTenant(response: Response): TenantId | undefined {
  const { manyTenants, tenant } = identityOf(response)
  return manyTenants ? undefined : tenant
}

/** Answers 403 itself. */
export function isForAllTenants(response: Response): boolean {
  const { manyTenants } = identityOf(response)
  if (!manyTenants) problem(response, 403, 'this is for all tenants, and the key is not marked for many')
  return manyTenants
}
