// How the API says that something cannot be done: problem details (RFC 9457).
import type { RequestHandler, Response } from 'express'

export function problem(response: Response, status: number, detail: string): void {
  if (status === 401) response.set('WWW-Authenticate', 'Bearer')
  if (status === 503) response.set('Retry-After', '1')
  response.status(status).type('application/problem+json').send(JSON.stringify({ status, detail }))
}

export function notAllowed(methods: string): RequestHandler {
  return (request, response) => {
    response.set('Allow', methods)
    problem(response, 405, `${request.baseUrl}${request.path.slice(0, 100)} takes ${methods}`)
  }
}
