// What the process costs, under the names that every Prometheus dashboard knows.
import type { Sample } from './metrics.ts'

export function processSamples(version: string): readonly Sample[] {
  const { user, system } = process.cpuUsage()
  const plain = { labels: {}, type: 'gauge' } as const
  return [
    {
      name: 'process_cpu_seconds_total',
      help: 'CPU time of the collector’s own process, user and system.',
      labels: {},
      type: 'counter',
      value: (user + system) / 1e6,
    },
    {
      ...plain,
      name: 'process_resident_memory_bytes',
      help: 'Memory of the collector’s own process.',
      value: process.memoryUsage.rss(),
    },
    {
      ...plain,
      name: 'process_start_time_seconds',
      help: 'When the collector started, in Unix time.',
      value: performance.timeOrigin / 1000,
    },
    { ...plain, name: 'tallylight_build_info', help: 'Always 1.', labels: { version }, value: 1 },
  ]
}
