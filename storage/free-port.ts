// Ports that nobody has. The system takes the ports of outgoing connections from 32768 on (elsewhere from 49152), any of them and
// all the time: one that was free there a moment ago need not be when it is listened on, and less so after a restart. Below
// them only what somebody chose is taken.
import { createServer } from 'node:net'

const lowest = 10_240
const count = 32_768 - lowest
/** Processes begin apart, so that those that start together do not look at the same one. */
const stride = 64

let next = process.pid * stride

/** A port of 127.0.0.1, another at each call. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < count; tries++) {
    const port = lowest + (next++ % count)
    if (await isFreePort('127.0.0.1', port)) return port
  }
  throw new Error(`every port from ${lowest} to ${lowest + count - 1} of 127.0.0.1 is taken`)
}

export async function isFreePort(host: string, port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}
