// The statements of the tables `erasures`, `erasure_steps` and `collectors`.
import type pg from 'pg'
import type { Queryable } from './keys.ts'

export type ErasureRow = {
  readonly id: string
  readonly tenant: string
  readonly kind: string
  /** Null once it is done. */
  readonly name: string | null
  readonly salt: string
  readonly name_hash: string
  readonly requested_by: string
  readonly requested_at: Date
  readonly journal: string
  readonly state: 'draining' | 'forgetting' | 'done' | 'refused'
  readonly reason: string
  readonly finished_at: Date | null
  readonly erased: Readonly<Record<string, number>>
  readonly absent: readonly string[]
}

export type NewErasureRow = Pick<ErasureRow, 'tenant' | 'kind' | 'salt' | 'name_hash' | 'requested_by' | 'journal'> & {
  readonly name: string
}

const columns = `id, tenant, kind, name, salt, name_hash, requested_by, requested_at, journal, state, reason, finished_at,
  erased, absent`

export async function insertErasure(database: Queryable, row: NewErasureRow): Promise<ErasureRow> {
  const { rows } = await database.query<ErasureRow>(
    `insert into erasures (tenant, kind, name, salt, name_hash, requested_by, journal)
     values ($1, $2, $3, $4, $5, $6, $7) returning ${columns}`,
    [row.tenant, row.kind, row.name, row.salt, row.name_hash, row.requested_by, row.journal],
  )
  return rows[0] as ErasureRow
}

export async function selectErasure(database: Queryable, id: string): Promise<ErasureRow | undefined> {
  const { rows } = await database.query<ErasureRow>(`select ${columns} from erasures where id = $1`, [id])
  return rows[0]
}

/** The latest first. `tenant` undefined: of all tenants. */
export async function selectErasures(database: Queryable, tenant: string | undefined): Promise<readonly ErasureRow[]> {
  const { rows } = await database.query<ErasureRow>(
    `select ${columns} from erasures where $1::text is null or tenant = $1 order by requested_at desc limit 1000`,
    [tenant ?? null],
  )
  return rows
}

export async function selectUnfinishedErasures(database: Queryable): Promise<readonly ErasureRow[]> {
  const { rows } = await database.query<ErasureRow>(
    `select ${columns} from erasures where finished_at is null order by requested_at, id`,
  )
  return rows
}

/** Those of a tenant that have begun to take rows: what they have found to take is written before they do. */
export async function selectErasing(database: Queryable, tenant: string): Promise<readonly string[]> {
  const { rows } = await database.query<{ id: string }>(
    `select id from erasures where finished_at is null and tenant = $1 and (state = 'forgetting' or erased <> '{}')
     order by requested_at, id`,
    [tenant],
  )
  return rows.map(({ id }) => id)
}

export async function moveErasure(database: Queryable, id: string, state: 'forgetting'): Promise<void> {
  await database.query('update erasures set state = $2 where id = $1 and finished_at is null', [id, state])
}

export async function finishErasure(
  database: Queryable,
  id: string,
  end: {
    readonly state: 'done' | 'refused'
    readonly reason: string
    readonly erased: Readonly<Record<string, number>>
    readonly absent: readonly string[]
  },
): Promise<void> {
  await database.query(
    `update erasures set state = $2, reason = $3, erased = $4, absent = $5, name = null, finished_at = now()
     where id = $1 and finished_at is null`,
    [id, end.state, end.reason, end.erased, end.absent],
  )
}

/** What is done so far outlives a restart. */
export async function countErased(
  database: Queryable,
  id: string,
  erased: Readonly<Record<string, number>>,
): Promise<void> {
  await database.query('update erasures set erased = $2 where id = $1 and finished_at is null', [id, erased])
}

export async function noteCollector(database: Queryable, journal: string): Promise<void> {
  await database.query(
    'insert into collectors (journal, seen_at) values ($1, now()) on conflict (journal) do update set seen_at = now()',
    [journal],
  )
}

export async function noteErasureStep(
  database: Queryable,
  erasure: string,
  journal: string,
  state: ErasureRow['state'],
): Promise<void> {
  await database.query(
    'insert into erasure_steps (erasure, journal, state) values ($1, $2, $3) on conflict do nothing',
    [erasure, journal, state],
  )
}

/** Collectors that have not taken this step: those that are there, and those that were silent for longer. */
export async function selectBehind(
  database: Queryable,
  erasure: string,
  state: ErasureRow['state'],
  silentMs: number,
): Promise<{ readonly present: readonly string[]; readonly absent: readonly string[] }> {
  const { rows } = await database.query<{ journal: string; is_present: boolean }>(
    `select c.journal, c.seen_at > now() - $3 * interval '1 millisecond' as is_present from collectors c
     where not exists (select from erasure_steps s where s.erasure = $1 and s.journal = c.journal and s.state = $2)
     order by c.journal`,
    [erasure, state, silentMs],
  )
  const of = (isPresent: boolean): readonly string[] =>
    rows.filter((row) => row.is_present === isPresent).map(({ journal }) => journal)
  return { present: of(true), absent: of(false) }
}

export type NamedInLedger = {
  readonly tenant: string
  readonly kind: string
  readonly name: string
  /** As accounts are called, which of a long name keep the beginning and the hash. */
  readonly account: string
}

/** Puts `pseudonym` wherever the ledger, its audit and released holds name the user or conversation, in a transaction of the
 *  caller's. No amount changes: what an account has held and spent stays, under the pseudonym. Answers rows by table. */
export async function replaceName(
  client: pg.ClientBase,
  { tenant, kind, name, account }: NamedInLedger,
  pseudonym: string,
): Promise<Readonly<Record<string, number>>> {
  const inJson = [tenant, kind, name, account, pseudonym]
  const changes: readonly (readonly [table: string, statement: string, values: readonly string[]])[] = [
    // While the rules still say whose accounts they are.
    [
      'quota_accounts',
      `update quota_accounts a set subject = $4 from quota_limit_rules r
       where r.tenant = a.tenant and r.id = a.limit_id and a.tenant = $1 and r.each = $2 and a.subject = $3`,
      [tenant, kind, account, pseudonym],
    ],
    [
      'quota_limit_rules',
      `update quota_limit_rules set subject = jsonb_set(subject, array[$2], to_jsonb($4::text))
       where tenant = $1 and subject ->> $2 = $3`,
      [tenant, kind, name, pseudonym],
    ],
    [
      'quota_reservation_rows',
      `update quota_reservation_rows set subject = jsonb_set(subject::jsonb, array[$2], to_jsonb($4::text))::json
       where tenant = $1 and subject ->> $2 = $3`,
      [tenant, kind, name, pseudonym],
    ],
    [
      'quota_outbox',
      `update quota_outbox set body = replace_name(body, $2, $3, $4, $5)
       where tenant = $1 and body is distinct from replace_name(body, $2, $3, $4, $5)`,
      inJson,
    ],
    [
      'quota_audit',
      `update quota_audit set before = replace_name(before, $2, $3, $4, $5), after = replace_name(after, $2, $3, $4, $5)
       where tenant = $1 and (before is distinct from replace_name(before, $2, $3, $4, $5)
         or after is distinct from replace_name(after, $2, $3, $4, $5))`,
      inJson,
    ],
    [
      'legal_holds',
      `update legal_holds set name = $4 where tenant = $1 and kind = $2 and name = $3 and released_at is not null`,
      [tenant, kind, name, pseudonym],
    ],
  ]
  const counts: Record<string, number> = {}
  await client.query("select set_config('tallylight.erasing', 'yes', true)")
  for (const [table, statement, values] of changes) {
    const { rowCount } = await client.query(statement, [...values])
    if (rowCount !== null && rowCount > 0) counts[table] = rowCount
  }
  await client.query("select set_config('tallylight.erasing', '', true)")
  return counts
}
