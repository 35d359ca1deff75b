// Tokens counted in a worker, which is started when the first stream without usage comes, and ends when there was none for a
// while: most collectors never need it.
import { Worker } from 'node:worker_threads'
import { limits } from '../limits.ts'
import type { Texts } from './estimate.ts'
import type { Estimate } from './fact.ts'

export type Estimates = {
  /** Rejects when the worker ends before it has counted. */
  estimate(texts: Texts): Promise<Estimate>
  [Symbol.asyncDispose](): Promise<void>
}

type Waiting = { readonly resolve: (estimate: Estimate) => void; readonly reject: (error: unknown) => void }

export function openEstimates(): Estimates {
  const waiting = new Map<number, Waiting>()
  let worker: Worker | undefined
  let idle: NodeJS.Timeout | undefined
  let count = 0

  function start(): Worker {
    const started = new Worker(new URL('./estimate-worker.ts', import.meta.url))
    started.on('message', ({ id, estimate }: { readonly id: number; readonly estimate: Estimate }) => {
      waiting.get(id)?.resolve(estimate)
      waiting.delete(id)
    })
    started.on('error', (error) => failAll(error))
    started.on('exit', () => {
      if (worker === started) worker = undefined
      failAll(new Error('the worker that counts tokens has ended'))
    })
    // Last: to listen for messages is what keeps the process, for as long as the worker is idle, after all else has ended.
    started.unref()
    return started
  }

  function failAll(error: unknown): void {
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  }

  async function stop(): Promise<void> {
    clearTimeout(idle)
    const stopping = worker
    worker = undefined
    await stopping?.terminate()
  }

  return {
    estimate: (texts) =>
      new Promise((resolve, reject) => {
        const id = ++count
        waiting.set(id, { resolve, reject })
        worker ??= start()
        worker.postMessage({ id, texts })
        clearTimeout(idle)
        idle = setTimeout(() => {
          if (waiting.size === 0) void stop()
        }, limits.estimatesIdleMs).unref()
      }),
    [Symbol.asyncDispose]: stop,
  }
}
