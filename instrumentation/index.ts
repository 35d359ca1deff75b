// The front door of the package.
export type { Redact } from './calls/content-attributes.ts'
export type { Counter } from './counters.ts'
export type { HealthCheck } from './health/looks.ts'
export { type Probe, type ProberOptions, startProber } from './health/prober.ts'
export type { RealtimeSocket } from './hooks/websocket.ts'
export {
  type Instrumentation,
  type InstrumentOptions,
  instrument,
  observeRealtime,
  running,
  withQuota,
} from './instrument.ts'
export { type McpOptions, type McpPeer, type McpTransport, observeMcp } from './mcp/mcp-spans.ts'
export type { BaseUrl } from './providers/endpoint.ts'
export type { FailurePolicy, QuotaOverride } from './quota/gate.ts'
export { type Denial, QuotaExceededError, quotaExceededIn } from './quota/quota-exceeded.ts'
export {
  type Audit,
  type RecordedUsage,
  recordAudit,
  recordError,
  recordHealthCheck,
  recordToolCall,
  recordUsage,
  type ToolCall,
} from './records.ts'
export { expressTurn, fastifyTurn, honoTurn, type SceneOf, type TurnOptions } from './turns/middleware.ts'
export { downstreamHeaders, type Scene } from './turns/scene.ts'
export { type ClosingSocket, type SocketTurns, socketTurns } from './turns/socket.ts'
export { failTurn, openTurn, type Turn, type TurnScene, type TurnStatus, turn } from './turns/turn.ts'
export { version } from './version.ts'
