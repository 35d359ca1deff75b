// Limits as resources: made, changed and removed through the API or by the configuration file, each change with an audit
// entry of before and after; and what readers ask: usage now, one reservation.
import { isDeepStrictEqual } from 'node:util'
import { inTransaction, withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  isOverspent,
  knowsTimeZone,
  lockReservations,
  type PassedRow,
  putRule,
  type ReservationRow,
  type RuleRow,
  regrant,
  removeRule,
  selectBalances,
  selectBalancesOfUser,
  selectHalfChanged,
  selectRule,
  selectRules,
  writeAudit,
  writeThresholds,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import { roleMissing } from '../receive/admission.ts'
import { type Identity, parseTenantId, type TenantId } from '../receive/request.ts'
import { type Answer, invalid, isUuid, notAllowed, type ParsedJson, problem } from './answers.ts'
import { type Told, thresholdBody } from './batch.ts'
import type { Outage } from './failure-policy.ts'
import { accountName, amountJson, type Limit, limitId, limitJson, limitOf, limitSchema, tenantOf } from './limits.ts'
import { limitOfRow, thresholdChanges } from './rows.ts'

export type LimitBook = {
  answer(
    identity: Identity,
    method: string,
    id: string | undefined,
    query: URLSearchParams,
    body: () => ParsedJson,
  ): Promise<Answer>
  usage(identity: Identity, query: URLSearchParams): Promise<Answer>
  reservation(identity: Identity, id: string): Promise<Answer>
  /** Makes the limits of source `config` those given, all or none; what they are no longer is removed. */
  applyConfig(wanted: readonly Limit[]): Promise<ConfigApplied>
  /** Where a change of a limit was cut short, by an end of the collector or of a connection, gives the accounts that have what was
   *  granted before what is granted now. Nothing is looked for when nothing was begun since. */
  finishChanges(signal: AbortSignal): Promise<void>
  /** Notes in the audit what was decided while the ledger was away. */
  noteOutages(outages: readonly Outage[]): Promise<void>
}

export type ConfigApplied =
  | { readonly kind: 'applied'; readonly diff: ConfigDiff }
  /** The limits are as they were: waiting does not help, only another file. */
  | { readonly kind: 'refused'; readonly reasons: readonly string[] }

/** Whole limits, as they are shown to whoever changed the file. */
export type ConfigDiff = {
  readonly added: readonly object[]
  readonly changed: readonly object[]
  readonly removed: readonly object[]
}

/** Accounts in one answer. */
const usageRowsMax = 1000

type Put =
  /** `until` is the last account that has the new amount, where there may be more. */
  | { readonly kind: 'put'; readonly isNew: boolean; readonly until: string | undefined }
  | { readonly kind: 'other_shape' }

export function openLimitBook({ database }: { readonly database: pg.Pool }): LimitBook {
  /** Who was here before may have been killed in the middle of a change. */
  let mayBeHalfChanged = true

  async function limitsOf(tenant: TenantId): Promise<readonly Limit[]> {
    const { rows } = await withConnection(database, selectRules)
    return rows.map(limitOfRow).filter((limit) => limit.tenant === tenant)
  }

  async function put(client: pg.PoolClient, limit: Limit, actor: string): Promise<Put> {
    const known = await selectRule(client, limit.tenant, limit.id)
    const before = known === undefined ? undefined : limitOfRow(known)
    // Accounts are counted in the rule's measure and windows: another rule needs another id.
    if (before !== undefined && shapeOf(before) !== shapeOf(limit)) return { kind: 'other_shape' }
    const { passed, until } = await putRule(client, ruleOf(limit))
    await Promise.all(writeThresholds(client, thresholdChanges(toldOf(limit, passed))))
    const isNew = known === undefined || known.is_removed
    await writeAudit(client, {
      tenant: limit.tenant,
      actor,
      action: isNew ? 'quota.limit.create' : 'quota.limit.update',
      resource: `limit ${limit.id}`,
      before: isNew || before === undefined ? null : limitJson(before),
      after: limitJson(limit),
    })
    return { kind: 'put', isNew, until }
  }

  /** Accounts behind this one, some thousand in each transaction: in a single one the calls of a limit that a million users have an
   *  account of would wait for half a minute, and with them all others. */
  async function grantRest(
    { tenant, id }: Pick<Limit, 'tenant' | 'id'>,
    from: string | undefined,
    signal?: AbortSignal,
  ): Promise<void> {
    for (let after = from; after !== undefined && !signal?.aborted; ) after = await grantStretch(tenant, id, after)
  }

  /** What the rule says by now: it may have been changed again. */
  function grantStretch(tenant: TenantId, id: string, after: string): Promise<string | undefined> {
    return inTransaction(database, async (client) => {
      const rule = await selectRule(client, tenant, id)
      if (rule === undefined) return undefined
      const { passed, until } = await regrant(client, rule, after)
      await Promise.all(writeThresholds(client, thresholdChanges(toldOf(limitOfRow(rule), passed))))
      return until
    })
  }

  async function finishChanges(signal: AbortSignal): Promise<void> {
    if (!mayBeHalfChanged) return
    mayBeHalfChanged = false
    try {
      const changed = await withConnection(database, selectHalfChanged)
      for (const { tenant, id } of changed) await grantRest({ tenant: tenantOf(tenant), id }, '0', signal)
    } catch (error) {
      mayBeHalfChanged = true
      throw error
    }
  }

  async function remove(client: pg.PoolClient, limit: Limit, actor: string): Promise<boolean> {
    if (!(await removeRule(client, limit.tenant, limit.id))) return false
    await writeAudit(client, {
      tenant: limit.tenant,
      actor,
      action: 'quota.limit.delete',
      resource: `limit ${limit.id}`,
      before: limitJson(limit),
      after: null,
    })
    return true
  }

  async function answer(
    identity: Identity,
    method: string,
    id: string | undefined,
    query: URLSearchParams,
    body: () => ParsedJson,
  ): Promise<Answer> {
    const tenant = tenantAsked(identity, query)
    if (tenant === undefined) return problem(404, 'there is no such tenant')
    if (method === 'GET') return read(tenant, id)
    if (method !== 'POST' && method !== 'PUT' && method !== 'DELETE') {
      return notAllowed(id === undefined ? 'GET, POST' : 'GET, PUT, DELETE')
    }
    if (!identity.roles.has('admin')) return problem(403, roleMissing(identity, 'admin'))
    if (method === 'DELETE') return id === undefined ? notAllowed('GET, POST') : removeOne(tenant, id, identity)
    if ((method === 'POST') !== (id === undefined)) {
      return notAllowed(id === undefined ? 'GET, POST' : 'GET, PUT, DELETE')
    }
    const wrongId = limitId.optional().safeParse(id).error
    if (wrongId !== undefined) return problem(400, `id: ${wrongId.issues[0]?.message}`)
    const json = body()
    if (json.kind === 'malformed') return problem(400, json.reason)
    const parsed = limitSchema.safeParse(json.value)
    if (!parsed.success) return invalid(parsed.error)
    if (id !== undefined && parsed.data.id !== undefined && parsed.data.id !== id) {
      return problem(400, `id: the path says ${id}`)
    }
    if (!(await isTimeZone(parsed.data.timeZone))) return problem(400, `timeZone: ${unknownTimeZone}`)
    const named = id ?? parsed.data.id ?? crypto.randomUUID()
    const limit = limitOf(tenant, named, parsed.data, 'api')
    const result = await inTransaction(database, (client) => put(client, limit, actorOf(identity)))
    if (result.kind === 'other_shape') {
      return problem(
        409,
        `limit ${named} has another measure, window, time zone or dimension; give this one its own id`,
      )
    }
    try {
      await grantRest(limit, result.until)
    } catch (error) {
      mayBeHalfChanged = true
      throw error
    }
    const overspent = await withConnection(database, (client) => isOverspent(client, tenant, named))
    const warning = overspent ? { warning: 'more is spent or held already than this limit grants' } : {}
    return { status: result.isNew ? 201 : 200, body: { ...limitJson(limit), ...warning } }
  }

  async function read(tenant: TenantId, id: string | undefined): Promise<Answer> {
    const limits = await limitsOf(tenant)
    if (id === undefined) return { status: 200, body: { limits: limits.map(limitJson) } }
    const limit = limits.find((each) => each.id === id)
    return limit === undefined ? problem(404, 'there is no such limit') : { status: 200, body: limitJson(limit) }
  }

  async function removeOne(tenant: TenantId, id: string, identity: Identity): Promise<Answer> {
    const limit = (await limitsOf(tenant)).find((each) => each.id === id)
    if (limit === undefined || !(await inTransaction(database, (client) => remove(client, limit, actorOf(identity))))) {
      return problem(404, 'there is no such limit')
    }
    return { status: 204, body: undefined }
  }

  async function usage(identity: Identity, query: URLSearchParams): Promise<Answer> {
    const tenant = tenantAsked(identity, query)
    if (tenant === undefined) return problem(404, 'there is no such tenant')
    const [limitId, user, subject] = ['limit', 'user', 'subject'].map((name) => query.get(name) ?? undefined)
    if (`${limitId}${user}${subject}`.includes('\0')) return problem(400, 'limit, user, subject: no NUL')
    const account = subject === undefined ? undefined : accountName(subject)
    const rows = await withConnection(database, (client) =>
      user === undefined
        ? selectBalances(client, { tenant, limitId, account }, usageRowsMax + 1)
        : selectBalancesOfUser(client, { tenant, limitId, user, account: accountName(user) }, usageRowsMax + 1),
    )
    const usage = rows.slice(0, usageRowsMax).map((row) => ({
      limitId: row.limit_id,
      subject: row.subject,
      measure: row.measure,
      windowStart: row.window_start instanceof Date ? row.window_start.toISOString() : null,
      windowEnd: row.window_end?.toISOString() ?? null,
      granted: amountJson(BigInt(row.granted)),
      held: amountJson(BigInt(row.held)),
      spent: amountJson(BigInt(row.spent)),
      free: amountJson(BigInt(row.free)),
      debt: amountJson(BigInt(row.debt)),
    }))
    return { status: 200, body: { usage, isCut: rows.length > usageRowsMax } }
  }

  async function find(identity: Identity, id: string): Promise<ReservationRow | undefined> {
    if (!isUuid(id)) return undefined
    const { rows } = await withConnection(database, (client) =>
      lockReservations(client, { tenants: [], callIds: [], ids: [id] }),
    )
    return rows.find((row) => row.tenant === identity.tenant)
  }

  async function reservation(identity: Identity, id: string): Promise<Answer> {
    const row = await find(identity, id)
    if (row === undefined) return problem(404, 'there is no such reservation')
    const { body } = (row.outcome ?? {}) as { readonly body?: object }
    const expiresAt = new Date(row.expires_ms).toISOString()
    return {
      status: 200,
      body: {
        ...(JSON.parse(row.answer) as object),
        callId: row.call_id,
        state: row.state,
        expiresAt,
        ...(body ? { outcome: body } : {}),
      },
    }
  }

  function isTimeZone(name: string): Promise<boolean> {
    return withConnection(database, (client) => knowsTimeZone(client, name))
  }

  async function applyConfig(wanted: readonly Limit[]): Promise<ConfigApplied> {
    const zones = new Map<string, boolean>()
    for (const { timeZone } of wanted) zones.set(timeZone, zones.get(timeZone) ?? (await isTimeZone(timeZone)))
    let isHalfChanged = false
    const applied = await inTransaction<ConfigApplied>(database, async (client) => {
      const reasons = wanted
        .filter(({ timeZone }) => zones.get(timeZone) === false)
        .map(
          ({ id, tenant, timeZone }) => `quota.limits: ${id} of ${tenant}: timeZone: ${timeZone}, ${unknownTimeZone}`,
        )
      for (const limit of wanted) {
        // Rules that were removed count, too: their accounts still stand.
        const known = await selectRule(client, limit.tenant, limit.id)
        if (known !== undefined && shapeOf(limitOfRow(known)) !== shapeOf(limit)) reasons.push(otherShapeReason(limit))
      }
      if (reasons.length > 0) return { kind: 'refused', reasons }
      const { rows } = await selectRules(client)
      const present = new Map(rows.map(limitOfRow).map((limit) => [nameOf(limit), limit]))
      const diff = { added: [] as object[], changed: [] as object[], removed: [] as object[] }
      // In the order in which the ledger locks rules, or each would have one that the other waits for.
      for (const limit of wanted.toSorted((a, b) => compare(a.tenant, b.tenant) || compare(a.id, b.id))) {
        const before = present.get(nameOf(limit))
        if (isDeepStrictEqual(before, limit)) continue
        const result = await put(client, limit, 'configuration')
        // Somebody made it this moment, through the API: nothing of the file is kept.
        if (result.kind === 'other_shape') throw new Error(otherShapeReason(limit))
        if (result.until !== undefined) isHalfChanged = true
        if (before === undefined) diff.added.push(shown(limit))
        else diff.changed.push({ before: shown(before), after: shown(limit) })
      }
      const names = new Set(wanted.map(nameOf))
      for (const [name, limit] of present) {
        if (limit.source !== 'config' || names.has(name)) continue
        if (await remove(client, limit, 'configuration')) diff.removed.push(shown(limit))
      }
      return { kind: 'applied', diff }
    })
    // Only now would it be seen.
    if (isHalfChanged) mayBeHalfChanged = true
    return applied
  }

  async function noteOutages(outages: readonly Outage[]): Promise<void> {
    await withConnection(database, async (client) => {
      for (const { tenant, policy, sinceUnixMs, allowed, denied, allowedNanoUsd } of outages) {
        const after = {
          policy,
          since: new Date(sinceUnixMs).toISOString(),
          allowed,
          denied,
          allowedNanoUsd: amountJson(allowedNanoUsd),
        }
        await writeAudit(client, {
          tenant,
          actor: 'quota',
          action: 'quota.outage',
          resource: 'ledger',
          before: null,
          after,
        })
      }
    })
  }

  return { answer, usage, reservation, applyConfig, finishChanges, noteOutages }
}

/** Thresholds that a smaller amount has put behind what is spent: where it blocks, no call would come to tell them. */
function toldOf(limit: Limit, passed: readonly PassedRow[]): readonly Told[] {
  const { tenant, amount: granted } = limit
  return passed.flatMap(({ subject, spent, window_end, percents }) =>
    percents.map((percent) => {
      const account = { subject, spent: BigInt(spent), granted, windowEndUnixMs: window_end?.getTime() }
      return { tenant, limit, body: thresholdBody(limit, account, percent) }
    }),
  )
}

function shown(limit: Limit): object {
  return { tenant: limit.tenant, ...limitJson(limit) }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}

function nameOf(limit: Limit): string {
  return `${limit.tenant}/${limit.id}`
}

/** One's own tenant; a key for many may name another. */
function tenantAsked(identity: Identity, query: URLSearchParams): TenantId | undefined {
  const named = query.get('tenant')
  if (named === null || named === identity.tenant) return identity.tenant
  return identity.manyTenants ? parseTenantId(named) : undefined
}

function actorOf(identity: Identity): string {
  return identity.keyId === '' ? 'loopback' : `key ${identity.keyId}`
}

/** What Intl knows a Postgres may not: most have the files of their system, of which old names may be a package of their own. Taken
 *  all the same, the limit would have each call that it holds for refused. */
const unknownTimeZone = 'not a time zone that this Postgres knows'

function otherShapeReason({ id, tenant }: Limit): string {
  return `quota.limits: ${id} of ${tenant} has another measure, window, time zone or dimension (each) than before; give it another id`
}

function shapeOf({ each, measure, window, timeZone }: Limit): string {
  return [each ?? '', measure, window, timeZone].join('|')
}

function ruleOf(limit: Limit): RuleRow {
  return {
    tenant: limit.tenant,
    id: limit.id,
    subject: limit.subject,
    each: limit.each ?? '',
    measure: limit.measure,
    amount: String(limit.amount),
    window: limit.window,
    time_zone: limit.timeZone,
    action: limit.action,
    thresholds: limit.thresholds,
    overage: limit.overage,
    source: limit.source,
  }
}
