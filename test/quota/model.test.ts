import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { test } from 'vitest'
import { compareRounds } from './model.ts'

test('quota: 10,000 random steps, over window edges, clock steps and lost connections, leave the books of a simple model', async () => {
  await using postgres = await startTestPostgres()
  await compareRounds(postgres, 20_261_121, 10_000)
}, 240_000)
