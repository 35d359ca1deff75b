import { expect, test } from 'vitest'
import { startProvider } from './hooks/fixtures/provider.ts'
import { openOtlpSender } from './otlp-sender.ts'

test('OTLP sender: what waits is given up with its reason, and what comes later is sent', async () => {
  const statuses = [503, 200]
  await using collector = await startProvider(() => ({ status: statuses.shift() ?? 500, pieces: [] }))
  const told: unknown[] = []
  const sender = openOtlpSender({
    url: collector.url,
    contentType: 'application/json',
    headers: {},
    timeoutMs: 10_000,
    onOutcome: (outcome, records) => told.push([outcome, records]),
  })
  sender.send(Buffer.from('first'), 1)
  await collector.closed()
  sender.giveUp()
  await sender.idle()
  sender.send(Buffer.from('second'), 2)
  await sender.idle()
  expect(told).toEqual([
    [{ kind: 'failed', reason: expect.anything() }, 1],
    [{ kind: 'sent' }, 2],
  ])
})
