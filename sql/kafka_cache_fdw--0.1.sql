-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION kafka_cache_fdw" to load this file. \quit

-- The schema must not exist yet: what somebody else has put there could be taken for ours.
CREATE SCHEMA kafka_cache;
COMMENT ON SCHEMA kafka_cache IS 'views and functions of kafka_cache_fdw';
GRANT USAGE ON SCHEMA kafka_cache TO PUBLIC;

CREATE FUNCTION kafka_cache.kafka_cache_fdw_handler() RETURNS pg_catalog.fdw_handler
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'kafka_cache_fdw_handler';
COMMENT ON FUNCTION kafka_cache.kafka_cache_fdw_handler() IS 'handler of the foreign data wrapper';

CREATE FUNCTION kafka_cache.kafka_cache_fdw_validator(pg_catalog.text[], pg_catalog.oid) RETURNS pg_catalog.void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'kafka_cache_fdw_validator';
COMMENT ON FUNCTION kafka_cache.kafka_cache_fdw_validator(pg_catalog.text[], pg_catalog.oid) IS 'checks the options of servers, user mappings, tables and columns';

CREATE FOREIGN DATA WRAPPER kafka_cache_fdw
	HANDLER kafka_cache.kafka_cache_fdw_handler
	VALIDATOR kafka_cache.kafka_cache_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER kafka_cache_fdw IS 'compacted Kafka topics as in-memory tables';

-- Rows of the views. Each function leaves out what the caller has no right to see.

CREATE FUNCTION kafka_cache.get_tables(
	OUT relation pg_catalog.regclass,
	OUT topic pg_catalog.text,
	OUT state pg_catalog.text,
	OUT ready pg_catalog.bool,
	OUT entries pg_catalog.int8,
	OUT bytes pg_catalog.int8,
	OUT records pg_catalog.int8,
	OUT upserts pg_catalog.int8,
	OUT tombstones pg_catalog.int8,
	OUT errors pg_catalog.int8,
	OUT ignored pg_catalog.int8,
	OUT lag pg_catalog.int8,
	OUT staleness pg_catalog.interval,
	OUT progress pg_catalog.float8,
	OUT loaded_at pg_catalog.timestamptz,
	OUT cross_partition_keys pg_catalog.int8,
	OUT key_spellings pg_catalog.int8,
	OUT reloads pg_catalog.int8,
	OUT message pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'kafka_cache_tables';
COMMENT ON FUNCTION kafka_cache.get_tables() IS 'rows of the view kafka_cache.tables';

CREATE FUNCTION kafka_cache.get_partitions(
	OUT relation pg_catalog.regclass,
	OUT partition pg_catalog.int4,
	OUT low pg_catalog.int8,
	OUT "position" pg_catalog.int8,
	OUT target pg_catalog.int8,
	OUT high pg_catalog.int8,
	OUT lag pg_catalog.int8)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'kafka_cache_partitions';
COMMENT ON FUNCTION kafka_cache.get_partitions() IS 'rows of the view kafka_cache.partitions';

CREATE FUNCTION kafka_cache.get_errors(
	OUT relation pg_catalog.regclass,
	OUT partition pg_catalog.int4,
	OUT "offset" pg_catalog.int8,
	OUT record_time pg_catalog.timestamptz,
	OUT reason pg_catalog.text,
	OUT column_name pg_catalog.name,
	OUT message pg_catalog.text,
	OUT noticed_at pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'kafka_cache_errors';
COMMENT ON FUNCTION kafka_cache.get_errors() IS 'rows of the view kafka_cache.errors';

CREATE FUNCTION kafka_cache.get_workers(
	OUT pid pg_catalog.int4,
	OUT kind pg_catalog.text,
	OUT database pg_catalog.name,
	OUT state pg_catalog.text,
	OUT started_at pg_catalog.timestamptz,
	OUT restarts pg_catalog.int8,
	OUT message pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'kafka_cache_workers';
COMMENT ON FUNCTION kafka_cache.get_workers() IS 'rows of the view kafka_cache.workers';

CREATE VIEW kafka_cache.tables AS
	SELECT t.relation, t.topic, t.state, t.ready, t.entries, t.bytes, t.records, t.upserts, t.tombstones, t.errors,
		   t.ignored, t.lag, t.staleness, t.progress, t.loaded_at, t.cross_partition_keys, t.key_spellings, t.reloads,
		   t.message
	FROM kafka_cache.get_tables() t;
COMMENT ON VIEW kafka_cache.tables IS 'cached tables of this database: how each is doing';
COMMENT ON COLUMN kafka_cache.tables.relation IS 'the foreign table';
COMMENT ON COLUMN kafka_cache.tables.topic IS 'the Kafka topic it shows';
COMMENT ON COLUMN kafka_cache.tables.state IS 'starting, connecting, loading, ready, stalled, topic_missing, auth_failed, waiting_for_transaction, full, failed or stopped';
COMMENT ON COLUMN kafka_cache.tables.ready IS 'are complete contents served? True also while they are cut off from Kafka or a reload is under way';
COMMENT ON COLUMN kafka_cache.tables.entries IS 'rows';
COMMENT ON COLUMN kafka_cache.tables.bytes IS 'shared memory that the table uses';
COMMENT ON COLUMN kafka_cache.tables.records IS 'records seen: always upserts + tombstones + errors + ignored';
COMMENT ON COLUMN kafka_cache.tables.upserts IS 'records that were values of keys';
COMMENT ON COLUMN kafka_cache.tables.tombstones IS 'records that were deletions of keys';
COMMENT ON COLUMN kafka_cache.tables.errors IS 'records that could not be decoded, see kafka_cache.errors';
COMMENT ON COLUMN kafka_cache.tables.ignored IS 'records that were known already';
COMMENT ON COLUMN kafka_cache.tables.lag IS 'offsets between the position and the end of the topic, over all partitions; NULL: the end is not known';
COMMENT ON COLUMN kafka_cache.tables.staleness IS 'time since the contents were last known to be at the end of every partition; NULL: never';
COMMENT ON COLUMN kafka_cache.tables.progress IS 'of the load: 0 at its start, 1 when every partition has reached its target';
COMMENT ON COLUMN kafka_cache.tables.loaded_at IS 'when the present contents became ready';
COMMENT ON COLUMN kafka_cache.tables.cross_partition_keys IS 'keys met in several partitions; the newest record of all wins';
COMMENT ON COLUMN kafka_cache.tables.key_spellings IS 'keys met in several spellings that their type takes as equal';
COMMENT ON COLUMN kafka_cache.tables.reloads IS 'how often the contents were read again from the log';
COMMENT ON COLUMN kafka_cache.tables.message IS 'the state in words, for the owner and pg_monitor';

CREATE VIEW kafka_cache.partitions AS
	SELECT p.relation, p.partition, p.low, p."position", p.target, p.high, p.lag
	FROM kafka_cache.get_partitions() p;
COMMENT ON VIEW kafka_cache.partitions IS 'partitions of the cached tables of this database; offsets are those of records, -1 for none';
COMMENT ON COLUMN kafka_cache.partitions.relation IS 'the foreign table';
COMMENT ON COLUMN kafka_cache.partitions.partition IS 'number of the partition';
COMMENT ON COLUMN kafka_cache.partitions.low IS 'first offset that the log still has';
COMMENT ON COLUMN kafka_cache.partitions."position" IS 'last offset that has been passed';
COMMENT ON COLUMN kafka_cache.partitions.target IS 'last offset at the start of the load: passing it makes the partition ready';
COMMENT ON COLUMN kafka_cache.partitions.high IS 'last offset that the broker is known to have; NULL: not known';
COMMENT ON COLUMN kafka_cache.partitions.lag IS 'offsets between position and high';

CREATE VIEW kafka_cache.errors AS
	SELECT e.relation, e.partition, e."offset", e.record_time, e.reason, e.column_name, e.message, e.noticed_at
	FROM kafka_cache.get_errors() e;
COMMENT ON VIEW kafka_cache.errors IS 'newest bad record of each key, until a good record or a tombstone of the key heals it';
COMMENT ON COLUMN kafka_cache.errors.relation IS 'the foreign table';
COMMENT ON COLUMN kafka_cache.errors.partition IS 'where the record lies: its partition';
COMMENT ON COLUMN kafka_cache.errors."offset" IS 'where the record lies: its offset';
COMMENT ON COLUMN kafka_cache.errors.record_time IS 'the record''s own timestamp';
COMMENT ON COLUMN kafka_cache.errors.reason IS 'encoding, json, json_shape, convert, range, not_null, check, key, key_mismatch, null_key, too_large or headers';
COMMENT ON COLUMN kafka_cache.errors.column_name IS 'the column that it is about';
COMMENT ON COLUMN kafka_cache.errors.message IS 'the reason in words, never the value; for the owner and pg_monitor';
COMMENT ON COLUMN kafka_cache.errors.noticed_at IS 'when the record was read';

CREATE VIEW kafka_cache.workers AS
	SELECT w.pid, w.kind, w.database, w.state, w.started_at, w.restarts, w.message
	FROM kafka_cache.get_workers() w;
COMMENT ON VIEW kafka_cache.workers IS 'background processes of the extension; of other databases for pg_monitor only';
COMMENT ON COLUMN kafka_cache.workers.pid IS 'process, NULL while it does not run';
COMMENT ON COLUMN kafka_cache.workers.kind IS 'launcher, consumer or producer';
COMMENT ON COLUMN kafka_cache.workers.database IS 'the database it works for';
COMMENT ON COLUMN kafka_cache.workers.state IS 'running, starting, stopped, failed, backoff (started again soon), no_slot (max_worker_processes) or withdrawn (a command needs the database)';
COMMENT ON COLUMN kafka_cache.workers.started_at IS 'when it was last started';
COMMENT ON COLUMN kafka_cache.workers.restarts IS 'how often it was started again after a failure';
COMMENT ON COLUMN kafka_cache.workers.message IS 'what there is to say about it, for pg_monitor';

GRANT SELECT ON kafka_cache.tables, kafka_cache.partitions, kafka_cache.errors, kafka_cache.workers TO PUBLIC;

-- Functions on a table need SELECT on it, reload its ownership; they see to that themselves.

CREATE FUNCTION kafka_cache.wait_ready(relation pg_catalog.regclass, timeout pg_catalog.interval DEFAULT '60 s')
	RETURNS pg_catalog.bool
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'kafka_cache_wait_ready';
COMMENT ON FUNCTION kafka_cache.wait_ready(pg_catalog.regclass, pg_catalog.interval) IS 'wait until the table is loaded; false when the time is over';

CREATE FUNCTION kafka_cache."position"(relation pg_catalog.regclass)
	RETURNS pg_catalog.jsonb
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kafka_cache_position';
COMMENT ON FUNCTION kafka_cache."position"(pg_catalog.regclass) IS 'offset of the last record passed in each partition';

CREATE FUNCTION kafka_cache.wait_for(relation pg_catalog.regclass, "position" pg_catalog.jsonb, timeout pg_catalog.interval DEFAULT '10 s')
	RETURNS pg_catalog.bool
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'kafka_cache_wait_for';
COMMENT ON FUNCTION kafka_cache.wait_for(pg_catalog.regclass, pg_catalog.jsonb, pg_catalog.interval) IS 'wait until the table has passed a position; false when the time is over';

CREATE FUNCTION kafka_cache.reload(relation pg_catalog.regclass)
	RETURNS pg_catalog.void
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kafka_cache_reload';
COMMENT ON FUNCTION kafka_cache.reload(pg_catalog.regclass) IS 'read the topic again from its start; the present contents serve meanwhile';

CREATE FUNCTION kafka_cache.settings(OUT name pg_catalog.text, OUT setting pg_catalog.text, OUT meaning pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'kafka_cache_settings';
COMMENT ON FUNCTION kafka_cache.settings() IS 'versions, limits and settings, for bug reports; no secrets';
