// `/api/v1/tenants` and `/api/v1/keys`. A key of one tenant sees and makes keys of that tenant alone, and none for many.
import type { KeyRow } from '@tallylight/storage/postgres/keys.ts'
import express, { type Router } from 'express'
import { z } from 'zod'
import { limits } from '../limits.ts'
import { reservedTenant, roles } from '../receive/key-rules.ts'
import type { Keyring } from '../receive/keys.ts'
import { identityOf, isForAllTenants, ownTenant, parse, tenantName, withoutNul } from './asking.ts'
import { notAllowed, problem } from './problem.ts'

const newTenantName = tenantName.refine(
  (text) => text !== reservedTenant,
  `the tenant ${reservedTenant} is the collector's own`,
)
const newKey = z.strictObject({
  tenant: newTenantName,
  roles: z.array(z.enum(roles)).min(1),
  name: withoutNul(200).default(''),
  manyTenants: z.boolean().default(false),
})
const newTenant = z.strictObject({ tenant: newTenantName })
const rotation = z.strictObject({
  graceSeconds: z.int().min(0).max(limits.keyGraceSecondsMax).default(limits.keyGraceSecondsUsual),
})

export function keyRoutes(keyring: Keyring): Router {
  const router = express.Router()
  router.param('id', (_request, response, next, id: string) => {
    // Postgres takes no NUL to look for.
    if (id.includes('\0')) problem(response, 404, 'there is no key with a NUL')
    else next()
  })

  router
    .route('/tenants')
    .get(async (_request, response) => {
      const own = ownTenant(response)
      const found = (await keyring.listTenants()).filter(({ id }) => own === undefined || id === own)
      response.json({ tenants: found.map(({ id, created_at, keys }) => ({ tenant: id, createdAt: created_at, keys })) })
    })
    .post(async (request, response) => {
      if (!isForAllTenants(response)) return
      const asked = parse(newTenant, request.body, response)
      if (asked === undefined) return
      const outcome = await keyring.createTenant(asked.tenant, identityOf(response).keyId)
      response.status(outcome === 'added' ? 201 : 200).json({ tenant: asked.tenant })
    })
    .all(notAllowed('GET, HEAD, POST'))

  router
    .route('/keys')
    .get(async (_request, response) => {
      const own = ownTenant(response)
      const found = (await keyring.list()).filter(({ tenant }) => own === undefined || tenant === own)
      response.json({ keys: found.map(shownKey) })
    })
    .post(async (request, response) => {
      const asked = parse(newKey, request.body, response)
      if (asked === undefined || (asked.manyTenants && !isForAllTenants(response))) return
      const made = await keyring.create(asked, identityOf(response).keyId)
      response.status(201).json({ id: made.id, key: made.key, tenant: asked.tenant, roles: asked.roles })
    })
    .all(notAllowed('GET, HEAD, POST'))
  router
    .route('/keys/:id')
    .delete(async (request, response) => {
      const { id } = request.params
      // Once more is no mistake: what was asked for is so.
      const outcome = await keyring.revoke(id, identityOf(response).keyId, ownTenant(response))
      if (outcome === 'unknown') problem(response, 404, `there is no key ${id.slice(0, 20)}`)
      else if (outcome === 'last_admin') problem(response, 409, lastAdmin(id))
      else response.status(204).end()
    })
    .all(notAllowed('DELETE'))
  router
    .route('/keys/:id/rotate')
    .post(async (request, response) => {
      const asked = parse(rotation, request.body ?? {}, response)
      if (asked === undefined) return
      const { id } = request.params
      const next = await keyring.rotate(id, asked.graceSeconds, identityOf(response).keyId, ownTenant(response))
      if (next === undefined)
        problem(response, 404, `there is no key ${id.slice(0, 20)} that could be rotated: a key is rotated once`)
      else response.status(201).json({ id: next.id, key: next.key, oldKeyExpiresAt: next.expiresAt })
    })
    .all(notAllowed('POST'))
  return router
}

function lastAdmin(id: string): string {
  return `${id} is the last key that administers all tenants, and without it nobody could make another: have one in its place (tallylight keys rotate ${id} --grace-seconds 0), or make one first (tallylight keys create --tenant default --roles admin --many-tenants)`
}

function shownKey(key: KeyRow): object {
  return {
    id: key.id,
    tenant: key.tenant,
    roles: key.roles,
    manyTenants: key.many_tenants,
    name: key.name,
    createdAt: key.created_at,
    revokedAt: key.revoked_at,
    expiresAt: key.expires_at,
    lastUsedAt: key.last_used_at,
  }
}
