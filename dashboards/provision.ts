// A provisioning folder for a Grafana: data sources, boards, alerts. For `compose.yaml` it is generated and committed, with names
// of environment variables where it needs to know something; for a Grafana of one's own the command line writes it with what it
// knows. JSON is YAML, so that no writer of YAML is needed.
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { contactPoints, folder, policies, ruleGroups, templates, type Whom } from './alerts/alerts.ts'
import { buildBoards } from './boards.ts'
import { clickhouseSource, postgresSource } from './sources.ts'

export type Login = {
  readonly host: string
  readonly port: string
  readonly database: string
  readonly user: string
  readonly password: string
}

export type Grafana = {
  readonly clickhouse: Login & { readonly isTls: boolean }
  readonly postgres: Login
  /** Where Grafana finds the boards' files. */
  readonly boardsPath: string
  readonly runbooksUrl: string
  readonly whom: Whom
  /** The policies replace the whole tree of an organisation: for a Grafana that has no other. */
  readonly hasPolicies: boolean
}

/** Contents by path below the provisioning folder; boards are beside its own folders. */
export function provisioningFiles(grafana: Grafana): ReadonlyMap<string, string> {
  const files = new Map<string, string>([
    ['datasources/tallylight.yaml', yamlOf(dataSources(grafana))],
    ['dashboards/tallylight.yaml', yamlOf(boardProvider(grafana.boardsPath))],
    ['alerting/tallylight-rules.yaml', yamlOf(ruleGroups(grafana.runbooksUrl))],
    ['alerting/tallylight-contact-points.yaml', yamlOf(contactPoints(grafana.whom))],
    ['alerting/tallylight-templates.yaml', yamlOf(templates())],
  ])
  if (grafana.hasPolicies) files.set('alerting/tallylight-policies.yaml', yamlOf(policies()))
  return files
}

export function boardFiles(): ReadonlyMap<string, string> {
  return new Map(buildBoards().map((board) => [`${board.uid}.json`, yamlOf(board)]))
}

/** Everything below the folder, readable by its owner alone: it holds passwords. */
export async function writeProvisioning(
  directory: string,
  grafana: Omit<Grafana, 'boardsPath'>,
): Promise<readonly string[]> {
  const boardsPath = join(resolve(directory), 'boards')
  const files = new Map([
    ...provisioningFiles({ ...grafana, boardsPath }),
    ...[...boardFiles()].map(([name, text]) => [`boards/${name}`, text] as const),
  ])
  for (const [path, text] of files) {
    await mkdir(join(directory, path, '..'), { recursive: true, mode: 0o700 })
    await writeFile(join(directory, path), text, { mode: 0o600 })
    // One that was there keeps its mode otherwise.
    await chmod(join(directory, path), 0o600)
  }
  // Grafana looks for them and complains of those that are not there.
  await mkdir(join(directory, 'plugins'), { recursive: true })
  return [...files.keys()]
}

/** What of a provisioning folder is missing or is not what this version writes; data sources and contacts are its owner's. */
export async function checkProvisioning(directory: string, runbooksUrl: string): Promise<readonly string[]> {
  const wanted = new Map([
    ['alerting/tallylight-rules.yaml', yamlOf(ruleGroups(runbooksUrl))],
    ['alerting/tallylight-templates.yaml', yamlOf(templates())],
    ...[...boardFiles()].map(([name, text]) => [`boards/${name}`, text] as const),
  ])
  const there: (readonly [string, string | undefined])[] = [
    ...wanted,
    ['datasources/tallylight.yaml', undefined],
    ['dashboards/tallylight.yaml', undefined],
    ['alerting/tallylight-contact-points.yaml', undefined],
  ]
  const wrong: string[] = []
  for (const [path, text] of there) {
    const found = await readFile(join(directory, path), 'utf8').catch(() => undefined)
    if (found === undefined) wrong.push(`${path} is missing`)
    else if (text !== undefined && found !== text) wrong.push(`${path} is not what this version writes`)
  }
  return wrong
}

function dataSources({ clickhouse, postgres }: Grafana): object {
  const tables = { otelEnabled: true, otelVersion: 'latest', defaultDatabase: clickhouse.database }
  return {
    apiVersion: 1,
    datasources: [
      {
        ...{ orgId: 1, name: 'Tallylight ClickHouse', access: 'proxy', editable: false },
        ...clickhouseSource,
        jsonData: {
          ...{ host: clickhouse.host, port: portOf(clickhouse.port), protocol: 'http', secure: clickhouse.isTls },
          ...{ username: clickhouse.user, defaultDatabase: clickhouse.database },
          // It would read the keys of every map of the table for each editor that is opened.
          enableMapKeysDiscovery: false,
          traces: { ...tables, defaultTable: 'otel_traces' },
          logs: { ...tables, defaultTable: 'otel_logs' },
        },
        secureJsonData: { password: clickhouse.password },
      },
      {
        ...{ orgId: 1, name: 'Tallylight Postgres', access: 'proxy', editable: false },
        ...postgresSource,
        ...{ url: `${postgres.host}:${postgres.port}`, user: postgres.user },
        jsonData: { database: postgres.database, sslmode: 'disable', postgresVersion: 1500, maxOpenConns: 5 },
        secureJsonData: { password: postgres.password },
      },
    ],
  }
}

/** A number, or the name of a variable that Grafana replaces. */
function portOf(port: string): number | string {
  return /^\d+$/.test(port) ? Number(port) : port
}

function boardProvider(path: string): object {
  return {
    apiVersion: 1,
    providers: [
      {
        ...{ orgId: 1, name: 'tallylight', folder, folderUid: 'tallylight', type: 'file' },
        ...{ disableDeletion: true, allowUiUpdates: false, updateIntervalSeconds: 30 },
        options: { path },
      },
    ],
  }
}

function yamlOf(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}
