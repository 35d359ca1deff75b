// `npm run dashboards`: writes what Grafana loads into generated/.
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { generatedFiles } from './generated-files.ts'

const directory = new URL('./generated/', import.meta.url)
await rm(directory, { recursive: true, force: true })
for (const [path, text] of generatedFiles()) {
  const url = new URL(path, directory)
  await mkdir(new URL('.', url), { recursive: true })
  await writeFile(url, text)
}
