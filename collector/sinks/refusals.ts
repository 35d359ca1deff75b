// What to do with an insert that ClickHouse refused, by its error code. The safe answer to a code that is not listed is to
// try again: a record waits in the journal, where it is seen, and is not put aside for a reason that nobody has read.
export type Remedy =
  /** The server is in a state that passes: the same block again, later. */
  | 'retry'
  /** Too much at once: in halves. A single row that is still too much is retried. */
  | 'halve'
  /** Some rows cannot be taken: in halves down to the row, which goes to quarantine. */
  | 'isolate'
  /** The table is not what the rows need: again, later, once somebody has mended it. */
  | 'mend'

const remedies: ReadonlyMap<number, Remedy> = new Map([
  [241, 'halve'], // MEMORY_LIMIT_EXCEEDED
  [173, 'halve'], // CANNOT_ALLOCATE_MEMORY
  [6, 'isolate'], // CANNOT_PARSE_TEXT
  [26, 'isolate'], // CANNOT_PARSE_QUOTED_STRING
  [27, 'isolate'], // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  [38, 'isolate'], // CANNOT_PARSE_DATE
  [41, 'isolate'], // CANNOT_PARSE_DATETIME
  [69, 'isolate'], // ARGUMENT_OUT_OF_BOUND
  [70, 'isolate'], // CANNOT_CONVERT_TYPE
  [72, 'isolate'], // CANNOT_PARSE_NUMBER
  [117, 'isolate'], // INCORRECT_DATA
  [131, 'isolate'], // TOO_LARGE_STRING_SIZE
  [349, 'isolate'], // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  [407, 'isolate'], // DECIMAL_OVERFLOW
  [469, 'isolate'], // VIOLATED_CONSTRAINT
  [691, 'isolate'], // UNKNOWN_ELEMENT_OF_ENUM
  [10, 'mend'], // NOT_FOUND_COLUMN_IN_BLOCK
  [16, 'mend'], // NO_SUCH_COLUMN_IN_TABLE
  [20, 'mend'], // NUMBER_OF_COLUMNS_DOESNT_MATCH
  [44, 'mend'], // ILLEGAL_COLUMN
  [53, 'mend'], // TYPE_MISMATCH
  [60, 'mend'], // UNKNOWN_TABLE
  [81, 'mend'], // UNKNOWN_DATABASE
  [115, 'mend'], // UNKNOWN_SETTING
  [497, 'mend'], // ACCESS_DENIED
  [516, 'mend'], // AUTHENTICATION_FAILED
  [159, 'retry'], // TIMEOUT_EXCEEDED
  [164, 'retry'], // READONLY
  [202, 'retry'], // TOO_MANY_SIMULTANEOUS_QUERIES
  [210, 'retry'], // NETWORK_ERROR
  [242, 'retry'], // TABLE_IS_READ_ONLY
  [243, 'retry'], // NOT_ENOUGH_SPACE
  [252, 'retry'], // TOO_MANY_PARTS
  [319, 'retry'], // UNKNOWN_STATUS_OF_INSERT
  [999, 'retry'], // KEEPER_EXCEPTION
])

export function remedyOf(code: number): Remedy {
  return remedies.get(code) ?? 'retry'
}

/** What ClickHouse says of a row quotes it, and the log never holds content: of those codes, and of unknown ones, only the
 *  name is logged. The whole of it stands beside the row in quarantine. */
export function loggable(refusal: { readonly code: number; readonly type: string; readonly message: string }): string {
  const name = `${refusal.type} (${refusal.code})`
  const quotesRows = (remedies.get(refusal.code) ?? 'isolate') === 'isolate'
  return quotesRows ? name : `${name}: ${refusal.message}`
}
