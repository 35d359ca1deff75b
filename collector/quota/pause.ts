/** Resolves after so long, at the signal, or when it is woken. Nothing of it stays with the signal: a race against a promise that
 *  lives as long as the program would keep a part of each wait in memory for as long. */
export function pause(ms: number, signal: AbortSignal, woken?: Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
    woken?.then(end)
    if (signal.aborted) end()
  })
}
