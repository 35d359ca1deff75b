-- Records that somebody asked for (a user's, a conversation's), named by their ids and nothing else: what is erased or held
-- is told to each table as "in this selection", so that no statement is as long as a user's life, and none that the server
-- keeps (system.mutations) names the user.
--   Kind  'trace' (Id; all of it), 'span' (Id and SpanId), 'candidate' (a trace to be looked at), 'text' and 'unshown text' (Id is
--         a hash), 'record' (Id is the hash of a quarantined one)
-- ORDER BY serves "the ids of this selection". Nobody needs one for longer than its work takes.
CREATE TABLE IF NOT EXISTS {database}.record_selections
(
    `Selection` String CODEC(ZSTD(1)),
    `Kind` LowCardinality(String) CODEC(ZSTD(1)),
    `Id` String CODEC(ZSTD(1)),
    `SpanId` String CODEC(ZSTD(1)),
    `MadeAt` DateTime DEFAULT now() CODEC(Delta(4), ZSTD(1))
)
ENGINE = {engine}
ORDER BY (Selection, Kind, Id, SpanId)
TTL MadeAt + toIntervalDay(2);
