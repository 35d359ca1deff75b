// The queries of the boards, as Grafana asks them: with a range, a bucket, and values for their variables.
import type { Dashboard, Panel, VariableModel } from '@grafana/grafana-foundation-sdk/dashboard'
import { type Dialect, type Expansion, expand, type Range, type Values } from '@tallylight/dashboards/expand.ts'
import { postgresSource, type Query } from '@tallylight/dashboards/sources.ts'
import type { Sources, Table } from './world.ts'

/** Pixels of a panel, which is what Grafana divides the range by. */
const pointsMax = 360

export function panelsOf(board: Dashboard): readonly (Panel & { readonly id: number; readonly title: string })[] {
  return (board.panels ?? []).filter((panel): panel is Panel & { id: number; title: string } => panel.type !== 'row')
}

export function targetsOf(panel: Panel): readonly Query[] {
  return (panel.targets ?? []) as unknown as readonly Query[]
}

export function variablesOf(board: Dashboard): readonly VariableModel[] {
  return board.templating.list ?? []
}

export function variableQueriesOf(board: Dashboard): readonly { readonly name: string; readonly query: Query }[] {
  return variablesOf(board)
    .filter(({ type }) => type === 'query')
    .map(({ name, query, datasource }) => {
      const rawSql = typeof query === 'string' ? query : String(query?.rawSql)
      return { name, query: { rawSql, datasource } as Query }
    })
}

export function dialectOf(query: Query): Dialect {
  return query.datasource.type === postgresSource.type ? 'postgres' : 'clickhouse'
}

/** All of every list and nothing in every text. */
export function allOf(board: Dashboard): Values {
  return Object.fromEntries(
    variablesOf(board).flatMap(({ type, name }): [string, readonly string[] | '$__all'][] =>
      type === 'query' ? [[name, '$__all']] : type === 'textbox' ? [[name, ['']]] : [],
    ),
  )
}

export async function ask(
  sources: Sources,
  query: Query,
  options: Pick<Expansion, 'values' | 'options'> & { readonly range: Range; readonly panel?: Panel },
): Promise<Table> {
  const seconds = (options.range.toUnixMs - options.range.fromUnixMs) / 1000 / pointsMax
  const least = options.panel?.interval === '1m' ? 60 : 1
  const expansion = { ...options, intervalSeconds: Math.max(Math.ceil(seconds), least) }
  const dialect = dialectOf(query)
  return sources[dialect](expand(dialect, query.rawSql, expansion))
}
