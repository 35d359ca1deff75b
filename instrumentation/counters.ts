// What the instrumentation did, in numbers that anybody in the process can read. A warning is given once per kind, however
// often its cause comes back: the service's log is not ours.

export type Counter =
  | 'spansMade'
  | 'spansExported'
  | 'spansDropped'
  | 'failures'
  | 'unmetered'
  | 'notGated'
  | 'denied'
  | 'settlementsFailed'
  | 'contentDropped'

export type Counters = {
  add(counter: Counter, count?: number): void
  read(): Readonly<Record<Counter, number>>
  /** Says it unless something was said under this name before. */
  warnOnce(name: string, message: string): void
}

export function openCounters(write: (line: string) => void): Counters {
  const counts: Record<Counter, number> = {
    spansMade: 0,
    spansExported: 0,
    spansDropped: 0,
    failures: 0,
    unmetered: 0,
    notGated: 0,
    denied: 0,
    settlementsFailed: 0,
    contentDropped: 0,
  }
  const said = new Set<string>()
  return {
    add(counter, count = 1) {
      counts[counter] += count
    },
    read: () => ({ ...counts }),
    warnOnce(name, message) {
      if (said.has(name)) return
      said.add(name)
      // The service's own, in the middle of its call.
      try {
        const written: unknown = write(`tallylight: ${message}`)
        if (written instanceof Promise) written.catch(() => undefined)
      } catch {
        counts.failures++
      }
    },
  }
}
