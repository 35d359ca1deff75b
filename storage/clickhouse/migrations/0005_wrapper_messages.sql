-- What spans around calls hold of messages (turns, agents, chains, records that repeat a call) and what log records say of spans
-- that nobody knows: as `messages`, and not in it, where each message of a call stands once.
CREATE TABLE IF NOT EXISTS {database}.wrapper_message_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Direction` LowCardinality(String) CODEC(ZSTD(1)),
    `Index` UInt32 CODEC(ZSTD(1)),
    `Role` LowCardinality(String) CODEC(ZSTD(1)),
    `ContentHash` String CODEC(ZSTD(1)),
    `ContentBytes` UInt32 CODEC(T64, ZSTD(1)),
    `ContentPreview` String CODEC(ZSTD(1)),
    `ContentType` LowCardinality(String) CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_conversation ConversationId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine:Replacing(Generation, IsDeleted)}
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, Direction, Index)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW IF NOT EXISTS {database}.wrapper_messages AS
SELECT TenantId, TraceId, SpanId, Timestamp, ConversationId, UserId, Direction, Index, Role, if(ContentBytes = length(ContentPreview), ContentPreview, dictGet({database}.genai_texts, 'Text', (toString(TenantId), ContentHash))) AS Content, ContentType, ContentHash, ContentBytes, ContentPreview, RetentionDays, Generation
FROM {database}.wrapper_message_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
