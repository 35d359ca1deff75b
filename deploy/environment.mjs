// `npm run compose:env`: writes .env with a random password for each service of compose.yaml, once. Plain JavaScript, because
// whoever runs containers may have nothing installed here but Node.
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const path = fileURLToPath(new URL('../.env', import.meta.url))
const names = [
  'CLICKHOUSE_PASSWORD',
  'CLICKHOUSE_READER_PASSWORD',
  'POSTGRES_PASSWORD',
  'POSTGRES_READER_PASSWORD',
  'GRAFANA_PASSWORD',
]
try {
  // Never over one that is there: the volumes know its passwords.
  writeFileSync(path, names.map((name) => `${name}=${randomBytes(24).toString('hex')}\n`).join(''), {
    mode: 0o600,
    flag: 'wx',
  })
  console.log(`${path} is written; GRAFANA_PASSWORD in it is that of Grafana's admin`)
} catch (error) {
  if (error.code !== 'EEXIST') throw error
  console.log(`${path} is there already`)
}
