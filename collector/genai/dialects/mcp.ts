// The Model Context Protocol: OpenTelemetry's conventions, the names OpenLIT had before them, and Logfire's, which writes each
// request and its response as JSON. A call of a tool is seen by client and server; neither says the server's name, so it is the
// server's service. A ping is a health check.
import { firstText, isObject, type JsonObject, objectOf, scalarText } from '../attributes.ts'
import type { Content, Failure, HealthStatus, Says } from '../fact.ts'
import { failureOf, isTimeout, statusOf } from '../failure.ts'
import { contentIn, contentOfJson, type Reading } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'

export const mcp: Dialect = {
  name: 'mcp',
  knows: (span) => methodOf(span) !== '',
  readSpan: (reading, span): Read => {
    if (isOfLogfire(span)) return readLogfire(reading, span)
    const failure = failureOf(span, {
      hasFailed: span.attributes.has('mcp.error.type'),
      message: firstText(span.attributes, 'mcp.error.message'),
    })
    return { says: saysOf(reading, span, failure), failure }
  },
}

function methodOf(span: LiftedSpan): string {
  if (isOfLogfire(span)) return scalarText(objectOf(span.attributes.get('request'))?.method)
  return firstText(span.attributes, 'mcp.method.name', 'mcp.method')
}

function isOfLogfire({ scope }: LiftedSpan): boolean {
  return scope.name === 'logfire.mcp'
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
  // All of Logfire's spans are internal.
  const isServer = span.spanKind === 'server' || (isOfLogfire(span) && span.name.startsWith('MCP server'))
  return isServer ? 'server' : 'client'
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
  // Python's client writes the name of the tool only into the name of the span: `MCP send tools/call get_weather`.
  const name =
    firstText(span.attributes, 'gen_ai.tool.name', 'mcp.tool.name') || (/tools\/call (.+)$/.exec(span.name)?.[1] ?? '')
  return toolOf(span, name, args, result, failure)
}

function toolOf(
  span: LiftedSpan,
  name: string,
  args: Content | undefined,
  result: Content | undefined,
  failure: Failure | undefined,
): Says {
  return {
    kind: 'tool',
    name,
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

function readLogfire(reading: Reading, span: LiftedSpan): Read {
  const { attributes } = span
  const request = objectOf(attributes.get('request')) ?? {}
  const response = objectOf(attributes.get('response')) ?? {}
  const failure = failureOf(span, { hasFailed: response.isError === true })
  if (request.method === 'ping') return { says: readPing(span, failure), failure }
  if (request.method === 'tools/call') return { says: readToolOfLogfire(reading, span, request, failure), failure }
  const info =
    request.method === 'initialize' && isObject(response.serverInfo) ? scalarText(response.serverInfo.name) : ''
  return { says: link, failure, ...(info === '' ? {} : { besides: [{ kind: 'mcp-server', name: info }] }) }
}

function readToolOfLogfire(
  reading: Reading,
  span: LiftedSpan,
  request: JsonObject,
  failure: Failure | undefined,
): Says {
  const params = isObject(request.params) ? request.params : {}
  const args = contentOfJson(reading, params.arguments)
  const result = contentIn(reading, 'response')
  const isWhole = Object.keys(request).every((key) => key === 'method' || key === 'params')
  if (isWhole && Object.keys(params).every((key) => readParams.has(key))) reading.account.understood.add('request')
  return toolOf(span, scalarText(params.name), args, result, failure)
}

/** The last two carry the trace. */
const readParams = new Set(['name', 'arguments', 'meta', '_meta'])
