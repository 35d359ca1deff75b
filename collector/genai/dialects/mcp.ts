// The Model Context Protocol: OpenTelemetry's conventions, and the names OpenLIT had before them. A call of a tool is seen by
// client and server; neither says the server's name, so it is the server's service. A ping is a health check.
import { firstText } from '../attributes.ts'
import type { Failure, HealthStatus, Says } from '../fact.ts'
import { failureOf, isTimeout, statusOf } from '../failure.ts'
import { contentIn, type Reading } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'

export const mcp: Dialect = {
  name: 'mcp',
  knows: (span) => methodOf(span) !== '',
  readSpan: (reading, span): Read => {
    const failure = failureOf(span, {
      hasFailed: span.attributes.has('mcp.error.type'),
      message: firstText(span.attributes, 'mcp.error.message'),
    })
    return { says: saysOf(reading, span, failure), failure }
  },
}

function methodOf({ attributes }: LiftedSpan): string {
  return firstText(attributes, 'mcp.method.name', 'mcp.method')
}

function saysOf(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  switch (methodOf(span)) {
    case 'tools/call':
      return readTool(reading, span, failure)
    case 'ping':
      return readPing(span, failure)
    default:
      return link
  }
}

function sideOf(span: LiftedSpan): 'client' | 'server' {
  return span.spanKind === 'server' ? 'server' : 'client'
}

/** The client's `server.address` is the last resort. */
function serverOf(span: LiftedSpan): string {
  const named = firstText(span.attributes, 'mcp.server.name')
  if (sideOf(span) === 'server') return firstText(span.resource, 'service.name') || named
  return named || firstText(span.attributes, 'server.address')
}

function readTool(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const args = contentIn(reading, 'gen_ai.tool.call.arguments', 'mcp.tool.arguments', 'mcp.request.params')
  const result = contentIn(reading, 'gen_ai.tool.call.result', 'mcp.tool.result', 'mcp.response.value')
  return {
    kind: 'tool',
    // Python's client writes the name of the tool only into the name of the span: `MCP send tools/call get_weather`.
    name:
      firstText(span.attributes, 'gen_ai.tool.name', 'mcp.tool.name') ||
      (/tools\/call (.+)$/.exec(span.name)?.[1] ?? ''),
    callId: firstText(span.attributes, 'gen_ai.tool.call.id'),
    toolType: firstText(span.attributes, 'gen_ai.tool.type'),
    provider: '',
    mcp: sideOf(span),
    mcpServer: serverOf(span),
    ...(args === undefined ? {} : { arguments: args }),
    ...(result === undefined ? {} : { result }),
    status: statusOf(failure),
  }
}

function readPing(span: LiftedSpan, failure: Failure | undefined): Says {
  const status: HealthStatus = failure === undefined ? 'healthy' : isTimeout(failure) ? 'timeout' : 'unhealthy'
  const server = serverOf(span)
  const transport = firstText(span.attributes, 'network.transport', 'mcp.transport')
  return {
    kind: 'health',
    target: 'mcp:ping',
    eventType: 'mcp.ping',
    status,
    metadata: { ...(server === '' ? {} : { server }), ...(transport === '' ? {} : { transport }) },
  }
}
