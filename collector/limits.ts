// Every bound of the collector, with its unit in the name and the reason beside it. Bounds that lean on each other are
// asserted at the end, so that a changed number fails at start and not at three in the morning.
import assert from 'node:assert/strict'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

export const limits = {
  /** OTLP 1.11 recommends 64 MiB, before and after decompression. */
  requestBytesMax: 64 * MiB,
  requestInflatedBytesMax: 64 * MiB,
  /** Objects and arrays inside each other in OTLP/JSON. A map in a map is four levels of JSON, so this is more than the walk
   *  renders (64 values deep), and few enough frames for any stack. */
  jsonDepthMax: 512,
  /** The protobuf form of a JSON body. It is smaller than the JSON, save for long arrays of small numbers (8 bytes each). */
  jsonWireBytesMax: 64 * MiB,
  /** Bodies held in memory at once, over all connections; more is answered 503, so that a slow disk cannot fill the heap. */
  bodiesInFlightBytesMax: 128 * MiB,

  /** The text in an answer. Clients read little of an answer (otelcol 64 KiB) and HTTP/2 peers refuse long trailers, where
   *  it stands twice in base64; a request the client believes unanswered is sent again. */
  answerMessageBytesMax: 1 * KiB,
  /** One connection slower than this with its headers, or with headers and body, is holding a slot, not sending. */
  requestHeadersMs: 10_000,
  requestMs: 60_000,
  /** Above the 60 s after which load balancers and exporters drop an idle connection themselves: the side that closes
   *  first should be theirs, or a request is lost in the crossing. */
  connectionIdleMs: 75_000,
  connectionsMax: 10_000,
  /** A refused body up to this size is read and thrown away, which is cheaper than a new connection; a longer one ends
   *  the connection, after reading this much for this long, so that the client gets the answer and not a reset. */
  refusedBodyBytesMax: 256 * KiB,
  refusedBodyMs: 2_000,
  /** How long a tenant over its rates waits for its refusal. Refused at once, 32 connections that heed no Retry-After come back
   *  13,000 times a second and take the event loop from the others; so they come back 64 times. Exporters give an answer 10 s. */
  throttledAnswerMs: 500,
  /** Unary calls open at once on one gRPC connection. */
  grpcStreamsMax: 256,
  /** What a peer may send ahead of us, per call and per connection. Node's 64 KiB costs a 200 KB message three round trips. */
  grpcStreamWindowBytes: 1 * MiB,
  grpcConnectionWindowBytes: 8 * MiB,
  grpcHeadersBytesMax: 16 * KiB,
  /** What a port waits for its last answers at stop, unless told otherwise. */
  receiverStopMs: 5_000,
  /** Inflated on the event loop up to this, about 1 ms; more goes to the thread pool, which costs 0.1 ms a hop but stalls nobody. */
  inflateSyncBytesMax: 1 * MiB,
  /** Bodies inflated in the thread pool at once: each may hold requestInflatedBytesMax, twice that while it is joined. */
  inflateConcurrentMax: 2,
  /** Pools and parallel compressors cut a body into frames; each costs a decoder, so a body of nothing but frames would not end. */
  zstdFramesMax: 1_024,
  /** 8 MiB, all that RFC 9659 allows in Content-Encoding: a frame may ask for 2 GiB of window before its first byte. */
  zstdWindowLogMax: 23,
  /** Each is run over every text, at some 50 ns per sign, and is a value of the label `kind`. */
  ownPatternsMax: 32,
  /** How much of its rate a tenant may save up, in seconds: two batches of an exporter that sends once a second. */
  ingestBurstSeconds: 2,
  /** Tenants whose rate is remembered; the least recently seen is forgotten, and starts again with a full burst. */
  ingestTenantsMax: 10_000,

  /** One insert carries at most this; above it ClickHouse would cut the block, and the repeat of an insert is known by its block. */
  segmentBytesMax: 128 * MiB,
  /** Sealed at this size before its second is over: blocks of this size are used again and again, where larger ones are given
   *  back and page faults and garbage collections take as long as the walk. 70,000 spans of 450 bytes. */
  segmentBytesSealed: 32 * MiB,
  segmentRowsMax: 1_000_000,
  /** A second's rows make one part per table and second, and are what a reader waits for. */
  liveSegmentMsMax: 1_000,
  /** Older days come in backfills; a part per second and day would stop ClickHouse's merges. */
  lateSegmentMsMax: 60_000,
  /** Tables times days in one segment. Each has some fifty buffers. */
  blocksPerSegmentMax: 512,
  /** Up to so much that waits for the sink is kept in memory for it, two segments; behind more than that, rows are read back from
   *  their file. */
  sealedBytesMax: 64 * MiB,
  /** What the journal may hold while ClickHouse is away: an hour at 15 MB/s. */
  journalBytesMax: 50 * GiB,
  /** Left free for the engines on the same volume, whichever is more: a full disk is worse for them than a 503 for us. */
  volumeReserveBytes: 1 * GiB,
  volumeReserveShare: 0.05,
  spaceCheckMs: 250,
  /** A commit of 8 requests or more is followed by one that waits 2 ms for as many. Measured with one span per request on 64
   *  connections: 35 requests to a commit where it were 23, and 9 % less CPU per request. */
  gatherMsMax: 2,
  gatherRequestsMin: 8,
  /** A retry after a lost answer comes within this: exporters give up after one to five minutes. */
  duplicateWindowMs: 300_000,
  /** 20 bytes each, two generations: 20 MiB. Beyond, the window is shorter than asked. */
  duplicateEntriesMax: 524_288,
  sinkRetryMsMin: 250,
  sinkRetryMsMax: 10_000,
  /** ClickHouse's page cache is written back within this where its tables do not sync (ext4: 30 s; with room for a bad day). */
  sinkGraceMs: 900_000,
  sinkRefusedRowsMax: 100,
  /** Facts of recent traces in memory, as text; what was forgotten is read back from ClickHouse when its trace goes on. */
  rememberedFactsBytesMax: 8 * MiB,
  /** Exporters send every few seconds; a trace that was quiet for this long is looked at once more, for what others stored. */
  quietTraceMs: 20_000,
  quietTraceCheckMs: 5_000,
  /** Traces that wait for that look, 300 bytes each; more than 2,000 a second are not all looked at. */
  quietTracesMax: 50_000,
  /** What a collector waits for is told to those that share its ClickHouse. Both ways take less than a trace is quiet before it is
   *  looked at again, so a parent that came before it was awaited is found then. */
  awaitedExchangeMs: 3_000,
  awaitedOverlapMs: 10_000,
  awaitedHeardMsMax: 7_200_000,
  /** Ids of an answer, 3 MiB as one text: twice what one collector keeps for the others while ClickHouse is away. */
  awaitedHeardMax: 200_000,
  awaitedWaitingMax: 100_000,
  /** Of a dictionary's 65,536: the next row goes into another block. A row brings few. */
  rowBlockWordsMax: 32_768,
  /** Of each table's block of rows, from one segment to the next; a block of messages has some 400 bytes a row. */
  rowBlockBytesKept: 8 * MiB,
  /** Names of scopes, and keys of attributes, of which is known how they are read. */
  scopesRemembered: 1_024,
  keysRemembered: 4_096,
  /** Names of texts, 32 bytes each. */
  knownTextsMax: 65_536,
  knownTextsMs: 600_000,
  /** What calls used is said when ClickHouse has their facts; with ClickHouse away for this long, without it. */
  ledgerAwayMs: 5_000,
  /** The ledger's accounts are compared with their entries this often; the entries of a minute are read. */
  quotaCheckMs: 60_000,
  /** Four hours of records are read from ClickHouse each time. */
  quotaReconcileMs: 3_600_000,
  /** Longer than a segment takes into both databases. */
  quotaSettlingMs: 300_000,
  quotaConfirmMs: 10_000,
  quotaDifferencesMax: 10_000,
  /** A record that comes again after this is known by its journal's cursor alone. */
  quotaEventsKeptMs: 40 * 86_400_000,
  /** An insert that hangs must not hold up the end: its segment is in doubt at the next start, and counted. */
  sinkStopMs: 10_000,
  /** A revoked key is refused within 10 s. */
  keysPollMs: 3_000,
  /** Asking for the keys; after it the connection is taken for dead. With one poll lost, still within the 10 s. */
  keysReadMsMax: 4_000,
  /** The embedded Postgres takes 40, of which its readers have 20. */
  /** Configured servers that are looked at: each is a label of two metrics. */
  probesMax: 200,
  /** Text of an error of a server that is not well, and what one calls itself; some answer with whole pages. */
  probeMessageCharsMax: 500,
  /** Of one reply of an MCP server, or one line of a command: what it says of itself at `initialize` has a few KiB. */
  probeReplyBytesMax: 1024 * 1024,
  /** How long the end of a session with an MCP server may take. */
  probeLeaveMs: 1_000,
  /** How often a collector asks for what another holds, and after how long Postgres takes it from one that was not heard of. */
  probeTurnsPollMs: 2_000,
  probeTurnsIdleMsMax: 30_000,
  postgresConnectionsMax: 8,
  postgresConnectMsMax: 5_000,
  /** The ledger's own: its transaction, its sweep, and one to spare. */
  ledgerConnectionsMax: 3,
  /** What a service waits for the ledger before it is told its tenant's policy; a batch takes milliseconds. */
  ledgerAnswerMsMax: 2_000,
  /** Tenants, and calls of all of them, whose verdict is remembered while the ledger is away. 300 bytes each. */
  awayTenantsMax: 10_000,
  awayCallsMax: 100_000,
  /** How soon a changed configuration file is seen. */
  configPollMs: 1_000,
  engineRetryMs: 1_000,

  /** Pairs of provider and model whose price is remembered: a sender that makes up model names must not fill the heap. */
  pricedModelsMax: 10_000,
  /** What stands in a row beside the hash of a text: enough to recognise a message in a list. */
  contentPreviewCharsMax: 200,
  /** Parts of the messages of one call that become rows of their own; the rest becomes one more, as JSON. */
  messagePartsMax: 4_096,
  /** Calls of a trace that run at once, each compared with the next for being told by two instrumentations. */
  openTwinsMax: 64,
  /** Tokens beyond are extrapolated from what stands before: 64 Ki characters take the tokenizer some 10 ms. */
  estimatedCharsMax: 64 * KiB,
  /** The worker that counts tokens holds 75 MB. */
  estimatesIdleMs: 60_000,
  /** Ancestors looked at for an error that was only passed up. */
  passedErrorDepthMax: 256,
  /** A mutation of a small table takes 50 ms; one that rewrites a month is not asked for more often than this. */
  mutationPollMsMin: 25,
  mutationPollMsMax: 1_000,
  /** Traces that are read at once to see whose they are. */
  sharedTracesPerRead: 100,
  /** How often an erasure looks again when records came while it ran. */
  erasureRoundsMax: 5,
  /** How often collectors look for erasures, and how long one that did not look counts as there. */
  erasurePollMs: 1_000,
  collectorSilentMs: 30_000,
  /** Above every retention that can be configured (3,650 days), and so that no time of today ends after 2106, where seconds
   *  of 32 bits begin anew. */
  heldRetentionDays: 25_000,
  /** What arrives under a hold is held when the hold is applied again; no retention is shorter than a day. */
  holdsApplyMs: 600_000,
  /** Last uses of keys are written together. */
  keyUsesFlushMs: 30_000,
  /** A rotated key goes on for a day unless it is said otherwise, and for a month at most. */
  keyGraceSecondsUsual: 86_400,
  keyGraceSecondsMax: 2_678_400,
  /** Traces that are read back and resolved at once, for a later price or after an erasure: others wait for their turn. */
  tracesResolvedAgain: 200,
  /** Traces without a price that are read at once, of one day: some may never get one, and are millions. */
  unpricedTracesPerRead: 5_000,
  /** The last numbers are worth this much of a stop, and no more. */
  metricExportStopMs: 3_000,
  /** A probe that is not read back within this is missing; below the usual minute between two. */
  canaryWaitMsMax: 30_000,
  canaryPollMs: 250,
  /** The body of a call, which is read whole before anything goes out. Providers take at most 32 MiB. */
  proxyRequestBytesMax: 32 * MiB,
  /** All of them at once; more is answered 503. */
  proxyBodiesBytesMax: 128 * MiB,
  /** What waits for a client before the upstream is read no further; as much more may have been read of the upstream, and one
   *  piece of this size be under way. */
  proxyStreamBytesMax: 4 * KiB,
  /** A request with its body; files go to providers, too. */
  proxyRequestMs: 300_000,
  /** A client that takes nothing of what waits for it has gone. */
  proxyStalledMs: 300_000,
  upstreamConnectMs: 10_000,
  /** Models think for minutes, and SDKs give up after ten: theirs is to come first. */
  upstreamHeadersMs: 900_000,
  upstreamSilentMs: 900_000,
  /** Below the 60 s after which load balancers drop an idle connection; a server that says less is believed. */
  upstreamIdleMs: 30_000,
  /** A reply ends when its record is durable, and no later than this. */
  proxyRecordWaitMs: 1_000,
  /** Records that the journal could not take at once, kept in memory for 45 s. */
  proxyRecordsBytesMax: 32 * MiB,
  proxyRecordTriesMax: 10,
  proxyRecordPauseMs: 1_000,
  /** Keys whose gates are kept, with what they have learnt. */
  proxyGatesMax: 1_000,
  /** Pairs of a tenant and an upstream that does not take the option which asks for usage. */
  proxyUnwillingMax: 10_000,
  /** Names that callers give: of conversations, users, services. */
  proxyNameCharsMax: 1_024,
  /** Turns on the page at `/`. */
  statePageTurnsMax: 20,
} as const

assert(limits.bodiesInFlightBytesMax >= limits.requestBytesMax, 'one request of the largest size must fit in flight')
assert(limits.proxyBodiesBytesMax >= limits.proxyRequestBytesMax, 'one call of the largest size must fit in flight')
assert(limits.requestHeadersMs <= limits.requestMs, 'headers are part of a request')
assert(limits.grpcStreamWindowBytes <= limits.grpcConnectionWindowBytes, 'one call may use its whole window')
assert(
  limits.keysPollMs * 2 + limits.keysReadMsMax <= 10_000,
  'a revocation takes effect within 10 s, one reading lost',
)
assert(limits.awaitedExchangeMs * 2 < limits.quietTraceMs, 'what is awaited is known elsewhere before the last look')
assert(limits.heldRetentionDays > 3_650, 'no retention that can be configured says that a row is held')
assert(limits.jsonWireBytesMax < 2 ** 28, 'lengths in converted JSON are written in four bytes of seven bits')

export { GiB, KiB, MiB }
