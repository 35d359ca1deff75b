// What the embedded engine is told before it opens: sized for two cores that others use too, a bounded memory, and a user
// that lacks every right the collector has no use for. These grants hold whatever the endpoint lets through.

type Value = string | number | Entries | readonly string[]
type Entries = { readonly [name: string]: Value }

export function engineConfig(memoryBytesMax: number, usersPath: string): string {
  const MiB = 1024 * 1024
  const cacheBytes = Math.floor(memoryBytesMax / 16)
  return document({
    users_config: usersPath,
    display_name: 'embedded',
    logger: { level: 'fatal' },
    max_server_memory_usage: memoryBytesMax,
    merges_mutations_memory_usage_soft_limit: Math.floor(memoryBytesMax / 2),
    // The engine compares its count with what the system says this often; its own 50 ms are half of an idle child's time.
    memory_worker_period_ms: 500,
    mark_cache_size: cacheBytes,
    primary_index_cache_size: cacheBytes,
    index_mark_cache_size: Math.floor(cacheBytes / 4),
    text_index_tokens_cache_size: 8 * MiB,
    text_index_header_cache_size: 8 * MiB,
    text_index_postings_cache_size: 8 * MiB,
    vector_similarity_index_cache_size: 8 * MiB,
    parquet_metadata_cache_size: 8 * MiB,
    iceberg_metadata_files_cache_size: 1 * MiB,
    query_condition_cache_size: 8 * MiB,
    compiled_expression_cache_size: 16 * MiB,
    uncompressed_cache_size: 0,
    index_uncompressed_cache_size: 0,
    max_thread_pool_size: 256,
    max_thread_pool_free_size: 8,
    max_io_thread_pool_size: 16,
    max_io_thread_pool_free_size: 0,
    background_pool_size: 2,
    background_merges_mutations_concurrency_ratio: 2,
    background_schedule_pool_size: 2,
    background_move_pool_size: 1,
    background_fetches_pool_size: 1,
    background_common_pool_size: 1,
    asynchronous_metrics_update_period_s: 60,
    dns_cache_update_period: 600,
    merge_tree: {
      // Merges are looked for at once after an insert; these are for tables where nothing happens.
      merge_selecting_sleep_ms: 5_000,
      max_merge_selecting_sleep_ms: 60_000,
      // Parts that were merged or mutated away are looked for this often, and stay no longer: an erasure waits for it.
      cleanup_delay_period: 5,
      cleanup_delay_period_random_add: 1,
      max_cleanup_delay_period: 10,
    },
  })
}

/** FILE is what inserted rows come through (see http-insert.ts). Not granted: URL, S3, REMOTE and other sources, table engines
 *  that reach outside, SHUTDOWN, users, named collections, backups. */
const grants: readonly string[] = [
  'GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE, CHECK, MOVE PARTITION BETWEEN SHARDS, KILL QUERY, dictGet, FILE ON *.*',
  'GRANT SYSTEM FLUSH, SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM DROP CACHE, SYSTEM SYNC REPLICA ON *.*',
]
const engines: readonly string[] = [
  'MergeTree',
  'ReplacingMergeTree',
  'SummingMergeTree',
  'AggregatingMergeTree',
  'CollapsingMergeTree',
  'VersionedCollapsingMergeTree',
  'CoalescingMergeTree',
  'GraphiteMergeTree',
  'Null',
  'Memory',
  'Set',
  'Join',
  'Log',
  'TinyLog',
  'StripeLog',
  'Buffer',
  'Merge',
  'GenerateRandom',
]

export function usersConfig(): string {
  const queries = [...grants, ...engines.map((engine) => `GRANT TABLE ENGINE ON ${engine}`)]
  return document({
    profiles: {
      default: {
        // Rows come whole, and an insert answers when it is made. The engine would else wait to gather them.
        async_insert: 0,
        // Nobody but the engine reads its own notes of statements, and none are kept.
        log_queries: 0,
        max_threads: 2,
        // One conversation or user is asked for by a column that is not in the key. FINAL would read all rows of the tenant; so
        // the keys that match are found first, and FINAL is of those alone. Above so many keys it is as before.
        query_plan_optimize_lazy_final: 1,
        max_rows_for_lazy_final: 5_000,
        // Rows of other tenants, which a granule has too, are left out before FINAL and not behind it. The engine does so with
        // conditions on the sort key alone, of which all rows of a key say the same.
        optimize_move_to_prewhere_if_final: 1,
      },
    },
    quotas: { default: {} },
    users: {
      default: {
        password: '',
        networks: { ip: '::/0' },
        profile: 'default',
        quota: 'default',
        grants: { query: queries },
      },
    },
  })
}

function document(entries: Entries): string {
  return `<clickhouse>${elements(entries)}</clickhouse>\n`
}

function elements(entries: Entries): string {
  return Object.entries(entries)
    .flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).map((one: Value) => `<${name}>${content(one)}</${name}>`),
    )
    .join('')
}

function content(value: Value): string {
  if (typeof value === 'object') return elements(value as Entries)
  return String(value).replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
