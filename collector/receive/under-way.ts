// Requests that are on their way to the disk, by digest. A table of chains and no Map, for the reason that open-list.ts gives.
import type { ExportOutcome } from './request.ts'

export type UnderWay = {
  find(digest: Buffer): Promise<ExportOutcome> | undefined
  add(digest: Buffer, outcome: Promise<ExportOutcome>): void
  delete(digest: Buffer): void
}

type Link = { readonly digest: Buffer; readonly outcome: Promise<ExportOutcome>; next: Link | undefined }

/** Some thousands are under way at once, at the most. */
const chainsCount = 4096

export function openUnderWay(): UnderWay {
  const chains = new Array<Link | undefined>(chainsCount).fill(undefined)
  const chainOf = (digest: Buffer): number => digest.readUInt16LE(0) & (chainsCount - 1)

  return {
    find(digest) {
      let link = chains[chainOf(digest)]
      while (link !== undefined && !link.digest.equals(digest)) link = link.next
      return link?.outcome
    },
    add(digest, outcome) {
      const chain = chainOf(digest)
      chains[chain] = { digest, outcome, next: chains[chain] }
    },
    delete(digest) {
      const chain = chainOf(digest)
      let before: Link | undefined
      let link = chains[chain]
      while (link !== undefined && !link.digest.equals(digest)) {
        before = link
        link = link.next
      }
      if (link === undefined) return
      if (before === undefined) chains[chain] = link.next
      else before.next = link.next
      link.next = undefined
    },
  }
}
