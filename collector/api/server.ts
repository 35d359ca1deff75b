// The API port: health, metrics and keys. Administration asks for a key with the role admin; health and metrics hold no
// customer's data and are open.
import { createServer, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { readRunbook } from '@tallylight/dashboards/runbooks.ts'
import express, { type NextFunction, type Request, type Response, type Router } from 'express'
import { limits } from '../limits.ts'
import type { QuotaHttp } from '../quota/http.ts'
import { identityOf, isRefusal, type Log, roleMissing } from '../receive/admission.ts'
import { otherPort } from '../receive/http-fields.ts'
import type { Keyring } from '../receive/keys.ts'
import { isForwarded, isLoopback, listen } from '../receive/receiver.ts'
import type { TlsFiles } from '../receive/tls.ts'
import { failureOf } from './failure.ts'
import { keyRoutes } from './keys.ts'
import { notAllowed, problem } from './problem.ts'
import type { StatePage } from './state.ts'

export type Api = { readonly port: number; readonly [Symbol.asyncDispose]: () => Promise<void> }

/** By what Express calls them. Its own words quote the body. */
const refusals: Readonly<Record<string, string>> = {
  'entity.parse.failed': 'the body is not JSON',
  'entity.too.large': 'a body may have 64 KiB',
  'encoding.unsupported': 'the body comes as it is, or in gzip, deflate or br',
  'charset.unsupported': 'the body is JSON in UTF-8',
}

export async function openApi(options: {
  readonly host: string
  readonly port: number
  readonly tls: TlsFiles | undefined
  readonly keyring: Keyring
  readonly missing: () => readonly string[]
  readonly renderMetrics: () => string
  /** Answers before everything else, without Express. */
  readonly quota: Pick<QuotaHttp, 'takes' | 'handle'>
  /** Behind the gate that asks for the role admin; they find who asks in `response.locals`. */
  readonly administration: readonly Router[]
  readonly statePage: StatePage
  /** Sends a probe of the whole road and says what of it was not read back. */
  readonly probe: () => Promise<object>
  readonly log: Log
}): Promise<Api> {
  const { keyring } = options
  const app = express()
  app.disable('x-powered-by')
  app.set('etag', false)
  let localBoundToLoopback = false

  const read = 'GET, HEAD'
  app
    .route('/healthz')
    .get((_request, response) => {
      response.json({ status: 'alive' })
    })
    .all(notAllowed(read))
  app
    .route('/readyz')
    .get((_request, response) => {
      const missing = options.missing()
      response
        .status(missing.length === 0 ? 200 : 503)
        .json({ status: missing.length === 0 ? 'ready' : 'starting', missing })
    })
    .all(notAllowed(read))
  app
    .route('/metrics')
    .get((_request, response) => {
      response.type('text/plain; version=0.0.4').send(options.renderMetrics())
    })
    .all(notAllowed(read))

  const identify = (request: Request): ReturnType<Keyring['authenticate']> =>
    keyring.authenticate({
      authorization: request.headers.authorization,
      peerAddress: request.socket.remoteAddress,
      hostHeader: request.headers.host,
      originHeader: request.headers.origin,
      localBoundToLoopback: localBoundToLoopback && !isForwarded(request.headers),
    })
  app.use(options.statePage.router(identify))
  app
    .route('/runbooks/:name')
    .get(async (request, response) => {
      const page = await readRunbook(request.params.name)
      if (page === undefined) problem(response, 404, `there is no runbook ${request.params.name.slice(0, 64)}`)
      else response.type('text/plain; charset=utf-8').send(page)
    })
    .all(notAllowed(read))

  const admin = express.Router()
  admin.use((request, response, next) => {
    const identity = identityOf(identify(request))
    if (isRefusal(identity)) problem(response, identity.reason === 'unauthenticated' ? 401 : 503, identity.message)
    else if (!identity.roles.has('admin')) problem(response, 403, roleMissing(identity, 'admin'))
    else {
      response.locals.identity = identity
      next()
    }
  })
  // Whatever type it says: `curl -d` says a form, and every body here is JSON.
  admin.use(express.json({ limit: '64kb', strict: false, type: () => true }))
  admin
    .route('/probe')
    .post(async (_request, response) => {
      response.json(await options.probe())
    })
    .all(notAllowed('POST'))
  for (const router of [keyRoutes(keyring), ...options.administration]) admin.use(router)
  app.use('/api/v1', admin)
  app.use((request, response) =>
    problem(response, 404, `there is nothing at ${request.path.slice(0, 100)}${otherPort(request.path, 'api')}`),
  )
  app.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
    const { status, type } = error as { readonly status?: number; readonly type?: string }
    if (status !== undefined && status < 500) {
      problem(response, status, refusals[type ?? ''] ?? 'the request is not well formed')
      return
    }
    options.log.error({ err: error }, 'an API request failed')
    const failure = failureOf(error)
    problem(response, failure.status, failure.detail)
  })

  const answer: RequestListener = (request, response) => {
    if (options.quota.takes(request.url ?? '')) options.quota.handle(request, response, localBoundToLoopback)
    else app(request, response)
  }
  // A service asks for quota on a connection that it keeps: with Node's 5 s the request after a pause is lost in the crossing.
  const bounds = {
    headersTimeout: limits.requestHeadersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.connectionIdleMs,
  }
  const server: Server = options.tls
    ? createTlsServer({ ...options.tls.options(), ...bounds, handshakeTimeout: limits.requestHeadersMs }, answer)
    : createServer(bounds, answer)
  // As at the other ports: descriptors are what the journal needs, too.
  server.maxConnections = limits.connectionsMax
  options.tls?.attach(server)
  await listen(server, options.host, options.port)
  const bound = server.address() as AddressInfo
  localBoundToLoopback = isLoopback(bound.address)
  return {
    port: bound.port,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}
