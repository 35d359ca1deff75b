// Grafana ignores a field that it does not know without a word, and replaces a dollar by what the environment says. The fields stand
// here as Grafana 13.2 and the ClickHouse plugin 4.20 read them (decisions/0013-dashboards.md names the sources).
import { describe, expect, test } from 'vitest'
import { rules } from './alerts/alerts.ts'
import { buildBoards } from './boards.ts'
import { provisioningFiles } from './provision.ts'

type Json = { readonly [key: string]: Json } & readonly Json[] & string
const login = { host: 'h', port: '1', database: 'd', user: 'u', password: '$SECRET' }
const files = provisioningFiles({
  ...{ clickhouse: { ...login, isTls: false }, postgres: login, boardsPath: '/boards', runbooksUrl: 'http://runbooks' },
  ...{ whom: { pageUrl: '$PAGE', ticketEmail: '$TICKET' }, hasPolicies: true },
})
const file = (path: string): Json => JSON.parse(files.get(path) ?? '') as Json

/** Every field of each, and those that must be there. */
function check(what: string, things: readonly Json[], known: string, needed: string): void {
  test(`provisioning: ${what} has only fields that are read, and all that are needed`, () => {
    expect(things.length).toBeGreaterThan(0)
    for (const thing of things) {
      const fields = Object.keys(thing)
      expect(fields.filter((field) => !known.split(' ').includes(field))).toEqual([])
      expect(needed.split(' ').filter((field) => !fields.includes(field))).toEqual([])
    }
  })
}

const groups = file('alerting/tallylight-rules.yaml').groups as Json
const ruleFiles = groups.flatMap((group) => [...(group.rules as Json)])
const queries = ruleFiles.flatMap((rule) => [...(rule.data as Json)])
const models = queries.map(({ model }) => model as Json)
const ofSource = (type: string): readonly Json[] => [
  ...models.filter(({ datasource }) => datasource?.type === type),
  ...buildBoards()
    .flatMap(({ panels = [] }) =>
      panels.flatMap((panel) => ('targets' in panel ? ((panel.targets ?? []) as unknown as readonly Json[]) : [])),
    )
    .filter(({ datasource }) => datasource?.type === type),
]
const sources = file('datasources/tallylight.yaml').datasources as Json
const points = file('alerting/tallylight-contact-points.yaml').contactPoints as Json
const [policy] = file('alerting/tallylight-policies.yaml').policies as Json

check('a rule group', groups, 'orgId name folder interval rules', 'name folder interval rules')
check(
  'a rule',
  ruleFiles,
  'uid title condition data dashboardUid panelId noDataState execErrState for keepFiringFor annotations labels isPaused',
  'uid title condition data dashboardUid panelId noDataState execErrState for annotations labels',
)
check(
  'a query of a rule',
  queries,
  'refId queryType relativeTimeRange datasourceUid model',
  'refId relativeTimeRange datasourceUid model',
)
check(
  'a query of ClickHouse',
  ofSource('grafana-clickhouse-datasource'),
  'refId datasource editorType queryType format rawSql pluginVersion meta expand hide',
  'refId datasource editorType format rawSql pluginVersion',
)
check(
  'a query of Postgres',
  ofSource('grafana-postgresql-datasource'),
  'refId datasource format rawQuery editorMode rawSql hide',
  'refId datasource format rawQuery rawSql',
)
check('a contact point', points, 'orgId name receivers', 'name receivers')
check(
  'a receiver',
  points.flatMap(({ receivers }) => [...(receivers as Json)]),
  'uid type settings disableResolveMessage',
  'uid type settings',
)
check(
  'a policy',
  [policy as Json, ...((policy as Json).routes as Json)],
  'orgId receiver group_by matchers object_matchers mute_time_intervals continue routes group_wait group_interval repeat_interval',
  'receiver repeat_interval',
)
check(
  'a template',
  file('alerting/tallylight-templates.yaml').templates as Json,
  'orgId name template',
  'name template',
)
check(
  'a data source',
  sources,
  'orgId name type uid access url user isDefault jsonData secureJsonData editable version',
  'name type uid access jsonData secureJsonData',
)
check(
  'the plugin of ClickHouse',
  [(sources[0] as Json).jsonData as Json],
  'host port protocol secure path username defaultDatabase enableMapKeysDiscovery traces logs',
  'host port protocol username defaultDatabase',
)
check(
  'a provider of boards',
  file('dashboards/tallylight.yaml').providers as Json,
  'orgId name folder folderUid type disableDeletion allowUiUpdates updateIntervalSeconds options',
  'name type options',
)

describe('provisioning', () => {
  test('what is said of no data and of errors is a state, and bounds are durations', () => {
    for (const rule of ruleFiles) {
      expect(['Alerting', 'OK']).toContain(rule.noDataState)
      expect(['Alerting', 'Error']).toContain(rule.execErrState)
      expect(rule.for).toMatch(/^\d+s$/)
    }
    expect(new Set(ruleFiles.map(({ title }) => title)).size).toBe(rules.length)
  })

  test('a format is the number that the plugin’s backend reads for what its editor calls it', () => {
    const formats = { timeseries: 0, table: 1, traces: 3 } as const
    for (const { format, queryType } of ofSource('grafana-clickhouse-datasource'))
      expect(format).toBe(formats[queryType as unknown as keyof typeof formats])
  })

  test('a dollar stands only where Grafana leaves it, or where a variable of the environment is meant', () => {
    const names: string[] = []
    const look = (value: unknown, path: string): void => {
      if (typeof value === 'string') {
        // Models and annotations are taken as they stand, but for ${…}.
        const isRaw = /\.(model|annotations)\./.test(path)
        for (const [all] of value.matchAll(/\$\{?\w*/g)) if (!isRaw || all.startsWith('${')) names.push(all)
      } else for (const [key, each] of Object.entries(value ?? {})) look(each, `${path}.${key}`)
    }
    for (const [path, text] of files) look(JSON.parse(text), path)
    expect([...new Set(names)].toSorted()).toEqual(['$PAGE', '$SECRET', '$TICKET'])
  })
})
