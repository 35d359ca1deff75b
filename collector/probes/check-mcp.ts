// An MCP server, asked as a client asks it: `initialize`, then `ping`, then good-bye. None of them calls a tool or a model.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { ProbeSetting } from '../config.ts'
import { limits } from '../limits.ts'
import { after } from '../receive/receiver.ts'

export type McpProbe = Extract<ProbeSetting, { readonly kind: 'mcp' }>

/** `finishLater` is given what goes on after the answer, which is no part of how long it took: the end of the session or command. */
export async function checkMcp(
  probe: McpProbe,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
  finishLater: (work: Promise<void>) => void,
): Promise<object> {
  const client = new Client({ name: 'tallylight', version: '0.1.0' })
  // The SDK tells nobody of a stream that breaks; it would be waited for until the time-out.
  const tooLong = Promise.withResolvers<never>()
  const transport = transportOf(probe, headers, tooLong.reject)
  let hasLeft = false
  const leave = (): void => {
    if (hasLeft) return
    hasLeft = true
    finishLater(leaveServer(client, transport, signal))
  }
  signal.addEventListener('abort', leave)
  try {
    await Promise.race([tooLong.promise, meet(client, transport, signal)])
    const { name = '', version = '' } = client.getServerVersion() ?? {}
    const charsMax = limits.probeMessageCharsMax
    return { server: name.slice(0, charsMax), version: version.slice(0, charsMax) }
  } finally {
    signal.removeEventListener('abort', leave)
    leave()
  }
}

type AnyTransport = StreamableHTTPClientTransport | StdioClientTransport

async function meet(client: Client, transport: AnyTransport, signal: AbortSignal): Promise<void> {
  await client.connect(transport, { signal })
  await client.ping({ signal })
}

function transportOf(
  probe: McpProbe,
  headers: Readonly<Record<string, string>>,
  onTooLong: (error: Error) => void,
): AnyTransport {
  if (probe.url !== undefined) {
    const reconnectionOptions = {
      maxRetries: 0,
      initialReconnectionDelay: 1,
      maxReconnectionDelay: 1,
      reconnectionDelayGrowFactor: 1,
    }
    return new StreamableHTTPClientTransport(new URL(probe.url), {
      requestInit: { headers },
      reconnectionOptions,
      fetch: (url, init) => fetchBounded(url, init, onTooLong),
    })
  }
  const [command = '', ...args] = probe.command ?? []
  return new StdioClientTransport({ command, args, stderr: 'ignore', maxBufferSize: limits.probeReplyBytesMax })
}

/** The SDK reads replies whole, however long they are, and tells the text of a refusal without its status. */
async function fetchBounded(
  url: string | URL,
  init: RequestInit | undefined,
  onTooLong: (error: Error) => void,
): Promise<Response> {
  const reply = await fetch(url, init)
  if (init?.method === 'POST' && reply.status >= 400) throw new Error(await refusalOf(reply))
  // A status that no `Response` can be made with is one whose body the SDK throws away.
  if (reply.body === null || reply.status > 599) return reply
  const { status, headers } = reply
  // Without its words, which may be in an alphabet that no `Response` is made with.
  return new Response(reply.body.pipeThrough(bounded(onTooLong)), { status, headers })
}

async function refusalOf({ status, body }: Response): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length >= limits.probeMessageCharsMax) break
  }
  return text === '' ? `${status}` : `${status}: ${text.slice(0, limits.probeMessageCharsMax)}`
}

function bounded(onTooLong: (error: Error) => void): TransformStream<Uint8Array, Uint8Array> {
  const { probeReplyBytesMax } = limits
  let bytes = 0
  return new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.length
      if (bytes <= probeReplyBytesMax) return controller.enqueue(chunk)
      const error = new Error(`a reply is longer than ${probeReplyBytesMax} B`)
      onTooLong(error)
      controller.error(error)
    },
  })
}

/** A server that keeps sessions would keep ours; that it does not let go of one is no sign of its health. */
async function leaveServer(client: Client, transport: AnyTransport, signal: AbortSignal): Promise<void> {
  if (transport instanceof StdioClientTransport) askToEnd(transport.pid)
  else if (!signal.aborted)
    await Promise.race([transport.terminateSession().catch(() => undefined), after(limits.probeLeaveMs)])
  await client.close()
}

/** The SDK asks after two seconds, and after two more it kills. */
function askToEnd(pid: number | null): void {
  if (pid === null) return
  try {
    process.kill(pid, 'SIGTERM')
  } catch (error) {
    // It has ended by itself.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
