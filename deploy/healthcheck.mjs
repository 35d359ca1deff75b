// What the image asks to know whether its collector is ready, with the collector's own environment: over TLS where it has a
// certificate, which it shows as well, for where clients need one.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'

const { TALLYLIGHT_TLS_CERT: cert, TALLYLIGHT_TLS_KEY: key, TALLYLIGHT_API_PORT: port } = process.env
const place = { host: '127.0.0.1', port: port || 4319, path: '/readyz' }
const asked = cert
  ? // It speaks of the name by which others know the collector, and not of this address.
    https.get({ ...place, cert: readFileSync(cert), key: readFileSync(key), rejectUnauthorized: false })
  : http.get(place)
asked.on('response', (answer) => process.exit(answer.statusCode === 200 ? 0 : 1))
asked.on('error', () => process.exit(1))
