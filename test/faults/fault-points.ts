// Loaded into a collector's process before its own code (`--import`): stands between the journal and the file system and
// does what the plan says. Everything else is the real collector on the real disk.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { type FaultPoint, type FaultStep, readPlan, writePlan } from './fault-plan.ts'

const planPath = process.env.FAULT_PLAN ?? ''
let skipped = 0

/** What is to happen at this point now. */
function faultAt(point: FaultPoint): FaultStep | undefined {
  const [step, ...rest] = readPlan(planPath)
  if (step === undefined) return undefined
  const isWrite = point === 'write' || point === 'frame'
  if (step.act === 'full') return isWrite || point === 'create' ? step : undefined
  if (step.point !== point && !(isWrite && step.point === 'write')) return undefined
  if (skipped++ < step.skip) return undefined
  skipped = 0
  writePlan(planPath, rest)
  return step
}

function isFull(): boolean {
  return readPlan(planPath)[0]?.act === 'full'
}

/** The error of a step, if it is one; a process that is to be killed before does not come back. */
function before(step: FaultStep | undefined): NodeJS.ErrnoException | undefined {
  switch (step?.act) {
    case undefined:
    case 'kill_after':
      return undefined
    case 'kill_before':
      process.kill(process.pid, 'SIGKILL')
      return undefined
    case 'EIO':
      return Object.assign(new Error('EIO: i/o error, as planned'), { code: 'EIO' })
    case 'full':
    case 'ENOSPC':
      return Object.assign(new Error('ENOSPC: no space left on device, as planned'), { code: 'ENOSPC' })
    default:
      return step satisfies never
  }
}

function after(step: FaultStep | undefined): void {
  if (step?.act === 'kill_after') process.kill(process.pid, 'SIGKILL')
}

type Callback = (error: NodeJS.ErrnoException | null, ...results: readonly unknown[]) => void

/** Puts a function of the file system behind its point. The last argument is its callback. */
function guardCallback(name: 'open' | 'writev' | 'ftruncate', pointOf: (args: unknown[]) => FaultPoint | undefined) {
  const real = fs[name] as (...args: unknown[]) => void
  const guarded = (...args: unknown[]): void => {
    const point = pointOf(args)
    const step = point === undefined ? undefined : faultAt(point)
    const callback = args.pop() as Callback
    const failure = before(step)
    if (failure !== undefined) {
      process.nextTick(callback, failure)
      return
    }
    real(...args, (error: NodeJS.ErrnoException | null, ...results: unknown[]) => {
      after(step)
      if (name === 'open') noteFile(args[0], results[0])
      callback(error, ...results)
    })
  }
  Object.assign(fs, { [name]: guarded })
}

function guardPromise(name: 'rename' | 'rm', pointOf: (args: unknown[]) => FaultPoint | undefined) {
  const real = fs.promises[name] as (...args: unknown[]) => Promise<unknown>
  const guarded = async (...args: unknown[]): Promise<unknown> => {
    const point = pointOf(args)
    const step = point === undefined ? undefined : faultAt(point)
    const failure = before(step)
    if (failure !== undefined) throw failure
    const result = await real(...args)
    after(step)
    return result
  }
  Object.assign(fs.promises, { [name]: guarded })
}

/** Descriptors of segments: they are used again for other files. */
const segments = new Set<unknown>()
function noteFile(path: unknown, fd: unknown): void {
  if (String(path).endsWith('.segment')) segments.add(fd)
  else segments.delete(fd)
}

const isOfJournal = (path: unknown): boolean => String(path).includes('/journal/')

guardCallback('open', ([path, flags]) =>
  isOfJournal(path) && (Number(flags) & fs.constants.O_CREAT) !== 0 ? 'create' : undefined,
)
guardCallback('writev', ([fd]) => (segments.has(fd) ? 'frame' : 'write'))
guardCallback('ftruncate', () => 'truncate')
guardPromise('rename', ([path]) => (isOfJournal(path) ? 'rename' : undefined))
guardPromise('rm', ([path]) => (isOfJournal(path) ? 'remove' : undefined))
const statfs = fs.promises.statfs
Object.assign(fs.promises, {
  statfs: async (path: string) => {
    const found = await statfs(path)
    return isFull() ? { ...found, bavail: 0 } : found
  },
})
syncBuiltinESMExports()
