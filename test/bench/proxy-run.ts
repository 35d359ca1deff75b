// What the proxy adds to streams: a provider in this process writes events that say when they were sent, at a pace, on many
// streams at once; a client in this process reads them, straight, through a bare relay and through the proxy of a collector, in
// turns. The pace begins when all streams are open and none ends before the last event, so that opening and ending are measured
// by themselves. Events are spread over the pace by the clock, and are alike but for their letters, as a model's are.
// And what a client costs that does not read what an eager provider writes.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { cpuSeconds, pinApart } from './machine.ts'

export type StreamLoad = {
  readonly streams: number
  readonly events: number
  readonly everyMs: number
  /** Before the pace and after the end, for what follows an answer: settlements, records. */
  readonly quietMs: number
}

export type Delays = {
  readonly events: number
  /** From the provider's write to the client's read. */
  readonly p50Ms: number
  readonly p99Ms: number
  /** From the request to the first event: through the proxy with the key, the gate and the connection to the provider. */
  readonly firstP50Ms: number
  readonly firstP99Ms: number
  /** Of the process in between, for the events alone, and for opening and ending. */
  readonly cpuPerMillionEvents: number
  readonly cpuPerCallMs: number
}

/** `relayed`: through a process that passes bytes and does nothing else. */
export type Way = 'straight' | 'relayed' | 'proxied'

export type ProxyBench = AsyncDisposable & {
  readonly collector: CollectorProcess
  measureStreams(way: Way, load: StreamLoad): Promise<Delays>
  /** KiB of the collector per stream that is open and idle, and what is added where its client does not read. */
  measureSlowReaders(count: number): Promise<{ readonly idleKiB: number; readonly slowKiB: number }>
}

const path = '/v1/chat/completions'
const callsPerSecond = 200
const relayPath = fileURLToPath(new URL('./relay.ts', import.meta.url))

export async function openProxyBench(options: { readonly isPinned: boolean }): Promise<ProxyBench> {
  const stack = new AsyncDisposableStack()
  let beat = openBeat({ streams: 1, events: 1, everyMs: 1, quietMs: 0 })
  const provider = createServer((incoming, response) => {
    answer(incoming, response, beat).catch(() => response.destroy())
  })
  provider.listen(0, '127.0.0.1')
  await once(provider, 'listening')
  stack.defer(() => {
    provider.closeAllConnections()
    provider.close()
  })
  const providerUrl = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`
  const directory = mkdtempSync(join(tmpdir(), 'tallylight-bench-'))
  stack.defer(() => rmSync(directory, { recursive: true }))
  const config = join(directory, 'tallylight.json')
  const upstreams = { bench: { url: providerUrl, provider: 'openai', takesUsageOption: true } }
  writeFileSync(config, JSON.stringify({ proxy: { upstreams } }))
  const collector = stack.use(await startCollector({ TALLYLIGHT_CONFIG: config }))
  const agent = new Agent({ keepAlive: true })
  stack.defer(() => agent.destroy())
  const relay = fork(relayPath, [new URL(providerUrl).port])
  stack.defer(() => relay.disconnect())
  const [relayPort] = (await once(relay, 'message')) as [number]
  const ways = {
    straight: { url: providerUrl, pid: process.pid },
    relayed: { url: `http://127.0.0.1:${relayPort}`, pid: relay.pid ?? 0 },
    proxied: { url: `http://127.0.0.1:${collector.ports().proxy}/bench`, pid: collector.pid() },
  } as const
  if (options.isPinned) for (const way of [ways.relayed, ways.proxied]) pinApart(way.pid, process.pid)

  async function measureStreams(way: Way, load: StreamLoad): Promise<Delays> {
    const { url, pid } = ways[way]
    beat = openBeat(load)
    const reads: { readonly firstMs: number; readonly delaysMs: readonly number[] }[] = []
    const cpu = [cpuSeconds(pid)]
    const opened = Array.from({ length: load.streams }, async (_, at) => {
      await setTimeout((at * 1_000) / callsPerSecond)
      const started = Promise.withResolvers<void>()
      const read = readStream(url, started.resolve).then((each) => reads.push(each))
      await started.promise
      return { read }
    })
    const streams = await Promise.all(opened)
    await setTimeout(load.quietMs)
    cpu.push(cpuSeconds(pid))
    await beat.run()
    cpu.push(cpuSeconds(pid))
    beat.end()
    await Promise.all(streams.map(({ read }) => read))
    await setTimeout(load.quietMs)
    cpu.push(cpuSeconds(pid))
    const sorted = (all: readonly number[]): readonly number[] => all.toSorted((a, b) => a - b)
    const delays = sorted(reads.flatMap(({ delaysMs }) => delaysMs))
    const firsts = sorted(reads.map(({ firstMs }) => firstMs))
    const between = (at: number): number => (cpu[at + 1] ?? 0) - (cpu[at] ?? 0)
    return {
      events: delays.length,
      p50Ms: shareOf(delays, 0.5),
      p99Ms: shareOf(delays, 0.99),
      firstP50Ms: shareOf(firsts, 0.5),
      firstP99Ms: shareOf(firsts, 0.99),
      cpuPerMillionEvents: (between(1) / delays.length) * 1e6,
      cpuPerCallMs: ((between(0) + between(2)) / load.streams) * 1e3,
    }
  }

  async function readStream(url: string, started: () => void) {
    const startedMs = performance.now()
    const response = await send(url, { model: 'gpt-4o', stream: true })
    const delaysMs: number[] = []
    let firstMs = 0
    let rest = ''
    for await (const chunk of response) {
      const nowMs = performance.now()
      if (firstMs === 0) {
        firstMs = nowMs - startedMs
        started()
      }
      const events = (rest + String(chunk)).split('\n\n')
      rest = events.pop() ?? ''
      for (const event of events) {
        const sentMs = /"content":" ([\d.]+)"/.exec(event)?.[1]
        if (sentMs !== undefined) delaysMs.push(nowMs - Number(sentMs))
      }
    }
    return { firstMs, delaysMs }
  }

  async function send(url: string, body: object): Promise<IncomingMessage> {
    const sent = request(`${url}${path}`, { method: 'POST', agent, headers: { 'content-type': 'application/json' } })
    sent.end(JSON.stringify({ messages: [{ role: 'user', content: 'How fast is it?' }], max_tokens: 10, ...body }))
    const [response] = (await once(sent, 'response')) as [IncomingMessage]
    return response
  }

  /** In a collector of its own, whose memory can be asked for. */
  async function measureSlowReaders(count: number) {
    const environment = { TALLYLIGHT_CONFIG: config, NODE_OPTIONS: '--inspect=127.0.0.1:0' }
    await using inspected = await startCollector(environment)
    await using memory = await openMemory(inspected.log())
    const url = `http://127.0.0.1:${inspected.ports().proxy}/bench`
    const open = async (model: string): Promise<readonly IncomingMessage[]> => {
      const responses = await Promise.all(Array.from({ length: count }, () => send(url, { model, stream: true })))
      for (const response of responses) response.on('error', () => response.destroy()).pause()
      return responses
    }
    // What the first streams leave behind is not what the next ones cost, nor are their records on the way to the tables.
    for (const response of await open('idle')) response.destroy()
    await inspected.drained()
    const emptyBytes = await memory.settled()
    const idle = await open('idle')
    const idleBytes = await memory.settled()
    const slow = await open('eager')
    const slowBytes = await memory.settled()
    for (const response of [...idle, ...slow]) response.destroy()
    const kibOf = (bytes: number): number => Math.round(bytes / count / 1024)
    const idleKiB = kibOf(idleBytes - emptyBytes)
    return { idleKiB, slowKiB: kibOf(slowBytes - idleBytes) - idleKiB }
  }

  return { collector, measureStreams, measureSlowReaders, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

type Memory = AsyncDisposable & {
  /** Bytes in use, of the heap and outside of it, when they have stayed the same for a while. */
  settled(): Promise<number>
}

/** Asks Node's inspector, at the address that the process has told. */
async function openMemory(log: string): Promise<Memory> {
  const address = /ws:\/\/\S+/.exec(log)?.[0] ?? ''
  const socket = new WebSocket(address)
  await once(socket, 'open')
  let asked = 0

  async function call(method: string, params: object): Promise<unknown> {
    const id = ++asked
    const { promise, resolve } = Promise.withResolvers<unknown>()
    const onMessage = ({ data }: MessageEvent): void => {
      const answer = JSON.parse(String(data)) as { readonly id?: number; readonly result?: unknown }
      if (answer.id === id) resolve(answer.result)
    }
    socket.addEventListener('message', onMessage)
    socket.send(JSON.stringify({ id, method, params }))
    return promise.finally(() => socket.removeEventListener('message', onMessage))
  }

  async function read(): Promise<number> {
    await call('HeapProfiler.collectGarbage', {})
    const expression = '(({ heapUsed, external }) => heapUsed + external)(process.memoryUsage())'
    const { result } = (await call('Runtime.evaluate', { expression })) as {
      readonly result: { readonly value: number }
    }
    return result.value
  }

  return {
    async settled() {
      for (let before = await read(); ; ) {
        await setTimeout(1_000)
        const now = await read()
        if (Math.abs(now - before) <= before * 0.001) return now
        before = now
      }
    },
    async [Symbol.asyncDispose]() {
      socket.close()
      await once(socket, 'close')
    },
  }
}

type Beat = {
  /** A stream that is written to as long as the beat goes. */
  join(response: ServerResponse): Promise<void>
  /** Until the last event. */
  run(): Promise<void>
  end(): void
}

function openBeat({ streams, events, everyMs }: StreamLoad): Beat {
  const ended = Promise.withResolvers<void>()
  const joined: ServerResponse[] = []

  return {
    async join(response) {
      joined.push(response)
      await ended.promise
      response.write(eventOf({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }))
      response.write(eventOf({ choices: [], usage: { prompt_tokens: 5, completion_tokens: events } }))
      response.end('data: [DONE]\n\n')
    },
    async run() {
      const startedMs = performance.now()
      // By the clock: a timer for each would gather them all in the moment after the first delay, and keep them there.
      for (let sent = 0; sent < streams * events; await setTimeout(1)) {
        const due = Math.min(streams * events, Math.floor(((performance.now() - startedMs) / everyMs) * streams))
        for (; sent < due; sent++) {
          const delta = { content: ` ${performance.now()}` }
          joined[sent % streams]?.write(eventOf({ choices: [{ index: 0, delta, finish_reason: null }] }))
        }
      }
    },
    end: ended.resolve,
  }
}

async function answer(incoming: IncomingMessage, response: ServerResponse, beat: Beat): Promise<void> {
  const chunks = await Array.fromAsync(incoming)
  const { model } = JSON.parse(Buffer.concat(chunks).toString()) as { readonly model: string }
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.write(eventOf({ choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }] }))
  if (model === 'eager') await writeEagerly(response)
  else if (model !== 'idle') await beat.join(response)
}

/** Comments, as providers send to keep a connection open: of an answer's text the record keeps what has passed, however fast. */
async function writeEagerly(response: ServerResponse): Promise<void> {
  const closed = once(response, 'close')
  while (!response.destroyed)
    if (!response.write(`: ${'x'.repeat(1_000)}\n\n`)) await Promise.race([once(response, 'drain'), closed])
}

function eventOf(more: object): string {
  return `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'gpt-4o', ...more })}\n\n`
}

function shareOf(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
