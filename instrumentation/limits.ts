// Every bound of the instrumentation, with its unit in the name and the reason beside it. It lives in a process that is not
// ours: what is held per call has to be small whatever the provider sends.
const KiB = 1024
const MiB = 1024 * KiB

export const limits = {
  /** Up to this a JSON text is kept and parsed whole, which is fastest; what is longer is skimmed as it passes. Common
   *  replies and stream events are far below it. */
  jsonWholeBytesMax: 256 * KiB,
  /** The same for the body of a request: a long conversation is read whole, files in it are not. */
  requestWholeBytesMax: 4 * MiB,
  /** What the skim of one long JSON text may keep. */
  jsonSkimBytesMax: 2 * MiB,
  /** One string of a skimmed text: above it are files and images, whose bytes are no telemetry. */
  jsonSkimStringBytesMax: 256 * KiB,
  /** Objects and arrays inside each other in a skimmed text. */
  jsonSkimDepthMax: 256,
  /** The longest name of an event or header that means anything to us has 40. */
  eventNameBytesMax: 128,
  /** One message of Bedrock's event stream; AWS sends at most 16 MiB of payload. */
  eventStreamMessageBytesMax: 24 * MiB,
  /** What is kept of the text of one reply, in UTF-16 units. */
  replyContentCharsMax: 1 * MiB,
  /** Choices and tool calls of one reply that are told apart; a provider gives at most 128. */
  replyPartsMax: 512,
  /** The body of a request that is held until it is whole. Providers take at most 32 MiB; a longer one passes unread. */
  requestHeldBytesMax: 32 * MiB,
  /** One attribute of content. Collectors take requests of 64 MiB, and a batch has many spans. */
  contentAttributeCharsMax: 2 * MiB,
  /** Spans wait this long for company. A request costs as much as packing twenty spans, so they go in large batches; with
   *  content each may be megabytes, and the batches are small. */
  exportDelayMs: 1_000,
  exportBatchSpansMax: 512,
  exportContentBatchSpansMax: 64,
  /** A batch is tried this often, with pauses that double, so that a collector may take half a minute to come back. */
  exportTriesMax: 6,
  exportPauseMs: 1_000,
  /** The longest pause that a collector may ask for. */
  exportPauseMsMax: 30_000,
  /** Packed; at the usual size of content hours of calls, and no more than a service can spare. */
  exportWaitingBytesMax: 16 * MiB,
  exportTimeoutMs: 10_000,
  exportConnectionsMax: 2,
  /** The most that the end of a process waits for what has not been sent. */
  flushMs: 1_000,
  /** A call waits no longer than this for the gate, and then goes or stays by the policy. */
  quotaTimeoutMs: 2_000,
  /** After this many time-outs or refused connections in a row the gate is not asked for the time below. */
  quotaFailuresMax: 3,
  quotaAwayMs: 5_000,
  /** What the quota service takes for names. Longer ones would be refused, which is no word on the quota. */
  quotaNameCharsMax: 1_024,
  quotaModelCharsMax: 512,
  /** More than any model writes, and few enough that their price in nano-USD fits into 64 bits. */
  estimatedTokensMax: 1_000_000_000,
  /** What the quota service holds a reservation for; longer calls extend it when half of it is over. */
  quotaHoldMs: 60_000,
  /** The longest stream that keeps its hold. */
  quotaHoldMsMax: 3_600_000,
  quotaBatchMax: 256,
  /** What a lease may be spent for: it can be overspent by no more than what is leased, and for no longer. Above a quarter of
   *  quotaHoldMs, so that the same look at holds is in time to extend it. */
  quotaLeaseMs: 30_000,
  /** Calls that a lease is for: twice as many as came since the last. Few at first, for what is leased nobody else may spend. */
  quotaLeaseCallsMin: 16,
  quotaLeaseCallsMax: 4_096,
  /** Subjects with a lease; the one that was used least recently gives its own back. */
  quotaLeasesMax: 1_024,
  /** Bytes of JSON per token of input, until a model has taught us: few, so that the first estimates are too high. */
  bytesPerTokenUsual: 3,
  bytesPerTokenMin: 0.5,
  bytesPerTokenMax: 40,
  /** A picture of usual size. */
  mediaTokensUsual: 1_500,
  /** What a call without a bound of its own may write, until enough calls of its model have been seen. */
  outputTokensUsual: 4_096,
  estimatedOutputsMin: 8,
  estimatedOutputsMax: 64,
  /** Models that something is learnt of; the least recently used is forgotten. */
  estimatedModelsMax: 256,
  /** Tools that a model asked for and whose results are awaited. What takes longer is no tool that a service runs by itself: a
   *  person is asked. */
  askedToolsMax: 1_000,
  /** Their arguments, each in UTF-16 units: what is longer is looked for in the later request, which most providers want whole. */
  askedToolCharsMax: 4_096,
  askedToolMsMax: 600_000,
  /** Requests of one MCP connection that wait for their answer; a peer that never answers must not grow a map for ever. */
  mcpRequestsMax: 10_000,
  /** Between two looks at a server, and how long one may take. */
  probeIntervalMs: 30_000,
  probeTimeoutMs: 5_000,
  /** The last look holds up the end of a process. */
  probeLastTimeoutMsMax: 2_000,
  /** A server that has failed this often in a row is looked at less often, at most by this factor. */
  probeFailuresMax: 3,
  probeSparingFactorMax: 10,
  /** Ways in which the plain events of one stream are written: text, reasoning, arguments, a second choice. */
  plainPatternsMax: 4,
  /** A longer event is worth its parsing. */
  plainEventBytesMax: 4 * KiB,
  /** Events that may be learnt from before any was recognised; each that is learnt from costs as much as ten that are parsed. */
  plainLessonsMax: 16,
  /** Addresses of calls that are not parsed again; a service has one for each model or deployment. */
  knownAddressesMax: 256,
  /** A compressed reply of JSON up to this is inflated in one go, on the thread of the service: a millisecond at the most. */
  inflatedAtOncePackedBytesMax: 64 * KiB,
  inflatedAtOnceBytesMax: 512 * KiB,
  /** Pieces of a stream that are read at once: a dozen events, and little memory for a stream that nobody reads. */
  pieceBatchBytes: 4 * KiB,
  /** A reply that brings nothing for this long, or twice as long, is forgotten. The platform gives up a body after as long, but not
   *  one whose reader has stopped taking: that it keeps for ever. */
  replyIdleMs: 300_000,
  /** An event that may be the usage chunk we asked for is held until it ends; none is near this size. */
  usageEventBytesMax: 64 * KiB,
} as const
