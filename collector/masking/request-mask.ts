// What is masked in a request before it is walked: secrets in every tenant's, and personal data in those of tenants that want
// it everywhere, not only in what users and models say.
import type { Masking } from '../config.ts'
import type { Identity, Signal } from '../receive/request.ts'
import { openPersonalMask } from './personal.ts'
import { openSecretMask } from './secrets.ts'
import { openTexts } from './texts.ts'

export type MaskedCounts = Map<string, number>

/** Masks in place and says how many of each kind there were. */
export type MaskRequest = (signal: Signal, identity: Identity, bytes: Buffer) => MaskedCounts

const tenantKey = Buffer.from('tallylight.tenant.id')

export function openRequestMask({ secrets, personal, isEverywhere }: Masking): MaskRequest {
  const maskSecrets = secrets ? openSecretMask() : undefined
  const { maskBytes } = openPersonalMask(personal)
  const texts = openTexts()

  /** The texts of a request, those apart that say whose a record is: they are names, whatever they look like. */
  function visitTexts(
    signal: Signal,
    bytes: Buffer,
    visitText: (start: number, end: number) => void,
    visitTenant: (start: number, end: number) => void,
  ): void {
    let tenantPairEnd = 0
    texts(signal, bytes, {
      skipsBytes: true,
      wants: () => true,
      visit: (start, end, pairEnd) => {
        if (pairEnd > 0) tenantPairEnd = tenantKey.compare(bytes, start, end) === 0 ? pairEnd : 0
        if (pairEnd === 0 && end <= tenantPairEnd) visitTenant(start, end)
        else visitText(start, end)
      },
    })
  }

  /** A request of many tenants is masked for all when one of them wants it: too much is better than too little. */
  function isWanted(signal: Signal, { tenant, manyTenants }: Identity, bytes: Buffer): boolean {
    if (isEverywhere(tenant)) return true
    if (!manyTenants || !bytes.includes(tenantKey)) return false
    let isFound = false
    visitTexts(signal, bytes, ignore, (start, end) => {
      isFound ||= isEverywhere(bytes.toString('utf8', start, end))
    })
    return isFound
  }

  return (signal, identity, bytes) => {
    const counts = new Map<string, number>()
    maskSecrets?.(signal, bytes, counts)
    if (isWanted(signal, identity, bytes))
      visitTexts(signal, bytes, (start, end) => maskBytes(bytes, start, end, counts), ignore)
    return counts
  }
}

function ignore(): void {}
