// Who waits for the ledger, tenants in turn: one that asks for ten thousand things at once neither fills the line nor has those of
// the others wait for all of its own. Of one tenant the order stays.

export type Line<Item> = {
  /** False: there is no room for more of this tenant. One that has nothing in line finds room as long as there is any; beyond that it
   *  may have as much as stays free: alone half of all, one of two a third. */
  push(tenant: string, item: Item): boolean
  take(itemsMax: number): readonly Item[]
  count(): number
}

export function openLine<Item>(itemsMax: number): Line<Item> {
  const byTenant = new Map<string, Item[]>()
  let count = 0

  /** Of each tenant its share, those first who were not served last. */
  function takeRound(most: number, taken: Item[]): void {
    const share = Math.max(1, Math.floor(most / byTenant.size))
    for (const [tenant, queue] of [...byTenant]) {
      if (taken.length === most) return
      taken.push(...queue.splice(0, Math.min(share, most - taken.length)))
      byTenant.delete(tenant)
      if (queue.length > 0) byTenant.set(tenant, queue)
    }
  }

  return {
    push: (tenant, item) => {
      const queue = byTenant.get(tenant)
      const mine = (queue?.length ?? 0) + 1
      const free = itemsMax - count - 1
      if (free < 0 || (mine > 1 && mine > free)) return false
      if (queue === undefined) byTenant.set(tenant, [item])
      else queue.push(item)
      count++
      return true
    },
    take: (most) => {
      const taken: Item[] = []
      while (taken.length < most && byTenant.size > 0) takeRound(most, taken)
      count -= taken.length
      return taken
    },
    count: () => count,
  }
}
