// The journal with the bounds of this collector. What it finds sealed at its start waits until the sinks are there.
import { hostname } from 'node:os'
import { join } from 'node:path'
import { insertSettings } from '@tallylight/storage/clickhouse/client.ts'
import { diskFiles } from '../journal/files.ts'
import { type Journal, openJournal } from '../journal/journal.ts'
import { lockDirectory } from '../journal/lock.ts'
import { journalSamples } from '../journal/samples.ts'
import type { SealedSegment } from '../journal/sealed-segments.ts'
import { limits } from '../limits.ts'
import type { Start } from './start.ts'

/** Makes the directory, and keeps other collectors out of it until the end. */
export async function lockJournal({ dataDirectory, stack }: Start): Promise<string> {
  const directory = join(dataDirectory, 'journal')
  await diskFiles.makeDirectory(directory)
  stack.use(await lockDirectory(directory, `process ${process.pid} on ${hostname()}`))
  return directory
}

export async function openStartedJournal(
  { file, metrics, log, stack }: Start,
  directory: string,
): Promise<{ readonly journal: Journal; readonly giveSealed: (take: (segment: SealedSegment) => void) => void }> {
  const waiting: SealedSegment[] = []
  let take = (segment: SealedSegment): void => void waiting.push(segment)
  const journalBytesMax = file.journal?.bytesMax ?? limits.journalBytesMax
  const journal = await openJournal({
    directory,
    files: diskFiles,
    now: Date.now,
    insertSettings,
    bounds: {
      segmentBytesMax: limits.segmentBytesMax,
      segmentBytesSealed: limits.segmentBytesSealed,
      segmentRowsMax: limits.segmentRowsMax,
      liveAgeMsMax: limits.liveSegmentMsMax,
      lateAgeMsMax: limits.lateSegmentMsMax,
      journalBytesMax,
      reserveBytes: (totalBytes) =>
        file.journal?.reserveBytes ?? Math.max(limits.volumeReserveBytes, totalBytes * limits.volumeReserveShare),
      spaceCheckMs: limits.spaceCheckMs,
      gatherMsMax: limits.gatherMsMax,
      gatherRequestsMin: limits.gatherRequestsMin,
      sealedBytesMax: limits.sealedBytesMax,
      blocksPerSegmentMax: limits.blocksPerSegmentMax,
      answeredMs: limits.duplicateWindowMs,
    },
    onSealed: (segment) => take(segment),
    onProblem: (problem) => {
      metrics.add('tallylight_journal_problems_total', { kind: problem.kind }, 1)
      log.error('error' in problem ? { err: problem.error } : { ...problem }, `journal: ${problem.kind}`)
    },
  })
  stack.defer(() => journal.stop())
  metrics.onRead(() => journalSamples(journal.status(), Date.now(), journalBytesMax))
  return {
    journal,
    giveSealed: (taker) => {
      take = taker
      for (const segment of waiting.splice(0)) take(segment)
    },
  }
}
