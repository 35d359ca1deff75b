import type { BoardPlan } from '../board.ts'
import { toPanel } from '../links.ts'
import { counter, gauge, gauges, histogram, histogramQuantile, readingInterval } from '../own-metrics.ts'
import { chart, stat, table } from '../panels.ts'
import { clickhouse } from '../sources.ts'

const collectors = toPanel('collector', 12, 'The collectors')
const refusals = toPanel('collector', 24, 'What was refused')
const aside = toPanel('collector', 25, 'What was set aside')
const parts = toPanel('collector', 45, 'The tables')
const dead = 'No reading of any collector: it is down, or it is another database'
const nothing = 'Nothing of the kind in this time'

export const collector: BoardPlan = {
  name: 'collector',
  title: 'Collector',
  description:
    'The collector itself: what it took, refused and set aside, how far it is behind, what its engines do, how the quota service answers.',
  from: 'now-3h',
  variables: ['collector'],
  rows: [
    {
      question: 'Is it alive?',
      panels: [
        stat({
          id: 10,
          title: 'Last word',
          description: 'Age of the newest reading; one comes each minute.',
          noValue: dead,
          unit: 's',
          thresholds: { warn: 150, bad: 300 },
          rows: collectors,
          queries: [
            clickhouse(
              'table',
              `SELECT dateDiff('second', max(TimeUnix), now()) AS age\n${gauge('tallylight.build_info')}\nHAVING count() > 0`,
            ),
          ],
        }),
        table({
          id: 12,
          title: 'Collectors',
          description: 'Each with its version, its start, its last word, and what its canary found last.',
          noValue: dead,
          width: 20,
          height: 7,
          columns: {
            silent: { unit: 's', thresholds: { warn: 150, bad: 300 } },
            canary: { unit: 'percentunit', thresholds: { warn: 1, bad: 0.9, isMoreBetter: true } },
            canary_delay: { unit: 's' },
            journal: { unit: 'bytes' },
            memory: { unit: 'bytes' },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT ResourceAttributes['service.instance.id'] AS collector, ResourceAttributes['host.name'] AS host,
              ResourceAttributes['service.version'] AS version, max(StartTimeUnix) AS started, dateDiff('second', max(TimeUnix), now()) AS silent,
              argMaxIf(Value, TimeUnix, MetricName = 'tallylight.canary_success') AS canary,
              argMaxIf(Value, TimeUnix, MetricName = 'tallylight.canary_delay') AS canary_delay,
              argMaxIf(Value, TimeUnix, MetricName = 'tallylight.journal') AS journal,
              argMaxIf(Value, TimeUnix, MetricName = 'process.resident_memory') AS memory
              ${gauges}
              GROUP BY collector, host, version ORDER BY silent`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'What came in?',
      panels: [
        counted(
          20,
          'Accepted records per second',
          'Records answered with success, by signal.',
          'tallylight.accepted_records',
          'signal',
          collectors,
        ),
        counted(
          21,
          'Refused requests per second',
          'By reason: keys, sizes, rates, a full journal.',
          'tallylight.refused_requests',
          'reason',
          refusals,
        ),
        counted(
          22,
          'Rejected records per second',
          'Records rejected while the rest of their request was stored, by reason.',
          'tallylight.rejected_records',
          'reason',
          refusals,
        ),
        counted(
          23,
          'Quarantined records per second',
          'Records that were accepted and that no table takes.',
          'tallylight.quarantined_records',
          'signal',
          aside,
        ),
        table({
          id: 24,
          title: 'Refused and rejected',
          description: 'What senders were told no for, in this time.',
          noValue: 'Nothing was refused or rejected in this time',
          width: 12,
          columns: { count: { unit: 'short' } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT 'request' AS what, Attributes['signal'] AS signal, Attributes['reason'] AS reason, sum(Value) AS count, max(TimeUnix) AS last
              ${counter('tallylight.refused_requests')}
              GROUP BY signal, reason HAVING count > 0
              UNION ALL
              SELECT 'record' AS what, Attributes['signal'] AS signal, Attributes['reason'] AS reason, sum(Value) AS count, max(TimeUnix) AS last
              ${counter('tallylight.rejected_records')}
              GROUP BY signal, reason HAVING count > 0`,
            ),
          ],
        }),
        table({
          id: 25,
          title: 'Quarantine',
          description:
            'Records of this time that no table took, with the reason; they stand whole in the table quarantine.',
          noValue: 'The quarantine is empty in this time',
          width: 12,
          columns: {},
          queries: [
            clickhouse(
              'table',
              `
              SELECT TenantId AS tenant, Signal AS signal, Reason AS reason, count() AS records, max(Time) AS last, any(Message) AS example
              FROM quarantine
              WHERE $__timeFilter(Time)
              GROUP BY tenant, signal, reason ORDER BY records DESC LIMIT 200`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'How far is it behind?',
      panels: [
        chart({
          id: 30,
          title: 'Lag',
          description: 'From the receipt of a record until it can be queried, as bounds of buckets.',
          noValue: 'Nothing was stored in this time',
          unit: 's',
          interval: readingInterval,
          thresholds: { warn: 10, bad: 60 },
          rows: parts,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, ${histogramQuantile(0.5)} AS p50, ${histogramQuantile(0.95)} AS p95
              ${histogram('tallylight.lag')}
              GROUP BY time HAVING sum(Count) > 0 ORDER BY time`,
            ),
          ],
        }),
        gauged(
          31,
          'Age of the journal',
          'Age of the oldest segment that is not stored.',
          's',
          'tallylight.journal_age',
        ),
        gauged(32, 'Size of the journal', 'Bytes that wait for a sink.', 'bytes', 'tallylight.journal'),
        gauged(
          33,
          'Age of what is not in the ledger',
          'Oldest segment whose calls are not booked yet.',
          's',
          'tallylight.ledger_lag',
        ),
      ],
    },
    {
      question: 'What do the engines do?',
      panels: [
        counted(
          40,
          'Inserted rows per second',
          'Rows that ClickHouse took, by table.',
          'tallylight.inserted_rows',
          'table',
          parts,
        ),
        counted(
          41,
          'Inserts per second by outcome',
          'Anything but inserted is tried again, and looked at.',
          'tallylight.inserts',
          'outcome',
          parts,
        ),
        chart({
          id: 42,
          title: 'Time of an insert',
          description: 'From sending an insert to its answer, as bounds of buckets.',
          noValue: 'No inserts in this time',
          unit: 's',
          interval: readingInterval,
          rows: parts,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, ${histogramQuantile(0.5)} AS p50, ${histogramQuantile(0.95)} AS p95
              ${histogram('tallylight.insert')}
              GROUP BY time HAVING sum(Count) > 0 ORDER BY time`,
            ),
          ],
        }),
        gauged(
          43,
          'Memory of the process',
          'Resident memory of the collector’s own process; its engines are processes beside it.',
          'bytes',
          'process.resident_memory',
        ),
        counted(44, 'CPU seconds per second', 'Of the collector’s own process.', 'process.cpu', '', collectors),
        table({
          id: 45,
          title: 'Tables',
          description: 'Active parts by table: hundreds in one partition mean that merges do not keep up.',
          noValue: 'No parts: this user may not read system.parts',
          width: 12,
          columns: { bytes: { unit: 'bytes' }, most_parts: { thresholds: { warn: 150, bad: 300 } } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT table, sum(rows_in) AS rows, sum(bytes_in) AS bytes, sum(parts_in) AS parts, max(parts_in) AS most_parts, max(newest_in) AS newest
              FROM (
              SELECT table, partition, sum(rows) AS rows_in, sum(bytes_on_disk) AS bytes_in, count() AS parts_in, max(modification_time) AS newest_in
              FROM system.parts
              WHERE active AND database = currentDatabase()
              GROUP BY table, partition
              )
              GROUP BY table ORDER BY bytes DESC`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Does the quota service answer?',
      panels: [
        counted(
          50,
          'Answers per second by status',
          '201 is granted, 429 denied, 503 a ledger that does not answer.',
          'tallylight.quota_answers',
          'status',
          toPanel('tenants', 14, 'The reservations'),
        ),
        chart({
          id: 51,
          title: 'Time of an answer',
          description: 'From a quota request to its answer, as bounds of buckets.',
          noValue: 'The quota service was not asked in this time',
          unit: 's',
          interval: readingInterval,
          rows: toPanel('tenants', 14, 'The reservations'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, ${histogramQuantile(0.5)} AS p50, ${histogramQuantile(0.99)} AS p99
              ${histogram('tallylight.quota')}
              GROUP BY time HAVING sum(Count) > 0 ORDER BY time`,
            ),
          ],
        }),
        counted(
          52,
          'Calls booked per second by outcome',
          'Records of calls that came to the ledger: booked, repeated, refused.',
          'tallylight.quota_records',
          'outcome',
          toPanel('tenants', 14, 'The reservations'),
        ),
        gauged(
          53,
          'Canary delay',
          'From sending a probe until it was read back from the stores.',
          's',
          'tallylight.canary_delay',
        ),
      ],
    },
  ],
}

function counted(
  id: number,
  title: string,
  description: string,
  metric: string,
  label: string,
  rows: typeof collectors,
) {
  return chart({
    id,
    title,
    description,
    noValue: nothing,
    unit: metric === 'process.cpu' ? 'short' : 'cps',
    interval: readingInterval,
    rows,
    queries: [
      clickhouse(
        'timeseries',
        `
        SELECT $__timeInterval(TimeUnix) AS time, ${label === '' ? `ResourceAttributes['host.name'] AS host` : `Attributes['${label}'] AS ${label}`}, sum(Value) / $__interval_s AS per_second
        ${counter(metric)}
        GROUP BY time, ${label === '' ? 'host' : label} ORDER BY time, ${label === '' ? 'host' : label}`,
      ),
    ],
  })
}

function gauged(id: number, title: string, description: string, unit: string, metric: string) {
  return chart({
    id,
    title,
    description,
    noValue: dead,
    unit,
    interval: readingInterval,
    rows: collectors,
    queries: [
      clickhouse(
        'timeseries',
        `
        SELECT $__timeInterval(TimeUnix) AS time, ResourceAttributes['host.name'] AS host, max(Value) AS value
        ${gauge(metric)}
        GROUP BY time, host ORDER BY time, host`,
      ),
    ],
  })
}
