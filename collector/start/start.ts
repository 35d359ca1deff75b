// What every part of the start is given: the settings, the log, the metrics, and how to be stopped.
import type { Logger } from 'pino'
import type { ConfigFile } from '../config.ts'
import type { Config } from '../environment.ts'
import type { Metrics } from '../metrics.ts'
import { after } from '../receive/receiver.ts'

export type Start = {
  readonly config: Config
  readonly file: ConfigFile
  /** What it was read from, so that a change is seen however long the start took; undefined when there is no file. */
  readonly fileText: string | undefined
  readonly dataDirectory: string
  readonly version: string
  readonly log: Logger
  readonly metrics: Metrics
  /** What was started first is stopped last. */
  readonly stack: AsyncDisposableStack
  readonly loops: Loops
}

export type Loops = {
  readonly signal: AbortSignal
  /** Something that goes on until the signal, and is waited for at the end. It must not reject: nobody listens until then. */
  readonly add: (loop: Promise<unknown>) => void
  /** Stops the loops without waiting for them: of a start that is broken off. */
  readonly breakOff: (why: Error) => void
  /** Stops the loops and waits for them, no longer than `stopMs`. */
  readonly end: () => Promise<void>
}

export function openLoops(stopMs: number): Loops {
  const stopping = new AbortController()
  const running: Promise<unknown>[] = []
  return {
    signal: stopping.signal,
    add: (loop) => void running.push(loop),
    breakOff: (why) => stopping.abort(why),
    end: async () => {
      stopping.abort()
      await Promise.race([Promise.all(running), after(stopMs)])
    },
  }
}
