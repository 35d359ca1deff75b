// Places in the engine. Each statement inside holds a thread until it is done, so they are counted, and what comes on top
// waits its turn in order.
import { Refusal } from './http-exception.ts'

export type Places = {
  /** Resolves with what gives the place back. Throws when too many wait, or `signal` aborts first. */
  take(signal: AbortSignal): Promise<() => void>
}

export function openPlaces(count: number, waitingMax: number): Places {
  let free = count
  const waiting = new Set<() => void>()

  function giveBack(): void {
    const [next] = waiting
    if (next === undefined) {
      free++
      return
    }
    waiting.delete(next)
    next()
  }
  function placeTaken(): () => void {
    let isGiven = false
    return () => {
      if (isGiven) return
      isGiven = true
      giveBack()
    }
  }

  return {
    take: (signal) => {
      if (free > 0) {
        free--
        return Promise.resolve(placeTaken())
      }
      if (waiting.size >= waitingMax) {
        return Promise.reject(
          new Refusal(
            202,
            'TOO_MANY_SIMULTANEOUS_QUERIES',
            `Too many simultaneous queries. Maximum: ${count}, and ${waitingMax} waiting`,
          ),
        )
      }
      return new Promise((resolve, reject) => {
        const turn = (): void => {
          signal.removeEventListener('abort', leave)
          resolve(placeTaken())
        }
        const leave = (): void => {
          waiting.delete(turn)
          reject(new Refusal(394, 'QUERY_WAS_CANCELLED', 'the client went away before its turn came'))
        }
        waiting.add(turn)
        signal.addEventListener('abort', leave, { once: true })
      })
    },
  }
}
