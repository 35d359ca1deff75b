// Errors, health checks and audit events: rows of what happened once.

import { limits } from '../../limits.ts'
import type { Fact, Failure, HealthStatus, Says } from '../fact.ts'
import type { AuditEventRow, ErrorRow, Gone, HealthCheckRow } from '../rows.ts'
import type { Call } from './calls.ts'
import type { ToolCall } from './tools.ts'
import { endOf, type Node, type Trace, turnIdOf } from './trace.ts'

type Told = { readonly node: Node; readonly factId: string; readonly failure: Failure; readonly timestamp: bigint }

/** One row per error, where it happened: a wrapper that only passed it up repeats it, as do records of the same call. */
export function errorRows(
  trace: Trace,
  acts: readonly (Call | ToolCall)[],
  repeated: ReadonlySet<Node>,
  generation: number,
): { readonly rows: readonly ErrorRow[]; readonly gone: readonly Gone[] } {
  const hasErrors = trace.has('error') || trace.nodes.some((node) => node.failure !== undefined)
  if (!hasErrors) return { rows: [], gone: [] }
  const failureOfAct = new Map(acts.map((act) => [act.node, act.failure]))
  const passed = passedUp(trace)
  const isHealth = (node: Node) => node.span?.says.kind === 'health'
  const own = trace.nodes.filter((node) => node.failure !== undefined && !isHealth(node))
  const kept = own.filter((node) => {
    if (node.isProbe) return false
    return failureOfAct.get(node) !== undefined || (!repeated.has(node) && !passed.has(node))
  })
  const told: Told[] = kept.map((node) => ({
    node,
    factId: 'span',
    failure: (failureOfAct.get(node) ?? node.failure) as Failure,
    timestamp: endOf(node),
  }))
  for (const node of trace.nodes)
    for (const fact of node.others)
      if (fact.says.kind === 'error' && fact.says.of === 'itself' && fact.failure !== undefined)
        told.push({ node, factId: fact.id, failure: fact.failure, timestamp: fact.startUnixNano })
  const isKept = new Set(kept)
  return {
    rows: told.map((one) => errorRow(trace, one, generation)),
    gone: own
      .filter((node) => !isKept.has(node))
      .map((node) => ({ table: 'errors' as const, spanId: node.spanId, factId: 'span' })),
  }
}

function errorRow(trace: Trace, { node, factId, failure, timestamp }: Told, generation: number): ErrorRow {
  const fact = node.span ?? (node.others[0] as Fact)
  const place = trace.placeOf(node)
  return {
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    Timestamp: timestamp,
    Generation: generation,
    ServiceName: fact.serviceName,
    SpanId: node.spanId,
    FactId: factId,
    TurnId: turnIdOf(node),
    ConversationId: place.conversationId,
    UserId: place.userId,
    Type: failure.type,
    Message: failure.message,
    Stack: failure.stack,
  }
}

/** Spans whose failure is that of something inside them. */
function passedUp(trace: Trace): ReadonlySet<Node> {
  const passed = new Set<Node>()
  for (const node of trace.nodes) {
    if (node.failure === undefined) continue
    let at = node.parent
    for (let steps = 0; at !== undefined && steps < limits.passedErrorDepthMax; steps++, at = at.parent)
      if (at.failure !== undefined && isSameFailure(at.failure, node.failure)) passed.add(at)
  }
  return passed
}

function isSameFailure(outer: Failure, inner: Failure): boolean {
  if (inner.message !== '' && outer.message !== '') return outer.message.includes(inner.message)
  return outer.type === inner.type || outer.type === 'unknown'
}

/** A ping is seen by both of its ends: the outer one has waited for the answer. */
export function healthRows(
  trace: Trace,
  generation: number,
): { readonly rows: readonly HealthCheckRow[]; readonly gone: readonly Gone[] } {
  if (!trace.has('health') && !trace.has('health-reading')) return { rows: [], gone: [] }
  const checks = trace.nodes.flatMap((node) =>
    [node.span, ...node.others].flatMap((fact) =>
      fact?.says.kind === 'health' ? [{ node, fact, says: fact.says }] : [],
    ),
  )
  const checkOf = new Map(checks.map((check) => [keyOf(check.node, check.says.target), check]))
  const innerOf = Map.groupBy(checks, (check) => outermostCheck(check, checkOf))
  return {
    rows: [
      ...[...innerOf].map(([outer, all]) =>
        healthRow(
          outer,
          all.filter((check) => check !== outer),
          generation,
        ),
      ),
      ...trace.nodes.flatMap((node) => readingsRow(node, generation)),
    ],
    gone: [...innerOf].flatMap(([outer, all]) =>
      all
        .filter((check) => check.node !== outer.node)
        .map((check) => ({ table: 'health_checks' as const, spanId: check.node.spanId })),
    ),
  }
}

function keyOf(node: Node, target: string): string {
  return `${node.spanId} ${target}`
}

type HealthSays = Extract<Says, { readonly kind: 'health' }>
type Check = { readonly node: Node; readonly fact: Fact; readonly says: HealthSays }

function outermostCheck(check: Check, checkOf: ReadonlyMap<string, Check>): Check {
  let outer = check
  for (let at = check.node.parent; at !== undefined; at = at.parent)
    outer = checkOf.get(keyOf(at, check.says.target)) ?? outer
  return outer
}

/** Of the points of a prober that are one look; none as long as nobody has said how it went. */
function readingsRow(node: Node, generation: number): readonly HealthCheckRow[] {
  const readings = node.others.flatMap(({ says }) => (says.kind === 'health-reading' ? [says] : []))
  const statuses = readings.flatMap(({ status }) => status ?? [])
  const [first] = readings
  const fact = node.others.find(({ says }) => says.kind === 'health-reading')
  if (first === undefined || fact === undefined || statuses.length === 0) return []
  return [
    {
      TenantId: fact.tenantId,
      TraceId: fact.traceId,
      Timestamp: fact.startUnixNano,
      Generation: generation,
      SpanId: node.spanId,
      FactId: 'metric',
      Target: first.target,
      Status: worstOf(statuses),
      EventType: first.prober,
      ResponseTimeNano: BigInt(readings.find((one) => one.responseTimeNano !== undefined)?.responseTimeNano ?? 0),
      ErrorMessage: readings.find(({ message }) => message !== '')?.message ?? '',
      Metadata: Object.assign({}, ...readings.map((one) => one.metadata)) as Record<string, string>,
    },
  ]
}

const worst: Readonly<Record<HealthStatus, number>> = { healthy: 0, timeout: 1, unhealthy: 2 }

function worstOf(statuses: readonly HealthStatus[]): HealthStatus {
  return statuses.reduce((so, one) => (worst[one] > worst[so] ? one : so), 'healthy')
}

function healthRow({ node, fact, says }: Check, inner: readonly Check[], generation: number): HealthCheckRow {
  const all = [{ says, fact }, ...inner]
  const failure = all.map((one) => one.fact.failure).find((one) => one !== undefined)
  return {
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    Timestamp: fact.startUnixNano,
    Generation: generation,
    SpanId: node.spanId,
    FactId: fact.id,
    Target: says.target,
    Status: worstOf(all.map((one) => one.says.status)),
    EventType: says.eventType,
    ResponseTimeNano:
      says.responseTimeNano === undefined ? fact.endUnixNano - fact.startUnixNano : BigInt(says.responseTimeNano),
    ErrorMessage: failure?.message || failure?.type || '',
    Metadata: Object.assign({}, ...inner.map((one) => one.says.metadata), says.metadata) as Record<string, string>,
  }
}

export function auditRows(trace: Trace, generation: number): readonly AuditEventRow[] {
  if (!trace.has('audit')) return []
  return trace.nodes.flatMap((node) =>
    [node.span, ...node.others].flatMap((fact) =>
      fact?.says.kind === 'audit' ? [auditRow(node, fact, fact.says, generation)] : [],
    ),
  )
}

function auditRow(
  node: Node,
  fact: Fact,
  says: Extract<Says, { readonly kind: 'audit' }>,
  generation: number,
): AuditEventRow {
  return {
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    Timestamp: fact.startUnixNano,
    Generation: generation,
    SpanId: node.spanId,
    FactId: fact.id,
    Actor: says.actor || (node.scene.userId ?? ''),
    Action: says.action,
    ResourceType: says.resourceType,
    ResourceId: says.resourceId,
    Before: says.before,
    After: says.after,
    ClientAddress: node.scene.clientAddress ?? '',
    UserAgent: node.scene.userAgent ?? '',
  }
}
