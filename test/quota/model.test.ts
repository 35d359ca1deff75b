import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { test } from 'vitest'
import { compareRounds } from './model.ts'

test('quota: 10,000 random steps, over window edges, clock steps, lost connections and collectors that change, leave the books of a simple model', async () => {
  await using postgres = await startTestPostgres()
  await compareRounds([postgres, postgres, postgres], 20_261_121, 10_000, { killEvery: 0 })
}, 240_000)
