// ClickHouse's exceptions, as its HTTP clients expect them: the code and the status that the server gives to it.

export type Exception = { readonly code: number; readonly message: string }

/** What ends a request: thrown where it happens, and made an answer in one place. */
export class HttpException extends Error {
  readonly exception: Exception
  constructor(exception: Exception) {
    super(exception.message)
    this.exception = exception
  }
}

/** What the endpoint itself refuses, in ClickHouse's words. */
export class Refusal extends HttpException {
  constructor(code: number, type: string, message: string) {
    super({ code, message: `${message}. (${type})` })
  }
}

/** As in ClickHouse's exceptionCodeToHTTPStatus; every other code is 500. */
const codesOfStatus: readonly (readonly [number, readonly number[]])[] = [
  [400, [6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676]],
  [401, [194]],
  [403, [192, 193, 497, 512, 516]],
  [404, [46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511]],
  [408, [159]],
  [411, [381]],
  [413, [229]],
  [501, [48]],
  [503, [76, 209, 439]],
]
const statuses: ReadonlyMap<number, number> = new Map(
  codesOfStatus.flatMap(([status, codes]) => codes.map((code) => [code, status] as const)),
)

export function statusOf(exception: Exception): number {
  return statuses.get(exception.code) ?? 500
}

/** What chdb throws holds ClickHouse's own text. */
export function exceptionOf(error: unknown): Exception {
  if (error instanceof HttpException) return error.exception
  const text = error instanceof Error ? error.message : String(error)
  const found = /^(?:Query failed: )?Code: (\d+)\. DB::Exception: ([\s\S]*)$/.exec(text)
  if (found === null) return { code: 1002, message: `${text}. (UNKNOWN_EXCEPTION)` }
  // The engine says some things twice, one inside the other.
  const message = (found[2] as string)
    .replace(/^Code: \d+\. DB::Exception: ([\s\S]*?)(?: \(version [^()]*\))?\. \([A-Z_]+\)\s*$/, '$1')
    .trim()
  return { code: Number(found[1]), message }
}

export function textOf(exception: Exception, version: string): string {
  return `Code: ${exception.code}. DB::Exception: ${exception.message} (version ${version})\n`
}

/** What ends a body whose status was sent before the statement failed; `tag` is in the X-ClickHouse-Exception-Tag header. */
export function exceptionFrame(exception: Exception, version: string, tag: string): Buffer {
  const message = Buffer.from(textOf(exception, version))
  return Buffer.concat([
    Buffer.from(`\r\n__exception__\r\n${tag}\r\n`),
    message,
    Buffer.from(`${message.length} ${tag}\r\n__exception__\r\n`),
  ])
}
