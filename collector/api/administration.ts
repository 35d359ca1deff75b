// `/api/v1/erasures`, `/holds`, `/retention/apply`, `/reprice`: what an administrator asks of records that are there. A key of one tenant asks for its
// own tenant; one marked for many tenants names any.
import type { ErasureRow } from '@tallylight/storage/postgres/erasures.ts'
import type { HoldRow } from '@tallylight/storage/postgres/holds.ts'
import express, { type Response, type Router } from 'express'
import { z } from 'zod'
import type { Administration } from '../administration/administration.ts'
import type { Background } from '../administration/background.ts'
import type { Subject } from '../administration/subject.ts'
import type { AppliedSetting } from '../changed-settings.ts'
import type { TenantId } from '../receive/request.ts'
import { identityOf, isForAllTenants, ownTenant, parse, tenantName, withoutNul } from './asking.ts'
import { notAllowed, problem } from './problem.ts'

export type AdministrationRoutes = Omit<Administration, 'run'>

const name = withoutNul(16_384).min(1)
const whose = { tenant: tenantName, user: name.optional(), conversation: name.optional() }
const erasure = z
  .strictObject({ ...whose, dryRun: z.boolean().default(false) })
  .refine(({ user, conversation }) => (user === undefined) !== (conversation === undefined), {
    message: 'name a user or a conversation, one of the two',
  })
const hold = z
  .strictObject({ ...whose, reason: withoutNul(2_000).min(1) })
  .refine(({ user, conversation }) => user === undefined || conversation === undefined, {
    message: 'name a user, a conversation, or neither to hold all of the tenant',
  })

const dryRun = z.strictObject({ dryRun: z.boolean().default(false) })
const time = z.union([z.iso.datetime({ offset: true }), z.iso.date()])
const repriceBody = z.strictObject({ tenant: tenantName.optional(), from: time.optional(), to: time.optional() })

/** `isSettingChanged`: the file says something else by now than what would be applied. */
export function administrationRoutes(
  administration: AdministrationRoutes,
  isSettingChanged: (setting: AppliedSetting) => Promise<boolean>,
): Router {
  const { erasures, holds, isTenantKnown, retention, retentionRun, reprice, repriceRuns } = administration
  const router = express.Router()

  /** Answers 404 itself: a slip in the name must not be proved erased, or thought held. */
  async function isThere(tenant: TenantId, response: Response): Promise<boolean> {
    const isKnown = await isTenantKnown(tenant)
    if (!isKnown) problem(response, 404, `there is no tenant ${tenant}, and no record of one`)
    return isKnown
  }

  /** Answers 409 itself: records would be given what the file said before, and whoever changed it would think it done. */
  async function isInForce(setting: AppliedSetting, response: Response): Promise<boolean> {
    const isChanged = await isSettingChanged(setting)
    if (isChanged)
      problem(
        response,
        409,
        `the file has another ${setting} than the collector has read at its start: restart it first`,
      )
    return !isChanged
  }

  router
    .route('/erasures')
    .get(async (_request, response) => {
      response.json({ erasures: (await erasures.list(ownTenant(response))).map(shownErasure) })
    })
    .post(async (request, response) => {
      const asked = parse(erasure, request.body, response)
      if (asked === undefined) return
      if (!(await isThere(asked.tenant, response))) return
      const subject = subjectOf(asked)
      if (asked.dryRun) {
        const counted = await erasures.preview(subject)
        if (counted.kind === 'held') problem(response, 409, counted.reason)
        else response.json({ dryRun: true, rows: counted.rows })
        return
      }
      const begun = await erasures.begin(subject, identityOf(response).keyId)
      if (begun.kind === 'held') problem(response, 409, begun.reason)
      else response.status(202).json(shownErasure(begun.erasure))
    })
    .all(notAllowed('GET, HEAD, POST'))
  router
    .route('/erasures/:id')
    .get(async (request, response) => {
      const found = isUuid(request.params.id) ? await erasures.find(request.params.id, ownTenant(response)) : undefined
      if (found === undefined) problem(response, 404, `there is no erasure ${request.params.id.slice(0, 40)}`)
      else response.json(shownErasure(found))
    })
    .all(notAllowed('GET, HEAD'))

  router
    .route('/holds')
    .get(async (request, response) => {
      const found = await holds.list(ownTenant(response), request.query.all === '1')
      response.json({ holds: found.map(shownHold) })
    })
    .post(async (request, response) => {
      const asked = parse(hold, request.body, response)
      if (asked === undefined) return
      const { tenant, user, conversation, reason } = asked
      if (!(await isThere(tenant, response))) return
      const kind = user !== undefined ? 'user' : conversation !== undefined ? 'conversation' : 'tenant'
      const placed = await holds.place(
        { tenantId: tenant, kind, name: user ?? conversation ?? '', reason },
        identityOf(response).keyId,
      )
      retention.wake()
      const erasing = await holds.erasing(placed)
      response.status(201).json({ ...shownHold(placed), ...(erasing.length === 0 ? {} : { erasing }) })
    })
    .all(notAllowed('GET, HEAD, POST'))
  router
    .route('/holds/:id')
    .delete(async (request, response) => {
      const { id } = request.params
      const released = isUuid(id) ? await holds.release(id, identityOf(response).keyId, ownTenant(response)) : undefined
      if (released === undefined) problem(response, 404, `there is no hold ${id.slice(0, 40)} in force`)
      else {
        retention.wake()
        response.json(shownHold(released))
      }
    })
    .all(notAllowed('DELETE'))

  // Both take their time: begun here, asked about with GET.
  router
    .route('/retention/apply')
    .get((_request, response) => {
      // Its counts are of everybody's rows.
      if (isForAllTenants(response)) response.json(retentionRun.state())
    })
    .post(async (request, response) => {
      const asked = parse(dryRun, request.body ?? {}, response)
      if (asked === undefined || !isForAllTenants(response) || !(await isInForce('retention', response))) return
      if (asked.dryRun)
        response.json({ dryRun: true, rows: await retention.apply('all', true, new AbortController().signal) })
      else
        begun(
          response,
          retentionRun,
          retentionRun.begin((signal) => retention.apply('all', false, signal)),
        )
    })
    .all(notAllowed('GET, HEAD, POST'))
  router
    .route('/reprice')
    .get((_request, response) => {
      response.json(repriceRuns(ownTenant(response)).state())
    })
    .post(async (request, response) => {
      const asked = parse(repriceBody, request.body ?? {}, response)
      if (asked === undefined || !(await isInForce('quota.prices', response))) return
      const tenantId = asked.tenant ?? ownTenant(response)
      const times = { fromUnixMs: unixMsOf(asked.from), toUnixMs: unixMsOf(asked.to) }
      const run = repriceRuns(ownTenant(response))
      begun(
        response,
        run,
        run.begin((signal) => reprice({ tenantId, ...times }, signal)),
      )
    })
    .all(notAllowed('GET, HEAD, POST'))
  return router
}

function begun(response: Response, run: Background<unknown>, isBegun: boolean): void {
  if (isBegun) response.status(202).json(run.state())
  else problem(response, 409, 'one is under way; ask for it with GET')
}

function unixMsOf(time: string | undefined): number | undefined {
  return time === undefined ? undefined : Date.parse(time)
}

function subjectOf({
  tenant,
  user,
  conversation,
}: {
  readonly tenant: TenantId
  readonly user?: string | undefined
  readonly conversation?: string | undefined
}): Subject {
  return user === undefined
    ? { tenantId: tenant, kind: 'conversation', name: conversation ?? '' }
    : { tenantId: tenant, kind: 'user', name: user }
}

/** The name is not in it: whoever asked knows it, and `nameHash` is the SHA-256 of `salt` and the name. */
function shownErasure(row: ErasureRow): object {
  return {
    id: row.id,
    tenant: row.tenant,
    of: row.kind,
    salt: row.salt,
    nameHash: row.name_hash,
    requestedBy: row.requested_by,
    requestedAt: row.requested_at,
    state: row.state,
    ...reasonOf(row),
    ...(row.finished_at === null ? {} : { finishedAt: row.finished_at, erased: row.erased, absent: row.absent }),
  }
}

/** A proof that nothing went may be that of a slip in the name, so it says so in words. */
function reasonOf({ state, kind, reason, erased }: ErasureRow): { readonly reason?: string } {
  if (reason !== '') return { reason }
  const isOfNothing = state === 'done' && Object.keys(erased).length === 0
  return isOfNothing ? { reason: `nothing of this ${kind} was found, so nothing was erased` } : {}
}

function shownHold(row: HoldRow): object {
  return {
    id: row.id,
    tenant: row.tenant,
    ...(row.kind === 'tenant' ? {} : { [row.kind]: row.name }),
    reason: row.reason,
    placedBy: row.placed_by,
    placedAt: row.placed_at,
    ...(row.released_at === null ? {} : { releasedBy: row.released_by, releasedAt: row.released_at }),
  }
}

function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)
}
