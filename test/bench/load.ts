// The sender of the benchmarks: prebuilt bodies over a few connections, as fast as they are answered, or each at its time.
import { Agent, request } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import type { Corpus } from './corpora.ts'

export type Load = {
  readonly corpus: Corpus
  readonly port: number
  readonly requests: number
  readonly connections: number
  /** Records per second. Requests then leave at their times, whatever became of those before, and latencies count from the
   *  time at which a request should have left. Without it, each connection sends when it has its answer. */
  readonly rate?: number | undefined
  readonly onAnswered?: (records: number) => void
}

/** Sends, and resolves to the latencies in ms, sorted. Anything but 200 fails. */
export async function sendLoad(load: Load): Promise<readonly number[]> {
  const { corpus, port, requests, connections, rate } = load
  const { recordsPerRequest, contentEncoding } = corpus.options
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const headers = {
    'Content-Type': corpus.contentType,
    ...(contentEncoding === 'identity' ? {} : { 'Content-Encoding': contentEncoding }),
  }
  const latenciesMs: number[] = []
  const sendOne = async (number: number, dueMs: number): Promise<void> => {
    const body = corpus.bodies[number % corpus.bodies.length] as Buffer
    await post(agent, port, corpus.path, headers, body)
    latenciesMs.push(performance.now() - dueMs)
    load.onAnswered?.(recordsPerRequest)
  }
  if (rate === undefined) {
    let next = 0
    const oneAfterAnother = async (): Promise<void> => {
      while (next < requests) await sendOne(next++, performance.now())
    }
    await Promise.all(Array.from({ length: connections }, oneAfterAnother))
  } else {
    await sendAtRate(requests, recordsPerRequest / rate, sendOne)
  }
  agent.destroy()
  return latenciesMs.sort((a, b) => a - b)
}

async function sendAtRate(
  requests: number,
  secondsApart: number,
  sendOne: (number: number, dueMs: number) => Promise<void>,
): Promise<void> {
  const startMs = performance.now()
  const underWay: Promise<void>[] = []
  for (let next = 0; next < requests; ) {
    for (; next < requests && startMs + next * secondsApart * 1000 <= performance.now(); next++) {
      underWay.push(sendOne(next, startMs + next * secondsApart * 1000))
    }
    await setTimeout(1)
  }
  await Promise.all(underWay)
}

function post(
  agent: Agent,
  port: number,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = request(
      { agent, host: '127.0.0.1', port, path, method: 'POST', headers: { ...headers, 'Content-Length': body.length } },
      (response) => {
        response.resume()
        response.on('end', () =>
          response.statusCode === 200 ? resolve() : reject(new Error(`answered ${response.statusCode}`)),
        )
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}

/** Of sorted values. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}
