// An OTLP receiver that keeps the spans it is sent, with their attributes as plain values.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { createGunzip } from 'node:zlib'

export type ReceivedSpan = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly scope: string
  readonly attributes: Readonly<Record<string, unknown>>
}

export type Receiver = AsyncDisposable & {
  readonly url: string
  /** What came since the last time. */
  take(): readonly ReceivedSpan[]
  /** Settles with the next request. */
  next(): Promise<unknown>
}

type Attribute = { readonly key: string; readonly value: Readonly<Record<string, unknown>> }
type Otlp = {
  readonly resourceSpans?: readonly {
    readonly scopeSpans: readonly {
      readonly scope: { readonly name: string }
      readonly spans: readonly (Omit<ReceivedSpan, 'scope' | 'attributes'> & {
        readonly attributes: readonly Attribute[]
      })[]
    }[]
  }[]
}

export async function startReceiver(): Promise<Receiver> {
  let spans: ReceivedSpan[] = []
  const server = createServer(async (request, response) => {
    const body = (await json(request.pipe(createGunzip()))) as Otlp
    for (const { scopeSpans } of body.resourceSpans ?? [])
      for (const { scope, spans: sent } of scopeSpans)
        for (const { attributes, ...span } of sent) {
          const pairs = attributes.map(({ key, value }) => [key, Object.values(value)[0]])
          spans.push({ ...span, scope: scope.name, attributes: Object.fromEntries(pairs) })
        }
    response.setHeader('content-type', 'application/json').end('{}')
    server.emit('received')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    take: () => {
      const taken = spans
      spans = []
      return taken
    },
    next: () => once(server, 'received'),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
