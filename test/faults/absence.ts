// ClickHouse away for as long as asked, under load: requests are answered all the while, and all of it is there afterwards,
// the first minute as the last.
import { setTimeout } from 'node:timers/promises'
import { startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'
import { openDoor } from './door.ts'
import { countOf, openOwner, send, spans, startServer, urlOf } from './own-server.ts'

const spansPerRequest = 100
const requestsPerSecond = 20

export type AbsenceResult = {
  readonly seconds: number
  readonly answered: number
  readonly refused: number
  readonly inTable: { readonly rows: number; readonly ids: number }
  readonly drainSeconds: number
}

export async function runAbsence(seconds: number): Promise<AbsenceResult> {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  const door = stack.use(await openDoor({ port: server.port }))
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server, door.port) }))
  let sent = 0
  let answered = 0
  let refused = 0
  await door.shut()
  for (const endMs = performance.now() + seconds * 1000; performance.now() < endMs; ) {
    const fresh = spans(spansPerRequest, () => 'absence').map((span, at) => ({
      ...span,
      id: (sent + at + 1).toString(16).padStart(16, '0'),
    }))
    sent += spansPerRequest
    if ((await send(collector, spansRequest(fresh))) === 200) answered += spansPerRequest
    else refused += spansPerRequest
    await setTimeout(1000 / requestsPerSecond)
  }
  await door.open()
  const openedMs = performance.now()
  await collector.drained()
  return {
    seconds,
    answered,
    refused,
    inTable: await countOf(openOwner(server, stack), 'otel_traces'),
    drainSeconds: Number(((performance.now() - openedMs) / 1000).toFixed(1)),
  }
}
