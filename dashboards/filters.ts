// What the boards ask of every row: its time, that it is not the collector's own, and what the reader chose. Attribute and column names that
// several boards share stand here once.

/** Keeps the collector's own numbers and its canary; in nobody's cost and in nobody's objective. */
export const ownTenant = 'tallylight'

/** One value, several or all. The plugin wants the bare variable as the second argument. */
export function chosen(column: string, variable: string): string {
  return `$__conditionalAll(${column} IN (\${${variable}:singlequote}), $${variable})`
}

const time = '$__timeFilter(Timestamp)'
const tenant = chosen('TenantId', 'tenant')
const service = chosen('ServiceName', 'service')

/** What a limit denied was sent to nobody: no failure of a model, no call that it answered quickly. It is a turn's fate, and stands on
 *  the boards of tenants, conversations and traces. */
export const wasSent = `ErrorType != 'QuotaExceededError'`

/** WHERE of llm_calls. */
export const ofCalls = [
  `${time} AND TenantId != '${ownTenant}' AND ${wasSent}`,
  `  AND ${tenant} AND ${service}`,
  `  AND ${chosen('Provider', 'provider')} AND ${chosen('Model', 'model')}`,
].join('\n')

/** WHERE of turns, tool_calls and errors, which know no model. */
export const ofService = `${time} AND TenantId != '${ownTenant}'\n  AND ${tenant} AND ${service}`

/** WHERE of messages and health_checks, which know no service. */
export const ofTenant = `${time} AND TenantId != '${ownTenant}' AND ${tenant}`

/** Providers say it by status, by name, and in several spellings. */
export const isRateLimited = `match(ErrorType, '(?i)^429$|rate.?limit|too.?many.?requests|throttl|resource.?exhausted')`

export const seconds = (column: string): string => `${column} / 1e9`
export const usd = (column: string): string => `${column} / 1e9`

/** 50th, 95th and 99th percentile of nanoseconds, as columns in seconds. */
export function percentiles(column: string): string {
  return [50, 95, 99].map((level) => `quantile(0.${level})(${column}) / 1e9 AS p${level}`).join(', ')
}
