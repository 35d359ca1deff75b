// The front door of the package.
export type { Redact } from './calls/content-attributes.ts'
export type { Counter } from './counters.ts'
export { type Instrumentation, type InstrumentOptions, instrument, running } from './instrument.ts'
export type { BaseUrl } from './providers/endpoint.ts'
export { version } from './version.ts'
