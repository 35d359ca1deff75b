-- The client metrics of the GenAI conventions of every service under one name, as they were sent, and derived from the calls of
-- services that do not send them. As views, because rows of calls are superseded and points come late: what was added to a
-- counter could not be taken back.

-- What metrics say of an embedding; NULL in rows of before.
ALTER TABLE {database}.embedding_rows
    ADD COLUMN IF NOT EXISTS `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) AFTER `TraceId`,
    ADD COLUMN IF NOT EXISTS `RequestModel` LowCardinality(String) CODEC(ZSTD(1)) AFTER `Provider`,
    ADD COLUMN IF NOT EXISTS `ErrorType` LowCardinality(String) CODEC(ZSTD(1)) AFTER `PriceVersion`,
    ADD COLUMN IF NOT EXISTS `DurationNano` Nullable(UInt64) CODEC(ZSTD(1)) AFTER `ErrorType`;

-- How far the points of a service reach: whoever began by `Start`, the last of them ends at `Until`. What happened at a time is
-- in a point if the last `Start` before it has an `Until` behind it. A point that does not say when it began speaks for its day.
CREATE VIEW IF NOT EXISTS {database}.genai_metric_coverage AS
SELECT TenantId, ServiceName, MetricName, Start, max(End) OVER (PARTITION BY TenantId, ServiceName, MetricName ORDER BY Start ASC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS Until
FROM
(
    SELECT TenantId, ServiceName, MetricName, if(toUnixTimestamp64Nano(StartTimeUnix) = 0, toDateTime64(toDate(TimeUnix), 9), StartTimeUnix) AS Start, max(TimeUnix) AS End
    FROM
    (
        SELECT TenantId, ServiceName, MetricName, StartTimeUnix, TimeUnix FROM {database}.otel_metrics_histogram WHERE startsWith(MetricName, 'gen_ai.client.')
        UNION ALL
        SELECT TenantId, ServiceName, MetricName, StartTimeUnix, TimeUnix FROM {database}.otel_metrics_exp_histogram WHERE startsWith(MetricName, 'gen_ai.client.')
    )
    GROUP BY TenantId, ServiceName, MetricName, Start
);

-- A derived point is the delta (AggregationTemporality 1) of one minute, in which its calls began, so that a filter on TimeUnix
-- finds their hours. Its attribute `tallylight.metric.derived` says what it is. A call is in it unless a sent point covers its
-- end. Exponential buckets are shown with their bounds, which loses only what is below the first.
CREATE VIEW IF NOT EXISTS {database}.genai_metrics AS
SELECT TenantId, RetentionDays, ResourceAttributes, ScopeName, ServiceName, MetricName, MetricUnit, Attributes, StartTimeUnix, TimeUnix, Count, Sum, BucketCounts, ExplicitBounds, Min, Max, AggregationTemporality
FROM {database}.otel_metrics_histogram
WHERE startsWith(MetricName, 'gen_ai.')
UNION ALL
SELECT TenantId, RetentionDays, ResourceAttributes, ScopeName, ServiceName, MetricName, MetricUnit, Attributes, StartTimeUnix, TimeUnix, Count, Sum, arrayConcat([ZeroCount + arraySum(NegativeBucketCounts)], PositiveBucketCounts, [toUInt64(0)]) AS BucketCounts, arrayMap(bucket -> exp2((PositiveOffset + bucket) * exp2(-Scale)), range(length(PositiveBucketCounts) + 1)) AS ExplicitBounds, Min, Max, AggregationTemporality
FROM {database}.otel_metrics_exp_histogram
WHERE startsWith(MetricName, 'gen_ai.')
UNION ALL
SELECT TenantId, max(RetentionDays) AS RetentionDays, CAST(map('service.name', ServiceName), 'Map(LowCardinality(String), String)') AS ResourceAttributes, 'tallylight' AS ScopeName, ServiceName, MetricName, if(MetricName = 'gen_ai.client.token.usage', '{token}', 's') AS MetricUnit, CAST(mapFilter((name, value) -> value != '', map('error.type', Error, 'gen_ai.operation.name', Operation, 'gen_ai.provider.name', Provider, 'gen_ai.request.model', RequestModel, 'gen_ai.response.model', Model, 'gen_ai.token.type', TokenType, 'tallylight.metric.derived', 'true')), 'Map(LowCardinality(String), String)') AS Attributes, Minute AS StartTimeUnix, Minute + toIntervalMinute(1) AS TimeUnix, count() AS Count, sum(Value) AS Sum, sumForEach(arrayMap(bucket -> toUInt64(bucket = Bucket), range(15))) AS BucketCounts, any(Bounds) AS ExplicitBounds, min(Value) AS Min, max(Value) AS Max, toInt32(1) AS AggregationTemporality
FROM
(
    SELECT calls.TenantId AS TenantId, calls.ServiceName AS ServiceName, RetentionDays, Operation, Provider, RequestModel, Model, Timestamp + toIntervalNanosecond(DurationNano) AS EndTime, toDateTime64(toStartOfMinute(Timestamp), 9) AS Minute, measure.1 AS MetricName, measure.2 AS TokenType, measure.3 AS Error, assumeNotNull(measure.4) AS Value, if(MetricName = 'gen_ai.client.token.usage', [1., 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864], [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]) AS Bounds, arrayCount(bound -> bound < Value, Bounds) AS Bucket
    FROM
    (
        SELECT TenantId, toString(ServiceName) AS ServiceName, RetentionDays, 'chat' AS Operation, Provider, RequestModel, Model, ErrorType, InputTokens, OutputTokens, DurationNano, TimeToFirstTokenNano, Timestamp
        FROM {database}.llm_calls
        UNION ALL
        SELECT TenantId, toString(ServiceName) AS ServiceName, RetentionDays, 'embeddings' AS Operation, Provider, RequestModel, Model, ErrorType, InputTokens, NULL AS OutputTokens, assumeNotNull(DurationNano), NULL AS TimeToFirstTokenNano, Timestamp
        FROM {database}.embedding_rows FINAL
        WHERE DurationNano IS NOT NULL
        SETTINGS do_not_merge_across_partitions_select_final = 1
    ) AS calls
    ARRAY JOIN [
        ('gen_ai.client.token.usage', 'input', '', toFloat64(InputTokens)),
        ('gen_ai.client.token.usage', 'output', '', toFloat64(OutputTokens)),
        ('gen_ai.client.operation.duration', '', toString(ErrorType), toNullable(DurationNano / 1e9)),
        ('gen_ai.client.operation.time_to_first_chunk', '', '', TimeToFirstTokenNano / 1e9)
    ] AS measure
    WHERE measure.4 IS NOT NULL
) AS measures
ASOF LEFT JOIN {database}.genai_metric_coverage AS coverage ON measures.TenantId = coverage.TenantId AND measures.ServiceName = coverage.ServiceName AND measures.MetricName = coverage.MetricName AND measures.EndTime >= coverage.Start
WHERE EndTime > Until
GROUP BY TenantId, ServiceName, MetricName, Minute, Operation, Provider, RequestModel, Model, TokenType, Error
