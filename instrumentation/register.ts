// `node --import @tallylight/instrumentation/register app.js`: watches what the process sends to model providers, and says so
// in one line. On a Node that lacks what we need it says that, and the service runs as it would without us: npm only warns of
// `engines`, and a service must not end by our fault.
import { instrument, running } from './instrument.ts'
import { sayOnStderr } from './stderr.ts'
import { nodeMin, version } from './version.ts'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < nodeMin.major || (major === nodeMin.major && minor < nodeMin.minor)) {
  sayOnStderr(
    `tallylight: nothing is watched and no quota is asked for: @tallylight/instrumentation ${version} needs Node ${nodeMin.major}.${nodeMin.minor} or newer, this is ${process.versions.node}`,
  )
} else if (running() === undefined) {
  const { settings, exporter } = instrument()
  sayOnStderr(
    `tallylight: watching fetch, undici, node:http, http2 and WebSocket for calls of models; spans go to the service's own tracer provider, else to ${exporter.destination}; content ${settings.content}, quota ${settings.quota}`,
  )
}
