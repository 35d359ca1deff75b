// An alert rule: a query that gives one number per set of labels, and the bound beyond which it fires. Alert rules know no
// variables and no macros of the browser; their sources are the fixed ones.
import type { BoardName } from '../links.ts'
import { clickhouse, clickhouseSource, postgres, postgresSource, type Query } from '../sources.ts'

export type Rule = {
  /** Names its runbook, too. */
  readonly uid: string
  readonly title: string
  /** `page`: somebody must look now. `ticket`: somebody must look today. */
  readonly severity: 'page' | 'ticket'
  /** One number per row, labels beside it. */
  readonly query: Query
  /** How far back the query looks. */
  readonly overSeconds: number
  readonly fires: { readonly when: 'above' | 'below'; readonly bound: number }
  /** How long it must hold. */
  readonly forSeconds: number
  /** Templates of Grafana's: `$labels`, `$values.B.Value`. */
  readonly summary: string
  readonly board: BoardName
  readonly panelId: number
  /** What no rows mean: nothing wrong, unless silence is what it watches for. */
  readonly isSilenceAlarming?: boolean
}

export function ask(sql: string): Query {
  return clickhouse('timeseries', sql, 'A', clickhouseSource)
}

export function askLedger(sql: string): Query {
  return postgres('table', sql, 'A', postgresSource)
}
