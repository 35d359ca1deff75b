// Spring AI, through Micrometer, whose key values are texts: counts come as decimals, and what is not known as "none". A tool has
// names of its own, and up to 1.1 the operation of the framework.
import { firstText } from '../attributes.ts'
import { contentIn } from '../reading.ts'
import type { AnyValue, LiftedSpan } from '../record.ts'
import type { Dialect } from './dialect.ts'
import { type OperationKind, operationOf, readOtel } from './otel.ts'

export const springAi: Dialect = {
  name: 'otel',
  // Its calls have no mark of their own: the scope is that of Spring Boot's bridge from Micrometer.
  knows: (span) => span.attributes.has('spring.ai.kind') || (isBridged(span) && operationOf(span) !== ''),
  readSpan: (reading, span) => {
    const kind = kinds.get(firstText(span.attributes, 'spring.ai.kind'))
    return readOtel(reading, inTypes(span), {
      ...(kind === undefined ? {} : { kind }),
      arguments: contentIn(reading, 'spring.ai.tool.call.arguments'),
      result: contentIn(reading, 'spring.ai.tool.call.result'),
    })
  },
}

function isBridged({ scope }: LiftedSpan): boolean {
  return scope.name === 'org.springframework.boot'
}

const kinds: ReadonlyMap<string, OperationKind> = new Map(
  Object.entries<OperationKind>({ chat_client: 'wrapper', tool_call: 'tool' }),
)

const names: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    'spring.ai.tool.call.id': 'gen_ai.tool.call.id',
    'spring.ai.tool.type': 'gen_ai.tool.type',
    'spring.ai.tool.definition.name': 'gen_ai.tool.name',
  }),
)

/** The span as OpenTelemetry would write it. */
function inTypes(span: LiftedSpan): LiftedSpan {
  const attributes = [...span.attributes]
    .filter(([key, value]) => value !== 'none' || !/^gen_ai\.(request|response)\./.test(key))
    .map(([key, value]): [string, AnyValue] => [names.get(key) ?? key, isBridged(span) ? countOf(key, value) : value])
  return { ...span, attributes: new Map(attributes) }
}

/** From any other sender a text is no count. */
function countOf(key: string, value: AnyValue): AnyValue {
  const isDecimal = key.startsWith('gen_ai.usage.') && typeof value === 'string' && /^\d{1,15}$/.test(value)
  return isDecimal ? Number(value) : value
}
