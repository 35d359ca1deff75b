// What every record passes on its way into the journal, whichever door it came through, and the counts of what it met.
import { maskingOf, retentionDaysOf } from '../config.ts'
import type { GenAi } from '../genai/genai.ts'
import type { Journal } from '../journal/journal.ts'
import { limits } from '../limits.ts'
import { openRequestMask } from '../masking/request-mask.ts'
import type { Metrics } from '../metrics.ts'
import type { WalkTally } from '../otlp/walk.ts'
import { openAccept } from '../receive/accept.ts'
import { openDuplicateWindow } from '../receive/duplicates.ts'
import { openInflate } from '../receive/inflate.ts'
import { type IngestLimits, openIngestLimits } from '../receive/ingest-limits.ts'
import type { Accept, Signal } from '../receive/request.ts'
import type { Start } from './start.ts'

export function openStartedAccept(
  { file, metrics }: Start,
  journal: Journal,
  genai: GenAi,
): { readonly accept: Accept; readonly ingestLimits: IngestLimits } {
  const duplicates =
    file.deduplicateRequests === false
      ? undefined
      : openDuplicateWindow({
          windowMs: limits.duplicateWindowMs,
          entriesMax: limits.duplicateEntriesMax,
          clockMs: () => performance.now(),
        })
  for (const request of journal.answered) duplicates?.add(request.digest, request)
  const ingestLimits = openIngestLimits({
    config: file.ingestLimits ?? {},
    clockMs: () => performance.now(),
    burstSeconds: limits.ingestBurstSeconds,
    tenantsMax: limits.ingestTenantsMax,
  })
  const accept = openAccept({
    journal,
    inflate: openInflate({ concurrentMax: limits.inflateConcurrentMax }),
    inflatedBytesMax: limits.requestInflatedBytesMax,
    duplicates,
    ingestLimits,
    retentionDays: (signal) => (tenant) => retentionDaysOf(file, signal, tenant),
    mask: openRequestMask(maskingOf(file)),
    now: Date.now,
    lifting: genai.lifting,
    onMasked: (counts) => {
      for (const [kind, found] of counts) metrics.add('tallylight_masked_total', { kind }, found)
    },
    onWalked: (signal, tally) => countWalked(metrics, signal, tally),
  })
  return { accept, ingestLimits }
}

function countWalked(metrics: Metrics, signal: Signal, tally: WalkTally): void {
  for (const [reason, count] of tally.rejected)
    metrics.add('tallylight_rejected_records_total', { signal, reason }, count)
  if (tally.repairedStrings > 0) metrics.add('tallylight_repaired_strings_total', { signal }, tally.repairedStrings)
  if (tally.negativeDurations > 0)
    metrics.add('tallylight_negative_durations_total', { signal }, tally.negativeDurations)
  if (tally.timesReplaced > 0) metrics.add('tallylight_times_replaced_total', { signal }, tally.timesReplaced)
  if (tally.timesClamped > 0) metrics.add('tallylight_times_clamped_total', { signal }, tally.timesClamped)
  if (tally.lifted === 0) return
  metrics.add('tallylight_lifted_records_total', { signal }, tally.lifted)
  metrics.add('tallylight_leftover_contents_total', { signal }, tally.leftoverContents)
  metrics.add('tallylight_malformed_contents_total', { signal }, tally.malformedContents)
  metrics.add('tallylight_absurd_usages_total', { signal }, tally.absurdUsages)
}
