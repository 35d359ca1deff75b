// What to do with an insert that ClickHouse refused, by its error code. The safe answer to a code that is not listed is to
// try again: a record waits in the journal, where it is seen, and is not put aside for a reason that nobody has read.
// The names are those of ClickHouse's ErrorCodes.cpp; refusals.db.test.ts asks the engine whether they are right.
export type Remedy =
  /** The server is in a state that passes: the same block again, later. */
  | 'retry'
  /** Too much at once: in halves. A single row that is still too much is retried. */
  | 'halve'
  /** Some rows cannot be taken: in halves down to the row, which goes to quarantine. */
  | 'isolate'
  /** The table, or the user's rights on it, is not what the rows need: again, later, once somebody has mended it. */
  | 'mend'

const codes: Readonly<Record<Exclude<Remedy, 'retry'>, Readonly<Record<number, string>>>> = {
  halve: {
    158: 'TOO_MANY_ROWS',
    173: 'CANNOT_ALLOCATE_MEMORY',
    241: 'MEMORY_LIMIT_EXCEEDED',
    307: 'TOO_MANY_BYTES',
    396: 'TOO_MANY_ROWS_OR_BYTES',
  },
  // Values that a column's type, default, constraint or partition key, or a view behind the table, does not take.
  isolate: {
    6: 'CANNOT_PARSE_TEXT',
    25: 'CANNOT_PARSE_ESCAPE_SEQUENCE',
    26: 'CANNOT_PARSE_QUOTED_STRING',
    27: 'CANNOT_PARSE_INPUT_ASSERTION_FAILED',
    32: 'ATTEMPT_TO_READ_AFTER_EOF',
    38: 'CANNOT_PARSE_DATE',
    41: 'CANNOT_PARSE_DATETIME',
    69: 'ARGUMENT_OUT_OF_BOUND',
    70: 'CANNOT_CONVERT_TYPE',
    72: 'CANNOT_PARSE_NUMBER',
    117: 'INCORRECT_DATA',
    128: 'TOO_LARGE_ARRAY_SIZE',
    130: 'CANNOT_READ_ARRAY_FROM_TEXT',
    131: 'TOO_LARGE_STRING_SIZE',
    153: 'ILLEGAL_DIVISION',
    190: 'SIZES_OF_ARRAYS_DONT_MATCH',
    248: 'INVALID_PARTITION_VALUE',
    321: 'VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE',
    349: 'CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN',
    376: 'CANNOT_PARSE_UUID',
    395: 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO',
    407: 'DECIMAL_OVERFLOW',
    441: 'CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING',
    467: 'CANNOT_PARSE_BOOL',
    469: 'VIOLATED_CONSTRAINT',
    563: 'CANNOT_READ_MAP_FROM_TEXT',
    632: 'UNEXPECTED_DATA_AFTER_PARSED_VALUE',
    675: 'CANNOT_PARSE_IPV4',
    676: 'CANNOT_PARSE_IPV6',
    691: 'UNKNOWN_ELEMENT_OF_ENUM',
  },
  mend: {
    8: 'THERE_IS_NO_COLUMN',
    10: 'NOT_FOUND_COLUMN_IN_BLOCK',
    16: 'NO_SUCH_COLUMN_IN_TABLE',
    20: 'NUMBER_OF_COLUMNS_DOESNT_MATCH',
    44: 'ILLEGAL_COLUMN',
    46: 'UNKNOWN_FUNCTION',
    47: 'UNKNOWN_IDENTIFIER',
    48: 'NOT_IMPLEMENTED',
    53: 'TYPE_MISMATCH',
    60: 'UNKNOWN_TABLE',
    81: 'UNKNOWN_DATABASE',
    115: 'UNKNOWN_SETTING',
    122: 'INCOMPATIBLE_COLUMNS',
    192: 'UNKNOWN_USER',
    193: 'WRONG_PASSWORD',
    218: 'TABLE_IS_DROPPED',
    291: 'DATABASE_ACCESS_DENIED',
    452: 'SETTING_CONSTRAINT_VIOLATION',
    497: 'ACCESS_DENIED',
    516: 'AUTHENTICATION_FAILED',
    774: 'TABLE_IS_PERMANENTLY_READ_ONLY',
  },
}

/** Tried again like every code that stands nowhere, and known to speak of the server. BAD_ARGUMENTS (36) is not among them:
 *  it says of a setting what it says of a row. */
const saysOfServer: Readonly<Record<number, string>> = {
  159: 'TIMEOUT_EXCEEDED',
  164: 'READONLY',
  202: 'TOO_MANY_SIMULTANEOUS_QUERIES',
  210: 'NETWORK_ERROR',
  242: 'TABLE_IS_READ_ONLY',
  243: 'NOT_ENOUGH_SPACE',
  252: 'TOO_MANY_PARTS',
  319: 'UNKNOWN_STATUS_OF_INSERT',
  394: 'QUERY_WAS_CANCELLED',
  745: 'SERVER_OVERLOADED',
  999: 'KEEPER_EXCEPTION',
}

type Known = { readonly code: number; readonly name: string; readonly remedy: Remedy }

/** Every code that is not simply tried again. */
export const knownRefusals: readonly Known[] = Object.entries(codes).flatMap(([remedy, names]) =>
  Object.entries(names).map(([code, name]) => ({ code: Number(code), name, remedy: remedy as Remedy })),
)

const remedies: ReadonlyMap<number, Remedy> = new Map(knownRefusals.map(({ code, remedy }) => [code, remedy]))

export function remedyOf(code: number): Remedy {
  return remedies.get(code) ?? 'retry'
}

/** What ClickHouse says of a row quotes it, and the log never holds content: of those codes, and of unknown ones, only the
 *  name is logged. The whole of it stands beside the row in quarantine. */
export function loggable(refusal: { readonly code: number; readonly type: string; readonly message: string }): string {
  const name = `${refusal.type} (${refusal.code})`
  const remedy = remedies.get(refusal.code)
  const quotesRows = remedy === undefined ? !Object.hasOwn(saysOfServer, refusal.code) : remedy === 'isolate'
  return quotesRows ? name : `${name}: ${refusal.message}`
}
