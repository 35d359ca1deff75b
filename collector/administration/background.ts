// Work that takes longer than a request may: begun by one request, asked about by others. One at a time; what became of the
// last is remembered as long as the process lives.

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
