// One call per row, as several boards list them.
import { seconds, usd } from '../filters.ts'
import { toBoardOf, toConversation, toTrace } from '../links.ts'
import type { Column } from '../panels.ts'

export const callFields = [
  'TenantId AS tenant, ServiceName AS service, Provider AS provider, Model AS model, UserId AS user',
  `  ${seconds('DurationNano')} AS duration, ${seconds('TimeToFirstTokenNano')} AS first_token`,
  `  InputTokens AS input, OutputTokens AS output, ${usd('CostNanoUsd')} AS cost, UsageSource AS usage`,
  '  ConversationId AS conversation, TraceId AS trace',
].join(',\n')

export const callColumns: Readonly<Record<string, Column>> = {
  trace: { link: toTrace(), width: 280 },
  conversation: { link: toConversation() },
  tenant: { link: toBoardOf('tenants', 'tenant', 'tenant', 'The tenant') },
  model: { link: toBoardOf('models', 'model', 'model', 'The model') },
  duration: { unit: 's' },
  first_token: { unit: 's' },
  cost: { unit: 'currencyUSD', decimals: 4 },
  input: { unit: 'short' },
  output: { unit: 'short' },
}
