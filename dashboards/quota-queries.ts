// What is asked of the ledger, by boards and by alerts. Amounts of cost are nano-dollars there and dollars here.

/** Several or all tenants, in Postgres, where no macro knows of All; an empty list is a list, too. */
export const ofTenants = `tenant = ANY(ARRAY[\${tenant:sqlstring}]::text[])`
/** For alerts. */
export const everyTenant = `tenant <> 'tallylight'`

/** Accounts stay when their limit is removed. */
const isStanding = '(tenant, limit_id) IN (SELECT tenant, id FROM quota_limits)'

const dollars = (column: string): string =>
  `CASE WHEN measure = 'cost' THEN ${column} / 1e9 ELSE ${column} END AS ${column}`

/** Accounts of the windows that are open, the fullest first, and when each will be empty at the pace of the last hour. */
export function limitsSql(tenants: string): string {
  return `
    WITH paces AS (
      SELECT tenant, limit_id, subject, sum(spent) / 3600.0 AS per_second
      FROM quota_entries
      WHERE at > now() - interval '1 hour' AND kind NOT IN ('grant', 'slide') AND ${tenants}
      GROUP BY tenant, limit_id, subject
    )
    SELECT tenant, limit_id AS "limit", subject, measure, "window", action,
      ${['granted', 'spent', 'held', 'free', 'debt'].map(dollars).join(', ')},
      (spent + held)::float8 / nullif(granted, 0) AS used,
      CASE WHEN per_second > 0 AND free / per_second < coalesce(extract(epoch FROM window_end - now()), 1e9)
        THEN (free / per_second)::float8 END AS exhausted_in
    FROM quota_balances
    LEFT JOIN paces USING (tenant, limit_id, subject)
    WHERE ${tenants} AND ${isStanding} AND (window_end IS NULL OR window_end > now())
    ORDER BY used DESC NULLS LAST, tenant, "limit", subject
    LIMIT 500`
}

/** The fastest first. */
export function burnSql(tenants: string): string {
  return `${pacesSql(tenants)}
    ORDER BY "1 h" DESC, tenant, "limit", subject
    LIMIT 500`
}

// Spending is known by the hour: so many whole ones and what there is of this one, over the time that they took. Whole hours
// alone would be few when one has just begun, and a pace would fall at each stroke of the clock.
const wholeHours = (hours: number): string => `date_trunc('hour', now()) - interval '${hours} hours'`
const hoursSince = (hours: number): string => `(extract(epoch FROM now() - (${wholeHours(hours)})) / 3600)`

/** Paces of spending as multiples of the one that uses up the limit exactly at the end of its window. */
function pacesSql(tenants: string): string {
  return `
    WITH hours AS (
      SELECT tenant, limit_id, subject, sum(spent) AS last_hour
      FROM quota_entries
      WHERE at > now() - interval '1 hour' AND kind NOT IN ('grant', 'slide') AND ${tenants}
      GROUP BY tenant, limit_id, subject
    ), days AS (
      SELECT tenant, limit_id, subject, sum(spent) FILTER (WHERE hour >= ${wholeHours(6)}) / ${hoursSince(6)} AS last_6_hours,
        sum(spent) / ${hoursSince(72)} AS last_3_days
      FROM quota_spending
      WHERE hour >= ${wholeHours(72)} AND ${tenants}
      GROUP BY tenant, limit_id, subject
    )
    SELECT tenant, limit_id AS "limit", subject, "window",
      coalesce(last_hour, 0)::float8 / sustainable AS "1 h", coalesce(last_6_hours, 0)::float8 / sustainable AS "6 h",
      coalesce(last_3_days, 0)::float8 / sustainable AS "3 d"
    FROM quota_balances
    JOIN days USING (tenant, limit_id, subject)
    LEFT JOIN hours USING (tenant, limit_id, subject)
    CROSS JOIN LATERAL (SELECT granted / (extract(epoch FROM window_end - window_start)::float8 / 3600) AS sustainable) s
    WHERE measure = 'cost' AND window_end > now() AND granted > 0 AND ${tenants} AND ${isStanding}`
}

export function spentSql(tenants: string): string {
  return `
    SELECT hour AS time, tenant || ' ' || limit_id AS metric, sum(spent) / 1e9 AS spent
    FROM quota_spending
    WHERE $__timeFilter(hour) AND ${tenants}
      AND (tenant, limit_id) IN (SELECT tenant, id FROM quota_limits WHERE measure = 'cost')
    GROUP BY 1, 2 ORDER BY 1, 2`
}

// Grafana remembers every account that it is told of, and a limit of each user has as many as there are users: alerts ask only for
// those that are beyond their bound.

/** For alerts: how much of the limit is used, of each account where that is more than one share and at most the other. */
export function usedSql(above: number, most: string): string {
  return `
    SELECT tenant, limit_id AS "limit", subject, max((spent + held)::float8 / granted) AS value
    FROM quota_balances
    WHERE (window_end IS NULL OR window_end > now()) AND measure <> 'concurrency' AND granted > 0 AND ${everyTenant} AND ${isStanding}
    GROUP BY tenant, limit_id, subject
    HAVING max((spent + held)::float8 / granted) > ${above} AND max((spent + held)::float8 / granted) <= ${most}`
}

/** For alerts: the smaller of two paces, so that one that has ended does not fire. */
export function slowerPaceSql(one: '1 h' | '6 h', other: '6 h' | '3 d', above: number): string {
  return `
    SELECT tenant, "limit", subject, least("${one}", "${other}") AS value
    FROM (${pacesSql(everyTenant)}) paces
    WHERE least("${one}", "${other}") > ${above}`
}
