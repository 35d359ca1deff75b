// Everything that is written for Grafana, by its path under generated/: the boards, and the provisioning of compose.yaml, which
// names its secrets as environment variables.
import { boardFiles, provisioningFiles } from './provision.ts'

export function generatedFiles(): ReadonlyMap<string, string> {
  const provisioning = provisioningFiles({
    clickhouse: {
      ...{ host: 'clickhouse', port: '8123', database: 'tallylight', isTls: false },
      ...{ user: 'grafana', password: '$CLICKHOUSE_READER_PASSWORD' },
    },
    postgres: {
      ...{ host: 'postgres', port: '5432', database: 'tallylight' },
      ...{ user: 'tallylight_read', password: '$POSTGRES_READER_PASSWORD' },
    },
    boardsPath: '/etc/tallylight/boards',
    runbooksUrl: 'http://localhost:4319/runbooks',
    whom: { pageUrl: '$TALLYLIGHT_PAGE_URL', ticketEmail: '$TALLYLIGHT_TICKET_EMAIL' },
    hasPolicies: true,
  })
  return new Map([
    ...[...boardFiles()].map(([name, text]) => [`boards/${name}`, text] as const),
    ...[...provisioning].map(([path, text]) => [`provisioning/${path}`, text] as const),
  ])
}
