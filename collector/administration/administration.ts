// What is done to records that are there already: erasing, holding, keeping them longer or shorter, pricing them later.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type pg from 'pg'
import type { GenAi } from '../genai/genai.ts'
import type { Journal } from '../journal/journal.ts'
import type { Ledger } from '../quota/ledger.ts'
import { type Background, type Backgrounds, openBackground, openBackgrounds } from './background.ts'
import { openRowErasure } from './erase-rows.ts'
import { type Erasures, openErasures } from './erasures.ts'
import { type Holds, openHolds } from './holds.ts'
import { type IsTenantKnown, openKnownTenants } from './known-tenants.ts'
import { openMutations } from './mutations.ts'
import { openReprice, type Reprice, type Repriced } from './reprice.ts'
import { type Applied, type DaysOf, openRetention, type Retention } from './retention.ts'
import { openSelections } from './selection.ts'

export type Administration = {
  readonly erasures: Erasures
  readonly holds: Holds
  readonly isTenantKnown: IsTenantKnown
  readonly retention: Retention
  readonly retentionRun: Background<Applied>
  readonly reprice: Reprice
  readonly repriceRuns: Backgrounds<Repriced>
  /** Until the signal. */
  run(): Promise<void>
}

export function openAdministration(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly database: pg.Pool
  readonly journal: Pick<Journal, 'id' | 'drain'>
  readonly genai: Pick<GenAi, 'resolver' | 'pauseKnownTexts'>
  readonly ledger: Pick<Ledger, 'forget'>
  readonly daysOf: DaysOf
  readonly tenantsWithRetention: readonly string[]
  readonly signal: AbortSignal
  readonly onProblem: (message: string) => void
  readonly onErased: (state: 'done' | 'refused') => void
}): Administration {
  const { clickhouse, targetOf, database, journal, genai, signal, onProblem } = options
  const mutations = openMutations(clickhouse, onProblem)
  const selections = openSelections(clickhouse, targetOf, mutations)
  const holds = openHolds(database, selections)
  const rows = openRowErasure({
    clickhouse,
    targetOf,
    selections,
    mutations,
    resolveAgain: genai.resolver.resolveAgain,
  })
  const erasures = openErasures({
    database,
    journal: journal.id,
    rows,
    holds,
    drain: journal.drain,
    forget: () => {
      options.ledger.forget()
      return genai.resolver.forget()
    },
    pauseKnownTexts: genai.pauseKnownTexts,
    onProblem,
    onFinished: options.onErased,
  })
  const retention = openRetention({
    clickhouse,
    targetOf,
    selections,
    mutations,
    holds,
    daysOf: options.daysOf,
    tenants: options.tenantsWithRetention,
    onProblem,
  })
  return {
    erasures,
    holds,
    isTenantKnown: openKnownTenants({ clickhouse, targetOf, database }),
    retention,
    retentionRun: openBackground(signal),
    reprice: openReprice({ clickhouse, targetOf, reprice: genai.resolver.reprice }),
    repriceRuns: openBackgrounds(signal),
    run: async () => {
      await Promise.all([erasures.run(signal), retention.run(signal)])
    },
  }
}
