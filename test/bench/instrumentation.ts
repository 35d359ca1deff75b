// `npm run bench:instrumentation`: what it costs a service to be watched. The same calls of a model, over each transport, by the
// same program: alone, with our instrumentation, with nothing but OpenTelemetry's spans and metrics by hand, and, with
// `--rivals DIRECTORY`, with `@opentelemetry/instrumentation-openai` and OpenLLMetry, which watch the SDK `openai` before its
// version 7 and are looked for in that directory:
//
//   npm install --prefix DIRECTORY openai@6.49.0 @opentelemetry/instrumentation-openai@0.22.0 @traceloop/instrumentation-openai@0.27.0
//
// One JSON line per transport, work and variant. Works: `call`, a reply that is not streamed; `large`, the same with a request of
// 64 KiB; `stream`, events one by one; `asked`, the same where usage is asked for by us; `burst`, all events at once; `first`, one
// stream after the other, for the delay of the first byte.
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { compare } from './instrumentation-run.ts'
import type { Order, Transport, Variant } from './instrumentation-service.ts'
import { measureKernel } from './machine.ts'

const works = {
  call: { count: 4_000, parallel: 16, isStream: false, pace: 'burst', requestBytes: 1_024, asksForUsage: true },
  large: { count: 1_500, parallel: 16, isStream: false, pace: 'burst', requestBytes: 65_536, asksForUsage: true },
  stream: { count: 160, parallel: 16, isStream: true, pace: 'event', requestBytes: 1_024, asksForUsage: true },
  asked: { count: 160, parallel: 16, isStream: true, pace: 'event', requestBytes: 1_024, asksForUsage: false },
  burst: { count: 1_500, parallel: 16, isStream: true, pace: 'burst', requestBytes: 1_024, asksForUsage: true },
  first: { count: 1_000, parallel: 1, isStream: true, pace: 'burst', requestBytes: 1_024, asksForUsage: true },
} as const satisfies Readonly<Record<string, Order>>

const transports = ['fetch', 'undici', 'http', 'openai'] as const satisfies readonly Transport[]

const { values } = parseArgs({
  options: {
    work: { type: 'string', multiple: true },
    transport: { type: 'string', multiple: true },
    content: { type: 'string', default: 'metadata' },
    rounds: { type: 'string', default: '7' },
    events: { type: 'string', default: '200' },
    rivals: { type: 'string', default: '' },
  },
})
const workNames = Object.keys(works) as (keyof typeof works)[]
const content = oneOf('content', values.content, ['off', 'metadata', 'full'] as const)
const rivals = values.rivals === '' ? '' : resolve(values.rivals)

for (const work of (values.work ?? workNames).map((name) => oneOf('work', name, workNames)))
  for (const transport of (values.transport ?? transports).map((name) => oneOf('transport', name, transports))) {
    const others: readonly Variant[] = transport === 'openai' && rivals !== '' ? ['opentelemetry', 'openllmetry'] : []
    const compared = await compare({
      transport,
      // What OpenTelemetry costs is told by calls; on a stream it drowns.
      variants: ['none', 'tallylight', ...(works[work].isStream ? [] : (['spans'] as const)), ...others],
      content,
      rivals,
      events: wholeNumber('events', values.events),
      rounds: wholeNumber('rounds', values.rounds),
      order: works[work],
      isPinned: true,
      kernelSeconds: measureKernel(),
    })
    for (const line of compared) console.log(JSON.stringify({ work, ...line }))
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
usage: npm run bench:instrumentation -- [--work ${workNames.join('|')}]… [--transport ${transports.join('|')}]…
         [--content off|metadata|full] [--rounds 7] [--events 200] [--rivals DIRECTORY]`)
  process.exit(2)
}
