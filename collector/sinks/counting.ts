// What there is of a part in ClickHouse, for inserts in doubt: by the names that its rows carry in `Segment`. A part that
// was refused and halved is there in pieces, each under a name of its own, or in quarantine.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteName, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'

export type Counted = {
  /** Rows that came as one insert: all or none. */
  readonly whole: number
  /** Some came in smaller inserts. */
  readonly hasPieces: boolean
  /** The one row was put aside. */
  readonly isQuarantined: boolean
}

export type Counting = {
  /** What the rows of this insert carry in `Segment`. */
  nameOf(from: number, to: number): string
  /** What a row of this part carries in the quarantine: never the segment's own name, which is that of what the segment
   *  itself brings there. */
  nameAside(row: number): string
  /** What there is of rows from–to. Throws when nobody can say. */
  countOf(from: number, to: number): Promise<Counted>
}

/** Rows from–to of a part that were inserted, or put into quarantine, by themselves. */
type Piece = { readonly from: number; readonly to: number; readonly isQuarantined: boolean }

const daySeconds = 86_400

/** Pieces are asked for once: all others are made by whoever holds this. */
export function openCounting(part: {
  readonly clickhouse: ClickHouse
  readonly target: TargetTable
  readonly quarantine: TargetTable | undefined
  readonly segment: { readonly name: string; readonly createdUnixMs: number }
  readonly key: string
  readonly table: TableDefinition
  readonly day: number
  readonly rows: number
}): Counting {
  const { clickhouse, target, segment } = part
  let pieces: readonly Piece[] | undefined

  const pieceOf = (from: number, to: number): string => `${segment.name}/${part.key}/${from}-${to}`
  const nameOf = (from: number, to: number): string =>
    from === 0 && to === part.rows ? segment.name : pieceOf(from, to)

  async function countOf(from: number, to: number): Promise<Counted> {
    const days = { since: part.day * daySeconds, until: (part.day + 1) * daySeconds }
    const [counted] = await clickhouse.query<{ whole: string }>(countStatement(target.name, part.table), {
      name: nameOf(from, to),
      ...days,
    })
    pieces ??= [
      ...(await findPieces(target, part.table, days, false)),
      ...(part.quarantine === undefined
        ? []
        : await findPieces(part.quarantine, quarantineTable, putAsideDays(segment.createdUnixMs), true)),
    ]
    const inside = pieces.filter((piece) => piece.from >= from && piece.to <= to && piece.to - piece.from < to - from)
    const isQuarantined = pieces.some((piece) => piece.isQuarantined && piece.from === from && piece.to === to)
    return { whole: Number(counted?.whole ?? 0), hasPieces: inside.length > 0, isQuarantined }
  }

  async function findPieces(
    from: TargetTable,
    table: TableDefinition,
    days: { readonly since: number; readonly until: number },
    isQuarantined: boolean,
  ): Promise<readonly Piece[]> {
    const names = await clickhouse.query<{ name: string }>(piecesStatement(from.name, table), {
      prefix: `${segment.name}/${part.key}/`,
      ...days,
    })
    return names.flatMap(({ name }) => {
      const range = /(\d+)-(\d+)$/.exec(name)
      return range === null ? [] : [{ from: Number(range[1]), to: Number(range[2]), isQuarantined }]
    })
  }

  return { nameOf, nameAside: (row) => pieceOf(row, row + 1), countOf }
}

// A part is of one day, and tables are partitioned by it: without the day, each count would look into every partition of
// the table, years of them. As a range of the column, because it is right in every time zone a table may be in.
const ofDays = (table: TableDefinition): string =>
  `${quoteName(table.dayColumn)} >= {since:DateTime('UTC')} AND ${quoteName(table.dayColumn)} < {until:DateTime('UTC')}`

/** Takes `name`, `since` and `until`. `target` is quoted. */
export function countStatement(target: string, table: TableDefinition): string {
  return `SELECT count() AS whole FROM ${target} WHERE Segment = {name:String} AND ${ofDays(table)}`
}

function piecesStatement(target: string, table: TableDefinition): string {
  return `SELECT DISTINCT Segment AS name FROM ${target} WHERE startsWith(Segment, {prefix:String}) AND ${ofDays(table)}`
}

/** Rows are put aside under the time at which that was done: after the segment was made, by any of two clocks. */
function putAsideDays(createdUnixMs: number): { readonly since: number; readonly until: number } {
  return { since: Math.floor(createdUnixMs / 1000) - daySeconds, until: 2 ** 32 - 1 }
}
