// The collector's own numbers. Counters and histograms live here; what others know (journal, engines, the process) is asked
// for when it is read, so that nothing is kept twice. Prometheus text and OTLP are two ways of writing the same reading.
export type Labels = Readonly<Record<string, string>>

export type Histogram = {
  /** How many fell at or below each bound and above the one before, and last how many above all. */
  readonly counts: readonly number[]
  readonly bounds: readonly number[]
  readonly sum: number
  readonly count: number
}

export type Sample = {
  readonly name: string
  readonly help: string
  readonly labels: Labels
} & (
  | {
      readonly type: 'counter' | 'gauge'
      readonly value: number /** Counted over restarts. */
      readonly isLasting?: boolean
    }
  | { readonly type: 'histogram'; readonly value: Histogram }
)

const secondsBounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300] as const
const addedBounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1] as const
const rowsBounds = [1, 10, 100, 1_000, 5_000, 20_000, 50_000, 100_000, 250_000, 1_000_000] as const

const counters = {
  tallylight_refused_requests_total: 'Requests that were refused, by reason.',
  tallylight_rejected_records_total:
    'Records that were rejected while the rest of their request was stored, by reason.',
  tallylight_masked_total: 'Secrets and personal data that were masked, by kind.',
  tallylight_repaired_strings_total: 'Strings that were not UTF-8 and were repaired.',
  tallylight_negative_durations_total: 'Spans that end before they start; stored with duration 0.',
  tallylight_times_replaced_total: 'Records without a time of their own; stored with the observed or the receive time.',
  tallylight_times_clamped_total: 'Times after 2262, stored as the last that fits.',
  tallylight_lifted_records_total: 'Records that speak of models, tools, messages or health.',
  tallylight_leftover_contents_total:
    'Attributes of content that stay in the raw record, because not all of them was understood.',
  tallylight_malformed_contents_total: 'Contents that should have been JSON and are not; kept as text.',
  tallylight_absurd_usages_total: 'Token counts that cannot be: negative, no number, or above 2^53.',
  tallylight_erasures_total: 'Erasures that ended, by state.',
  tallylight_unpriced_calls_total: 'Calls and embeddings whose tokens are known and whose price is not.',
  tallylight_inserts_total: 'Inserts into ClickHouse, by table and outcome.',
  tallylight_inserted_rows_total: 'Rows inserted into ClickHouse, by table.',
  tallylight_quota_expired_total: 'Reservations that were never settled and expired.',
  tallylight_quota_verdicts_total:
    'Calls judged by their tenant’s policy while the ledger was away, by policy and verdict.',
  tallylight_quota_records_total: 'Records of calls that came to the ledger, by outcome.',
  tallylight_quota_records_unpriced_total: 'Records of calls whose price is not known.',
  tallylight_ledger_problems_total: 'Segments whose calls could not be booked at once, by kind.',
  tallylight_quota_events_total: 'Events told to the webhook, by outcome.',
  tallylight_quota_answers_total: 'Answers of the quota service, by route and status.',
  tallylight_sink_problems_total: 'Parts that could not be inserted at once, by table and kind.',
  tallylight_journal_problems_total:
    'Writes that failed, a journal that was full, frames that were torn or corrupt, records or books that are gone, by kind.',
  tallylight_proxy_requests_total: 'Requests that the proxy forwarded, by upstream and how they ended.',
  tallylight_proxy_refused_total: 'Requests that the proxy refused, by reason.',
  tallylight_proxy_upstream_errors_total:
    'Upstreams that could not be reached, broke off or answered pages, by upstream and kind.',
  tallylight_proxy_records_total: 'Records of proxied calls, by outcome: stored or lost.',
  tallylight_proxy_failures_total: 'Parts of the proxy that failed while a call went on.',
  tallylight_metric_exports_total: 'Exports of these metrics over OTLP, by outcome.',
  tallylight_probes_total:
    'Looks at configured servers, by tenant, target and status; not_looked: for a reason on our side, not_stored: of a look that was made.',
  tallylight_canary_misses_total: 'Steps of the collector’s own probes that were not read back in time.',
} as const

const histograms = {
  tallylight_insert_seconds: { help: 'Time from sending an insert to its answer.', bounds: secondsBounds },
  tallylight_insert_rows: { help: 'Rows of one insert.', bounds: rowsBounds },
  tallylight_lag_seconds: {
    help: 'Time from the opening of a segment until its rows can be queried.',
    bounds: secondsBounds,
  },
  tallylight_proxy_added_seconds: {
    help: 'Time that the proxy adds to a call: before it is sent, the gate included, and after its last byte, until its record is durable.',
    bounds: addedBounds,
  },
  tallylight_probe_seconds: {
    help: 'Response times of configured servers, by tenant and target.',
    bounds: secondsBounds,
  },
  tallylight_quota_seconds: { help: 'Time from a quota request to its answer, by route.', bounds: secondsBounds },
} as const

export type CounterName = keyof typeof counters
export type HistogramName = keyof typeof histograms

export type Metrics = {
  add(name: CounterName, labels: Labels, value: number): void
  observe(name: HistogramName, labels: Labels, value: number): void
  /** Called at each reading for the numbers that others keep. */
  onRead(read: () => readonly Sample[]): void
  read(): readonly Sample[]
}

type Open = { readonly labels: Labels; readonly counts: number[]; sum: number; count: number }

export function openMetrics(): Metrics {
  const counted = new Map<string, { readonly name: CounterName; readonly labels: Labels; value: number }>()
  const observed = new Map<string, Open & { readonly name: HistogramName }>()
  const readers: (() => readonly Sample[])[] = []

  function add(name: CounterName, labels: Labels, value: number): void {
    const key = name + JSON.stringify(labels)
    const found = counted.get(key)
    if (found === undefined) counted.set(key, { name, labels, value })
    else found.value += value
  }

  function observe(name: HistogramName, labels: Labels, value: number): void {
    const { bounds } = histograms[name]
    const key = name + JSON.stringify(labels)
    let found = observed.get(key)
    if (found === undefined) {
      found = { name, labels, counts: new Array<number>(bounds.length + 1).fill(0), sum: 0, count: 0 }
      observed.set(key, found)
    }
    const at = bounds.findIndex((bound) => value <= bound)
    const bucket = at === -1 ? bounds.length : at
    found.counts[bucket] = (found.counts[bucket] ?? 0) + 1
    found.sum += value
    found.count++
  }

  function read(): readonly Sample[] {
    const samples: Sample[] = []
    for (const { name, labels, value } of counted.values())
      samples.push({ name, help: counters[name], labels, type: 'counter', value })
    for (const { name, labels, counts, sum, count } of observed.values()) {
      const { help, bounds } = histograms[name]
      samples.push({ name, help, labels, type: 'histogram', value: { counts: [...counts], bounds, sum, count } })
    }
    for (const reader of readers) samples.push(...reader())
    return samples
  }

  return { add, observe, onRead: (reader) => void readers.push(reader), read }
}

/** The text format of Prometheus, 0.0.4. */
export function renderPrometheus(samples: readonly Sample[]): string {
  const lines: string[] = []
  for (const [name, group] of Map.groupBy(samples, (sample) => sample.name)) {
    const [first] = group
    lines.push(`# HELP ${name} ${first?.help}`, `# TYPE ${name} ${first?.type}`)
    for (const sample of group) {
      if (sample.type === 'histogram') lines.push(...histogramLines(name, sample.labels, sample.value))
      else lines.push(`${name}${renderLabels(sample.labels)} ${sample.value}`)
    }
  }
  return `${lines.join('\n')}\n`
}

function histogramLines(name: string, labels: Labels, { counts, bounds, sum, count }: Histogram): readonly string[] {
  let below = 0
  const buckets = [...bounds, '+Inf'].map((bound, at) => {
    below += counts[at] ?? 0
    return `${name}_bucket${renderLabels({ ...labels, le: String(bound) })} ${below}`
  })
  return [...buckets, `${name}_sum${renderLabels(labels)} ${sum}`, `${name}_count${renderLabels(labels)} ${count}`]
}

function renderLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`,
  )
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

const unitOf: Readonly<Record<string, string>> = { seconds: 's', bytes: 'By' }

/** Name and unit over OTLP: as OpenTelemetry's translation to Prometheus would read them back, without `_total`. */
export function readingOf(name: string): { readonly name: string; readonly unit: string } {
  const [prefix = '', ...words] = name.replace(/_total$/, '').split('_')
  const last = words.at(-1) ?? ''
  const unit = unitOf[last]
  if (unit !== undefined) words.pop()
  return { name: `${prefix}.${words.join('_')}`, unit: unit ?? (last.endsWith('s') ? `{${last.slice(0, -1)}}` : '') }
}
