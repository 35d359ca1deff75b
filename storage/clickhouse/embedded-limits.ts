// Every bound of the embedded ClickHouse, with its unit in the name and the reason beside it.
import assert from 'node:assert/strict'

const KiB = 1024
const MiB = 1024 * KiB

export const embeddedLimits = {
  memoryBytesMax: 1024 * MiB,
  /** Below this the engine cannot take a block of 1 M rows, which is what a sealed segment may be. */
  memoryBytesMin: 512 * MiB,
  /** One statement's share of the engine's memory; the rest is for merges, caches and the statements beside it. */
  ownerMemoryShare: 0.75,
  readerMemoryShare: 0.4,

  /** Statements inside the engine at once. Each holds a thread of libuv's pool until it is done, so the pool is larger. */
  ownerStatementsMax: 8,
  readerStatementsMax: 6,
  /** Requests that wait for one of those places; more is answered TOO_MANY_SIMULTANEOUS_QUERIES. Grafana opens 50. */
  waitingStatementsMax: 128,
  /** libuv's threads: all statements, and some for files and compression, which would starve behind long statements. */
  threadPoolSize: 24,

  statementBytesMax: 4 * MiB,
  /** ClickHouse's own bound of a statement without its parameters. A reader's is taken apart token by token, here, beside the
   *  engine: one of 4 MiB took all of the heap, and the engine with it. */
  readerStatementBytesMax: 256 * KiB,
  /** How much of a body is read before it is known whether it is a statement or rows behind an INSERT. */
  insertHeadBytesMax: 256 * KiB,
  /** A body is spooled to the volume; eight at once bound what it can take. */
  insertBytesMax: 1024 * MiB,
  /** 8 MiB is what RFC 9659 allows; libraries at their highest level ask for more. */
  zstdWindowLogMax: 25,
  urlBytesMax: 1 * MiB,

  /** Held back before the status is sent, so that a statement that fails early gets a status and not a broken body. */
  heldBytesMax: 256 * KiB,
  /** The same with wait_end_of_query=1, where the client asks for it. */
  heldOnRequestBytesMax: 64 * MiB,
  /** A client that takes or sends nothing for this long holds a place in the engine for nobody. */
  stallMs: 60_000,
  /** How long the rest of a refused body is taken, so that its client hears why. */
  discardMs: 10_000,
  /** An answer that broke in the middle is cut after this, for clients that do not close by themselves when they see why. */
  brokenAnswerMs: 2_000,

  /** max_execution_time where a statement names none, and the most it may name. The collector's OPTIMIZE may take long. */
  ownerSeconds: 600,
  ownerSecondsMax: 86_400,
  readerSeconds: 60,
  readerSecondsMax: 120,
  readerThreadsMax: 4,
  /** Streamed, so this bounds work and not memory. */
  readerResultBytesMax: 1024 * MiB,
  readerSpillBytesMax: 4096 * MiB,

  /** A child that dies at once is started again after this, doubling up to the second. */
  restartMsMin: 100,
  restartMsMax: 5_000,
  /** One that lived this long is started again without delay. */
  steadyMs: 10_000,
  /** A predecessor that was killed needs this to let go of the directory. */
  predecessorMsMax: 15_000,
  /** What a stop waits for statements under way. */
  stopMs: 5_000,
  /** On two cores under 50,000 spans/s the 99th percentile of answers was 28 ms without. */
  niceness: 5,
} as const

assert(
  embeddedLimits.threadPoolSize >= embeddedLimits.ownerStatementsMax + embeddedLimits.readerStatementsMax + 8,
  'statements must leave threads for files and compression',
)
assert(
  embeddedLimits.readerSeconds <= embeddedLimits.readerSecondsMax &&
    embeddedLimits.ownerSeconds <= embeddedLimits.ownerSecondsMax,
)
