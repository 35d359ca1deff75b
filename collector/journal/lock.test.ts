import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { JournalLocked, lockDirectory } from './lock.ts'

let directory: string
let children: ChildProcess[]
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-lock-'))
  children = []
})
afterEach(async () => {
  for (const child of children) await kill(child)
  await rm(directory, { recursive: true })
})

/** A process that locks the directory and says what came of it, then stays. */
async function lockElsewhere(): Promise<{ readonly child: ChildProcess; readonly answer: string }> {
  const script = `
    import { lockDirectory } from ${JSON.stringify(new URL('./lock.ts', import.meta.url).href)}
    const answer = await lockDirectory(${JSON.stringify(directory)}, 'process ' + process.pid).then(() => 'locked', String)
    console.log(answer)
    setInterval(() => undefined, 1000)`
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  const [answer] = (await once(createInterface(child.stdout), 'line')) as [string]
  return { child, answer }
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

test('lock: another process is told who has the directory, and gets it when that one was killed', async () => {
  const { child, answer } = await lockElsewhere()
  expect(answer).toBe('locked')
  const refusal = lockDirectory(directory, 'the second')
  await expect(refusal).rejects.toBeInstanceOf(JournalLocked)
  await expect(refusal).rejects.toThrow(
    `${directory} is in use by process ${child.pid}; each collector needs a directory of its own`,
  )
  await kill(child)
  await using lock = await lockDirectory(directory, 'the next')
  expect(lock).toBeDefined()
  expect((await lockElsewhere()).answer).toContain('is in use by the next;')
})

test('lock: a holder that is stopped, and answers nothing, still holds it', async () => {
  const { child } = await lockElsewhere()
  child.kill('SIGSTOP')
  await expect(lockDirectory(directory, 'the second')).rejects.toThrow(`in use by process ${child.pid};`)
})

test('lock: of many that start at once on the directory of a dead one, exactly one gets it', async () => {
  await kill((await lockElsewhere()).child)
  const all = await Promise.all(Array.from({ length: 6 }, lockElsewhere))
  expect(all.filter(({ answer }) => answer === 'locked')).toHaveLength(1)
  expect(all.filter(({ answer }) => answer.startsWith('JournalLocked'))).toHaveLength(5)
  const here = await Promise.allSettled([1, 2, 3].map((at) => lockDirectory(directory, `here ${at}`)))
  expect(here.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
})

test('lock: the number of a dead holder may be that of a living process by now', async () => {
  await kill((await lockElsewhere()).child)
  await writeFile(join(directory, 'lock.owner'), `process ${process.pid}`)
  await using lock = await lockDirectory(directory, 'the next')
  expect(lock).toBeDefined()
})

test('lock: given back, it is free at once, also for the same process', async () => {
  for (const owner of ['first', 'second']) {
    const lock = await lockDirectory(directory, owner)
    await expect(lockDirectory(directory, 'other')).rejects.toThrow(`in use by ${owner};`)
    await lock[Symbol.asyncDispose]()
    await lock[Symbol.asyncDispose]()
  }
})

test('lock: a path of any length and name will do, and each directory has a lock of its own', async () => {
  const odd = join(directory, `it's a "#?" ü ${'long'.repeat(40)}`)
  await mkdir(odd)
  await using outer = await lockDirectory(directory, 'outer')
  await using inner = await lockDirectory(odd, 'inner')
  expect(outer).not.toBe(inner)
  await expect(lockDirectory(odd, 'other')).rejects.toThrow('in use by inner;')
})

test('lock: a directory that cannot be written is not taken for one in use', async () => {
  const refusal = lockDirectory(join(directory, 'missing'), 'nobody')
  await expect(refusal).rejects.not.toBeInstanceOf(JournalLocked)
  await expect(refusal).rejects.toThrow(`cannot lock ${join(directory, 'missing')}`)
})
