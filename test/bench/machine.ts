// What a process cost, and how far the machine is to be trusted while it is measured.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { crc32, gunzipSync, gzipSync } from 'node:zlib'
import { seededRandom } from '../random.ts'

const ticksPerSecond = 100

/** User and system time of all the process's threads, from /proc. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** The processes that it started and that still run. */
export function childrenOf(pid: number): readonly number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
}

export function rssPeakMiB(pid: number): number {
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024)
}

/** The measured process alone on the first core, the sender on the second. */
export function pinApart(measured: number, sender: number): void {
  if (cpus().length < 2) return
  spawnSync('taskset', ['-a', '-cp', '0', String(measured)])
  spawnSync('taskset', ['-a', '-cp', '1', String(sender)])
}

/** CPU-seconds of fixed work that nobody will make faster (gunzip, crc32, copies): figures divided by it survive a change
 *  of machine, and a kernel that differs tells of a disturbed one. */
export function measureKernel(): number {
  const random = seededRandom(1)
  const words = Array.from({ length: 4096 }, () => random.bytes(random.between(3, 12)).toString('hex'))
  const text = Buffer.from(Array.from({ length: 200_000 }, () => random.pick(words)).join(' '))
  const packed = gzipSync(text, { level: 6 })
  const copy = Buffer.alloc(text.length)
  const before = process.cpuUsage()
  let sum = 0
  for (let round = 0; round < 40; round++) {
    gunzipSync(packed).copy(copy)
    sum = crc32(copy, sum)
  }
  const { user, system } = process.cpuUsage(before)
  if (sum === 0) throw new Error('the kernel has summed nothing')
  return (user + system) / 1e6
}

export type Weather = { readonly stolenTicks: number; readonly allTicks: number; readonly pressurePercent: number }

/** Time stolen by the host and time that tasks waited for a core (PSI, where the kernel has it). */
export function readWeather(): Weather {
  const ticks = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/).slice(1).map(Number)
  let pressurePercent = 0
  try {
    pressurePercent = Number(/some avg10=([\d.]+)/.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1] ?? 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return {
    stolenTicks: ticks[7] ?? 0,
    allTicks: ticks.slice(0, 8).reduce((sum, each) => sum + each, 0),
    pressurePercent,
  }
}

export function stolenShare(before: Weather, after: Weather): number {
  return (after.stolenTicks - before.stolenTicks) / Math.max(1, after.allTicks - before.allTicks)
}
