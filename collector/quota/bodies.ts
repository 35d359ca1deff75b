// The bodies of the quota service's requests: what may stand in them, and how much.
import { z } from 'zod'
import { amountSchema, storable } from './limits.ts'

const ttlMsUsual = 60_000
const ttlMsMax = 3_600_000
/** A lease that is lost frees what it held after this; until then it is the worst that can be overspent. */
const leaseMsUsual = 10_000
const leaseMsMax = 60_000
const leasedRequestsMax = 100_000

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER)
const text = storable(1024)
export const usage = z.strictObject({
  inputTokens: count,
  outputTokens: count,
  cacheReadTokens: count.optional(),
  cacheWriteTokens: count.optional(),
})
const who = {
  user: text.default(''),
  conversation: text.default(''),
  model: storable(512).min(1),
  provider: text.default(''),
}
const ttlMs = z.int().min(1_000).max(ttlMsMax)
export const reservation = z.strictObject({
  callId: storable(512).min(1),
  ...who,
  estimate: z.union(
    [z.strictObject({ inputTokens: count, outputTokensMax: count }), z.strictObject({ costNanoUsd: amountSchema })],
    'either inputTokens and outputTokensMax, whole numbers from 0, or costNanoUsd',
  ),
  ttlMs: ttlMs.default(ttlMsUsual),
})
export const lease = z.strictObject({
  callId: storable(256).min(1),
  ...who,
  model: who.model.default(''),
  allowance: z
    .strictObject({
      costNanoUsd: amountSchema.optional(),
      inputTokens: count.optional(),
      outputTokens: count.optional(),
      requests: z.int().min(1).max(leasedRequestsMax),
    })
    .refine(
      (each) => (each.inputTokens === undefined) === (each.outputTokens === undefined),
      'both kinds of tokens or none',
    ),
  ttlMs: z.int().min(1_000).max(leaseMsMax).default(leaseMsUsual),
})
export const check = reservation.omit({ ttlMs: true, callId: true }).extend({ callId: storable(512).default('') })
const used = { usage: usage.optional(), costNanoUsd: amountSchema.optional() }
const requests = z.int().min(0).max(leasedRequestsMax)
const hasAmount = (each: { readonly usage?: unknown; readonly costNanoUsd?: unknown }): boolean =>
  each.usage !== undefined || each.costNanoUsd !== undefined
const amountNeeded = { message: 'usage or costNanoUsd is needed' }
export const settlement = z
  .strictObject({ ...used, model: who.model.optional(), provider: text.optional(), requests: requests.optional() })
  .refine(hasAmount, amountNeeded)
export const extension = z.strictObject({ ttlMs: ttlMs.default(ttlMsUsual) })
export const charge = z
  .strictObject({
    eventKey: storable(512).min(1),
    ...who,
    ...used,
    endedAt: z.iso.datetime({ offset: true }).optional(),
  })
  .refine(hasAmount, amountNeeded)
export const release = z.strictObject({})
