// Health checks over HTTP: the server's span of a request for a path that nobody but a prober asks for, or by a prober.
import { firstText } from '../attributes.ts'
import type { Says } from '../fact.ts'
import { failureOf, isTimeout } from '../failure.ts'
import type { LiftedSpan } from '../record.ts'
import { isHealthPath, isProber } from '../speaks.ts'
import type { Dialect } from './dialect.ts'

export const http: Dialect = {
  name: 'http',
  knows: (span) => span.spanKind === 'server' && (isHealthPath(pathOf(span)) || isProber(userAgentOf(span))),
  readSpan: (_reading, span) => {
    const status = Number(firstText(span.attributes, 'http.response.status_code', 'http.status_code')) || 0
    const failure = failureOf(span, { hasFailed: status >= 400, message: status >= 400 ? `HTTP ${status}` : '' })
    const says: Says = {
      kind: 'health',
      target: pathOf(span) || span.name,
      eventType: 'http',
      status: failure === undefined ? 'healthy' : isTimeout(failure) || status === 504 ? 'timeout' : 'unhealthy',
      metadata: metadataOf(span, status),
    }
    return { says, failure }
  },
}

function pathOf({ attributes }: LiftedSpan): string {
  const path = firstText(attributes, 'url.path', 'http.target', 'http.route')
  return path.split('?')[0] ?? ''
}

function userAgentOf({ attributes }: LiftedSpan): string {
  return firstText(attributes, 'user_agent.original', 'http.user_agent')
}

function metadataOf(span: LiftedSpan, status: number): Readonly<Record<string, string>> {
  const said = {
    method: firstText(span.attributes, 'http.request.method', 'http.method'),
    statusCode: status === 0 ? '' : String(status),
    userAgent: userAgentOf(span),
    server: firstText(span.resource, 'service.name'),
  }
  return Object.fromEntries(Object.entries(said).filter(([, text]) => text !== ''))
}
