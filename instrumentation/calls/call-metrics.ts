// The two metrics that OpenTelemetry's released conventions have for clients. They describe the same calls as the spans, for
// those who watch by metrics; sums and costs come from the spans, and the two are never added.
import type { Attributes, Meter } from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import type { Usage } from '../usage/usage.ts'

export type CallMetrics = { record(described: Attributes, seconds: number, usage: Usage | undefined): void }

const secondsBoundaries = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const tokenBoundaries = Array.from({ length: 14 }, (_, power) => 4 ** power)

export function openCallMetrics(meter: Meter): CallMetrics {
  const duration = meter.createHistogram('gen_ai.client.operation.duration', {
    description: 'GenAI operation duration',
    unit: 's',
    advice: { explicitBucketBoundaries: secondsBoundaries },
  })
  const tokens = meter.createHistogram('gen_ai.client.token.usage', {
    description: 'Number of input and output tokens used',
    unit: '{token}',
    advice: { explicitBucketBoundaries: tokenBoundaries },
  })
  return {
    record(described, seconds, usage) {
      duration.record(seconds, described)
      const { inputTokens, outputTokens } = usage ?? {}
      if (inputTokens !== undefined) tokens.record(inputTokens, { ...described, [attributes.tokenType]: 'input' })
      if (outputTokens !== undefined) tokens.record(outputTokens, { ...described, [attributes.tokenType]: 'output' })
    },
  }
}
