// A small volume that can be filled and freed: a tmpfs of its own where mounting is allowed, so that the collector and both
// engines meet the same full disk; else a plan under which the collector's own disk says that it is full.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writePlan } from './fault-plan.ts'

export type Volume = {
  readonly directory: string
  readonly faultPlan: string
  readonly isMounted: boolean
  /** Takes every byte that is left. */
  fill(): Promise<void>
  free(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const chunkBytes = 1024 * 1024

export function openVolume(bytes: number): Volume {
  const directory = mkdtempSync(join(tmpdir(), 'tallylight-volume-'))
  const size = `size=${bytes},mode=0700`
  const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'tmpfs', directory]).status === 0
  const ballast = join(directory, 'ballast')
  const faultPlan = `${directory}.plan`

  async function fill(): Promise<void> {
    if (!isMounted) {
      writePlan(faultPlan, [{ act: 'full' }])
      return
    }
    const file = await open(ballast, 'w')
    try {
      for (let chunk = Buffer.alloc(chunkBytes); chunk.length > 0; ) {
        const written = await file.write(chunk).catch(fullIsNothing)
        if (written === undefined) chunk = chunk.subarray(0, chunk.length >> 1)
      }
    } finally {
      await file.close()
    }
  }

  return {
    directory,
    faultPlan,
    isMounted,
    fill,
    free: async () => {
      if (isMounted) await rm(ballast)
      else writePlan(faultPlan, [])
    },
    [Symbol.asyncDispose]: async () => {
      if (isMounted) execFileSync('umount', [directory])
      rmSync(directory, { recursive: true })
      rmSync(faultPlan, { force: true })
    },
  }
}

function fullIsNothing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOSPC') throw error
  return undefined
}
