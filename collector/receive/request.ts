// The one shape in which every receiver hands a request on, and the one in which it gets its outcome back. Receivers know
// transports; what stands behind `Accept` knows OTLP and the journal; neither knows the other.

/** The OTLP signals, named as in the paths `/v1/<signal>`. */
export type Signal = 'traces' | 'metrics' | 'logs'

export type TenantId = string & { readonly brand: 'TenantId' }

/** What a key may do. `admin` includes `query` and key management, not `ingest`. */
export type Role = 'ingest' | 'query' | 'quota' | 'admin'

/** Who asks. `keyId` is the public part of the key, never the secret; '' when admitted by the loopback rule. */
export type Identity = {
  readonly tenant: TenantId
  readonly roles: ReadonlySet<Role>
  /** May name the tenant per record with `tallylight.tenant.id`. */
  readonly manyTenants: boolean
  readonly keyId: string
}

export type ContentEncoding = 'identity' | 'gzip' | 'zstd' | 'deflate'

/** One export request, its body exactly as received: nothing is inflated before the key was checked. */
export type ExportRequest = {
  readonly signal: Signal
  readonly identity: Identity
  readonly encoding: 'protobuf' | 'json'
  readonly contentEncoding: ContentEncoding
  /** The receiver's: its memory is given back once the outcome is known. */
  readonly body: Buffer
}

/** `accepted` means durable: every record is in the journal, or counted in `rejected` with its reason in `message`. */
export type ExportOutcome =
  | { readonly kind: 'accepted'; readonly rejected: number; readonly message: string }
  | { readonly kind: 'malformed'; readonly reason: string }
  | { readonly kind: 'too_large'; readonly reason: string }
  | { readonly kind: 'throttled'; readonly reason: string; readonly retryAfterMs: number }
  | { readonly kind: 'unavailable'; readonly reason: string; readonly retryAfterMs: number }

/** Never throws for what a client sent; a thrown error is a bug or a broken environment, answered 503 and logged. */
export type Accept = (request: ExportRequest) => Promise<ExportOutcome>

const tenantPattern = /^[\p{L}\p{N}][\p{L}\p{N}._:@/-]{0,127}$/u

/** A tenant's name: 1–128 letters, digits and `._:@/-`, starting with a letter or digit. */
export function parseTenantId(text: string): TenantId | undefined {
  return tenantPattern.test(text) ? (text as TenantId) : undefined
}
