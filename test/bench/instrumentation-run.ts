// One comparison: the same work by services that differ in who watches them, each a process of its own that stays warm, one
// after the other, round and round, so that what the machine does meanwhile falls on all alike. Of the rounds the median.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Done, Order, ServiceOptions, Transport, Variant } from './instrumentation-service.ts'
import { quantile } from './load.ts'
import { pinApart } from './machine.ts'

export type Comparison = {
  readonly transport: Transport
  readonly variants: readonly Variant[]
  readonly content: ServiceOptions['content']
  readonly rivals: string
  /** Of a stream. */
  readonly events: number
  readonly rounds: number
  readonly order: Order
  /** Services on the first core and the provider on the second: to measure, not to share a machine. */
  readonly isPinned: boolean
  readonly kernelSeconds: number
}

export type Compared = {
  readonly transport: Transport
  readonly variant: Variant
  readonly cpuMicrosPerCall: number
  /** More than without anybody watching, in the same round. */
  readonly addedMicrosPerCall: number
  readonly addedPercent: number
  /** What a stream's reader got in all; the same for everybody, or somebody changed the bytes. */
  readonly bytesPerCall: number
  readonly [more: string]: unknown
}

/** Of the measured work: after fewer, functions are still being compiled anew. */
const warmUps = 3

const providerPath = fileURLToPath(new URL('./instrumentation-provider.ts', import.meta.url))
const servicePath = fileURLToPath(new URL('./instrumentation-service.ts', import.meta.url))

export async function compare(comparison: Comparison): Promise<readonly Compared[]> {
  const { transport, variants, content, rivals, events, rounds, order, isPinned, kernelSeconds } = comparison
  await using stack = new AsyncDisposableStack()
  const provider = stack.use(start(providerPath, [String(events)]))
  const port = await provider.next<number>()
  const url = `http://127.0.0.1:${port}`
  const services = variants.map((variant) => {
    const options: ServiceOptions = { variant, transport, url, content, rivals }
    return { variant, ...stack.use(start(servicePath, [JSON.stringify(options)])), rounds: [] as Done[] }
  })
  for (const service of services) {
    await service.next<'ready'>()
    if (isPinned) pinApart(service.child.pid ?? 0, provider.child.pid ?? 0)
    // The compiler's work is not what is measured.
    for (let warmUp = 0; warmUp < warmUps; warmUp++) await service.work(order)
  }
  for (let round = 0; round < rounds; round++)
    for (const service of round % 2 === 0 ? services : services.toReversed())
      service.rounds.push(await service.work(order))
  const base = services.find(({ variant }) => variant === 'none')?.rounds ?? []
  return services.map(({ variant, rounds: done }) => {
    const perCall = (micros: number): number => round(micros / order.count, 2)
    const added = done.map(({ cpuMicros }, at) => cpuMicros - (base[at]?.cpuMicros ?? 0))
    const ratios = done.map(({ cpuMicros }, at) => cpuMicros / (base[at]?.cpuMicros ?? 1))
    const cpu = median(done.map(({ cpuMicros }) => cpuMicros))
    const [last] = done
    const firstByteMs = done.flatMap(({ firstByteMs: each }) => each).sort((a, b) => a - b)
    return {
      transport,
      variant,
      ...order,
      rounds,
      ...(variant === 'tallylight' ? { content } : {}),
      cpuMicrosPerCall: perCall(cpu),
      addedMicrosPerCall: perCall(median(added)),
      addedPercent: round((median(ratios) - 1) * 100, 1),
      cpuPerMillionInKernels: round(cpu / order.count / kernelSeconds, 2),
      chunksPerCall: round((last?.chunks ?? 0) / order.count, 1),
      bytesPerCall: round((last?.bytes ?? 0) / order.count, 1),
      firstByteP50Ms: round(quantile(firstByteMs, 0.5), 3),
      firstByteP99Ms: round(quantile(firstByteMs, 0.99), 3),
    }
  })
}

/** A process that says one thing for each thing it is told. */
function start(path: string, args: readonly string[]) {
  const child: ChildProcess = fork(path, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`a process of the benchmark ended with ${String(code)} before its work was done`)
  })
  ended.catch(() => undefined)

  async function next<Message>(): Promise<Message> {
    const [message] = await Promise.race([once(child, 'message'), ended])
    return message as Message
  }

  return {
    child,
    next,
    work(order: Order): Promise<Done> {
      const done = next<Done>()
      child.send(order)
      return done
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return
      const exit = once(child, 'exit')
      child.disconnect()
      await exit
    },
  }
}

function median(values: readonly number[]): number {
  return quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  )
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
