// Tells a webhook what the outbox holds: thresholds that were passed. Each at least once, oldest first, with an id to know a
// repeat by; signed, so that the receiver can tell us from others. What is not taken is tried again with growing pauses.
import { createHmac } from 'node:crypto'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  lockOutbox,
  markOutbox,
  type OutboxRow,
  readOutbox,
  unlockOutbox,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import type { Log } from '../receive/admission.ts'
import { pause } from './pause.ts'

export type WebhookOptions = {
  readonly database: pg.Pool
  readonly url: string
  readonly secret: string
  readonly now: () => number
  readonly log: Pick<Log, 'warn'>
  readonly onDelivery: (outcome: 'delivered' | 'failed') => void
}

const rowsMax = 20
/** What was not taken so often, over a quarter of an hour, no longer holds up those behind it. */
const attemptsMax = 20
const answerMsMax = 10_000
const pauseMs = 1_000
const pauseMsMax = 60_000

/** Delivers until the signal. Of several collectors one does at a time: the others find its lock. */
export async function runWebhook(options: WebhookOptions, signal: AbortSignal): Promise<void> {
  let waitMs = pauseMs
  while (!signal.aborted) {
    const told = await deliverSome(options, signal).catch((error: unknown) => {
      options.log.warn({ err: error }, 'the outbox could not be read')
      return { delivered: 0, isAllTaken: false }
    })
    waitMs = told.isAllTaken || told.delivered > 0 ? pauseMs : Math.min(waitMs * 2, pauseMsMax)
    if (told.delivered < rowsMax) await pause(waitMs, signal)
  }
}

type Told = { readonly delivered: number; readonly isAllTaken: boolean }

/** No transaction waits for a receiver: Postgres could not clean up meanwhile behind the accounts, which change all the time. The
 *  lock of a collector that died goes with its connection. */
async function deliverSome(options: WebhookOptions, signal: AbortSignal): Promise<Told> {
  return withConnection(options.database, async (client) => {
    if (!(await lockOutbox(client))) return { delivered: 0, isAllTaken: true }
    const told = await deliverAll(options, client, signal)
    await unlockOutbox(client)
    return told
  })
}

/** Behind one that was not taken the others wait for a while, so that the order stays. */
async function deliverAll(options: WebhookOptions, client: pg.PoolClient, signal: AbortSignal): Promise<Told> {
  const rows = await readOutbox(client, { rowsMax, attemptsMax })
  for (const [delivered, row] of rows.entries()) {
    const isTaken = await deliver(options, row, signal)
    options.onDelivery(isTaken ? 'delivered' : 'failed')
    await markOutbox(client, row.id, isTaken)
    if (!isTaken) return { delivered, isAllTaken: false }
  }
  return { delivered: rows.length, isAllTaken: true }
}

async function deliver(
  { url, secret, now, log }: WebhookOptions,
  row: OutboxRow,
  signal: AbortSignal,
): Promise<boolean> {
  const body = JSON.stringify({ id: row.id, kind: row.kind, tenant: row.tenant, at: row.created_at, ...row.body })
  try {
    const response = await fetch(url, {
      method: 'POST',
      body,
      redirect: 'error',
      // The end waits for no receiver that hangs: the event is told again after the next start.
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerMsMax)]),
      headers: { 'Content-Type': 'application/json', 'Tallylight-Signature': signatureOf(secret, body, now()) },
    })
    await response.body?.cancel()
    if (response.ok) return true
    log.warn({ status: response.status, id: row.id }, 'the webhook did not take an event')
  } catch (error) {
    log.warn({ err: error, id: row.id }, 'the webhook could not be reached')
  }
  return false
}

/** `t=<unix seconds>,v1=<hex>`: the HMAC-SHA256 of `<unix seconds>.<body>` under the secret. */
export function signatureOf(secret: string, body: string, nowMs: number): string {
  const seconds = Math.floor(nowMs / 1000)
  return `t=${seconds},v1=${createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex')}`
}
