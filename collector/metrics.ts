// The collector's own numbers, as Prometheus text. Counters live here; what others know (journal, sink, memory) is asked
// for when it is read, so that nothing is kept twice.
export type Labels = Readonly<Record<string, string>>

export type Sample = {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly labels: Labels
  readonly value: number
}

export type Metrics = {
  add(name: string, labels: Labels, value: number): void
  /** Adds an observation to a summary of count, sum and largest. */
  observe(name: string, labels: Labels, value: number): void
  /** Called at each reading for the numbers that others keep. */
  onRead(read: () => readonly Sample[]): void
  render(): string
}

const helps: Readonly<Record<string, string>> = {
  tallylight_refused_requests_total: 'Requests that were refused, by reason.',
  tallylight_rejected_records_total:
    'Records that were rejected while the rest of their request was stored, by reason.',
  tallylight_repaired_strings_total: 'Strings that were not UTF-8 and were repaired.',
  tallylight_negative_durations_total: 'Spans that end before they start; stored with duration 0.',
  tallylight_times_replaced_total: 'Records without a time of their own; stored with the observed or the receive time.',
  tallylight_times_clamped_total: 'Times after 2262, stored as the last that fits.',
  tallylight_inserts_total: 'Inserts into ClickHouse, by table and outcome.',
  tallylight_inserted_rows_total: 'Rows inserted into ClickHouse, by table.',
  tallylight_insert_seconds: 'Time from sending an insert to its answer.',
  tallylight_lag_seconds: 'Time from the opening of a segment until its rows can be queried.',
  tallylight_quota_answers_total: 'Answers of the quota service, by route and status.',
  tallylight_quota_seconds: 'Time from a quota request to its answer, by route.',
  tallylight_sink_problems_total: 'Parts that could not be inserted at once, by table and kind.',
}

export function openMetrics(): Metrics {
  const values = new Map<string, { readonly name: string; readonly labels: Labels; value: number }>()
  const readers: (() => readonly Sample[])[] = []

  function slot(name: string, labels: Labels): { value: number } {
    const key = name + JSON.stringify(labels)
    let found = values.get(key)
    if (found === undefined) {
      found = { name, labels, value: 0 }
      values.set(key, found)
    }
    return found
  }

  function render(): string {
    const samples: Sample[] = [...values.values()].map(({ name, labels, value }) => ({
      name,
      labels,
      value,
      type: name.endsWith('_max') ? 'gauge' : 'counter',
      help: helps[name.replace(/_(count|sum|max)$/, '')] ?? '',
    }))
    for (const read of readers) samples.push(...read())
    const byName = Map.groupBy(samples, (sample) => sample.name)
    const lines: string[] = []
    for (const [name, group] of byName) {
      lines.push(`# HELP ${name} ${group[0]?.help ?? ''}`, `# TYPE ${name} ${group[0]?.type ?? 'gauge'}`)
      for (const { labels, value } of group) lines.push(`${name}${renderLabels(labels)} ${value}`)
    }
    return `${lines.join('\n')}\n`
  }

  return {
    add: (name, labels, value) => {
      slot(name, labels).value += value
    },
    observe: (name, labels, value) => {
      slot(`${name}_count`, labels).value++
      slot(`${name}_sum`, labels).value += value
      const largest = slot(`${name}_max`, labels)
      largest.value = Math.max(largest.value, value)
    },
    onRead: (read) => {
      readers.push(read)
    },
    render,
  }
}

function renderLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`,
  )
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}
