// Two limits, as whoever runs a service sets them through the API of the collector: one on the cost of a month for everybody, one
// that Bob is beyond with his first question.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

const limits = {
  'example-month': { measure: 'cost', amount: '5000000000', window: 'month', action: 'block' },
  'example-bob': { subject: { user: 'bob' }, measure: 'tokens', amount: '10', window: 'day', action: 'block' },
} as const

/** Whether there is a collector that keeps them. */
export async function setLimits(): Promise<boolean> {
  const { TALLYLIGHT_URL: url = 'http://127.0.0.1:4319', TALLYLIGHT_DATA_DIR: directory = 'data' } = process.env
  const key = process.env.TALLYLIGHT_KEY ?? (await readFile(join(directory, 'admin.key'), 'utf8').catch(() => ''))
  for (const [id, limit] of Object.entries(limits)) {
    let said: string
    try {
      const answer = await fetch(`${url}/v1/quota/limits/${id}`, {
        method: 'PUT',
        headers: { Authorization: `Bearer ${key.trim()}`, 'Content-Type': 'application/json' },
        body: JSON.stringify(limit),
      })
      if (answer.ok) continue
      said = `answered ${answer.status} ${await answer.text()}`
    } catch {
      said = 'is not there: npm start'
    }
    console.error(`no limits are set, and nobody is denied: the collector at ${url} ${said}`)
    return false
  }
  return true
}
