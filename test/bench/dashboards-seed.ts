// Rows as a week of a large service leaves them, made inside the engines: ten million calls through the ports would take
// minutes and tell nothing else about reading. The tests of the boards send theirs through the ports.
import { createHash } from 'node:crypto'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type pg from 'pg'

export type SeedSize = { readonly calls: number; readonly tenants: number; readonly nowUnixSeconds: number }

const days = 7
const weekSeconds = days * 86_400
const rowsPerInsert = 200_000

/** Of each table: rows per call, its columns, and what they are. `n` is the number of the call, `at` its time. */
type Sheet = { readonly table: string; readonly share: number; readonly values: Readonly<Record<string, string>> }

const place = {
  TenantId: `concat('tenant-', toString(n % tenants))`,
  RetentionDays: '90',
  // Two calls are a turn.
  TraceId: `lower(hex(MD5(toString(intDiv(n, 2) * 2))))`,
}
const callsOfConversation = 10
const users = 1000
/** Each table has rows of every so manieth call; of this one all have. */
const callsOfWholeTrace = 100
const who = {
  ConversationId: `concat(toString(n % tenants), '-', toString(intDiv(intDiv(n, tenants), ${callsOfConversation})))`,
  UserId: `toString(n % ${users})`,
}

export function conversationOf(call: number, tenants: number): string {
  return `${call % tenants}-${Math.floor(Math.floor(call / tenants) / callsOfConversation)}`
}

/** Of the newest call that has rows in every table; calls of a trace are one. */
export function traceOfNewest(calls: number): string {
  return createHash('md5')
    .update(String(Math.floor((calls - 1) / callsOfWholeTrace) * callsOfWholeTrace))
    .digest('hex')
}

export function userOf(call: number): string {
  return String(call % users)
}

const model = `['gpt-4o-mini', 'claude-sonnet-4-5', 'gemini-2.5-flash', 'gpt-4o', 'mistral-large'][1 + intDiv(n, tenants) % 5]`
const provider = `['openai', 'anthropic', 'gcp.gemini', 'openai', 'mistral_ai'][1 + intDiv(n, tenants) % 5]`
const versions = { Generation: '1 + (cityHash64(n, 3) % 20 = 0)', IsDeleted: '0' }
const spanId = `substring(lower(hex(MD5(toString(n + 7)))), 1, 16)`
const service = `concat('service-', toString(n % 7))`
const took = 'toUInt64(cityHash64(n, 1) % 9000000000)'

const saidValues = {
  ...{
    ...place,
    Timestamp: 'at',
    SpanId: spanId,
    ...who,
    Direction: `if(n % 2 = 0, 'input', 'output')`,
    Index: '0',
  },
  ...{ Role: `'user'`, ContentBytes: '5', ContentPreview: `'Hello'`, ContentType: `'text'`, ...versions },
}

const sheets: readonly Sheet[] = [
  {
    table: 'llm_call_rows',
    share: 1,
    values: {
      ...{
        ...place,
        Timestamp: 'at',
        ServiceName: service,
        SpanId: spanId,
        TurnId: place.TraceId,
        Attempt: '1 + (n % 97 = 0)',
      },
      ...{
        ...who,
        Provider: provider,
        RequestModel: model,
        Model: model,
        Streaming: 'n % 2 = 0',
        InputTokens: 'n % 5000',
      },
      ...{ OutputTokens: 'n % 700', UsageSource: `if(n % 30 = 0, 'estimated', 'provider')`, DurationNano: took },
      ...{
        CostNanoUsd: 'if(n % 200 = 0, NULL, n % 100000 * 1000)',
        FinishReason: `'stop'`,
        ErrorType: `if(n % 50 = 0, '429', '')`,
      },
      ...{ TimeToFirstTokenNano: 'if(n % 2 = 0, cityHash64(n, 2) % 900000000, NULL)', ...versions },
    },
  },
  {
    table: 'turn_rows',
    share: 0.5,
    values: {
      ...{
        ...place,
        Timestamp: 'at',
        ServiceName: service,
        TurnId: place.TraceId,
        ...who,
        QuestionPreview: `'How is the weather?'`,
      },
      ...{
        Calls: '2',
        ToolCalls: '1',
        InputTokens: 'n % 5000',
        OutputTokens: 'n % 700',
        CostNanoUsd: 'n % 100000 * 1000',
      },
      ...{
        DurationNano: took,
        Status: `multiIf(n % 50 = 0, 'failure', n % 64 = 0, 'blocked', 'success')`,
        ...versions,
      },
      BlockReason: `if(n % 64 = 0, 'quota month', '')`,
    },
  },
  {
    table: 'tool_call_rows',
    share: 0.25,
    values: {
      ...{
        ...place,
        Timestamp: 'at',
        ServiceName: service,
        TurnId: place.TraceId,
        SpanId: spanId,
        DurationNano: took,
        ...who,
      },
      ...{
        Name: `concat('tool-', toString(n % 12))`,
        McpServer: `if(n % 3 = 0, '', concat('server-', toString(n % 5)))`,
      },
      ...{ Status: `if(cityHash64(n, 4) % 13 = 0, 'failure', 'success')`, ...versions },
    },
  },
  { table: 'message_rows', share: 0.5, values: saidValues },
  { table: 'wrapper_message_rows', share: 0.5, values: saidValues },
  {
    table: 'genai_facts',
    share: 1,
    values: {
      ...{ ...place, Segment: `'bench-1'`, Timestamp: 'at', SpanId: spanId, FactId: `'1'` },
      // One turn in a thousand is lost.
      TraceId: `if(n % 1000 = 1, lower(hex(MD5(concat('lost ', toString(n))))), ${place.TraceId})`,
      Fact: `concat('{"version":1,"says":{"kind":"call"},"scene":{},"padding":"', repeat('x', 400), '"}')`,
    },
  },
  {
    table: 'health_check_rows',
    share: 0.05,
    values: {
      ...{ ...place, Timestamp: 'at', SpanId: spanId, FactId: `'1'`, Target: `concat('target-', toString(n % 9))` },
      ...{ Status: `if(n % 60 = 0, 'unhealthy', 'healthy')`, ResponseTimeNano: 'toUInt64(n % 90000000)', ...versions },
    },
  },
  {
    table: 'error_rows',
    share: 0.02,
    values: {
      ...{ ...place, Timestamp: 'at', SpanId: spanId, FactId: `'1'` },
      ...{ Type: `'429'`, Message: `'slow down'`, ...versions },
    },
  },
  {
    table: 'audit_event_rows',
    share: 0.01,
    values: { ...place, Timestamp: 'at', SpanId: spanId, FactId: `'1'`, Action: `'change'`, ...versions },
  },
  {
    table: 'otel_traces',
    share: 0.5,
    values: {
      ...{ ...place, Segment: `'bench-1'`, Timestamp: 'at', SpanId: spanId, SpanName: `'chat'`, ServiceName: service },
      ...{ SpanAttributes: `map('gen_ai.request.model', ${model})`, Duration: took, StatusCode: `'Ok'` },
    },
  },
  {
    table: 'otel_traces_trace_id_ts',
    share: 0.5,
    values: { ...place, Segment: `'bench-1'`, Start: 'toDateTime(at)', End: 'toDateTime(at) + 1' },
  },
  {
    table: 'otel_logs',
    share: 0.1,
    values: { ...place, Segment: `'bench-1'`, Timestamp: 'at', SpanId: spanId, ServiceName: service, Body: `'said'` },
  },
]

/** Two collectors, a reading of each minute. */
const readings: readonly Sheet[] = [
  [
    'gauge',
    [
      'build_info',
      'canary_success',
      'canary_delay',
      'journal',
      'journal_age',
      'journal_bytes_max',
      'ledger_lag',
      'quota_drift_nano_usd',
      'process.resident_memory',
    ],
  ],
  [
    'sum',
    [
      'accepted_records',
      'refused_requests',
      'rejected_records',
      'quarantined_records',
      'inserts',
      'inserted_rows',
      'quota_answers',
      'quota_records',
      'leftover_contents',
      'process.cpu',
    ],
  ],
].flatMap(([kind, names]) =>
  (names as readonly string[]).map((name) => reading(kind as string, name, { Value: 'n % 3' })),
)

const histograms: readonly Sheet[] = ['lag', 'insert', 'quota'].map((name) =>
  reading('histogram', name, {
    Count: '10',
    Sum: '1',
    BucketCounts: '[7, 2, 1, 0]',
    ExplicitBounds: '[0.1, 1, 10]',
    Min: '0',
    Max: '1',
  }),
)

function reading(kind: string, name: string, value: Readonly<Record<string, string>>): Sheet {
  return {
    table: `otel_metrics_${kind}`,
    share: 0,
    values: {
      ...{
        TenantId: `'tallylight'`,
        Segment: `'bench-1'`,
        RetentionDays: '90',
        ServiceName: `'tallylight'`,
        MetricName: name.includes('.') ? `'${name}'` : `'tallylight.${name}'`,
      },
      ...{
        ResourceAttributes: `map('service.instance.id', concat('c', toString(n % 2)), 'host.name', concat('host-', toString(n % 2)))`,
      },
      ...{
        Attributes: `map('signal', 'traces', 'reason', 'throttled', 'outcome', 'inserted', 'table', 'genai_facts', 'status', '201')`,
      },
      ...{ StartTimeUnix: 'at', TimeUnix: 'at', ...value },
    },
  }
}

/** Two a minute, as of senders whose clocks are wrong. */
const quarantine: Sheet = {
  table: 'quarantine',
  share: 0,
  values: {
    ...{ TenantId: place.TenantId, RetentionDays: '90', Segment: `'bench-1'`, Time: 'at', Signal: `'traces'` },
    ...{ Reason: `'too_far_ahead'`, Message: `'a time that is to come'`, Format: `'otlp'`, Record: `'...'` },
  },
}

/** All tables, or those of these names. */
export async function seedTables(
  tables: ClickHouse,
  { calls, tenants, nowUnixSeconds }: SeedSize,
  only?: ReadonlySet<string>,
): Promise<void> {
  for (const { table, share, values } of [...sheets, ...readings, ...histograms, quarantine]) {
    if (only?.has(table) === false) continue
    // Readings are one per collector and minute, whatever the calls.
    const rows = share === 0 ? days * 1440 * 2 : Math.max(Math.ceil(calls * share), 1)
    // Row by row the same calls in every table, so that a turn has its calls and a trace its spans.
    const callsPerRow = share === 0 ? 1 : 1 / share
    const stepNano = Math.floor((weekSeconds * 1e9) / (rows * callsPerRow))
    const start = nowUnixSeconds - weekSeconds
    for (let from = 0; from < rows; from += rowsPerInsert) {
      const many = Math.min(rowsPerInsert, rows - from)
      await tables.command(
        `INSERT INTO ${tables.database}.${table} (${Object.keys(values).join(', ')})
         WITH toUInt64((number + ${from}) * ${callsPerRow}) AS n, ${tenants} AS tenants,
           fromUnixTimestamp64Nano(toInt64(${start}) * 1000000000 + toInt64(n) * ${stepNano}) AS at
         SELECT ${Object.values(values).join(', ')} FROM numbers(${many})`,
      )
    }
  }
}

/** A limit on cost and one on tokens for each tenant, and the bookings of three days. */
export async function seedLedger(ledger: pg.Pool, { calls, tenants }: SeedSize): Promise<void> {
  const bookings = Math.ceil(calls / 10)
  await ledger.query(
    `insert into tenants (id) select 'tenant-' || n from generate_series(0, $1 - 1) n on conflict do nothing`,
    [tenants],
  )
  await ledger.query(
    `insert into quota_limit_rules (tenant, id, measure, amount, span, action, overage)
     select 'tenant-' || n, measure, measure, 1000000000000, 'month', 'block', 'refuse'
     from generate_series(0, $1 - 1) n, unnest(array['cost', 'tokens']) measure`,
    [tenants],
  )
  await ledger.query(
    `insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, spent, free)
     select tenant, id, '', date_trunc('month', now()), date_trunc('month', now()) + interval '1 month', amount, amount / 3, amount - amount / 3
     from quota_limit_rules`,
  )
  await ledger.query(
    `insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
     select now() - interval '3 days' * (1 - n::float8 / $1), 'tenant-' || n % $2, 'record',
       (select array_agg(id order by id) from quota_accounts where tenant = 'tenant-' || n % $2), '{0,0}', '{0,0}', '{1000,10}'
     from generate_series(1, $1) n`,
    [bookings, tenants],
  )
  await ledger.query(
    `insert into quota_reservation_rows (id, tenant, call_id, body_hash, state, subject, is_lease, account_ids, measures, amounts, recorded, answer, created_at, expires_at)
     select gen_random_uuid(), 'tenant-' || n % $2, n::text, '', 'settled', '{}', false, '{}', '{}', '{}', '{}', '{}',
       now() - interval '1 day' * (1 - n::float8 / $1), now()
     from generate_series(1, $1) n`,
    [Math.ceil(calls / 100), tenants],
  )
  await ledger.query('select quota_check()')
  await ledger.query('vacuum analyze')
}
