// Turns that were seen and are not in the chat log: traces in which a fact speaks of a call, a tool call or a turn, and which
// have no turn. Every stored turn was seen, so what was seen is what is stored and what is lost.
import { ofService, ofTenant, ownTenant } from '../filters.ts'

/** Facts and rows of a trace are written together; this is for those that are between the two now. */
const settledSeconds = 120

const speaksOfTurn = `JSONExtractString(Fact, 'says', 'kind') IN ('call', 'tool', 'turn') AND NOT JSONHas(Fact, 'scene', 'isProbe')`

// A turn may have begun before the time that is looked at: an hour before, or a day if it was that long. PREWHERE, because facts
// are long and few of them are lost.
const lostOf = (where: string): string => `(
SELECT TenantId, TraceId, min(Timestamp) AS at
FROM genai_facts
PREWHERE ${where} AND Timestamp < now() - ${settledSeconds}
AND (TenantId, TraceId) NOT IN (SELECT TenantId, TraceId FROM turn_rows WHERE Timestamp >= $__fromTime - 86400 AND Timestamp <= $__toTime
AND (Timestamp >= $__fromTime - 3600 OR DurationNano >= 3600 * 1e9))
WHERE TraceId != '' AND ${speaksOfTurn}
GROUP BY TenantId, TraceId
)`

/** A sub-select of `TenantId`, `TraceId` and `at`. */
export const lostTurns = lostOf(ofTenant)

/** A sub-select of `at` and `isStored`, a row for each turn that was seen. */
export const seenTurns = `(
SELECT Timestamp AS at, 1 AS isStored FROM turns WHERE ${ofService}
UNION ALL
SELECT at, 0 AS isStored FROM ${lostTurns}
)`

/** The same of all tenants, for alerts: they know no variables. */
export const everySeenTurn = `(
SELECT Timestamp AS at, 1 AS isStored FROM turns WHERE $__timeFilter(Timestamp) AND TenantId != '${ownTenant}'
UNION ALL
SELECT at, 0 AS isStored FROM ${lostOf(`$__timeFilter(Timestamp) AND TenantId != '${ownTenant}'`)}
)`
