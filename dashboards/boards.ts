// Every board, as Grafana loads it.
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import { type BoardPlan, buildBoard } from './board.ts'
import { collector } from './boards/collector.ts'
import { conversations } from './boards/conversations.ts'
import { integrity } from './boards/integrity.ts'
import { models } from './boards/models.ts'
import { overview } from './boards/overview.ts'
import { tenants } from './boards/tenants.ts'
import { tools } from './boards/tools.ts'
import { trace } from './boards/trace.ts'

export const boardPlans: readonly BoardPlan[] = [
  overview,
  models,
  tenants,
  tools,
  conversations,
  trace,
  collector,
  integrity,
]

export function buildBoards(): readonly Dashboard[] {
  return boardPlans.map(buildBoard)
}
