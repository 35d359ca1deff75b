// What is claimed: of each SDK the oldest and the newest version, with the packages it needs beside it, and the service that calls it.
import { readFileSync } from 'node:fs'

export type Cell = {
  readonly sdk: string
  readonly version: string
  /** As npm takes them. */
  readonly packages: readonly string[]
  readonly services: readonly string[]
  readonly kind: 'calls' | 'mcp' | 'next'
}

/** The first that has hooks which `require` passes, and the newest of each line that is kept. */
export const nodes = ['22.15.0', '22', '24', '26'] as const

/** The newest are those that `npm test` runs with. */
const newest: ReadonlyMap<string, string> = new Map(
  ['test', 'instrumentation'].flatMap((workspace) => {
    const manifest = JSON.parse(readFileSync(new URL(`../../${workspace}/package.json`, import.meta.url), 'utf8'))
    return Object.entries<string>(manifest.devDependencies)
  }),
)

type Sdk = {
  readonly name: string
  readonly oldest: string
  readonly services: readonly string[]
  readonly kind?: Cell['kind']
  /** Beside the oldest, and beside the newest. */
  readonly beside?: readonly [oldest: readonly string[], newest: readonly string[]]
}

const sdks: readonly Sdk[] = [
  { name: 'openai', oldest: '4.0.0', services: ['openai.mjs'] },
  { name: '@anthropic-ai/sdk', oldest: '0.20.9', services: ['anthropic.mjs'] },
  { name: '@google/genai', oldest: '1.0.0', services: ['google-genai.mjs'] },
  {
    name: 'ai',
    oldest: '4.0.0',
    services: ['ai.mjs'],
    beside: [
      ['@ai-sdk/openai@1.0.0', 'zod@3'],
      [`@ai-sdk/openai@${newest.get('@ai-sdk/openai')}`, 'zod@4'],
    ],
  },
  {
    name: '@langchain/openai',
    oldest: '0.3.0',
    services: ['langchain.mjs'],
    beside: [['@langchain/core@0.3'], ['@langchain/core@1']],
  },
  { name: '@aws-sdk/client-bedrock-runtime', oldest: '3.587.0', services: ['bedrock.mjs'] },
  { name: 'undici', oldest: '5.29.0', services: ['undici.mjs'] },
  { name: '@modelcontextprotocol/sdk', oldest: '1.10.0', services: ['mcp.mjs', 'mcp.cjs'], kind: 'mcp' },
]

const others: readonly Cell[] = [
  { sdk: 'undici', version: '6.29.1', packages: ['undici@6.29.1'], services: ['undici.mjs'], kind: 'calls' },
  { sdk: 'undici', version: '7.10.0', packages: ['undici@7.10.0'], services: ['undici.mjs'], kind: 'calls' },
  {
    sdk: '@modelcontextprotocol/client and server',
    version: '2.4.0',
    packages: ['client@2.4.0', 'server@2.4.0', 'node@2.1.2'].map((name) => `@modelcontextprotocol/${name}`),
    services: ['mcp-2.mjs'],
    kind: 'mcp',
  },
  {
    sdk: 'next (server bundle)',
    version: '16.4.6',
    packages: ['next@16.4.6', 'react@19', 'react-dom@19', `openai@${newest.get('openai')}`],
    services: [],
    kind: 'next',
  },
]

export function cells(): readonly Cell[] {
  const claimed = sdks.flatMap(({ name, oldest, services, kind = 'calls', beside = [[], []] }) =>
    [oldest, newest.get(name) ?? ''].map((version, at): Cell => {
      return { sdk: name, version, packages: [`${name}@${version}`, ...(beside[at] ?? [])], services, kind }
    }),
  )
  return [...claimed, ...others]
}
