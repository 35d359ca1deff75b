// Takes everything of a user or a conversation out of the tables of ClickHouse, so that nothing can bring it back: the facts
// first, then what collectors remember of them, then the rows; what others have in a shared trace is resolved again from what
// is left. Texts go last, when the rows that are left say which of them others show.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { messageRows, toolCallRows, wrapperMessageRows } from '@tallylight/storage/clickhouse/genai-tables.ts'
import { quoteName, quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { contentsTable } from '@tallylight/storage/clickhouse/tables.ts'
import { limits } from '../limits.ts'
import type { TraceTimes } from '../sinks/known-facts.ts'
import type { Mutations } from './mutations.ts'
import {
  factsPlace,
  idsOf,
  isOfTenant,
  isSelected,
  namesSubject,
  type Place,
  quarantinePlace,
  resolvedPlaces,
  signalPlaces,
} from './places.ts'
import type { Selections } from './selection.ts'
import { type IsName, isHashedNameOf, isNameOf, type Subject } from './subject.ts'

export type RowErasure = {
  /** Rows by table that are the subject's, and would go. Writes a selection. */
  count(erasure: ErasureOf): Promise<Readonly<Record<string, number>>>
  /** The facts; before it, everything that was accepted must be stored. */
  eraseFacts(erasure: ErasureOf, signal: AbortSignal): Promise<void>
  /** The rest; before it, every collector must have forgotten what it remembers. Answers the hold that has come meanwhile: what
   *  was not gone then stays. */
  eraseRows(erasure: ErasureOf, heldBy: HeldBy, signal: AbortSignal): Promise<string | undefined>
  /** What others have in the traces is made again of the facts that are left. */
  resolveLeft(erasure: ErasureOf): Promise<void>
  /** Resolves when nothing of it is on the server's disk any more. */
  gone(erased: Readonly<Record<string, number>>, signal: AbortSignal): Promise<void>
}

/** Why nothing more of it may be erased. Asked before each step. */
export type HeldBy = () => Promise<string | undefined>

export type ErasureOf = {
  readonly selection: string
  readonly subject: Subject
  readonly salt: string
  /** Texts that came later belong to records that are not looked at. */
  readonly untilUnixMs: number
}

const textTables: readonly (readonly [table: string, hashes: string])[] = [
  [messageRows.name, '[ContentHash]'],
  [wrapperMessageRows.name, '[ContentHash]'],
  [toolCallRows.name, '[ArgumentsHash, ResultHash]'],
]

export function openRowErasure(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly selections: Selections
  readonly mutations: Mutations
  readonly resolveAgain: (traces: readonly TraceTimes[]) => Promise<void>
}): RowErasure {
  const { clickhouse, selections, mutations } = options

  function targetNamed(name: string): TargetTable {
    const target = options.targetOf(name)
    if (target === undefined) throw new Error(`${name} is not known to be there`)
    return target
  }

  function conditionOf({ selection, subject }: ErasureOf, place: Place, isName: IsName): string {
    const named = namesSubject(place, subject.kind, isName)
    const ofTenant = isOfTenant(targetNamed(place.table.name), subject.tenantId)
    return `${ofTenant} AND ${isSelected(place, selections.table, selection, named)}`
  }

  async function countRows(table: string, condition: string): Promise<number> {
    const [row] = await clickhouse.query<{ rows: string }>(
      `SELECT toString(count()) AS rows FROM ${targetNamed(table).name} WHERE ${condition}`,
    )
    return Number(row?.rows ?? 0)
  }

  async function count(erasure: ErasureOf): Promise<Readonly<Record<string, number>>> {
    await selections.select(erasure.selection, erasure.subject, 'spans')
    const counts: Record<string, number> = {}
    for (const place of [factsPlace, ...resolvedPlaces, ...signalPlaces, quarantinePlace]) {
      const rows = await countRows(place.table.name, conditionOf(erasure, place, isNameOf(erasure.subject)))
      if (rows > 0) counts[place.table.name] = rows
    }
    const texts = await countRows(contentsTable.name, textsThatWouldGo(erasure))
    if (texts > 0) counts[contentsTable.name] = texts
    return counts
  }

  async function erasePlace(place: Place, condition: string, signal: AbortSignal): Promise<void> {
    if ((await countRows(place.table.name, condition)) === 0) return
    await mutations.mutate(targetNamed(place.table.name), `DELETE WHERE ${condition}`, signal)
  }

  async function eraseFacts(erasure: ErasureOf, signal: AbortSignal): Promise<void> {
    const isName = isHashedNameOf(erasure.subject, erasure.salt)
    await erasePlace(factsPlace, conditionOf(erasure, factsPlace, isName), signal)
  }

  async function eraseRows(erasure: ErasureOf, heldBy: HeldBy, signal: AbortSignal): Promise<string | undefined> {
    const isName = isHashedNameOf(erasure.subject, erasure.salt)
    const { selection, subject } = erasure
    let held = await heldBy()
    if (held !== undefined) return held
    // All of these as one step: others' rows of a shared trace go with them, and are only made again of whole traces.
    for (const place of resolvedPlaces) {
      const shared = `TraceId IN ${idsOf(selections.table, selection, 'span')}`
      const condition = `${conditionOf(erasure, place, isName)} OR (${isOfTenant(targetNamed(place.table.name), subject.tenantId)} AND ${shared})`
      await erasePlace(place, condition, signal)
    }
    for (const place of [...signalPlaces, quarantinePlace]) {
      held = await heldBy()
      if (held !== undefined) break
      await erasePlace(place, conditionOf(erasure, place, isName), signal)
    }
    await resolveLeft(erasure)
    held ??= await heldBy()
    if (held === undefined) await eraseTexts(erasure, isName, signal)
    return held
  }

  async function resolveLeft({ selection, subject }: ErasureOf): Promise<void> {
    const { tenantId } = subject
    const left = (await selections.tracesLeft(selection, subject)).map((trace) => ({ tenantId, ...trace }))
    for (let at = 0; at < left.length; at += limits.tracesResolvedAgain)
      await options.resolveAgain(left.slice(at, at + limits.tracesResolvedAgain))
  }

  /** Texts that no row shows any more, and the user's own copies of the others. What a mutation asks for stands in the
   *  selection: one that asked for the same texts twice, once inside of the other, would wait for itself for ever. */
  async function eraseTexts(erasure: ErasureOf, isName: IsName, signal: AbortSignal): Promise<void> {
    const { selection, subject } = erasure
    const target = targetNamed(contentsTable.name)
    await clickhouse.command(
      `INSERT INTO ${selections.table} (Selection, Kind, Id) SELECT ${quoteText(selection)}, 'unshown text', Id FROM
         (SELECT DISTINCT Id FROM ${idsOf(selections.table, selection, 'text')} WHERE Id NOT IN (${shownTexts(erasure)}))`,
    )
    const unshown = `Hash IN ${idsOf(selections.table, selection, 'unshown text')}`
    const own = `(${isName('UserId')} AND Hash IN ${idsOf(selections.table, selection, 'text')})`
    const condition = `${untilThen(erasure)} AND (${subject.kind === 'user' ? `${own} OR ` : ''}${unshown})`
    if ((await countRows(contentsTable.name, condition)) === 0) return
    if (subject.kind === 'user') {
      // The copy of a text that others show too may be the one under this user's name: they get one of nobody's.
      const columns = target.columns.map(([name]) => quoteName(name))
      const values = columns.map((name) => (name === '`UserId`' ? "''" : name))
      await clickhouse.command(
        `INSERT INTO ${target.name} (${columns.join(', ')}) SELECT ${values.join(', ')} FROM ${target.name}
         WHERE ${untilThen(erasure)} AND ${own} AND NOT (${unshown})`,
      )
    }
    await mutations.mutate(target, `DELETE WHERE ${condition}`, signal)
  }

  const untilThen = ({ subject, untilUnixMs }: ErasureOf): string =>
    `${isOfTenant(targetNamed(contentsTable.name), subject.tenantId)} AND Time < fromUnixTimestamp64Milli(${untilUnixMs})`

  /** Before the rows are gone: the user's own copies, and the texts that no row of others shows. */
  function textsThatWouldGo(erasure: ErasureOf): string {
    const { selection, subject } = erasure
    const isName = isNameOf(subject)
    const own = subject.kind === 'user' ? `${isName('UserId')} OR ` : ''
    return `${untilThen(erasure)} AND Hash IN ${idsOf(selections.table, selection, 'text')}
      AND (${own}Hash NOT IN (${shownTexts(erasure, isName)}))`
  }

  /** Hashes that rows show; with `exceptOf` those of others only. */
  function shownTexts(erasure: ErasureOf, exceptOf?: IsName): string {
    const shown = textTables.map(([table, hashes]) => {
      const target = targetNamed(table)
      const place = resolvedPlaces.find((each) => each.table.name === table) as Place
      const except = exceptOf === undefined ? '' : ` AND NOT (${conditionOf(erasure, place, exceptOf)})`
      return `SELECT arrayJoin(${hashes}) FROM ${target.name} WHERE ${isOfTenant(target, erasure.subject.tenantId)} AND IsDeleted = 0${except}`
    })
    return shown.join(' UNION ALL ')
  }

  return {
    count,
    eraseFacts,
    eraseRows,
    resolveLeft,
    gone: async (erased, signal) => {
      const targets = Object.keys(erased).flatMap((table) => options.targetOf(table) ?? [])
      await mutations.replacedPartsGone(targets, signal)
    },
  }
}
