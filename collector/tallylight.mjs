#!/usr/bin/env node
// The command `tallylight`, run on the pinned Node wherever it is called from.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const collector = dirname(fileURLToPath(import.meta.url))
const start = join(collector, '..', 'start.mjs')
const done = spawnSync(process.execPath, [start, 'collector/command-line.ts', ...process.argv.slice(2)], {
  stdio: 'inherit',
})
process.exit(done.status ?? 1)
