// Which of a collector's operations on its journal fails, or is its last. A plan is a file that the collector's process
// (with fault-points.ts loaded before its own code) looks into at each operation; a step that has happened is taken out.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'

/** `create` and `write` are of segments and books, `frame` is a write to a segment alone, `rename` puts new books in the place of the old, `remove` takes a stored
 *  segment away, `truncate` cuts what a failed write may have left. A write is durable when it returns. */
export type FaultPoint = 'create' | 'write' | 'frame' | 'rename' | 'remove' | 'truncate'

export type FaultStep =
  | { readonly point: FaultPoint; readonly act: 'kill_before' | 'kill_after'; readonly skip: number }
  | { readonly point: FaultPoint; readonly act: 'EIO' | 'ENOSPC'; readonly skip: number }
  /** The volume is full, for as long as the step stands. */
  | { readonly act: 'full' }

export function writePlan(path: string, steps: readonly FaultStep[]): void {
  if (steps.length === 0) {
    rmSync(path, { force: true })
    return
  }
  // Replaced whole: it is read at any time.
  writeFileSync(`${path}.next`, JSON.stringify(steps))
  renameSync(`${path}.next`, path)
}

export function readPlan(path: string): readonly FaultStep[] {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as readonly FaultStep[]
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
