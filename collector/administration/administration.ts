// What is done to records that are there already: erasing, holding, keeping them longer or shorter, pricing them later.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type pg from 'pg'
import type { GenAi } from '../genai/genai.ts'
import type { Journal } from '../journal/journal.ts'
import { openRowErasure } from './erase-rows.ts'
import { type Erasures, openErasures } from './erasures.ts'
import { type Holds, openHolds } from './holds.ts'
import { openMutations } from './mutations.ts'
import { openSelections } from './selection.ts'

export type Administration = {
  readonly erasures: Erasures
  readonly holds: Holds
  /** Until the signal. */
  run(signal: AbortSignal): Promise<void>
}

export function openAdministration(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly database: pg.Pool
  readonly journal: Pick<Journal, 'id' | 'drain'>
  readonly genai: Pick<GenAi, 'resolver' | 'pauseKnownTexts'>
  readonly onProblem: (message: string) => void
  readonly onErased: (state: 'done' | 'refused') => void
}): Administration {
  const { clickhouse, targetOf, database, journal, genai, onProblem } = options
  const selections = openSelections(clickhouse, targetOf)
  const mutations = openMutations(clickhouse, onProblem)
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
    forget: genai.resolver.forget,
    pauseKnownTexts: genai.pauseKnownTexts,
    onProblem,
    onFinished: options.onErased,
  })
  return {
    erasures,
    holds,
    run: async (signal) => {
      await erasures.run(signal)
    },
  }
}
