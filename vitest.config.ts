import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{collector,dashboards,instrumentation,storage,test}/**/*.test.ts'],
    exclude: ['**/node_modules/**'],
    // Each file that needs an engine starts its own; two cores carry two files at once without starving an engine's start.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
