import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { test } from 'vitest'
import { compareWithModel } from './model.ts'

test('quota: 10,000 random steps, repeats and lost connections have the outcomes and leave the books of a simple model', async () => {
  await using postgres = await startTestPostgres()
  for (let round = 0; round < 20; round++) await compareWithModel(postgres, `round_${round}`, 20261121 + round, 500)
}, 180_000)
