// The journal's status as metrics. Per signal, in OTLP records since the journal was made:
// accepted = stored + in journal + quarantined + duplicate.
import type { Sample } from '../metrics.ts'
import { signals } from './frame.ts'
import type { JournalStatus } from './journal.ts'

const byStates = [
  ['accepted', 'Records answered with success.'],
  ['stored', 'Records that are in ClickHouse.'],
  ['quarantined', 'Records set aside with a reason.'],
  ['duplicate', 'Records of requests that came again and were not stored again.'],
] as const

export function journalSamples(status: JournalStatus, nowMs: number, bytesMax: number): readonly Sample[] {
  const samples: Sample[] = []
  for (const [state, help] of byStates) {
    for (const signal of signals) {
      samples.push({
        name: `tallylight_${state}_records_total`,
        type: 'counter',
        isLasting: true,
        help,
        labels: { signal },
        value: status[state][signal],
      })
    }
  }
  for (const signal of signals) {
    samples.push({
      name: 'tallylight_journal_records',
      type: 'gauge',
      help: 'Records on their way to ClickHouse.',
      labels: { signal },
      value: status.inJournal[signal],
    })
  }
  const gauge = (name: string, help: string, value: number): void => {
    samples.push({ name, type: 'gauge', help, labels: {}, value })
  }
  gauge('tallylight_journal_bytes', 'Size of the journal on the disk.', status.bytes)
  gauge('tallylight_journal_bytes_max', 'What the journal may grow to before requests are refused.', bytesMax)
  gauge('tallylight_journal_segments', 'Sealed segments in the journal.', status.segments)
  gauge(
    'tallylight_journal_age_seconds',
    'Age of the oldest segment.',
    status.oldestUnixMs === undefined ? 0 : (nowMs - status.oldestUnixMs) / 1000,
  )
  gauge('tallylight_journal_full', '1 while requests are refused for want of room.', status.isFull ? 1 : 0)
  gauge(
    'tallylight_journal_corrupt_frames',
    'Frames that could not be read back and were set aside.',
    status.corruptFrames,
  )
  gauge('tallylight_journal_commits', 'Commits since the journal was made.', status.commits)
  return samples
}
