// CONFIG.md, made from the tables in environment.ts and config.ts: `npm run config:page` writes it, a test compares it.
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type FileSchema, fileJsonSchema } from './config.ts'
import { environmentNames } from './environment.ts'

export const pagePath = fileURLToPath(new URL('./CONFIG.md', import.meta.url))

export const exampleFile = {
  retention: { default: { traces: 30, logs: 30, metrics: 90 }, tenants: { acme: { traces: 7 } } },
  ingestLimits: { default: { bytesPerSecond: 50_000_000 }, tenants: { acme: { recordsPerSecond: 100_000 } } },
  journal: { bytesMax: 53_687_091_200 },
}

export function renderPage(): string {
  const environment = environmentNames.map(({ name, default: unset, why }) => [code(name), code(unset), why])
  const file = fieldsOf(fileJsonSchema(), '').map(({ path, schema }) => [
    code(path),
    allowedIn(schema),
    schema.unset ?? '',
    schema.description ?? '',
  ])
  return `# Configuration

Written by \`npm run config:page\` from \`environment.ts\` and \`config.ts\`.

Environment, each name with the prefix \`TALLYLIGHT_\`; an unknown name with it is refused:

${table(['name', 'default', 'what it is'], environment)}

The file (\`tallylight.json\`); every field may be left out, an unknown one is refused. It is read at the start of the collector;
\`quota.limits\` and \`probes\` also when it changes:

${table(['field', 'allowed', 'default', 'what it is'], file)}

\`\`\`json
${JSON.stringify(exampleFile, undefined, 2)}
\`\`\`
`
}

type Field = { readonly path: string; readonly schema: FileSchema }

function fieldsOf(schema: FileSchema, path: string): readonly Field[] {
  const under = (name: string): string => (path === '' ? name : `${path}.${name}`)
  if (schema.properties !== undefined)
    return Object.entries(schema.properties).flatMap(([name, inner]) => fieldsOf(inner, under(name)))
  if (schema.additionalProperties) return fieldsOf(schema.additionalProperties, under('NAME'))
  return [{ path, schema }]
}

function allowedIn({ type, minimum, maximum, enum: values, items }: FileSchema): string {
  const names = values ?? items?.enum
  if (names !== undefined) return `${type === 'array' ? 'some of ' : ''}${names.join(', ')}`
  if (type !== 'integer') return type === 'boolean' ? 'true, false' : (type ?? '')
  return maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? `${minimum} or more` : `${minimum}–${maximum}`
}

function code(text: string): string {
  return text === '' ? '' : `\`${text}\``
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]?.length ?? 0)))
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(pagePath, renderPage())
