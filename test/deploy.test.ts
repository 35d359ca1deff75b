// compose.yaml, the image and what they mount, as far as they can be judged without a container engine.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { generatedFiles } from '@tallylight/dashboards/generated-files.ts'
import { clickhousePluginVersion } from '@tallylight/dashboards/sources.ts'
import { expect, test } from 'vitest'

const root = new URL('../', import.meta.url)
const textOf = (path: string): string => readFileSync(new URL(path, root), 'utf8')
const compose = textOf('compose.yaml')
const container = textOf('Containerfile')
/** The text of each service. */
const services = new Map(
  [...compose.matchAll(/^ {2}(clickhouse|postgres|collector|grafana):\n((?: {4}.*\n|\n)+)/gm)].map(([, name, text]) => [
    name as string,
    text as string,
  ]),
)

test('compose: every image is pinned, every service restarts and is healthy before the next one starts', () => {
  expect([...services.keys()]).toEqual(['clickhouse', 'postgres', 'collector', 'grafana'])
  for (const [, image] of compose.matchAll(/image: (\S+)/g)) expect(image).toMatch(/:\d+\.\d+[.\d]*$/)
  expect(container).toMatch(/^FROM node:\d+\.\d+\.\d+-/m)
  for (const [name, text] of services) {
    expect(text, name).toContain('restart: unless-stopped')
    expect(name === 'collector' ? container.toLowerCase() : text, name).toContain('healthcheck')
  }
  expect(compose.match(/condition: service_healthy/g)).toHaveLength(3)
})

test('compose: no password has a default, and each that is asked for is written by compose:env', () => {
  const asked = [...compose.matchAll(/\$\{(\w+PASSWORD)(:[-?][^}]*)?\}/g)]
  const written = new Set([...textOf('deploy/environment.mjs').matchAll(/'(\w+_PASSWORD)'/g)].map(([, name]) => name))
  for (const [all, name, rest] of asked) {
    expect(written, all).toContain(name)
    expect(rest ?? '', all).not.toMatch(/^:-/)
  }
  for (const name of written) expect(compose).toContain(`\${${name}:?`)
})

test('compose: what Grafana’s files name is told to it, and what it mounts is there', () => {
  const grafana = services.get('grafana') as string
  const named = new Set(
    [...generatedFiles()]
      .filter(([path]) => /datasources|contact/.test(path))
      .flatMap(([, text]) => [...text.matchAll(/\$([A-Z_]+)/g)].map(([, name]) => name as string)),
  )
  expect(named.size).toBe(4)
  for (const name of named) expect(grafana).toContain(`${name}: `)
  for (const [, path] of compose.matchAll(/- \.\/([^:]+):/g))
    expect(existsSync(new URL(path as string, root)), path).toBe(true)
  expect(grafana).toContain(`GF_PLUGINS_PREINSTALL_SYNC: grafana-clickhouse-datasource@${clickhousePluginVersion}`)
})

test('compose: everything is published on loopback alone', () => {
  const published = [...compose.matchAll(/- "(\S+:\d+:\d+)"/g)].map(([, port]) => port as string)
  expect(published.length).toBeGreaterThan(3)
  for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:/)
})

test('container: it runs as a user without rights, and every workspace that it needs is copied', () => {
  expect(container.indexOf('USER node')).toBeLessThan(container.indexOf('CMD ["node", "--disable'))
  const { workspaces } = JSON.parse(textOf('package.json')) as { readonly workspaces: readonly string[] }
  // npm wants every workspace that it is told of; the collector runs on these.
  for (const workspace of workspaces) expect(container).toContain(`COPY ${workspace}/package.json ${workspace}/`)
  for (const workspace of ['collector', 'dashboards', 'instrumentation', 'storage'])
    expect(container).toContain(`COPY ${workspace} ${workspace}`)
})

test('compose: the scripts of the first start are shell', () => {
  for (const name of ['clickhouse-reader.sh', 'postgres-reader.sh'])
    execFileSync('sh', ['-n', fileURLToPath(new URL(`deploy/${name}`, root))])
})
