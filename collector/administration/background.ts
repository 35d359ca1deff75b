// Work that takes longer than a request may: begun by one request, asked about by others. One at a time; what became of the
// last is remembered as long as the process lives. Where each tenant may ask for it, each has its own: nobody is told of
// another's, or refused because of it, and still one is done at a time.

export type Background<Result> = {
  /** False: one is under way. */
  begin(work: (signal: AbortSignal) => Promise<Result>): boolean
  state(): BackgroundState<Result>
}

export type BackgroundState<Result> =
  | { readonly state: 'idle' }
  | { readonly state: 'running'; readonly startedAt: Date }
  | { readonly state: 'done'; readonly startedAt: Date; readonly finishedAt: Date; readonly result: Result }
  | { readonly state: 'failed'; readonly startedAt: Date; readonly finishedAt: Date; readonly reason: string }

/** By who asks: a tenant, or undefined for who asks for all. */
export type Backgrounds<Result> = (tenant: string | undefined) => Background<Result>

export function openBackgrounds<Result>(signal: AbortSignal): Backgrounds<Result> {
  const byTenant = new Map<string | undefined, Background<Result>>()
  let last: Promise<unknown> = Promise.resolve()
  function inTurn(work: () => Promise<Result>): Promise<Result> {
    const mine = last.then(() => {
      signal.throwIfAborted()
      return work()
    })
    last = mine.catch(() => undefined)
    return mine
  }

  return (tenant) => {
    const known = byTenant.get(tenant) ?? openBackground<Result>(signal)
    byTenant.set(tenant, known)
    return { begin: (work) => known.begin((ending) => inTurn(() => work(ending))), state: known.state }
  }
}

/** What is under way at the signal ends with it. */
export function openBackground<Result>(signal: AbortSignal): Background<Result> {
  let state: BackgroundState<Result> = { state: 'idle' }

  async function carryOut(work: (signal: AbortSignal) => Promise<Result>, startedAt: Date): Promise<void> {
    try {
      const result = await work(signal)
      state = { state: 'done', startedAt, finishedAt: new Date(), result }
    } catch (error) {
      state = { state: 'failed', startedAt, finishedAt: new Date(), reason: String(error) }
    }
  }

  return {
    begin: (work) => {
      if (state.state === 'running') return false
      const startedAt = new Date()
      state = { state: 'running', startedAt }
      void carryOut(work, startedAt)
      return true
    },
    state: () => state,
  }
}
