// Whether a span failed, and how. Errors hide: Langfuse leaves the status unset, LangSmith says OK and adds an exception, Azure
// names the error "undefined".
import { firstText } from './attributes.ts'
import type { ActionStatus, Failure } from './fact.ts'
import type { LiftedEvent, LiftedLog, LiftedSpan } from './record.ts'

const noTypes = new Set(['undefined', 'null', 'none', 'None', ''])

export type FailureHints = {
  /** The dialect's own way of saying that it failed. */
  readonly hasFailed?: boolean
  readonly message?: string
  /** An exception counts whatever the status says. */
  readonly exceptionIsFailure?: boolean
}

export function failureOf(span: LiftedSpan, hints: FailureHints = {}): Failure | undefined {
  const exception = span.events.findLast((event) => event.name === 'exception')
  const said = firstText(span.attributes, 'error.type')
  const hasType = !noTypes.has(said) && span.status !== 'ok'
  const hasFailed =
    span.status === 'error' ||
    hasType ||
    hints.hasFailed === true ||
    (hints.exceptionIsFailure === true && exception !== undefined)
  if (!hasFailed) return undefined
  return describe(hasType ? said : '', exception, [
    hints.message ?? '',
    span.statusMessage,
    firstText(span.attributes, 'error.message', 'exception.message'),
  ])
}

function describe(type: string, exception: LiftedEvent | undefined, messages: readonly string[]): Failure {
  const attributes = exception?.attributes ?? new Map()
  return {
    type: type || firstText(attributes, 'exception.type') || 'unknown',
    message: firstText(attributes, 'exception.message') || (messages.find((message) => message !== '') ?? ''),
    stack: firstText(attributes, 'exception.stacktrace'),
  }
}

/** Of a log record that tells an exception. */
export function failureOfLog(log: LiftedLog): Failure {
  const said = firstText(log.attributes, 'error.type')
  return {
    type: firstText(log.attributes, 'exception.type') || (noTypes.has(said) ? 'unknown' : said),
    message:
      firstText(log.attributes, 'exception.message', 'error.message') || (typeof log.body === 'string' ? log.body : ''),
    stack: firstText(log.attributes, 'exception.stacktrace'),
  }
}

const timeouts = /time[-_. ]?d?[-_. ]?out|deadline[-_. ]?exceeded|etimedout|^(408|504)$/i

export function isTimeout({ type }: Pick<Failure, 'type'>): boolean {
  return timeouts.test(type)
}

export function statusOf(failure: Failure | undefined): ActionStatus {
  if (failure === undefined) return 'success'
  return isTimeout(failure) ? 'timeout' : 'failure'
}
