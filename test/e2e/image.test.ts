// What the image runs beside its collector, as far as it can be run without a container engine.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeAuthority, makeCertificate } from '@tallylight/collector/receive/fixtures/certificate.ts'
import { expect, test } from 'vitest'
import { startCollector } from '../collector-process.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const container = readFileSync(join(root, 'Containerfile'), 'utf8')

test('image: its check of health finds a collector that speaks TLS, one that asks for certificates, and none', async () => {
  const [, command = ''] = /^HEALTHCHECK [\s\S]*?CMD (\[.*\])$/m.exec(container) ?? []
  const [, ...check] = JSON.parse(command) as readonly string[]
  const codeOf = (environment: Readonly<Record<string, string>>): number | null =>
    spawnSync(process.execPath, check, { cwd: root, env: environment }).status
  const directory = mkdtempSync(join(tmpdir(), 'tallylight-health-'))
  const fileOf = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text)
    return join(directory, name)
  }
  const authority = makeAuthority('authority')
  const { certPem, keyPem } = makeCertificate('collector.example', authority)
  const encrypted = {
    TALLYLIGHT_TLS_CERT: fileOf('cert.pem', certPem),
    TALLYLIGHT_TLS_KEY: fileOf('key.pem', keyPem),
    TALLYLIGHT_TLS_CLIENT_CA: fileOf('ca.pem', authority.certPem),
  }
  for (const environment of [{}, encrypted]) {
    await using collector = await startCollector(environment)
    const asked = { ...environment, TALLYLIGHT_API_PORT: String(collector.ports().api) }
    expect(codeOf(asked)).toBe(0)
    await collector.kill('SIGTERM')
    expect(codeOf(asked)).toBe(1)
  }
  rmSync(directory, { recursive: true })
})
