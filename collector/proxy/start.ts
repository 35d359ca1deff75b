// Puts the proxy together for main.ts: its port at once, what is behind it with the first request.
import { type ConfigFile, contentPolicyOf } from '../config.ts'
import type { Receiver } from '../receive/receiver.ts'
import type { ProxyOptions } from './proxy.ts'
import { openProxyServer, type ProxyServerOptions } from './server.ts'
import { openUpstreams } from './upstreams.ts'

export type StartProxyOptions = Omit<ProxyServerOptions, 'upstreams' | 'load'> &
  Omit<ProxyOptions, 'keepsContent' | 'passesUnmetered'> & { readonly file: ConfigFile }

export function startProxy(options: StartProxyOptions): Promise<Receiver> {
  const { file } = options
  const { knownProviders = true, upstreams = {}, unmetered = 'pass' } = file.proxy ?? {}
  return openProxyServer({
    ...options,
    upstreams: openUpstreams({ configured: upstreams, withKnown: knownProviders }),
    load: async () => {
      const { openProxy } = await import('./proxy.ts')
      return openProxy({
        ...options,
        keepsContent: (tenant) => contentPolicyOf(file, tenant) !== 'metadata',
        passesUnmetered: unmetered === 'pass',
      })
    },
  })
}
