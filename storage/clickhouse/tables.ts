// The tables that the collector writes, column by column, in canonical types. Names and types are those of the
// OpenTelemetry ClickHouse exporter, so that Grafana's OTel mode, ClickStack and existing queries work; `TenantId`,
// `Segment`, `RetentionDays` and `ZeroThreshold` are ours. The server converts where a user's own table differs.
// Source: clickhouseexporter 0.162, internal/sqltemplates.

/** `[name, type]`, spelled as ClickHouse spells them. Columns named `Group.Field` of one group share their lengths. */
export type ColumnDefinition = readonly [name: string, type: string]

export type TableDefinition = {
  readonly name: string
  readonly columns: readonly ColumnDefinition[]
  /** The column by whose UTC day the table is partitioned. */
  readonly dayColumn: string
}

const lowCardinality = 'LowCardinality(String)' as const
const attributes = 'Map(LowCardinality(String), String)' as const

/** Filled when a block is sent, never stored per row: the segment's name. */
export const segmentColumn = 'Segment'

/** Columns that readers' own tables may lack, because they are ours and not the exporter's. */
export const ownColumns: readonly string[] = ['TenantId', 'Segment', 'RetentionDays', 'ZeroThreshold']

const head = [
  ['TenantId', lowCardinality],
  ['Segment', lowCardinality],
  ['RetentionDays', 'UInt16'],
] as const satisfies readonly ColumnDefinition[]

export const tracesTable = {
  name: 'otel_traces',
  dayColumn: 'Timestamp',
  columns: [
    ...head,
    ['Timestamp', 'DateTime64(9)'],
    ['TraceId', 'String'],
    ['SpanId', 'String'],
    ['ParentSpanId', 'String'],
    ['TraceState', 'String'],
    ['SpanName', lowCardinality],
    ['SpanKind', lowCardinality],
    ['ServiceName', lowCardinality],
    ['ResourceAttributes', attributes],
    ['ScopeName', 'String'],
    ['ScopeVersion', 'String'],
    ['SpanAttributes', attributes],
    ['Duration', 'UInt64'],
    ['StatusCode', lowCardinality],
    ['StatusMessage', 'String'],
    ['Events.Timestamp', 'Array(DateTime64(9))'],
    ['Events.Name', 'Array(LowCardinality(String))'],
    ['Events.Attributes', 'Array(Map(LowCardinality(String), String))'],
    ['Links.TraceId', 'Array(String)'],
    ['Links.SpanId', 'Array(String)'],
    ['Links.TraceState', 'Array(String)'],
    ['Links.Attributes', 'Array(Map(LowCardinality(String), String))'],
  ],
} as const satisfies TableDefinition

/** Derived from `otel_traces` when a block is sent: one row per tenant and trace of the block. Whole seconds, as the
 *  exporter's view writes them, so readers use `End + 1`. */
export const traceTimesTable = {
  name: 'otel_traces_trace_id_ts',
  dayColumn: 'Start',
  columns: [...head, ['TraceId', 'String'], ['Start', 'DateTime'], ['End', 'DateTime']],
} as const satisfies TableDefinition

export const logsTable = {
  name: 'otel_logs',
  dayColumn: 'Timestamp',
  columns: [
    ...head,
    ['Timestamp', 'DateTime64(9)'],
    ['TraceId', 'String'],
    ['SpanId', 'String'],
    ['TraceFlags', 'UInt8'],
    ['SeverityText', lowCardinality],
    ['SeverityNumber', 'UInt8'],
    ['ServiceName', lowCardinality],
    ['Body', 'String'],
    ['ResourceSchemaUrl', lowCardinality],
    ['ResourceAttributes', attributes],
    ['ScopeSchemaUrl', lowCardinality],
    ['ScopeName', 'String'],
    ['ScopeVersion', lowCardinality],
    ['ScopeAttributes', attributes],
    ['LogAttributes', attributes],
    ['EventName', 'String'],
  ],
} as const satisfies TableDefinition

const metricHead = [
  ...head,
  ['ResourceAttributes', attributes],
  ['ResourceSchemaUrl', 'String'],
  ['ScopeName', 'String'],
  ['ScopeVersion', 'String'],
  ['ScopeAttributes', attributes],
  ['ScopeDroppedAttrCount', 'UInt32'],
  ['ScopeSchemaUrl', 'String'],
  ['ServiceName', lowCardinality],
  ['MetricName', lowCardinality],
  ['MetricDescription', 'String'],
  ['MetricUnit', 'String'],
  ['Attributes', attributes],
  ['StartTimeUnix', 'DateTime64(9)'],
  ['TimeUnix', 'DateTime64(9)'],
] as const satisfies readonly ColumnDefinition[]

const exemplars = [
  ['Exemplars.FilteredAttributes', 'Array(Map(LowCardinality(String), String))'],
  ['Exemplars.TimeUnix', 'Array(DateTime64(9))'],
  ['Exemplars.Value', 'Array(Float64)'],
  ['Exemplars.SpanId', 'Array(String)'],
  ['Exemplars.TraceId', 'Array(String)'],
] as const satisfies readonly ColumnDefinition[]

export const gaugeTable = {
  name: 'otel_metrics_gauge',
  dayColumn: 'TimeUnix',
  columns: [...metricHead, ['Value', 'Float64'], ['Flags', 'UInt32'], ...exemplars],
} as const satisfies TableDefinition

export const sumTable = {
  name: 'otel_metrics_sum',
  dayColumn: 'TimeUnix',
  columns: [
    ...metricHead,
    ['Value', 'Float64'],
    ['Flags', 'UInt32'],
    ...exemplars,
    ['AggregationTemporality', 'Int32'],
    ['IsMonotonic', 'Bool'],
  ],
} as const satisfies TableDefinition

export const histogramTable = {
  name: 'otel_metrics_histogram',
  dayColumn: 'TimeUnix',
  columns: [
    ...metricHead,
    ['Count', 'UInt64'],
    ['Sum', 'Float64'],
    ['BucketCounts', 'Array(UInt64)'],
    ['ExplicitBounds', 'Array(Float64)'],
    ...exemplars,
    ['Flags', 'UInt32'],
    ['Min', 'Float64'],
    ['Max', 'Float64'],
    ['AggregationTemporality', 'Int32'],
  ],
} as const satisfies TableDefinition

export const exponentialHistogramTable = {
  name: 'otel_metrics_exp_histogram',
  dayColumn: 'TimeUnix',
  columns: [
    ...metricHead,
    ['Count', 'UInt64'],
    ['Sum', 'Float64'],
    ['Scale', 'Int32'],
    ['ZeroCount', 'UInt64'],
    ['ZeroThreshold', 'Float64'],
    ['PositiveOffset', 'Int32'],
    ['PositiveBucketCounts', 'Array(UInt64)'],
    ['NegativeOffset', 'Int32'],
    ['NegativeBucketCounts', 'Array(UInt64)'],
    ...exemplars,
    ['Flags', 'UInt32'],
    ['Min', 'Float64'],
    ['Max', 'Float64'],
    ['AggregationTemporality', 'Int32'],
  ],
} as const satisfies TableDefinition

export const summaryTable = {
  name: 'otel_metrics_summary',
  dayColumn: 'TimeUnix',
  columns: [
    ...metricHead,
    ['Count', 'UInt64'],
    ['Sum', 'Float64'],
    ['ValueAtQuantiles.Quantile', 'Array(Float64)'],
    ['ValueAtQuantiles.Value', 'Array(Float64)'],
    ['Flags', 'UInt32'],
  ],
} as const satisfies TableDefinition

/** Records that were accepted and that no table can take, with the reason. `Record` is an OTLP request that holds this
 *  record alone (`Format` = 'otlp'), or its row as JSON text where a table refused it (`Format` = 'json'). */
export const quarantineTable = {
  name: 'quarantine',
  dayColumn: 'Time',
  columns: [
    ...head,
    ['Time', 'DateTime64(9)'],
    ['Signal', lowCardinality],
    ['Reason', lowCardinality],
    ['Message', 'String'],
    ['Format', lowCardinality],
    ['Record', 'String'],
  ],
} as const satisfies TableDefinition

/** What one span or log record says of models, tools, messages and health: `Fact` is JSON of the collector's own. The truth
 *  from which the rows of `genai-tables.ts` are resolved, again whenever more is known of a trace. */
export const factsTable = {
  name: 'genai_facts',
  dayColumn: 'Timestamp',
  columns: [
    ...head,
    ['Timestamp', 'DateTime64(9)'],
    ['TraceId', 'String'],
    ['SpanId', 'String'],
    ['FactId', 'String'],
    ['Fact', 'String'],
  ],
} as const satisfies TableDefinition

/** Texts that are too long to stand in each row that shows them. `Hash` is the SHA-256 of `Text`, in hex. */
export const contentsTable = {
  name: 'genai_contents',
  dayColumn: 'Time',
  columns: [...head, ['Time', 'DateTime64(9)'], ['UserId', 'String'], ['Hash', 'String'], ['Text', 'String']],
} as const satisfies TableDefinition

/** Every table a segment can hold, in the order of their numbers in the journal: append only, never reorder. */
export const journalTables: readonly TableDefinition[] = [
  tracesTable,
  logsTable,
  gaugeTable,
  sumTable,
  histogramTable,
  exponentialHistogramTable,
  summaryTable,
  quarantineTable,
  factsTable,
  contentsTable,
]
