// All dialects, in the order in which they are asked: those with marks of their own before those that only use OpenTelemetry's
// names. A new dialect is one file and one line here (docs/dialects/README.md).
import { anthropicSdk } from './anthropic-sdk.ts'
import { azureAi } from './azure-ai.ts'
import type { Dialect } from './dialect.ts'
import { geminiCli } from './gemini-cli.ts'
import { http } from './http.ts'
import { langfuse } from './langfuse.ts'
import { langsmith } from './langsmith.ts'
import { mcp } from './mcp.ts'
import { openinference } from './openinference.ts'
import { openlit } from './openlit.ts'
import { openllmetry } from './openllmetry.ts'
import { otel } from './otel.ts'
import { pydanticAi } from './pydantic-ai.ts'
import { springAi } from './spring-ai.ts'
import { strands } from './strands.ts'
import { tallylight } from './tallylight.ts'
import { vercelAi } from './vercel-ai.ts'

export const dialects: readonly Dialect[] = [
  tallylight,
  langfuse,
  langsmith,
  vercelAi,
  // Its processor adds its own names to the AI SDK's spans, and not all that they hold.
  openinference,
  mcp,
  pydanticAi,
  strands,
  anthropicSdk,
  azureAi,
  openlit,
  openllmetry,
  springAi,
  geminiCli,
  otel,
  http,
]
