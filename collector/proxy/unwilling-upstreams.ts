// Upstreams that refused a request in which usage was asked for, and took the same one without. Each tenant has its own: a caller
// can write a body with which this happens, and that must not end the metering of anybody else's streams.
import { limits } from '../limits.ts'

export type UnwillingUpstreams = {
  has(tenant: string, upstream: string): boolean
  add(tenant: string, upstream: string): void
}

export function openUnwillingUpstreams(): UnwillingUpstreams {
  const known = new Set<string>()
  const nameOf = (tenant: string, upstream: string): string => `${tenant}\n${upstream}`
  return {
    has: (tenant, upstream) => known.has(nameOf(tenant, upstream)),
    add(tenant, upstream) {
      // One that is forgotten is asked once more, which costs a refused request.
      if (known.size >= limits.proxyUnwillingMax) known.clear()
      known.add(nameOf(tenant, upstream))
    },
  }
}
