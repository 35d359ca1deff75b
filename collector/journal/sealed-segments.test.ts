import { journalTables } from '@tallylight/storage/clickhouse/tables.ts'
import { expect, test } from 'vitest'
import { openAnsweredFiles } from './answered.ts'
import { openBlockPool } from './block-pool.ts'
import { openBooks } from './books.ts'
import { noneBySignal } from './frame.ts'
import { openMemoryDisk } from './memory-disk.ts'
import { openSealedSegments } from './sealed-segments.ts'
import type { SegmentHeader } from './segment.ts'

test('sealed segments: those of days without ClickHouse have an oldest one', () => {
  const { files } = openMemoryDisk()
  const headerOf = (segment: Pick<SegmentHeader, 'sequence' | 'lane' | 'createdUnixMs'>): SegmentHeader => {
    return { ...segment, journal: 'j', tables: journalTables, insertSettings: {} }
  }
  const segments = Array.from({ length: 200_000 }, (_, sequence) => {
    const segment = { sequence, lane: 'live', createdUnixMs: 1_000 + ((sequence + 7) % 200_000) } as const
    return { ...segment, bytes: 1, header: headerOf(segment), headerBytes: 1, records: noneBySignal(), requests: [] }
  })
  const sealed = openSealedSegments({
    directory: '/journal',
    files,
    journal: 'j',
    recovered: {
      segments,
      commit: 1,
      totals: undefined,
      sequenceMax: segments.length,
      answered: [],
      answeredFiles: new Map(),
      problems: [],
      corrupt: [],
      lost: noneBySignal(),
    },
    books: openBooks(),
    saveBooks: () => Promise.resolve(),
    held: { bytes: 0, records: noneBySignal() },
    answeredFiles: openAnsweredFiles({ directory: '/journal', files, now: Date.now, keptMs: 1, written: new Map() }),
    pool: openBlockPool(),
    sealedBytesMax: 0,
    headerOf,
    commit: () => 1,
    onProblem: ({ kind }) => expect.unreachable(kind),
  })
  expect([sealed.count(), sealed.oldestUnixMs()]).toEqual([segments.length, 1_000])
})
