// A board: rows that each ask a question, panels in them from left to right, and the variables above. Built by the SDK into
// Grafana's classic JSON, which every version from 11.6 on loads from a file (decisions/0013-dashboards.md says why not v2).
import {
  type AnnotationQuery,
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  type Panel,
  QueryVariableBuilder,
  RowBuilder,
  TextBoxVariableBuilder,
  type VariableModel,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { ownTenant } from './filters.ts'
import { type BoardName, uids } from './links.ts'
import { gridColumns, type PanelPlan } from './panels.ts'
import { chosenClickhouse, chosenPostgres, clickhouseSource, postgresSource } from './sources.ts'

export type Row = { readonly question: string; readonly panels: readonly PanelPlan[] }

export type BoardPlan = {
  readonly name: BoardName
  readonly title: string
  readonly description: string
  readonly from?: string
  readonly variables: readonly VariableName[]
  readonly rows: readonly Row[]
}

export type VariableName = keyof typeof variables

const variables = {
  postgres: () =>
    new DatasourceVariableBuilder('postgres')
      .label('Postgres')
      .type(postgresSource.type)
      .description('The ledger of quotas.'),
  tenant: () =>
    choice(
      'tenant',
      'Tenant',
      `SELECT DISTINCT TenantId FROM llm_call_rows WHERE $__timeFilter(Timestamp) AND TenantId != '${ownTenant}' ORDER BY 1`,
    ),
  /** Those that may have limits, whether they make calls or not. */
  tenantOfLimits: () =>
    choice('tenant', 'Tenant', `SELECT id FROM tenants WHERE id <> '${ownTenant}' ORDER BY 1`, chosenPostgres),
  service: () => choice('service', 'Service', distinct('ServiceName')),
  provider: () => choice('provider', 'Provider', distinct('Provider')),
  model: () => choice('model', 'Model', distinct('Model')),
  collector: () =>
    choice(
      'collector',
      'Collector',
      `SELECT DISTINCT ResourceAttributes['service.instance.id'] FROM otel_metrics_gauge WHERE $__timeFilter(TimeUnix) AND TenantId = '${ownTenant}' AND ServiceName = '${ownTenant}' AND MetricName = 'tallylight.build_info' ORDER BY 1`,
    ),
  conversation: () => text('conversation', 'Conversation', 'An id, whole; empty is the newest of the range.'),
  trace: () => text('trace', 'Trace', 'A trace id of 32 hexadecimal digits; empty is the newest of the range.'),
} as const

// Asked of the rows and not of the views: a value that was superseded is still one that may be chosen, and FINAL is spared.
function distinct(column: string): string {
  return `SELECT DISTINCT ${column} FROM llm_call_rows WHERE $__timeFilter(Timestamp) AND TenantId != '${ownTenant}' AND ${column} != '' ORDER BY 1`
}

function choice(
  name: string,
  label: string,
  rawSql: string,
  datasource: typeof chosenClickhouse | typeof chosenPostgres = chosenClickhouse,
): QueryVariableBuilder {
  const isClickhouse = datasource === chosenClickhouse
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(datasource)
    .query(isClickhouse ? { refId: 'var', queryType: 'sql', editorType: 'sql', rawSql } : rawSql)
    .multi(true)
    .includeAll(true)
    .current({ text: 'All', value: '$__all' })
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.Disabled)
}

function text(name: string, label: string, description: string): TextBoxVariableBuilder {
  return new TextBoxVariableBuilder(name)
    .label(label)
    .description(description)
    .defaultValue('')
    .current({ text: '', value: '' })
}

export function buildBoard(plan: BoardPlan): Dashboard {
  const builder = new DashboardBuilder(plan.title)
    .uid(uids[plan.name])
    .description(plan.description)
    .tags(['tallylight'])
    .readonly()
    .tooltip(DashboardCursorSync.Crosshair)
    .time({ from: plan.from ?? 'now-1h', to: 'now' })
    .refresh('1m')
    .withVariable(
      new DatasourceVariableBuilder('datasource')
        .label('Data source')
        .type(clickhouseSource.type)
        .description('ClickHouse.'),
    )
  for (const name of plan.variables) builder.withVariable(variables[name]())
  const built = builder.build()
  return repaired({ ...built, panels: placed(plan.rows) })
}

/** Rows that are always open: one folded away hides its panels in an incident. */
function placed(rows: readonly Row[]): Dashboard['panels'] & {} {
  const panels: NonNullable<Dashboard['panels']> = []
  let y = 0
  for (const [at, { question, panels: plans }] of rows.entries()) {
    panels.push(
      new RowBuilder(question)
        .id(rowIdsFrom + at)
        .gridPos({ x: 0, y, w: gridColumns, h: 1 })
        .build(),
    )
    y++
    let x = 0
    let lineHeight = 0
    for (const plan of plans) {
      if (x + plan.width > gridColumns) {
        x = 0
        y += lineHeight
        lineHeight = 0
      }
      panels.push({ ...plan.build(), gridPos: { x, y, w: plan.width, h: plan.height } } satisfies Panel)
      x += plan.width
      lineHeight = Math.max(lineHeight, plan.height)
    }
    y += lineHeight
  }
  return panels
}

/** Panels are numbered below. */
const rowIdsFrom = 1000

/** What the SDK leaves out or puts too much: the built-in annotations, fields of interval variables on all others, and the
 *  marker functions of queries. */
function repaired(dashboard: Dashboard): Dashboard {
  const list = (dashboard.templating.list ?? []).map(
    ({ auto, auto_min, auto_count, ...variable }): VariableModel => variable,
  )
  const whole = { ...dashboard, id: null, templating: { list }, annotations: { list: [builtInAnnotations] } }
  return JSON.parse(JSON.stringify(whole)) as Dashboard
}

const builtInAnnotations: AnnotationQuery = {
  builtIn: 1,
  datasource: { type: 'grafana', uid: '-- Grafana --' },
  enable: true,
  hide: true,
  iconColor: 'rgba(0, 211, 255, 1)',
  name: 'Annotations & Alerts',
  type: 'dashboard',
}
