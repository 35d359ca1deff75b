// The two data sources and their queries. The SDK has no query type for either, so these are ours: what the plugins store.
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog'

/** Fixed, because alert rules cannot use a variable. */
export const clickhouseSource = { type: 'grafana-clickhouse-datasource', uid: 'tallylight-clickhouse' } as const
export const postgresSource = { type: 'grafana-postgresql-datasource', uid: 'tallylight-postgres' } as const
/** In dashboards, so that they can be pointed elsewhere. */
export const chosenClickhouse = { type: clickhouseSource.type, uid: `\${datasource}` } as const
export const chosenPostgres = { type: postgresSource.type, uid: `\${postgres}` } as const

/** The plugin's version that the queries were written for; it migrates older ones when it loads them. */
export const clickhousePluginVersion = '4.20.0'

export type Source = typeof clickhouseSource | typeof postgresSource | typeof chosenClickhouse | typeof chosenPostgres
export type Shape = 'timeseries' | 'table' | 'traces'

export type Query = Dataquery & {
  readonly refId: string
  readonly datasource: Source
  readonly rawSql: string
}

/** What the plugin's backend reads; `queryType` is for its editor. */
const clickhouseFormats = { timeseries: 0, table: 1, traces: 3 } as const

const isDataquery = { _implementsDataqueryVariant: () => undefined }

export function clickhouse(shape: Shape, sql: string, refId = 'A', datasource: Source = chosenClickhouse): Query {
  return {
    ...isDataquery,
    ...{ refId, datasource, editorType: 'sql', queryType: shape, format: clickhouseFormats[shape] },
    ...{ rawSql: dedent(sql), pluginVersion: clickhousePluginVersion },
  }
}

export function postgres(
  shape: 'timeseries' | 'table',
  sql: string,
  refId = 'A',
  datasource: Source = chosenPostgres,
): Query {
  const format = shape === 'timeseries' ? 'time_series' : 'table'
  return { ...isDataquery, ...{ refId, datasource, format, rawQuery: true, editorMode: 'code', rawSql: dedent(sql) } }
}

export function built<Thing>(thing: Thing): Builder<Thing> {
  return { build: () => thing }
}

/** Without the indentation of the source file: it is read in Grafana's editor, too. */
function dedent(sql: string): string {
  return sql
    .trim()
    .split('\n')
    .map((line) => line.trim())
    .join('\n')
}
