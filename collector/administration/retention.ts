// Retention of rows that are there already: what the configuration says now, and what is held. Each row has its own end
// (`RetentionDays`), so a change is a mutation, and rows whose new end has passed vanish with it.
//
// Held rows get a number of days that no configuration can have, and get their own back when no hold is on them any more.
// Rows that come in under a hold are marked when the holds are applied again (`run`): every ten minutes while there are any.
import { randomUUID } from 'node:crypto'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import {
  contentsTable,
  factsTable,
  logsTable,
  quarantineTable,
  type TableDefinition,
  tracesTable,
  traceTimesTable,
} from '@tallylight/storage/clickhouse/tables.ts'
import type { HoldRow } from '@tallylight/storage/postgres/holds.ts'
import type { RetentionClass } from '../config.ts'
import { retentionOfFacts } from '../genai/genai.ts'
import { rowTables } from '../genai/row-tables.ts'
import { limits } from '../limits.ts'
import { pause } from '../quota/pause.ts'
import { type Holds, subjectOf } from './holds.ts'
import type { Mutations } from './mutations.ts'
import { idsOf, isSelected, namesSubject, type Place, places, quarantinePlace } from './places.ts'
import type { Selections } from './selection.ts'
import { isHashedNameOf, makeSalt, type Subject } from './subject.ts'

export type Retention = {
  /** `holds`: leaves alone what is neither held nor was. Dry: counts, and changes nothing. */
  apply(scope: 'all' | 'holds', isDry: boolean, signal: AbortSignal): Promise<Applied>
  /** A hold was placed or released. */
  wake(): void
  run(signal: AbortSignal): Promise<void>
}

/** Rows by table; tables without any are left out. */
export type Applied = Readonly<Record<string, AppliedRows>>
export type AppliedRows = {
  /** Come under a hold now. */
  readonly held: number
  /** Get another end. */
  readonly changed: number
  /** Of those, have passed it. */
  readonly vanishing: number
}

export type DaysOf = (kept: RetentionClass, tenant: string) => number

type RetainedTable = {
  readonly table: TableDefinition
  readonly place: Place | undefined
  readonly days: DaysExpression
}
/** The days that a row should have, of the expressions for each class. */
type DaysExpression = (of: (kept: RetentionClass) => string) => string
/** The condition that a row of a table is held. */
type IsHeldIn = (retained: RetainedTable) => string

const held = limits.heldRetentionDays

export function openRetention(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly selections: Selections
  readonly mutations: Mutations
  readonly holds: Pick<Holds, 'list' | 'hasAny'>
  readonly daysOf: DaysOf
  /** Tenants with a retention of their own. */
  readonly tenants: readonly string[]
  readonly onProblem: (message: string) => void
}): Retention {
  const { clickhouse, selections, mutations } = options
  let woken = Promise.withResolvers<void>()

  const days = (kept: RetentionClass): string => {
    const usual = options.daysOf(kept, '')
    const own = options.tenants.filter((tenant) => options.daysOf(kept, tenant) !== usual)
    if (own.length === 0) return `${usual}`
    const values = own.map((tenant) => options.daysOf(kept, tenant))
    return `transform(TenantId, [${own.map(quoteText).join(', ')}], [${values.join(', ')}], ${usual})`
  }

  async function apply(scope: 'all' | 'holds', isDry: boolean, signal: AbortSignal): Promise<Applied> {
    const name = `apply:${randomUUID()}`
    const heldNow = watchHolds(name)
    const applied: Record<string, AppliedRows> = {}
    for (const retained of retainedTables) {
      const target = options.targetOf(retained.table.name)
      if (target === undefined || !target.hasTenant || !target.columns.some(([column]) => column === 'RetentionDays'))
        continue
      const rows = await applyTo(target, retained, heldNow, scope, isDry, signal)
      if (rows.held + rows.changed > 0) applied[retained.table.name] = rows
    }
    await selections.remove(name, signal)
    return applied
  }

  async function applyTo(
    target: TargetTable,
    retained: RetainedTable,
    heldNow: () => Promise<IsHeldIn>,
    scope: 'all' | 'holds',
    isDry: boolean,
    signal: AbortSignal,
  ): Promise<AppliedRows> {
    const { table } = retained
    const wanted = retained.days(days)
    const isHeldIn = await heldNow()
    const isHeld = isHeldIn(retained)
    const comesUnder = `RetentionDays != ${held} AND ${isHeld}`
    const changes = `RetentionDays ${scope === 'all' ? `!= ${wanted}` : `= ${held}`} AND NOT (${isHeld})`
    const end = `toDateTime(${table.dayColumn}) + toIntervalDay(${wanted})`
    const [counted] = await clickhouse.query<{ held: string; changed: string; vanishing: string }>(
      `SELECT toString(countIf(${comesUnder})) AS held, toString(countIf(${changes})) AS changed,
         toString(countIf(${changes} AND ${end} < now())) AS vanishing FROM ${target.name}`,
    )
    const rows = {
      held: Number(counted?.held ?? 0),
      changed: Number(counted?.changed ?? 0),
      vanishing: Number(counted?.vanishing ?? 0),
    }
    if (isDry) return rows
    // First what is held, so that nothing of it gets an end in between.
    if (rows.held > 0) await mutations.mutate(target, `UPDATE RetentionDays = ${held} WHERE ${comesUnder}`, signal)
    if (rows.changed === 0) return rows
    // With a hold that came since, the table is begun anew: the change would take from the rows what that has given them.
    if ((await heldNow()) !== isHeldIn) {
      const again = await applyTo(target, retained, heldNow, scope, isDry, signal)
      return { ...again, held: rows.held + again.held }
    }
    await mutations.mutate(target, `UPDATE RetentionDays = ${wanted} WHERE ${changes}`, signal)
    return rows
  }

  /** Reads the holds each time it is asked, for some are placed while tables are changed, one after the other. Answers the same
   *  as before while the same are in force. */
  function watchHolds(name: string): () => Promise<IsHeldIn> {
    let known: { readonly ids: string; readonly isHeldIn: IsHeldIn } | undefined
    return async () => {
      const inForce = await options.holds.list(undefined, false)
      const ids = inForce.map(({ id }) => id).join()
      if (known?.ids !== ids) known = { ids, isHeldIn: await selectHeld(name, inForce) }
      return known.isHeldIn
    }
  }

  async function selectHeld(name: string, inForce: readonly HoldRow[]): Promise<IsHeldIn> {
    const whole = new Set(inForce.filter(({ kind }) => kind === 'tenant').map(({ tenant }) => tenant))
    const subjects = inForce.filter(({ tenant }) => !whole.has(tenant)).flatMap((hold) => subjectOf(hold) ?? [])
    const salt = makeSalt()
    for (const subject of subjects) await selections.select(`${name}:${subject.tenantId}`, subject, 'traces')
    return (retained) => {
      const conditions = whole.size === 0 ? [] : [`TenantId IN (${[...whole].map(quoteText).join(', ')})`]
      for (const [tenantId, ofTenant] of Map.groupBy(subjects, (subject) => subject.tenantId)) {
        const isIn = isHeldOf(retained, `${name}:${tenantId}`, ofTenant, salt)
        conditions.push(`TenantId = ${quoteText(tenantId)} AND ${isIn}`)
      }
      return conditions.length === 0 ? '0' : `(${conditions.map((each) => `(${each})`).join(' OR ')})`
    }
  }

  function isHeldOf(
    { table, place }: RetainedTable,
    selection: string,
    subjects: readonly Subject[],
    salt: string,
  ): string {
    if (table === contentsTable) return `Hash IN ${idsOf(selections.table, selection, 'text')}`
    if (place === undefined) return '0'
    const named = subjects.flatMap((subject) => namesSubject(place, subject.kind, isHashedNameOf(subject, salt)) ?? [])
    return isSelected(place, selections.table, selection, named.length === 0 ? undefined : `(${named.join(' OR ')})`)
  }

  async function run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      woken = Promise.withResolvers()
      try {
        // Those released a day ago count: the collector may have ended before it gave their rows an end again.
        if (await options.holds.hasAny()) await apply('holds', false, signal)
      } catch (error) {
        if (!signal.aborted) options.onProblem(`holds could not be applied: ${String(error)}`)
      }
      await pause(limits.holdsApplyMs, signal, woken.promise)
    }
  }

  return { apply, wake: () => woken.resolve(), run }
}

const ofClass =
  (kept: RetentionClass): DaysExpression =>
  (of) =>
    of(kept)

const daysOfTable = new Map<TableDefinition, DaysExpression>([
  [tracesTable, ofClass('traces')],
  [traceTimesTable, ofClass('traces')],
  [logsTable, ofClass('logs')],
  [factsTable, (of) => byKey("JSONExtractString(Fact, 'says', 'kind')", retentionOfFacts, of)],
  ...rowTables.map(({ table, retention }) => [table, ofClass(retention)] as const),
])

const retainedTables: readonly RetainedTable[] = [
  ...places.map((place) => ({ table: place.table, place, days: daysOfTable.get(place.table) ?? ofClass('metrics') })),
  { table: contentsTable, place: undefined, days: (of) => `greatest(${of('chat')}, ${of('tools')})` },
  {
    table: quarantineTable,
    place: quarantinePlace,
    days: (of) => byKey('Signal', { traces: 'traces', logs: 'logs', '': 'metrics' }, of),
  },
]

/** The class of a row by a word that it says; '' is any other. */
function byKey(
  word: string,
  classes: Readonly<Record<string, RetentionClass>>,
  of: (kept: RetentionClass) => string,
): string {
  const { '': other = 'chat', ...named } = classes
  const branches = Object.entries(named).map(([key, kept]) => `${word} = ${quoteText(key)}, ${of(kept)}`)
  return `multiIf(${branches.join(', ')}, ${of(other)})`
}
