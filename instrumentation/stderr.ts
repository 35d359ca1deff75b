// What little we say to a service's operator.

/** A stderr that nobody reads any more fails each write with an event, and ends a process that does not listen for it. A console
 *  is no help: it listens for the first failure alone. */
export function sayOnStderr(line: string): void {
  const { stderr } = process
  const ignore = (): void => undefined
  stderr.on('error', ignore)
  // The event comes in a tick of its own behind the answer.
  stderr.write(`${line}\n`, () => setImmediate(() => stderr.off('error', ignore)).unref())
}
