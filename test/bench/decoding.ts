// What a machine makes of the same kind of work as ours, by a library that nobody here makes faster: web spans decoded into
// objects by protobufjs, and nothing else. A collector's CPU divided by it can be compared with another machine's and with
// that of another hour; gunzip and checksums cannot stand for it, since they wait for no memory.
import { loadRequestTypes } from '../fuzz/otlp-proto.ts'
import { buildCorpus, corpusTime } from './corpora.ts'

const warmUpRounds = 8
const rounds = 8

export type Decoding = {
  /** CPU-seconds per million web spans of 422 bytes, now. */
  measure(): number
}

export function openDecoding(): Decoding {
  const { bodies, signal, records } = buildCorpus('web', {
    requests: 30,
    recordsPerRequest: 512,
    seed: 1,
    encoding: 'protobuf',
    contentEncoding: 'identity',
    nowUnixNano: corpusTime(),
  })
  const type = loadRequestTypes()[signal]
  const decodeAll = (times: number): void => {
    for (let round = 0; round < times; round++) for (const body of bodies) type.decode(body)
  }
  decodeAll(warmUpRounds)
  return {
    measure() {
      const before = process.cpuUsage()
      decodeAll(rounds)
      const { user, system } = process.cpuUsage(before)
      return (user + system) / (rounds * records)
    },
  }
}

/** What a report says of a run between two measurements. */
export function inDecodings(cpuSecondsPerMillion: number, before: number, after: number) {
  const decoding = (before + after) / 2
  return {
    decodingSecondsPerMillion: Number(decoding.toFixed(3)),
    cpuInDecodings: Number((cpuSecondsPerMillion / decoding).toFixed(3)),
  }
}
