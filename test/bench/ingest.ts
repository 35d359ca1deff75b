// `npm run bench:ingest`: the collector's CPU for a fixed amount of work, measured alone. Prebuilt requests, the collector
// pinned to one core and the sender to the other, fsync before each answer; ClickHouse (Null tables, or the real ones with
// --tables real) is a process of its own and not counted. One JSON line per corpus.
//
// With --rate requests leave at their times, and with real tables the line says when their rows could be queried. With
// --against another checkout is measured in pairs with this one (or, with `--against .`, this one with itself: what the
// machine's noise alone shows).
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type CorpusName, usualRecords } from './corpora.ts'
import { openBench } from './ingest-run.ts'
import { measurePairs, reportPairs } from './pairs.ts'

const { values } = parseArgs({
  options: {
    corpus: { type: 'string', multiple: true },
    records: { type: 'string', default: '1000000' },
    connections: { type: 'string', default: '4' },
    batch: { type: 'string' },
    tables: { type: 'string', default: 'null' },
    encoding: { type: 'string', default: 'protobuf' },
    compression: { type: 'string', default: 'gzip' },
    masking: { type: 'string', default: 'on' },
    rate: { type: 'string' },
    against: { type: 'string' },
    pairs: { type: 'string', default: '7' },
  },
})
const tables = oneOf('tables', values.tables, ['null', 'real'] as const)
const job = {
  records: wholeNumber('records', values.records),
  connections: wholeNumber('connections', values.connections),
  recordsPerRequest: values.batch === undefined ? undefined : wholeNumber('batch', values.batch),
  encoding: oneOf('encoding', values.encoding, ['protobuf', 'json'] as const),
  compression: oneOf('compression', values.compression, ['gzip', 'zstd', 'identity'] as const),
  rate: values.rate === undefined ? undefined : wholeNumber('rate', values.rate),
  isPinned: values.rate === undefined,
  // Measured: the first half million spans cost 6.8 CPU-seconds per million, those after 4.1; what compiling takes is no
  // record's cost.
  warmUpCpuSeconds: 4,
}
const pairs = wholeNumber('pairs', values.pairs)
const names = Object.keys(usualRecords) as CorpusName[]
const corpora = (values.corpus ?? ['web']).map((name) => oneOf('corpus', name, names))

const masking = oneOf('masking', values.masking, ['on', 'off'] as const)

await using bench = await openBench(tables, masking)
for (const corpus of corpora) {
  if (values.against === undefined) {
    console.log(JSON.stringify(await bench.measure({ ...job, corpus })))
    continue
  }
  const checkouts = { a: undefined, b: resolve(values.against) }
  const measured = await measurePairs(pairs, async (build) => {
    const result = await bench.measure({ ...job, corpus, checkout: checkouts[build] })
    console.log(JSON.stringify({ build, ...result }))
    return result.cpuSecondsPerMillion
  })
  console.log(JSON.stringify({ corpus, against: checkouts.b, ...reportPairs(measured) }))
}

function oneOf<Value extends string>(name: string, text: string, allowed: readonly Value[]): Value {
  const found = allowed.find((value) => value === text)
  return found ?? usage(`--${name} is one of ${allowed.join(', ')}, not ${text}`)
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  return Number.isSafeInteger(value) && value >= 1 ? value : usage(`--${name} is a whole number from 1, not ${text}`)
}

function usage(reason: string): never {
  console.error(`${reason}
usage: npm run bench:ingest -- [--corpus web]… [--records N] [--connections N] [--batch N] [--tables null|real]
         [--encoding protobuf|json] [--compression gzip|zstd|identity] [--masking on|off]
         [--rate RECORDS_PER_SECOND]
         [--against CHECKOUT [--pairs 7]]`)
  process.exit(2)
}
