// Points of probers' metrics as facts. A look at a server is several points, of one time, target and resource: those share an id
// in the place of a trace's, under which they find each other however they were batched. Points that say that something was
// not so (four of five classes of status are 0) say nothing.
import { durationNano, firstText, textOfValue } from './attributes.ts'
import { hashOf } from './content.ts'
import type { Fact, HealthStatus, Says } from './fact.ts'
import { isTimeout } from './failure.ts'
import type { Attributes, LiftedPoint } from './record.ts'

type Reading = Omit<Extract<Says, { readonly kind: 'health-reading' }>, 'kind'>

/** Undefined: the point says nothing of a server. */
export function factOfPoint(point: LiftedPoint): Fact | undefined {
  const reading = point.metricName.startsWith('httpcheck.') ? readHttpCheck(point) : readBlackbox(point)
  if (reading === undefined || reading.target === '') return undefined
  const { timeUnixNano } = point
  const resource = textsOf(point.resource)
  return {
    id: `metric.${digestOf([point.metricName, textsOf(point.attributes)])}`,
    tenantId: point.tenantId,
    traceId: `check.${digestOf([resource, reading.target, String(timeUnixNano)])}`,
    spanId: '',
    parentSpanId: '',
    serviceName: firstText(point.resource, 'service.name'),
    dialect: '',
    startUnixNano: timeUnixNano,
    endUnixNano: timeUnixNano,
    scene: {},
    says: { kind: 'health-reading', ...reading },
  }
}

function readHttpCheck({ metricName, attributes, value }: LiftedPoint): Reading | undefined {
  const target = firstText(attributes, 'http.url')
  const reading = (more: Partial<Reading>): Reading => ({
    target,
    prober: 'httpcheck',
    message: '',
    metadata: {},
    ...more,
  })
  switch (metricName) {
    case 'httpcheck.duration':
      return reading(responseTimeOf(value, 1e6))
    case 'httpcheck.error': {
      const message = firstText(attributes, 'error.message')
      const status: HealthStatus = isTimeout({ type: message }) ? 'timeout' : 'unhealthy'
      return value > 0 ? reading({ status, message }) : undefined
    }
    case 'httpcheck.validation.failed': {
      const message = `validation failed: ${firstText(attributes, 'validation.type')}`
      return value > 0 ? reading({ status: 'unhealthy', message }) : undefined
    }
    default: {
      const code = firstText(attributes, 'http.status_code')
      const method = firstText(attributes, 'http.method')
      const isWell = /^[123]/.test(firstText(attributes, 'http.status_class'))
      const said = {
        status: isWell ? ('healthy' as const) : ('unhealthy' as const),
        message: isWell ? '' : `HTTP ${code}`,
      }
      return value > 0 ? reading({ ...said, metadata: { statusCode: code, method } }) : undefined
    }
  }
}

/** As Prometheus's receiver brings it: what was looked at is the instance of the resource. */
function readBlackbox({ metricName, attributes, resource, value }: LiftedPoint): Reading {
  const target = firstText(attributes, 'target', 'instance') || firstText(resource, 'service.instance.id')
  const reading = (more: Partial<Reading>): Reading => ({
    target,
    prober: 'blackbox',
    message: '',
    metadata: {},
    ...more,
  })
  switch (metricName) {
    case 'probe_duration_seconds':
      return reading(responseTimeOf(value, 1e9))
    case 'probe_http_status_code':
      return reading(value > 0 ? { metadata: { statusCode: String(value) } } : {})
    default:
      return reading(value > 0 ? { status: 'healthy' } : { status: 'unhealthy', message: 'probe failed' })
  }
}

function responseTimeOf(value: number, nanosPerUnit: number): Pick<Reading, 'responseTimeNano'> {
  const responseTimeNano = durationNano(value, nanosPerUnit)
  return responseTimeNano === undefined ? {} : { responseTimeNano }
}

function textsOf(attributes: Attributes): readonly (readonly [string, string])[] {
  return [...attributes].map(([key, value]) => [key, textOfValue(value)] as const).sort()
}

function digestOf(parts: readonly unknown[]): string {
  return hashOf(JSON.stringify(parts)).slice(0, 32)
}
