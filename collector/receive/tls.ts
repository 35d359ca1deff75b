// Certificate, key and client CA from files, for every port. Certificates are renewed while the collector runs (cert-manager,
// certbot), so the files are watched, and new connections get the new ones. What is broken or half written changes nothing
// and is said in the log: an old certificate serves, none does not.
import { createHash, X509Certificate } from 'node:crypto'
import { type FSWatcher, watch } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createSecureContext, Server as TlsServer } from 'node:tls'
import type { Log } from './admission.ts'

export type TlsOptions = {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca?: Buffer
  readonly requestCert: boolean
  readonly rejectUnauthorized: boolean
  readonly minVersion: 'TLSv1.2'
}

export type TlsFiles = {
  /** For `createServer` of node:https and `createSecureServer` of node:http2. */
  readonly options: () => TlsOptions
  /** The server gets every later version of the files, until it closes, and keeps no connection whose handshake has failed. */
  readonly attach: (server: object) => void
  /** Reads the files now, and says whether they changed what is served. */
  readonly reload: () => Promise<'changed' | 'unchanged' | 'refused'>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

type Loaded = { readonly options: TlsOptions; readonly digest: string }

// A watcher misses what happens on some network file systems; looking costs three small reads.
const lookIntervalMs = 30_000
// Certificate and key are two files, replaced one after the other.
const settleMs = 250

/** Rejects when the files cannot be used: a port that should be encrypted must not open without. With a client CA, clients
 *  without a certificate of it are refused in the handshake. */
export async function openTlsFiles({
  certPath,
  keyPath,
  clientCaPath,
  log,
}: {
  readonly certPath: string
  readonly keyPath: string
  readonly clientCaPath?: string | undefined
  readonly log: Log
}): Promise<TlsFiles> {
  const servers = new Set<TlsServer>()
  let current = await load()
  let settling: NodeJS.Timeout | undefined
  let refusedDigest = ''
  let turn: Promise<unknown> = Promise.resolve()

  async function load(): Promise<Loaded> {
    const [cert, key, ca] = await Promise.all([
      read(certPath, 'certificate'),
      read(keyPath, 'key'),
      clientCaPath === undefined ? undefined : read(clientCaPath, 'client CA'),
    ])
    const digest = createHash('sha256')
    for (const part of [cert, key, ca ?? Buffer.alloc(0)]) digest.update(`${part.length}:`).update(part)
    const isMutual = ca !== undefined
    return {
      digest: digest.digest('hex'),
      options: {
        cert,
        key,
        ...(isMutual && { ca }),
        requestCert: isMutual,
        rejectUnauthorized: isMutual,
        minVersion: 'TLSv1.2',
      },
    }
  }

  function reload(): Promise<'changed' | 'unchanged' | 'refused'> {
    const next = turn.then(reloadNow)
    turn = next
    return next
  }

  async function reloadNow(): Promise<'changed' | 'unchanged' | 'refused'> {
    let digest = ''
    try {
      const loaded = await load()
      digest = loaded.digest
      if (digest === current.digest) return 'unchanged'
      check(loaded.options, certPath, clientCaPath)
      for (const server of servers) server.setSecureContext(loaded.options)
      current = loaded
      refusedDigest = ''
      const { subject, validTo } = new X509Certificate(loaded.options.cert)
      log.info({ certPath, subject, validTo }, 'the TLS certificate was replaced')
      return 'changed'
    } catch (error) {
      // The same broken files are found at every look, and are worth one line.
      if (digest === '' || digest !== refusedDigest) {
        log.error({ err: error, certPath }, 'the new TLS files cannot be used, the old ones stay')
      }
      refusedDigest = digest
      return 'refused'
    }
  }

  function onChange(): void {
    clearTimeout(settling)
    settling = setTimeout(reload, settleMs).unref()
  }

  check(current.options, certPath, clientCaPath)
  // Directories, not files: a renewal renames a new file, or in Kubernetes a link to a new directory, over the old one.
  const directories = new Set([certPath, keyPath, ...(clientCaPath ? [clientCaPath] : [])].map((path) => dirname(path)))
  const watchers: FSWatcher[] = []
  for (const directory of directories) {
    const watcher = watch(directory, { persistent: false }, onChange)
    watcher.on('error', (error) =>
      log.warn({ err: error, directory }, 'cannot watch the TLS files, looking at intervals'),
    )
    watchers.push(watcher)
  }
  const look = setInterval(reload, lookIntervalMs).unref()

  return {
    options: () => current.options,
    attach(server) {
      if (!(server instanceof TlsServer)) throw new TypeError('the server does not do TLS')
      servers.add(server)
      // Before Node's own, which has the servers of HTTP answer it: an answer would wait for the end of the handshake, for ever.
      server.prependListener('tlsClientError', (_error, socket) => socket.destroy())
      server.once('close', () => servers.delete(server))
    },
    reload,
    async [Symbol.asyncDispose]() {
      clearTimeout(settling)
      clearInterval(look)
      for (const watcher of watchers) watcher.close()
      servers.clear()
      await turn
    },
  }
}

async function read(path: string, what: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    throw new Error(`could not read the TLS ${what} ${path}`, { cause })
  }
}

/** Throws for a key that is not the certificate's, and for what is no PEM. A certificate out of its time is served: to
 *  refuse it would stop clients that do not look. */
function check(options: TlsOptions, certPath: string, clientCaPath: string | undefined): void {
  try {
    createSecureContext(options)
  } catch (cause) {
    throw new Error(`the TLS certificate ${certPath} and its key cannot be used together`, { cause })
  }
  if (options.ca === undefined) return
  try {
    checkAuthorities(options.ca.toString('latin1'))
  } catch (cause) {
    throw new Error(`the TLS client CA ${clientCaPath} cannot be used`, { cause })
  }
}

/** OpenSSL takes what it can read of them, were it nothing: then no client would be let in. */
function checkAuthorities(pem: string): void {
  const [, ...blocks] = pem.split(/^-----BEGIN (?=(?:X509 |TRUSTED )?CERTIFICATE-----)/m)
  if (blocks.length === 0) throw new Error('there is no certificate in it')
  for (const block of blocks) new X509Certificate(`-----BEGIN ${block}`)
}
