// `node --import @tallylight/instrumentation/register app.js`: watches what the process sends to model providers, and says so
// in one line.
import { instrument, running } from './instrument.ts'

if (running() === undefined) {
  const { settings, exporter } = instrument()
  process.stderr.write(
    `tallylight: watching fetch, undici, node:http, http2 and WebSocket for calls of models; spans go to the service's own tracer provider, else to ${exporter.destination}; content ${settings.content}, quota ${settings.quota}\n`,
  )
}
