import { once } from 'node:events'
import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls, type PeerCertificate } from 'node:tls'
import { afterEach, expect, test } from 'vitest'
import { type Certificate, makeAuthority, makeCertificate } from './fixtures/certificate.ts'
import { openTestReceiver } from './fixtures/receiver.ts'
import { openTlsFiles, type TlsFiles } from './tls.ts'

const opened: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]()
})

type Log = { readonly infos: string[]; readonly errors: string[]; said: (text: string) => Promise<void> }

function openLog() {
  const infos: string[] = []
  const errors: string[] = []
  let wake = () => {}
  const note = (lines: string[]) => (_: object, message: string) => {
    lines.push(message)
    wake()
  }
  const log: Log = {
    infos,
    errors,
    async said(text) {
      while (![...infos, ...errors].some((line) => line.includes(text)))
        await new Promise<void>((resolve) => (wake = resolve))
    },
  }
  return { log, sink: { info: note(infos), warn: note(errors), error: note(errors) } }
}

async function openFiles(certificate: Certificate, clientCaPem?: string) {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-tls-'))
  opened.push({ [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) })
  const paths = { certPath: join(directory, 'tls.crt'), keyPath: join(directory, 'tls.key') }
  const write = async ({ certPem, keyPem }: { readonly certPem: string; readonly keyPem: string }) => {
    await writeFile(paths.certPath, certPem)
    await writeFile(paths.keyPath, keyPem, { mode: 0o600 })
  }
  await write(certificate)
  const clientCaPath = clientCaPem === undefined ? undefined : join(directory, 'ca.crt')
  if (clientCaPath !== undefined && clientCaPem !== undefined) await writeFile(clientCaPath, clientCaPem)
  const { log, sink } = openLog()
  const files = await openTlsFiles({ ...paths, clientCaPath, log: sink })
  opened.push(files)
  return { files, write, log, directory, paths }
}

async function openPort(kind: 'http' | 'grpc', tls: TlsFiles) {
  const receiver = await openTestReceiver(kind, { tls })
  opened.push({ [Symbol.asyncDispose]: () => receiver.stop(0) })
  return receiver
}

function servedName(port: number, options: ConnectionOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options }, () => {
      const { subject } = socket.getPeerCertificate() as PeerCertificate
      socket.destroy()
      resolve(String(subject.CN))
    })
    socket.on('error', reject)
  })
}

function post(port: number, options: Readonly<Record<string, string>>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: 'Bearer acme', 'content-type': 'application/x-protobuf' }
    const request = httpsRequest({
      host: '127.0.0.1',
      port,
      path: '/v1/traces',
      method: 'POST',
      headers,
      agent: false,
      ...options,
    })
    request.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode)))
    request.on('error', reject)
    request.end('spans')
  })
}

test('tls: OTLP over HTTPS, the certificate checked by the client', async () => {
  const certificate = makeCertificate('first')
  const { files } = await openFiles(certificate)
  const receiver = await openPort('http', files)
  expect(await post(receiver.port, { ca: certificate.certPem })).toBe(200)
  expect(receiver.accepted).toHaveLength(1)
})

test('tls: OTLP over gRPC speaks h2 by ALPN', async () => {
  const certificate = makeCertificate('first')
  const { files } = await openFiles(certificate)
  const { port } = await openPort('grpc', files)
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca: certificate.certPem })
  const stream = session.request({
    ':method': 'POST',
    ':path': '/grpc.health.v1.Health/Check',
    'content-type': 'application/grpc',
  })
  const status = new Promise((resolve) => stream.on('trailers', (trailers) => resolve(trailers['grpc-status'])))
  stream.resume().end(Buffer.alloc(5))
  expect(await status).toBe('0')
  expect(session.alpnProtocol).toBe('h2')
  session.destroy()
})

test('tls: TLS 1.1 is refused', async () => {
  const { files } = await openFiles(makeCertificate('first'))
  const { port } = await openPort('http', files)
  const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' } as const
  await expect(servedName(port, old)).rejects.toThrow(/protocol version/)
})

test('tls: a client without a certificate of the client CA does not get in, one with it does', async () => {
  const authority = makeAuthority('clients')
  const certificate = makeCertificate('server')
  const { files } = await openFiles(certificate, authority.certPem)
  const receiver = await openPort('http', files)
  const ca = certificate.certPem
  await expect(post(receiver.port, { ca })).rejects.toThrow()
  const stranger = makeCertificate('stranger')
  await expect(post(receiver.port, { ca, cert: stranger.certPem, key: stranger.keyPem })).rejects.toThrow()
  expect(receiver.asked).toEqual([])
  const client = makeCertificate('client', authority)
  expect(await post(receiver.port, { ca, cert: client.certPem, key: client.keyPem })).toBe(200)
})

test('tls: files written over are served to new connections, on every port', async () => {
  const { files, write, log } = await openFiles(makeCertificate('first'))
  const http = await openPort('http', files)
  const grpc = await openPort('grpc', files)
  expect(await servedName(http.port)).toBe('first')
  await write(makeCertificate('second'))
  await log.said('was replaced')
  expect(await servedName(http.port)).toBe('second')
  expect(await servedName(grpc.port, { ALPNProtocols: ['h2'] })).toBe('second')
  expect(log.errors).toEqual([])
})

test('tls: a link moved to another directory, as Kubernetes does, is a change', async () => {
  const { directory } = await openFiles(makeCertificate('unused'))
  const [first, second] = [makeCertificate('first'), makeCertificate('second')]
  for (const [name, { certPem, keyPem }] of [
    ['one', first],
    ['two', second],
  ] as const) {
    const to = await mkdtemp(join(directory, name))
    await writeFile(join(to, 'tls.crt'), certPem)
    await writeFile(join(to, 'tls.key'), keyPem)
    await symlink(to, join(directory, `data-${name}`))
  }
  await rename(join(directory, 'data-one'), join(directory, 'data'))
  for (const name of ['crt', 'key']) await symlink(join('data', `tls.${name}`), join(directory, `linked.${name}`))
  const { log, sink } = openLog()
  const files = await openTlsFiles({
    certPath: join(directory, 'linked.crt'),
    keyPath: join(directory, 'linked.key'),
    log: sink,
  })
  opened.push(files)
  const { port } = await openPort('http', files)
  expect(await servedName(port)).toBe('first')
  await rename(join(directory, 'data-two'), join(directory, 'data'))
  await log.said('was replaced')
  expect(await servedName(port)).toBe('second')
})

for (const [what, broken] of [
  ['no PEM', { certPem: 'half a certif', keyPem: 'and no key' }],
  ['a key of another certificate', { certPem: makeCertificate('a').certPem, keyPem: makeCertificate('b').keyPem }],
] as const) {
  test(`tls: ${what} changes nothing, is said once, and the next good files are served`, async () => {
    const { files, write, log } = await openFiles(makeCertificate('first'))
    const { port } = await openPort('http', files)
    await write(broken)
    await log.said('the old ones stay')
    expect(await files.reload()).toBe('refused')
    expect(await servedName(port)).toBe('first')
    expect(log.errors).toHaveLength(1)
    await write(makeCertificate('third'))
    await log.said('was replaced')
    expect(await servedName(port)).toBe('third')
  })
}

for (const [what, broken] of [
  ['empty', () => ''],
  ['no PEM', () => 'not yet written'],
  ['cut in its second certificate', (pem: string) => pem + makeAuthority('more').certPem.slice(0, 200)],
] as const) {
  test(`tls: a client CA that is ${what} changes nothing, is said once, and is refused at start`, async () => {
    const authority = makeAuthority('clients')
    const certificate = makeCertificate('server')
    const { files, log, directory, paths } = await openFiles(certificate, authority.certPem)
    const { port } = await openPort('http', files)
    const clientCaPath = join(directory, 'ca.crt')
    const { certPem: cert, keyPem: key } = makeCertificate('client', authority)
    await writeFile(clientCaPath, broken(authority.certPem))
    await log.said('the old ones stay')
    expect(await files.reload()).toBe('refused')
    expect(log.errors).toHaveLength(1)
    expect(await post(port, { ca: certificate.certPem, cert, key })).toBe(200)
    const { sink } = openLog()
    await expect(openTlsFiles({ ...paths, clientCaPath, log: sink })).rejects.toThrow(
      `the TLS client CA ${clientCaPath}`,
    )
  })
}

test.each(['http', 'grpc'] as const)(
  'tls: a connection that never begins its handshake is closed, and is no request: %s',
  async (kind) => {
    const { files } = await openFiles(makeCertificate('server'))
    const receiver = await openTestReceiver(kind, { tls: files, bounds: { requestHeadersMs: 200 } })
    opened.push({ [Symbol.asyncDispose]: () => receiver.stop(0) })
    const socket = connectTcp(receiver.port, '127.0.0.1')
      .resume()
      .on('error', () => undefined)
    await once(socket, 'close')
    expect(receiver.refused).toEqual([])
  },
)

test('tls: files that cannot be used at start are an error that names them', async () => {
  const { paths, write, log } = await openFiles(makeCertificate('first'))
  await write({ certPem: makeCertificate('a').certPem, keyPem: makeCertificate('b').keyPem })
  await log.said('the old ones stay')
  const { sink } = openLog()
  await expect(openTlsFiles({ ...paths, log: sink })).rejects.toThrow(paths.certPath)
  await expect(openTlsFiles({ ...paths, keyPath: '/nowhere/tls.key', log: sink })).rejects.toThrow('/nowhere/tls.key')
})
