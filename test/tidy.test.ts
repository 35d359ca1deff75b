// Our own rules, each kept by looking at the tree: what may import what, which words a file name may not have, what must
// never be in a file. A rule is added when something went wrong.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const folders = ['collector', 'dashboards', 'storage', 'instrumentation', 'examples', 'test', 'decisions']

function filesIn(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !/\b(node_modules|dist)\b/.test(path))
}

const files = folders.flatMap(filesIn)
const sources = files.filter((path) => path.endsWith('.ts'))
const textOf = (path: string): string => readFileSync(join(root, path), 'utf8')

/** The files that a source imports, relative to the root. */
function importsOf(path: string): string[] {
  return [...textOf(path).matchAll(/(?:from|import\() ?'([^']+)'/g)]
    .map((found) => found[1] as string)
    .flatMap((name) => {
      if (name.startsWith('@tallylight/')) return [name.slice('@tallylight/'.length)]
      if (name.startsWith('.')) return [relative(root, resolve(root, dirname(path), name))]
      return []
    })
}

test('tidy: arrows between folders point as ARCHITECTURE says', () => {
  const allowed: Readonly<Record<string, readonly string[]>> = {
    // Of the dashboards only what its command line writes for a Grafana, and the pages that its API serves.
    collector: [
      'collector/',
      'storage/',
      'instrumentation/providers/',
      'instrumentation/usage/',
      // The proxy does for other processes what the hooks do in theirs, with the same parts.
      'instrumentation/calls/',
      'instrumentation/counters.ts',
      'instrumentation/hooks/exchange.ts',
      'instrumentation/hooks/reply-tap.ts',
      'instrumentation/quota/',
      'instrumentation/turns/scene.ts',
      'instrumentation/health/looks.ts',
      'dashboards/provision.ts',
      'dashboards/runbooks.ts',
    ],
    dashboards: ['dashboards/', 'storage/'],
    storage: ['storage/'],
    instrumentation: ['instrumentation/'],
    examples: ['examples/', 'instrumentation/'],
    test: ['collector/', 'dashboards/', 'storage/', 'instrumentation/', 'examples/', 'test/'],
  }
  const wrong = sources.flatMap((path) => {
    const from = path.split('/')[0] as string
    return importsOf(path)
      .filter((to) => !(allowed[from] ?? []).some((prefix) => to.startsWith(prefix)))
      .map((to) => `${path} imports ${to}`)
  })
  expect(wrong).toEqual([])
})

test('tidy: no file or folder has a name that says nothing', () => {
  const wrong = files.filter((path) => /(^|\/)(utils?|common|helpers?|types|managers?|src|misc)(\.|\/|$)/.test(path))
  expect(wrong).toEqual([])
})

test('tidy: every source file is imported, run by a script, or a test', () => {
  const scripts = [
    'package.json',
    'collector/tallylight.mjs',
    'collector/genai/estimates.ts',
    'collector/probes/probes.test.ts',
    'storage/clickhouse/embedded.ts',
    'test/e2e/sdk.test.ts',
    'test/collector-process.ts',
    'test/bench/instrumentation-run.ts',
    'test/bench/proxy-run.ts',
    'instrumentation/package.json',
    'examples/chat-service/process.ts',
    'examples/chat-service/tools.ts',
    'instrumentation/register.test.ts',
    'instrumentation/mcp/mcp.test.ts',
  ]
    .map(textOf)
    .join('\n')
  const imported = new Set(sources.flatMap(importsOf))
  const dead = sources.filter(
    (path) => !path.endsWith('.test.ts') && !imported.has(path) && !scripts.includes(path.split('/').at(-1) as string),
  )
  expect(dead).toEqual([])
})

test('tidy: only entry points of the collector read the environment', () => {
  const readers = sources.filter(
    (path) => /^(collector|storage)\//.test(path) && !path.endsWith('.test.ts') && /process\.env\b/.test(textOf(path)),
  )
  expect(readers.sort()).toEqual(['collector/command-line.ts', 'collector/main.ts'])
})

test('tidy: no type or lint is switched off, and no test is skipped or singled out', () => {
  const marks = [
    /\bas any\b/,
    /: any\b/,
    /@ts-(ignore|nocheck|expect-error)/,
    /biome-ignore/,
    /\b(test|it|describe)\.(only|skip|todo)\b/,
    /\b(TODO|FIXME|XXX)\b/,
  ]
  const wrong = sources.filter((path) => path !== 'test/tidy.test.ts' && marks.some((mark) => mark.test(textOf(path))))
  expect(wrong).toEqual([])
})

test('tidy: the lock file names no registry', () => {
  expect(textOf('package-lock.json')).not.toMatch(/"resolved": "http/)
})
