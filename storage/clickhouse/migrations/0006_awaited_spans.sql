-- Parents that some collector waits for, told to all others: who gets such a span lifts it, whatever it says. Ids alone, for two
-- hours. ORDER BY serves "what was told since".
CREATE TABLE IF NOT EXISTS {database}.awaited_spans
(
    `TenantId` LowCardinality(String) CODEC(ZSTD(1)),
    `ToldAt` DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1))
)
ENGINE = {engine}
ORDER BY ToldAt
TTL toDateTime(ToldAt) + toIntervalHour(2);
