// The commands that look at a collector: what they take, what they print, and their exit codes.
import { parseArgs } from 'node:util'
import type { Finding } from './doctor.ts'
import { Misused } from './misused.ts'
import { type Environment, findPlace, type Place } from './place.ts'
import { tail } from './tail.ts'

export const lookUsage = `  tallylight doctor [--grafana DIR]
      looks at versions, settings, disk, ports, keys, clocks and both schemas, writes a turn and reads it back, and says
      what is wrong with the command that mends it; DIR is the provisioning folder of a Grafana
  tallylight tail [--tenant NAME]
      turns, calls, tool calls and refusals as they come, until Ctrl-C
  tallylight grafana provision DIR [--page-url URL] [--ticket-email ADDRESS] [--policies]
      writes data sources, boards and alerts for a Grafana on this machine, which is then started with
      GF_PATHS_PROVISIONING=DIR; --policies also replaces who is told of what, for a Grafana that is for nothing else`

const verbs = { doctor: runDoctor, tail: runTail, grafana: runGrafana } as const

/** The exit code, or undefined when the first word is none of these. */
export async function look(args: readonly string[], environment: Environment): Promise<number | undefined> {
  const [verb, ...rest] = args
  const run = Object.hasOwn(verbs, verb ?? '') ? verbs[verb as keyof typeof verbs] : undefined
  return run?.(rest, environment)
}

async function runDoctor(args: readonly string[], environment: Environment): Promise<number> {
  // Loaded only when it is wanted, as below: it knows every board.
  const { examine, versionOf } = await import('./doctor.ts')
  const { values } = parseArgs({ args: [...args], options: { grafana: { type: 'string' } } })
  const findings = await examine({ environment, version: await versionOf(), grafana: values.grafana, now: Date.now })
  for (const finding of findings) console.log(lineOf(finding))
  const wrong = findings.filter((finding) => finding.is === 'wrong').length
  console.log(wrong === 0 ? 'nothing is wrong' : `${wrong} ${wrong === 1 ? 'thing is' : 'things are'} wrong`)
  return wrong === 0 ? 0 : 1
}

function lineOf({ about, is, what, mend }: Finding): string {
  const line = `${is.padEnd(7)}  ${about}: ${what}`
  return mend === undefined ? line : `${line}\n           mend: ${mend}`
}

async function runTail(args: readonly string[], environment: Environment): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { tenant: { type: 'string' } } })
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort())
  const print = (line: string): void => console.log(line)
  await tail(await placeOf(environment), { tenant: values.tenant, print, now: Date.now }, stopping.signal)
  return 0
}

async function runGrafana(args: readonly string[], environment: Environment): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      'page-url': { type: 'string', default: 'http://localhost:9/set-me' },
      'ticket-email': { type: 'string', default: 'sre@localhost' },
      policies: { type: 'boolean', default: false },
    },
  })
  const [verb, directory] = positionals
  if (verb !== 'provision' || directory === undefined) throw new Misused('grafana takes: provision DIR')
  const { provisionGrafana } = await import('./grafana.ts')
  const files = await provisionGrafana(await placeOf(environment), {
    directory,
    pageUrl: values['page-url'],
    ticketEmail: values['ticket-email'],
    hasPolicies: values.policies,
  })
  for (const file of files) console.log(file)
  console.error(
    `tallylight: start Grafana with GF_PATHS_PROVISIONING=${directory} and the plugin grafana-clickhouse-datasource`,
  )
  return 0
}

async function placeOf(environment: Environment): Promise<Place> {
  const place = await findPlace(environment)
  if ('reasons' in place) throw new Error(place.reasons.join('; '))
  return place
}
