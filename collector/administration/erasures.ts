// Erasures: asked for, carried out by the collector that was asked, and proved. An erasure is a row in Postgres from its first
// moment, so it goes on after a restart, and every collector sees it:
//
//   draining    every collector stores what it has accepted, so that nothing of it is only in a journal
//   forgetting  the facts are gone; every collector forgets what it remembers, so that no row is made from memory again
//   done        the rows are gone from the tables, their parts from the disk, the name from Postgres; looked for once more
//   refused     a legal hold is on some of it
//
// A hold may be placed at any time. That something will go is written before the holds are read, and a hold before it is asked
// which erasures have begun (holds.ts): one of the two always learns of the other.
//
// Records that are accepted later are new ones, and stay.

import { setTimeout as delay } from 'node:timers/promises'
import { inTransaction } from '@tallylight/storage/postgres/connection.ts'
import {
  countErased,
  type ErasureRow,
  finishErasure,
  insertErasure,
  moveErasure,
  noteCollector,
  noteErasureStep,
  replaceName,
  selectBehind,
  selectErasure,
  selectErasures,
  selectUnfinishedErasures,
} from '@tallylight/storage/postgres/erasures.ts'
import { writeAudit } from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import { limits } from '../limits.ts'
import { accountName } from '../quota/limits.ts'
import { pause } from '../quota/pause.ts'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import type { ErasureOf, HeldBy, RowErasure } from './erase-rows.ts'
import type { Holds } from './holds.ts'
import { makeSalt, nameHashOf, type Subject, type SubjectKind } from './subject.ts'

export type Erasures = {
  /** Begins one. `held`: the hold that forbids it. */
  begin(subject: Subject, by: string): Promise<{ readonly kind: 'begun'; readonly erasure: ErasureRow } | Held>
  /** Counts what would go, and changes nothing. */
  preview(subject: Subject): Promise<{ readonly kind: 'counted'; readonly rows: Counts } | Held>
  find(id: string, tenant: TenantId | undefined): Promise<ErasureRow | undefined>
  list(tenant: TenantId | undefined): Promise<readonly ErasureRow[]>
  run(signal: AbortSignal): Promise<void>
}

export type Counts = Readonly<Record<string, number>>
export type Held = { readonly kind: 'held'; readonly reason: string }

export type ErasuresOptions = {
  readonly database: pg.Pool
  /** Of this collector. */
  readonly journal: string
  readonly rows: RowErasure
  readonly holds: Pick<Holds, 'list' | 'onSubject' | 'onSelection'>
  /** Resolves when everything that was accepted before is stored. */
  readonly drain: (signal: AbortSignal) => Promise<void>
  readonly forget: () => Promise<void>
  readonly pauseKnownTexts: () => () => void
  readonly onProblem: (message: string) => void
  readonly onFinished: (state: 'done' | 'refused') => void
  /** Shorter in tests. */
  readonly collectorSilentMs?: number
}

export function openErasures(options: ErasuresOptions): Erasures {
  const { database, journal, collectorSilentMs = limits.collectorSilentMs } = options
  let wake = Promise.withResolvers<void>()
  /** Erasures that this collector has seen: their end, and since when it writes every text anew. */
  const underWay = new Map<
    string,
    { readonly resume: () => void; readonly sinceUnixMs: number; readonly steps: Set<string> }
  >()
  /** Those that have taken facts and no rows yet; of one that a run before began it is not known how far it came. */
  const untouched = new Set<string>()

  async function begin(subject: Subject, by: string): ReturnType<Erasures['begin']> {
    const held = await options.holds.onSubject(subject)
    if (held !== undefined) return { kind: 'held', reason: held }
    const salt = makeSalt()
    const erasure = await inTransaction(database, async (client) => {
      const row = await insertErasure(client, {
        tenant: subject.tenantId,
        kind: subject.kind,
        name: subject.name,
        salt,
        name_hash: nameHashOf(salt, subject.name),
        requested_by: by,
        journal,
      })
      await writeAudit(client, auditOf(row, by, 'erasure.begin', null))
      return row
    })
    wake.resolve()
    return { kind: 'begun', erasure }
  }

  async function preview(subject: Subject): ReturnType<Erasures['preview']> {
    const salt = makeSalt()
    const selection = `preview:${salt}`
    const rows = await options.rows.count({ selection, subject, salt, untilUnixMs: Date.now() })
    const held =
      (await options.holds.onSubject(subject)) ?? (await options.holds.onSelection(subject.tenantId, selection))
    if (held !== undefined) return { kind: 'held', reason: held }
    return { kind: 'counted', rows: { ...rows, ...(await countInLedger(subject)) } }
  }

  /** Done and taken back, which counts exactly what would be done. */
  async function countInLedger(subject: Subject): Promise<Counts> {
    const undone = new Error('only counted')
    let counts: Counts = {}
    await inTransaction(database, async (client) => {
      counts = await replaceName(client, namedIn(subject), 'nobody')
      throw undone
    }).catch((error: unknown) => {
      if (error !== undone) throw error
    })
    return counts
  }

  async function run(signal: AbortSignal): Promise<void> {
    await Promise.all([noteAgainAndAgain(signal), followAll(signal)])
  }

  /** Beside the steps and never behind them: who drains for longer than a collector may be silent would count as absent, and
   *  what it still holds would come back after an erasure that is proved. */
  async function noteAgainAndAgain(signal: AbortSignal): Promise<void> {
    let isTold = false
    while (!signal.aborted) {
      let pauseMs = collectorSilentMs / 3
      try {
        await noteCollector(database, journal)
        isTold = false
      } catch (error) {
        pauseMs = limits.erasurePollMs
        if (!isTold && !signal.aborted)
          options.onProblem(`erasures are not told that this collector is there: ${String(error)}`)
        isTold = true
      }
      await delay(pauseMs, undefined, { signal, ref: false }).catch(() => undefined)
    }
  }

  async function followAll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      wake = Promise.withResolvers()
      try {
        await follow(await selectUnfinishedErasures(database), signal)
      } catch (error) {
        if (!signal.aborted) options.onProblem(String(error))
      }
      await pause(limits.erasurePollMs, signal, wake.promise)
    }
  }

  async function follow(unfinished: readonly ErasureRow[], signal: AbortSignal): Promise<void> {
    for (const [id, { resume }] of underWay)
      if (!unfinished.some((erasure) => erasure.id === id)) {
        underWay.delete(id)
        resume()
      }
    const problems: unknown[] = []
    for (const erasure of unfinished) await goOn(erasure, signal).catch((error: unknown) => problems.push(error))
    if (problems.length > 0) throw problems[0]
  }

  /** One that cannot go on keeps nobody else's from it. */
  async function goOn(erasure: ErasureRow, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await takeStep(erasure, signal)
    if (erasure.journal === journal) await carryOn(erasure, signal)
  }

  /** What every collector does in this state, once. */
  async function takeStep({ id, state }: ErasureRow, signal: AbortSignal): Promise<void> {
    let known = underWay.get(id)
    if (known === undefined) {
      known = { resume: options.pauseKnownTexts(), sinceUnixMs: Date.now(), steps: new Set() }
      underWay.set(id, known)
    }
    if (known.steps.has(state)) return
    // Also when it is `forgetting` already: the collector may have been away.
    if (!known.steps.has('draining')) await options.drain(signal)
    if (state === 'forgetting') await options.forget()
    signal.throwIfAborted()
    await noteErasureStep(database, id, journal, state)
    known.steps.add('draining').add(state)
  }

  async function carryOn(erasure: ErasureRow, signal: AbortSignal): Promise<void> {
    const behind = await selectBehind(database, erasure.id, erasure.state, collectorSilentMs)
    if (behind.present.length > 0) return
    const of = ofRow(erasure, underWay.get(erasure.id)?.sinceUnixMs ?? 0)
    const heldBy = watchHolds(of)
    if (erasure.state === 'draining') {
      const erased = mostOf(erasure.erased, await options.rows.count(of))
      await countErased(database, erasure.id, erased)
      const held = await heldBy()
      if (held !== undefined) {
        // A run before may have been ended here, with facts gone.
        const isBegun = Object.keys(erasure.erased).length > 0
        await refuse(erasure, isBegun ? someMayBeGone(held) : held, isBegun ? erased : {})
        return
      }
      await options.rows.eraseFacts(of, signal)
      untouched.add(erasure.id)
      await moveErasure(database, erasure.id, 'forgetting')
      wake.resolve()
      return
    }
    let held = await eraseUntilNothingIsFound(erasure, of, heldBy, signal)
    const left = held === undefined ? await options.rows.count(of) : {}
    const isLeft = Object.keys(left).length > 0
    if (held === undefined) await options.rows.gone(erasure.erased, signal)
    // The name in Postgres is held too.
    held ??= await heldBy()
    if (held !== undefined) {
      await refuse(erasure, someMayBeGone(held), erasure.erased)
      return
    }
    await finish(erasure, {
      state: 'done',
      reason: isLeft ? `records that came while it ran are left: ${JSON.stringify(left)}` : '',
      erased: erasure.erased,
      absent: behind.absent,
    })
  }

  /** Once, save that records came in between: another collector's, or of a trace that goes on. Answers the hold that came. */
  async function eraseUntilNothingIsFound(
    erasure: ErasureRow,
    of: ErasureOf,
    heldBy: HeldBy,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    // One that was ended half-way: rows that others have in shared traces may be gone, and not made again.
    if (!untouched.delete(erasure.id) && (await heldBy()) !== undefined) await options.rows.resolveLeft(of)
    let held = await options.rows.eraseRows(of, heldBy, signal)
    for (let round = 1; held === undefined && round < limits.erasureRoundsMax; round++) {
      if (Object.keys(await options.rows.count(of)).length === 0) return undefined
      // More may be selected than before.
      const heldNow = watchHolds(of)
      held = await heldNow()
      if (held !== undefined) break
      await options.rows.eraseFacts(of, signal)
      await options.forget()
      held = await options.rows.eraseRows(of, heldNow, signal)
    }
    if (held === undefined)
      options.onProblem(`erasure ${erasure.id} still finds records after ${limits.erasureRoundsMax} rounds`)
    return held
  }

  /** Looks anew only when other holds are in force than the last time: what a hold is on is found by reading tables. */
  function watchHolds({ subject, selection }: ErasureOf): HeldBy {
    const { tenantId } = subject
    let looked: string | undefined
    return async () => {
      const inForce = (await options.holds.list(tenantId, false)).map(({ id }) => id).join()
      if (inForce === looked) return undefined
      const held = (await options.holds.onSubject(subject)) ?? (await options.holds.onSelection(tenantId, selection))
      if (held === undefined) looked = inForce
      return held
    }
  }

  function refuse(erasure: ErasureRow, reason: string, erased: Counts): Promise<void> {
    return finish(erasure, { state: 'refused', reason, erased, absent: [] })
  }

  async function finish(erasure: ErasureRow, end: Parameters<typeof finishErasure>[2]): Promise<void> {
    await inTransaction(database, async (client) => {
      let { erased } = end
      if (end.state === 'done') {
        const { subject } = ofRow(erasure, 0)
        erased = { ...erased, ...(await replaceName(client, namedIn(subject), `erased:${erasure.id}`)) }
      }
      await finishErasure(client, erasure.id, { ...end, erased })
      await writeAudit(client, auditOf(erasure, 'collector', `erasure.${end.state}`, { erased, reason: end.reason }))
    })
    options.onFinished(end.state)
    wake.resolve()
  }

  async function find(id: string, tenant: TenantId | undefined): Promise<ErasureRow | undefined> {
    const row = await selectErasure(database, id)
    return tenant === undefined || row?.tenant === tenant ? row : undefined
  }

  return { begin, preview, find, list: (tenant) => selectErasures(database, tenant), run }
}

function ofRow({ id, tenant, kind, name, salt }: ErasureRow, untilUnixMs: number): ErasureOf {
  const tenantId = parseTenantId(tenant)
  if (tenantId === undefined || name === null) throw new Error(`erasure ${id} has no tenant or name any more`)
  return { selection: id, subject: { tenantId, kind: kind as SubjectKind, name }, salt, untilUnixMs }
}

function someMayBeGone(held: string): string {
  return `${held}, and was placed while it ran: some of what was found to be erased may be gone`
}

/** After a restart some of it is gone already. */
function mostOf(before: Counts, found: Counts): Counts {
  const most: Record<string, number> = { ...before }
  for (const [table, rows] of Object.entries(found)) most[table] = Math.max(most[table] ?? 0, rows)
  return most
}

function namedIn({ tenantId, kind, name }: Subject): Parameters<typeof replaceName>[1] {
  return { tenant: tenantId, kind, name, account: accountName(name) }
}

/** The audit says which erasure, never whose. */
function auditOf(
  { id, tenant, kind }: ErasureRow,
  actor: string,
  action: string,
  after: object | null,
): Parameters<typeof writeAudit>[1] {
  return { tenant, actor, action, resource: `erasure ${id} of a ${kind}`, before: null, after }
}
