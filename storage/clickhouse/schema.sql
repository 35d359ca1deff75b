CREATE TABLE tallylight.audit_event_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `FactId` String CODEC(ZSTD(1)),
    `Actor` String CODEC(ZSTD(1)),
    `Action` LowCardinality(String) CODEC(ZSTD(1)),
    `ResourceType` LowCardinality(String) CODEC(ZSTD(1)),
    `ResourceId` String CODEC(ZSTD(1)),
    `Before` String CODEC(ZSTD(1)),
    `After` String CODEC(ZSTD(1)),
    `ClientAddress` String CODEC(ZSTD(1)),
    `UserAgent` String CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, FactId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.audit_events
(
    `TenantId` LowCardinality(String),
    `Timestamp` DateTime64(9),
    `Actor` String,
    `Action` LowCardinality(String),
    `ResourceType` LowCardinality(String),
    `ResourceId` String,
    `Before` String,
    `After` String,
    `ClientAddress` String,
    `UserAgent` String,
    `TraceId` String,
    `SpanId` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    Timestamp,
    Actor,
    Action,
    ResourceType,
    ResourceId,
    Before,
    After,
    ClientAddress,
    UserAgent,
    TraceId,
    SpanId,
    RetentionDays,
    Generation
FROM tallylight.audit_event_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.awaited_spans
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `ToldAt` DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY ToldAt
TTL toDateTime(ToldAt) + toIntervalHour(2)
SETTINGS index_granularity = 8192;

CREATE TABLE tallylight.embedding_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `Provider` LowCardinality(String) CODEC(ZSTD(1)),
    `RequestModel` LowCardinality(String) CODEC(ZSTD(1)),
    `Model` LowCardinality(String) CODEC(ZSTD(1)),
    `InputTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CostNanoUsd` Nullable(Int64) CODEC(ZSTD(1)),
    `PriceVersion` LowCardinality(String) CODEC(ZSTD(1)),
    `ErrorType` LowCardinality(String) CODEC(ZSTD(1)),
    `DurationNano` Nullable(UInt64) CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.embeddings
(
    `TenantId` LowCardinality(String),
    `TraceId` String,
    `SpanId` String,
    `Timestamp` DateTime64(9),
    `Provider` LowCardinality(String),
    `Model` LowCardinality(String),
    `InputTokens` Nullable(UInt64),
    `CostNanoUsd` Nullable(Int64),
    `PriceVersion` LowCardinality(String),
    `ConversationId` String,
    `UserId` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TraceId,
    SpanId,
    Timestamp,
    Provider,
    Model,
    InputTokens,
    CostNanoUsd,
    PriceVersion,
    ConversationId,
    UserId,
    RetentionDays,
    Generation
FROM tallylight.embedding_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.error_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `FactId` String CODEC(ZSTD(1)),
    `TurnId` String CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Type` LowCardinality(String) CODEC(ZSTD(1)),
    `Message` String CODEC(ZSTD(1)),
    `Stack` String CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, FactId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.errors
(
    `TenantId` LowCardinality(String),
    `ServiceName` LowCardinality(String),
    `Timestamp` DateTime64(9),
    `TraceId` String,
    `SpanId` String,
    `TurnId` String,
    `ConversationId` String,
    `UserId` String,
    `Type` LowCardinality(String),
    `Message` String,
    `Stack` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    ServiceName,
    Timestamp,
    TraceId,
    SpanId,
    TurnId,
    ConversationId,
    UserId,
    Type,
    Message,
    Stack,
    RetentionDays,
    Generation
FROM tallylight.error_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.genai_contents
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Time` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Hash` String CODEC(ZSTD(1)),
    `Text` String CODEC(ZSTD(3)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(Time)
ORDER BY (TenantId, Hash, UserId)
TTL toDateTime(Time) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 256, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.genai_facts
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `FactId` String CODEC(ZSTD(1)),
    `Fact` String CODEC(ZSTD(3)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, TraceId, SpanId, FactId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 256, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.genai_metric_coverage
(
    `TenantId` LowCardinality(String),
    `ServiceName` LowCardinality(String),
    `MetricName` LowCardinality(String),
    `Start` DateTime64(9),
    `Until` DateTime64(9)
)
AS SELECT
    TenantId,
    ServiceName,
    MetricName,
    Start,
    max(End) OVER (PARTITION BY TenantId, ServiceName, MetricName ORDER BY Start ASC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS Until
FROM
(
    SELECT
        TenantId,
        ServiceName,
        MetricName,
        if(toUnixTimestamp64Nano(StartTimeUnix) = 0, toDateTime64(toDate(TimeUnix), 9), StartTimeUnix) AS Start,
        max(TimeUnix) AS End
    FROM
    (
        SELECT
            TenantId,
            ServiceName,
            MetricName,
            StartTimeUnix,
            TimeUnix
        FROM tallylight.otel_metrics_histogram
        WHERE startsWith(MetricName, 'gen_ai.client.')
        UNION ALL
        SELECT
            TenantId,
            ServiceName,
            MetricName,
            StartTimeUnix,
            TimeUnix
        FROM tallylight.otel_metrics_exp_histogram
        WHERE startsWith(MetricName, 'gen_ai.client.')
    )
    GROUP BY
        TenantId,
        ServiceName,
        MetricName,
        Start
);

CREATE VIEW tallylight.genai_metrics
(
    `TenantId` LowCardinality(String),
    `RetentionDays` UInt16,
    `ResourceAttributes` Map(LowCardinality(String), String),
    `ScopeName` String,
    `ServiceName` LowCardinality(String),
    `MetricName` String,
    `MetricUnit` String,
    `Attributes` Map(LowCardinality(String), String),
    `StartTimeUnix` DateTime64(9),
    `TimeUnix` DateTime64(9),
    `Count` UInt64,
    `Sum` Float64,
    `BucketCounts` Array(UInt64),
    `ExplicitBounds` Array(Float64),
    `Min` Float64,
    `Max` Float64,
    `AggregationTemporality` Int32
)
AS SELECT
    TenantId,
    RetentionDays,
    ResourceAttributes,
    ScopeName,
    ServiceName,
    MetricName,
    MetricUnit,
    Attributes,
    StartTimeUnix,
    TimeUnix,
    Count,
    Sum,
    BucketCounts,
    ExplicitBounds,
    Min,
    Max,
    AggregationTemporality
FROM tallylight.otel_metrics_histogram
WHERE startsWith(MetricName, 'gen_ai.')
UNION ALL
SELECT
    TenantId,
    RetentionDays,
    ResourceAttributes,
    ScopeName,
    ServiceName,
    MetricName,
    MetricUnit,
    Attributes,
    StartTimeUnix,
    TimeUnix,
    Count,
    Sum,
    arrayConcat([ZeroCount + arraySum(NegativeBucketCounts)], PositiveBucketCounts, [toUInt64(0)]) AS BucketCounts,
    arrayMap(bucket -> exp2((PositiveOffset + bucket) * exp2(-Scale)), range(length(PositiveBucketCounts) + 1)) AS ExplicitBounds,
    Min,
    Max,
    AggregationTemporality
FROM tallylight.otel_metrics_exp_histogram
WHERE startsWith(MetricName, 'gen_ai.')
UNION ALL
SELECT
    TenantId,
    max(RetentionDays) AS RetentionDays,
    CAST(map('service.name', ServiceName), 'Map(LowCardinality(String), String)') AS ResourceAttributes,
    'tallylight' AS ScopeName,
    ServiceName,
    MetricName,
    if(MetricName = 'gen_ai.client.token.usage', '{token}', 's') AS MetricUnit,
    CAST(mapFilter((name, value) -> (value != ''), map('error.type', Error, 'gen_ai.operation.name', Operation, 'gen_ai.provider.name', Provider, 'gen_ai.request.model', RequestModel, 'gen_ai.response.model', Model, 'gen_ai.token.type', TokenType, 'tallylight.metric.derived', 'true')), 'Map(LowCardinality(String), String)') AS Attributes,
    Minute AS StartTimeUnix,
    Minute + toIntervalMinute(1) AS TimeUnix,
    count() AS Count,
    sum(Value) AS Sum,
    sumForEach(arrayMap(bucket -> toUInt64(bucket = Bucket), range(15))) AS BucketCounts,
    any(Bounds) AS ExplicitBounds,
    min(Value) AS Min,
    max(Value) AS Max,
    toInt32(1) AS AggregationTemporality
FROM
(
    SELECT
        calls.TenantId AS TenantId,
        calls.ServiceName AS ServiceName,
        RetentionDays,
        Operation,
        Provider,
        RequestModel,
        Model,
        Timestamp + toIntervalNanosecond(DurationNano) AS EndTime,
        toDateTime64(toStartOfMinute(Timestamp), 9) AS Minute,
        measure.1 AS MetricName,
        measure.2 AS TokenType,
        measure.3 AS Error,
        assumeNotNull(measure.4) AS Value,
        if(MetricName = 'gen_ai.client.token.usage', [1., 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864], [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]) AS Bounds,
        arrayCount(bound -> (bound < Value), Bounds) AS Bucket
    FROM
    (
        SELECT
            TenantId,
            toString(ServiceName) AS ServiceName,
            RetentionDays,
            'chat' AS Operation,
            Provider,
            RequestModel,
            Model,
            ErrorType,
            InputTokens,
            OutputTokens,
            DurationNano,
            TimeToFirstTokenNano,
            Timestamp
        FROM tallylight.llm_calls
        UNION ALL
        SELECT
            TenantId,
            toString(ServiceName) AS ServiceName,
            RetentionDays,
            'embeddings' AS Operation,
            Provider,
            RequestModel,
            Model,
            ErrorType,
            InputTokens,
            NULL AS OutputTokens,
            assumeNotNull(DurationNano),
            NULL AS TimeToFirstTokenNano,
            Timestamp
        FROM tallylight.embedding_rows
        FINAL
        WHERE DurationNano IS NOT NULL
        SETTINGS do_not_merge_across_partitions_select_final = 1
    ) AS calls
    ARRAY JOIN [('gen_ai.client.token.usage', 'input', '', toFloat64(InputTokens)), ('gen_ai.client.token.usage', 'output', '', toFloat64(OutputTokens)), ('gen_ai.client.operation.duration', '', toString(ErrorType), toNullable(DurationNano / 1000000000.)), ('gen_ai.client.operation.time_to_first_chunk', '', '', TimeToFirstTokenNano / 1000000000.)] AS measure
    WHERE (measure.4) IS NOT NULL
) AS measures
ASOF LEFT JOIN tallylight.genai_metric_coverage AS coverage ON (measures.TenantId = coverage.TenantId) AND (measures.ServiceName = coverage.ServiceName) AND (measures.MetricName = coverage.MetricName) AND (measures.EndTime >= coverage.Start)
WHERE EndTime > Until
GROUP BY
    TenantId,
    ServiceName,
    MetricName,
    Minute,
    Operation,
    Provider,
    RequestModel,
    Model,
    TokenType,
    Error;

CREATE DICTIONARY tallylight.genai_texts
(
    `TenantId` String,
    `Hash` String,
    `Text` String
)
PRIMARY KEY TenantId, Hash
SOURCE(CLICKHOUSE(QUERY 'SELECT TenantId, Hash, Text FROM `dumped`.genai_contents'))
LAYOUT(COMPLEX_KEY_DIRECT());

CREATE TABLE tallylight.health_check_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `FactId` String CODEC(ZSTD(1)),
    `Target` LowCardinality(String) CODEC(ZSTD(1)),
    `Status` LowCardinality(String) CODEC(ZSTD(1)),
    `EventType` LowCardinality(String) CODEC(ZSTD(1)),
    `ResponseTimeNano` UInt64 CODEC(ZSTD(1)),
    `ErrorMessage` String CODEC(ZSTD(1)),
    `Metadata` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, FactId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.health_checks
(
    `TenantId` LowCardinality(String),
    `TraceId` String,
    `SpanId` String,
    `Timestamp` DateTime64(9),
    `Target` LowCardinality(String),
    `Status` LowCardinality(String),
    `EventType` LowCardinality(String),
    `ResponseTimeNano` UInt64,
    `ErrorMessage` String,
    `Metadata` Map(LowCardinality(String), String),
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TraceId,
    SpanId,
    Timestamp,
    Target,
    Status,
    EventType,
    ResponseTimeNano,
    ErrorMessage,
    Metadata,
    RetentionDays,
    Generation
FROM tallylight.health_check_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.llm_call_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `TenantLabel` LowCardinality(String) CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `TurnId` String CODEC(ZSTD(1)),
    `CallId` String CODEC(ZSTD(1)),
    `Attempt` UInt32 CODEC(ZSTD(1)),
    `Provider` LowCardinality(String) CODEC(ZSTD(1)),
    `RequestModel` LowCardinality(String) CODEC(ZSTD(1)),
    `Model` LowCardinality(String) CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `ResponseId` String CODEC(ZSTD(1)),
    `Streaming` Bool CODEC(ZSTD(1)),
    `InputTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CacheReadTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CacheWriteTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `OutputTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `ReasoningTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `UsageSource` LowCardinality(String) CODEC(ZSTD(1)),
    `CostNanoUsd` Nullable(Int64) CODEC(ZSTD(1)),
    `PriceVersion` LowCardinality(String) CODEC(ZSTD(1)),
    `FinishReason` LowCardinality(String) CODEC(ZSTD(1)),
    `ErrorType` LowCardinality(String) CODEC(ZSTD(1)),
    `DurationNano` UInt64 CODEC(ZSTD(1)),
    `TimeToFirstTokenNano` Nullable(UInt64) CODEC(ZSTD(1)),
    `IsProbe` Bool CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_conversation ConversationId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.llm_calls
(
    `TenantId` LowCardinality(String),
    `TenantLabel` LowCardinality(String),
    `ServiceName` LowCardinality(String),
    `TraceId` String,
    `SpanId` String,
    `TurnId` String,
    `CallId` String,
    `Attempt` UInt32,
    `Timestamp` DateTime64(9),
    `Provider` LowCardinality(String),
    `RequestModel` LowCardinality(String),
    `Model` LowCardinality(String),
    `ConversationId` String,
    `UserId` String,
    `ResponseId` String,
    `Streaming` Bool,
    `InputTokens` Nullable(UInt64),
    `CacheReadTokens` Nullable(UInt64),
    `CacheWriteTokens` Nullable(UInt64),
    `OutputTokens` Nullable(UInt64),
    `ReasoningTokens` Nullable(UInt64),
    `UsageSource` LowCardinality(String),
    `CostNanoUsd` Nullable(Int64),
    `PriceVersion` LowCardinality(String),
    `FinishReason` LowCardinality(String),
    `ErrorType` LowCardinality(String),
    `DurationNano` UInt64,
    `TimeToFirstTokenNano` Nullable(UInt64),
    `IsProbe` Bool,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TenantLabel,
    ServiceName,
    TraceId,
    SpanId,
    TurnId,
    CallId,
    Attempt,
    Timestamp,
    Provider,
    RequestModel,
    Model,
    ConversationId,
    UserId,
    ResponseId,
    Streaming,
    InputTokens,
    CacheReadTokens,
    CacheWriteTokens,
    OutputTokens,
    ReasoningTokens,
    UsageSource,
    CostNanoUsd,
    PriceVersion,
    FinishReason,
    ErrorType,
    DurationNano,
    TimeToFirstTokenNano,
    IsProbe,
    RetentionDays,
    Generation
FROM tallylight.llm_call_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.message_rows
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
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, Direction, Index)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.messages
(
    `TenantId` LowCardinality(String),
    `TraceId` String,
    `SpanId` String,
    `Timestamp` DateTime64(9),
    `ConversationId` String,
    `UserId` String,
    `Direction` LowCardinality(String),
    `Index` UInt32,
    `Role` LowCardinality(String),
    `Content` String,
    `ContentType` LowCardinality(String),
    `ContentHash` String,
    `ContentBytes` UInt32,
    `ContentPreview` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TraceId,
    SpanId,
    Timestamp,
    ConversationId,
    UserId,
    Direction,
    Index,
    Role,
    if(ContentBytes = length(ContentPreview), ContentPreview, dictGet(tallylight.genai_texts, 'Text', (toString(TenantId), ContentHash))) AS Content,
    ContentType,
    ContentHash,
    ContentBytes,
    ContentPreview,
    RetentionDays,
    Generation
FROM tallylight.message_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.otel_logs
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `TraceFlags` UInt8,
    `SeverityText` LowCardinality(String) CODEC(ZSTD(1)),
    `SeverityNumber` UInt8,
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `Body` String CODEC(ZSTD(1)),
    `ResourceSchemaUrl` LowCardinality(String) CODEC(ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeSchemaUrl` LowCardinality(String) CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` LowCardinality(String) CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `LogAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `EventName` String CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, ServiceName, toDateTime(Timestamp), Timestamp)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_metrics_exp_histogram
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ResourceSchemaUrl` String CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)),
    `ScopeSchemaUrl` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricDescription` String CODEC(ZSTD(1)),
    `MetricUnit` String CODEC(ZSTD(1)),
    `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `StartTimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Count` UInt64 CODEC(ZSTD(1)),
    `Sum` Float64 CODEC(ZSTD(1)),
    `Scale` Int32 CODEC(ZSTD(1)),
    `ZeroCount` UInt64 CODEC(ZSTD(1)),
    `ZeroThreshold` Float64 CODEC(ZSTD(1)),
    `PositiveOffset` Int32 CODEC(ZSTD(1)),
    `PositiveBucketCounts` Array(UInt64) CODEC(ZSTD(1)),
    `NegativeOffset` Int32 CODEC(ZSTD(1)),
    `NegativeBucketCounts` Array(UInt64) CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    `Flags` UInt32 CODEC(ZSTD(1)),
    `Min` Float64 CODEC(ZSTD(1)),
    `Max` Float64 CODEC(ZSTD(1)),
    `AggregationTemporality` Int32 CODEC(ZSTD(1)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_metrics_gauge
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ResourceSchemaUrl` String CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)),
    `ScopeSchemaUrl` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricDescription` String CODEC(ZSTD(1)),
    `MetricUnit` String CODEC(ZSTD(1)),
    `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `StartTimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Value` Float64 CODEC(ZSTD(1)),
    `Flags` UInt32 CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_metrics_histogram
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ResourceSchemaUrl` String CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)),
    `ScopeSchemaUrl` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricDescription` String CODEC(ZSTD(1)),
    `MetricUnit` String CODEC(ZSTD(1)),
    `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `StartTimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Count` UInt64 CODEC(ZSTD(1)),
    `Sum` Float64 CODEC(ZSTD(1)),
    `BucketCounts` Array(UInt64) CODEC(ZSTD(1)),
    `ExplicitBounds` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    `Flags` UInt32 CODEC(ZSTD(1)),
    `Min` Float64 CODEC(ZSTD(1)),
    `Max` Float64 CODEC(ZSTD(1)),
    `AggregationTemporality` Int32 CODEC(ZSTD(1)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_metrics_sum
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ResourceSchemaUrl` String CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)),
    `ScopeSchemaUrl` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricDescription` String CODEC(ZSTD(1)),
    `MetricUnit` String CODEC(ZSTD(1)),
    `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `StartTimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Value` Float64 CODEC(ZSTD(1)),
    `Flags` UInt32 CODEC(ZSTD(1)),
    `Exemplars.FilteredAttributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Exemplars.TimeUnix` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Exemplars.Value` Array(Float64) CODEC(ZSTD(1)),
    `Exemplars.SpanId` Array(String) CODEC(ZSTD(1)),
    `Exemplars.TraceId` Array(String) CODEC(ZSTD(1)),
    `AggregationTemporality` Int32 CODEC(ZSTD(1)),
    `IsMonotonic` Bool,
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_metrics_summary
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ResourceSchemaUrl` String CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)),
    `ScopeSchemaUrl` String CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricName` LowCardinality(String) CODEC(ZSTD(1)),
    `MetricDescription` String CODEC(ZSTD(1)),
    `MetricUnit` String CODEC(ZSTD(1)),
    `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `StartTimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Count` UInt64 CODEC(ZSTD(1)),
    `Sum` Float64 CODEC(ZSTD(1)),
    `ValueAtQuantiles.Quantile` Array(Float64) CODEC(ZSTD(1)),
    `ValueAtQuantiles.Value` Array(Float64) CODEC(ZSTD(1)),
    `Flags` UInt32 CODEC(ZSTD(1)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (TenantId, ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
TTL toDateTime(TimeUnix) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_traces
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `ParentSpanId` String CODEC(ZSTD(1)),
    `TraceState` String CODEC(ZSTD(1)),
    `SpanName` LowCardinality(String) CODEC(ZSTD(1)),
    `SpanKind` LowCardinality(String) CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `ScopeName` String CODEC(ZSTD(1)),
    `ScopeVersion` String CODEC(ZSTD(1)),
    `SpanAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `Duration` UInt64 CODEC(ZSTD(1)),
    `StatusCode` LowCardinality(String) CODEC(ZSTD(1)),
    `StatusMessage` String CODEC(ZSTD(1)),
    `Events.Timestamp` Array(DateTime64(9)) CODEC(ZSTD(1)),
    `Events.Name` Array(LowCardinality(String)) CODEC(ZSTD(1)),
    `Events.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    `Links.TraceId` Array(String) CODEC(ZSTD(1)),
    `Links.SpanId` Array(String) CODEC(ZSTD(1)),
    `Links.TraceState` Array(String) CODEC(ZSTD(1)),
    `Links.Attributes` Array(Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_duration Duration TYPE minmax GRANULARITY 1,
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, ServiceName, SpanName, toDateTime(Timestamp))
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.otel_traces_trace_id_ts
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `Start` DateTime CODEC(Delta(4), ZSTD(1)),
    `End` DateTime CODEC(Delta(4), ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TenantId, TraceId, Start)
TTL toDateTime(Start) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.quarantine
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `Segment` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Time` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Signal` LowCardinality(String) CODEC(ZSTD(1)),
    `Reason` LowCardinality(String) CODEC(ZSTD(1)),
    `Message` String CODEC(ZSTD(1)),
    `Format` LowCardinality(String) CODEC(ZSTD(1)),
    `Record` String CODEC(ZSTD(1)),
    INDEX idx_segment Segment TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Time)
ORDER BY (TenantId, Reason, Time)
TTL toDateTime(Time) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE tallylight.record_selections
(
    `Selection` String CODEC(ZSTD(1)),
    `Kind` LowCardinality(String) CODEC(ZSTD(1)),
    `Id` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `MadeAt` DateTime DEFAULT now() CODEC(Delta(4), ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (Selection, Kind, Id, SpanId)
TTL MadeAt + toIntervalDay(2)
SETTINGS index_granularity = 8192;

CREATE TABLE tallylight.schema_migrations
(
    `number` UInt32,
    `name` String,
    `checksum` String,
    `left_alone` Array(String),
    `applied_at` DateTime DEFAULT now()
)
ENGINE = MergeTree
ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, index_granularity = 8192;

CREATE TABLE tallylight.tool_call_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `TenantLabel` LowCardinality(String) CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `TurnId` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `Name` LowCardinality(String) CODEC(ZSTD(1)),
    `CallId` String CODEC(ZSTD(1)),
    `Type` LowCardinality(String) CODEC(ZSTD(1)),
    `Provider` LowCardinality(String) CODEC(ZSTD(1)),
    `McpServer` LowCardinality(String) CODEC(ZSTD(1)),
    `ArgumentsHash` String CODEC(ZSTD(1)),
    `ArgumentsBytes` UInt32 CODEC(T64, ZSTD(1)),
    `ArgumentsPreview` String CODEC(ZSTD(1)),
    `ResultHash` String CODEC(ZSTD(1)),
    `ResultBytes` UInt32 CODEC(T64, ZSTD(1)),
    `ResultPreview` String CODEC(ZSTD(1)),
    `Status` LowCardinality(String) CODEC(ZSTD(1)),
    `ErrorType` LowCardinality(String) CODEC(ZSTD(1)),
    `DurationNano` UInt64 CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_conversation ConversationId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.tool_calls
(
    `TenantId` LowCardinality(String),
    `TenantLabel` LowCardinality(String),
    `ServiceName` LowCardinality(String),
    `TraceId` String,
    `TurnId` String,
    `SpanId` String,
    `Timestamp` DateTime64(9),
    `Name` LowCardinality(String),
    `CallId` String,
    `Type` LowCardinality(String),
    `Provider` LowCardinality(String),
    `McpServer` LowCardinality(String),
    `Arguments` String,
    `Result` String,
    `Status` LowCardinality(String),
    `ErrorType` LowCardinality(String),
    `DurationNano` UInt64,
    `ConversationId` String,
    `UserId` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TenantLabel,
    ServiceName,
    TraceId,
    TurnId,
    SpanId,
    Timestamp,
    Name,
    CallId,
    Type,
    Provider,
    McpServer,
    if(ArgumentsBytes = length(ArgumentsPreview), ArgumentsPreview, dictGet(tallylight.genai_texts, 'Text', (toString(TenantId), ArgumentsHash))) AS Arguments,
    if(ResultBytes = length(ResultPreview), ResultPreview, dictGet(tallylight.genai_texts, 'Text', (toString(TenantId), ResultHash))) AS Result,
    Status,
    ErrorType,
    DurationNano,
    ConversationId,
    UserId,
    RetentionDays,
    Generation
FROM tallylight.tool_call_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.turn_rows
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `RetentionDays` UInt16 CODEC(T64, ZSTD(1)),
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TraceId` String CODEC(ZSTD(1)),
    `TenantLabel` LowCardinality(String) CODEC(ZSTD(1)),
    `ServiceName` LowCardinality(String) CODEC(ZSTD(1)),
    `TurnId` String CODEC(ZSTD(1)),
    `ConversationId` String CODEC(ZSTD(1)),
    `UserId` String CODEC(ZSTD(1)),
    `Channel` LowCardinality(String) CODEC(ZSTD(1)),
    `QuestionPreview` String CODEC(ZSTD(1)),
    `AnswerPreview` String CODEC(ZSTD(1)),
    `Calls` UInt32 CODEC(ZSTD(1)),
    `ToolCalls` UInt32 CODEC(ZSTD(1)),
    `ToolsUsed` Array(LowCardinality(String)) CODEC(ZSTD(1)),
    `McpServers` Array(LowCardinality(String)) CODEC(ZSTD(1)),
    `InputTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CacheReadTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CacheWriteTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `OutputTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `ReasoningTokens` Nullable(UInt64) CODEC(ZSTD(1)),
    `CostNanoUsd` Nullable(Int64) CODEC(ZSTD(1)),
    `DurationNano` UInt64 CODEC(ZSTD(1)),
    `TimeToFirstTokenNano` Nullable(UInt64) CODEC(ZSTD(1)),
    `Status` LowCardinality(String) CODEC(ZSTD(1)),
    `BlockReason` String CODEC(ZSTD(1)),
    `ClientAddress` String CODEC(ZSTD(1)),
    `UserAgent` String CODEC(ZSTD(1)),
    `Generation` UInt32 CODEC(T64, ZSTD(1)),
    `IsDeleted` UInt8 CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_conversation ConversationId TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_user UserId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, TurnId)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.turns
(
    `TenantId` LowCardinality(String),
    `TenantLabel` LowCardinality(String),
    `ServiceName` LowCardinality(String),
    `TurnId` String,
    `TraceId` String,
    `Timestamp` DateTime64(9),
    `ConversationId` String,
    `UserId` String,
    `Channel` LowCardinality(String),
    `QuestionPreview` String,
    `AnswerPreview` String,
    `Calls` UInt32,
    `ToolCalls` UInt32,
    `ToolsUsed` Array(LowCardinality(String)),
    `McpServers` Array(LowCardinality(String)),
    `InputTokens` Nullable(UInt64),
    `CacheReadTokens` Nullable(UInt64),
    `CacheWriteTokens` Nullable(UInt64),
    `OutputTokens` Nullable(UInt64),
    `ReasoningTokens` Nullable(UInt64),
    `CostNanoUsd` Nullable(Int64),
    `DurationNano` UInt64,
    `TimeToFirstTokenNano` Nullable(UInt64),
    `Status` LowCardinality(String),
    `BlockReason` String,
    `ClientAddress` String,
    `UserAgent` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TenantLabel,
    ServiceName,
    TurnId,
    TraceId,
    Timestamp,
    ConversationId,
    UserId,
    Channel,
    QuestionPreview,
    AnswerPreview,
    Calls,
    ToolCalls,
    ToolsUsed,
    McpServers,
    InputTokens,
    CacheReadTokens,
    CacheWriteTokens,
    OutputTokens,
    ReasoningTokens,
    CostNanoUsd,
    DurationNano,
    TimeToFirstTokenNano,
    Status,
    BlockReason,
    ClientAddress,
    UserAgent,
    RetentionDays,
    Generation
FROM tallylight.turn_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE tallylight.wrapper_message_rows
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
ENGINE = ReplacingMergeTree(Generation, IsDeleted)
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, toStartOfHour(Timestamp), TraceId, SpanId, Direction, Index)
TTL toDateTime(Timestamp) + toIntervalDay(RetentionDays)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 0, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE VIEW tallylight.wrapper_messages
(
    `TenantId` LowCardinality(String),
    `TraceId` String,
    `SpanId` String,
    `Timestamp` DateTime64(9),
    `ConversationId` String,
    `UserId` String,
    `Direction` LowCardinality(String),
    `Index` UInt32,
    `Role` LowCardinality(String),
    `Content` String,
    `ContentType` LowCardinality(String),
    `ContentHash` String,
    `ContentBytes` UInt32,
    `ContentPreview` String,
    `RetentionDays` UInt16,
    `Generation` UInt32
)
AS SELECT
    TenantId,
    TraceId,
    SpanId,
    Timestamp,
    ConversationId,
    UserId,
    Direction,
    Index,
    Role,
    if(ContentBytes = length(ContentPreview), ContentPreview, dictGet(tallylight.genai_texts, 'Text', (toString(TenantId), ContentHash))) AS Content,
    ContentType,
    ContentHash,
    ContentBytes,
    ContentPreview,
    RetentionDays,
    Generation
FROM tallylight.wrapper_message_rows
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
