// `npm run bench:proxy`: the delay of events on many streams at once, straight and through the proxy in turns, and the memory of
// clients that do not read. Of the differences of the turns the median. One JSON line.
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { measureKernel } from './machine.ts'
import { type Delays, openProxyBench } from './proxy-run.ts'

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
// Both ways once before they count: code is compiled, connections are made.
for (const way of ['straight', 'proxied'] as const) await bench.measureStreams(way, { ...load, events: 20 })
const kernelSeconds = measureKernel()
const measured: { readonly straight: Delays; readonly proxied: Delays }[] = []
for (let turn = 0; turn < turns; turn++) {
  const straight = await bench.measureStreams('straight', load)
  measured.push({ straight, proxied: await bench.measureStreams('proxied', load) })
}
const memory = await bench.measureSlowReaders(readers)
const cpuPerMillion = median(measured.map(({ proxied }) => proxied.cpuPerMillionEvents))
console.log(
  JSON.stringify({
    streams,
    eventsPerSecond: Math.round((streams * 1000) / everyMs),
    straightP99Ms: round(median(measured.map(({ straight }) => straight.p99Ms))),
    proxiedP99Ms: round(median(measured.map(({ proxied }) => proxied.p99Ms))),
    addedP50Ms: round(median(measured.map(({ straight, proxied }) => proxied.p50Ms - straight.p50Ms))),
    addedP99Ms: round(median(measured.map(({ straight, proxied }) => proxied.p99Ms - straight.p99Ms))),
    addedFirstP50Ms: round(median(measured.map(({ straight, proxied }) => proxied.firstP50Ms - straight.firstP50Ms))),
    addedFirstP99Ms: round(median(measured.map(({ straight, proxied }) => proxied.firstP99Ms - straight.firstP99Ms))),
    cpuSecondsPerMillionEvents: round(cpuPerMillion),
    cpuPerMillionInKernels: round(cpuPerMillion / kernelSeconds),
    cpuPerCallMs: round(median(measured.map(({ proxied }) => proxied.cpuPerCallMs))),
    idleStreamKiB: memory.idleKiB,
    slowReaderKiB: memory.slowKiB,
    kernelSeconds: round(kernelSeconds),
    loadAverage: round(loadavg()[0] ?? 0),
  }),
)

function median(all: readonly number[]): number {
  return [...all].sort((a, b) => a - b)[all.length >> 1] ?? Number.NaN
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}
