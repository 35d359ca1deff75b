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
  const transport = transportOf(probe, headers)
  let hasLeft = false
  const leave = (): void => {
    if (hasLeft) return
    hasLeft = true
    finishLater(leaveServer(client, transport, signal))
  }
  signal.addEventListener('abort', leave)
  try {
    await client.connect(transport, { signal })
    await client.ping({ signal })
    const { name = '', version = '' } = client.getServerVersion() ?? {}
    return { server: name, version }
  } finally {
    signal.removeEventListener('abort', leave)
    leave()
  }
}

type AnyTransport = StreamableHTTPClientTransport | StdioClientTransport

function transportOf(probe: McpProbe, headers: Readonly<Record<string, string>>): AnyTransport {
  if (probe.url !== undefined) {
    const reconnectionOptions = {
      maxRetries: 0,
      initialReconnectionDelay: 1,
      maxReconnectionDelay: 1,
      reconnectionDelayGrowFactor: 1,
    }
    return new StreamableHTTPClientTransport(new URL(probe.url), { requestInit: { headers }, reconnectionOptions })
  }
  const [command = '', ...args] = probe.command ?? []
  return new StdioClientTransport({ command, args, stderr: 'ignore' })
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
