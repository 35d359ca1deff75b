// `npm run bench:proxy`: the delay of events on many streams at once, straight, through a bare relay and through the proxy in turns,
// and the memory of clients that do not read. Of the differences of the turns the median. One JSON line.
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { measureKernel } from './machine.ts'
import { type Delays, openProxyBench, type Way } from './proxy-run.ts'

const { values } = parseArgs({
  options: {
    streams: { type: 'string' },
    events: { type: 'string' },
    every: { type: 'string' },
    turns: { type: 'string' },
    readers: { type: 'string' },
  },
})
const streams = Number(values.streams ?? 500)
const events = Number(values.events ?? 60)
const everyMs = Number(values.every ?? 50)
const turns = Number(values.turns ?? 3)
const readers = Number(values.readers ?? 200)
if (![streams, events, everyMs, turns, readers].every((each) => Number.isSafeInteger(each) && each > 0)) {
  console.error('usage: npm run bench:proxy -- [--streams 500] [--events 60] [--every 50] [--turns 3] [--readers 200]')
  process.exit(2)
}

await using bench = await openProxyBench({ isPinned: true })
const load = { streams, events, everyMs, quietMs: 1_500 }
const ways = ['straight', 'relayed', 'proxied'] as const satisfies readonly Way[]
// Each once before it counts: code is compiled, connections are made.
for (const way of ways) await bench.measureStreams(way, { ...load, events: 20 })
const kernelSeconds = measureKernel()
const measured: Readonly<Record<Way, Delays>>[] = []
for (let turn = 0; turn < turns; turn++)
  measured.push({
    straight: await bench.measureStreams('straight', load),
    relayed: await bench.measureStreams('relayed', load),
    proxied: await bench.measureStreams('proxied', load),
  })
const memory = await bench.measureSlowReaders(readers)
const cpuPerMillion = of('proxied', 'cpuPerMillionEvents')
console.log(
  JSON.stringify({
    streams,
    eventsPerSecond: Math.round((streams * 1000) / everyMs),
    straightP99Ms: round(of('straight', 'p99Ms')),
    relayedP99Ms: round(of('relayed', 'p99Ms')),
    proxiedP99Ms: round(of('proxied', 'p99Ms')),
    addedP50Ms: round(added('p50Ms')),
    addedP99Ms: round(added('p99Ms')),
    addedFirstP50Ms: round(added('firstP50Ms')),
    addedFirstP99Ms: round(added('firstP99Ms')),
    cpuSecondsPerMillionEvents: round(cpuPerMillion),
    cpuPerMillionInKernels: round(cpuPerMillion / kernelSeconds),
    relayCpuSecondsPerMillionEvents: round(of('relayed', 'cpuPerMillionEvents')),
    cpuPerCallMs: round(of('proxied', 'cpuPerCallMs')),
    relayCpuPerCallMs: round(of('relayed', 'cpuPerCallMs')),
    idleStreamKiB: memory.idleKiB,
    slowReaderKiB: memory.slowKiB,
    kernelSeconds: round(kernelSeconds),
    loadAverage: round(loadavg()[0] ?? 0),
  }),
)

function of(way: Way, figure: keyof Delays): number {
  return median(measured.map((each) => each[way][figure]))
}

function added(figure: keyof Delays): number {
  return median(measured.map(({ straight, proxied }) => proxied[figure] - straight[figure]))
}

function median(all: readonly number[]): number {
  return [...all].sort((a, b) => a - b)[all.length >> 1] ?? Number.NaN
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}
