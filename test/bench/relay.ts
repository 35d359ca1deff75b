// The least that a process in between costs on this machine: bytes from one socket to another, nobody looking at them. What a
// proxy adds is told beside it, for most of it is the kernel's.

import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

const port = Number(process.argv[2])
const server = createServer({ noDelay: true }, (client) => {
  const upstream = connect({ port, host: '127.0.0.1', noDelay: true })
  pass(client, upstream)
  pass(upstream, client)
})
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))
process.once('disconnect', () => process.exit())

function pass(from: Socket, to: Socket): void {
  from.on('data', (bytes) => {
    if (!to.write(bytes)) from.pause()
  })
  to.on('drain', () => from.resume())
  from.on('error', () => to.destroy()).on('close', () => to.destroy())
}
