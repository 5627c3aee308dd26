-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION kafka_cache_fdw UPDATE TO '0.2'" to load this file. \quit

-- What 0.2 adds to 0.1. CREATE EXTENSION runs the script of the first version and then this one, so that there is one text of
-- every object, and who updates gets what who installs gets.

CREATE FUNCTION kafka_cache.get_metrics(
	OUT name pg_catalog.text,
	OUT kind pg_catalog.text,
	OUT labels pg_catalog.jsonb,
	OUT value pg_catalog.float8,
	OUT help pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 500 AS 'MODULE_PATHNAME', 'kafka_cache_metrics';
COMMENT ON FUNCTION kafka_cache.get_metrics() IS 'rows of the view kafka_cache.metrics';

CREATE VIEW kafka_cache.metrics AS
	SELECT m.name, m.kind, m.labels, m.value, m.help
	FROM kafka_cache.get_metrics() m;
COMMENT ON VIEW kafka_cache.metrics IS 'figures of the server, of this database and of its cached tables, for monitoring';
COMMENT ON COLUMN kafka_cache.metrics.name IS 'name, by Prometheus'' rules; of a histogram with _bucket, _sum or _count at its end';
COMMENT ON COLUMN kafka_cache.metrics.kind IS 'counter, gauge or histogram';
COMMENT ON COLUMN kafka_cache.metrics.labels IS 'what it is of';
COMMENT ON COLUMN kafka_cache.metrics.value IS 'the figure';
COMMENT ON COLUMN kafka_cache.metrics.help IS 'what it means';
GRANT SELECT ON kafka_cache.metrics TO PUBLIC;

CREATE FUNCTION kafka_cache.metrics_text()
	RETURNS pg_catalog.text
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kafka_cache_metrics_text';
COMMENT ON FUNCTION kafka_cache.metrics_text() IS 'kafka_cache.metrics in Prometheus'' text format';

CREATE FUNCTION kafka_cache.changes(relation pg_catalog.regclass, since pg_catalog.jsonb,
	OUT key pg_catalog.text,
	OUT deleted pg_catalog.bool,
	OUT partition pg_catalog.int4,
	OUT "offset" pg_catalog.int8,
	OUT record_time pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100 AS 'MODULE_PATHNAME', 'kafka_cache_changes';
COMMENT ON FUNCTION kafka_cache.changes(pg_catalog.regclass, pg_catalog.jsonb) IS 'keys that were changed or deleted since a position';

CREATE FUNCTION kafka_cache.wait_for_change(relation pg_catalog.regclass, since pg_catalog.jsonb, timeout pg_catalog.interval DEFAULT '30 s')
	RETURNS pg_catalog.jsonb
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'kafka_cache_wait_for_change';
COMMENT ON FUNCTION kafka_cache.wait_for_change(pg_catalog.regclass, pg_catalog.jsonb, pg_catalog.interval) IS 'wait for a record after a position; the position then, NULL when the time is over';

-- Data products: what can be done with a key in one call. Nothing here is parallel safe, since a function of a user may run.
CREATE FUNCTION kafka_cache.fetch(relation pg_catalog.regclass, VARIADIC key pg_catalog.text[],
	OUT value pg_catalog.jsonb,
	OUT "offset" pg_catalog.int8,
	OUT computed_at pg_catalog.timestamptz,
	OUT stale pg_catalog.bool)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1000 ROWS 1 AS 'MODULE_PATHNAME', 'kafka_cache_fetch';
COMMENT ON FUNCTION kafka_cache.fetch(pg_catalog.regclass, pg_catalog.text[]) IS 'a data product''s value, version and age by key; computed where it is missing, NULL where there is nothing';

CREATE FUNCTION kafka_cache.fetch_many(relation pg_catalog.regclass, keys pg_catalog.text[],
	OUT key pg_catalog.text,
	OUT value pg_catalog.jsonb,
	OUT "offset" pg_catalog.int8,
	OUT computed_at pg_catalog.timestamptz,
	OUT stale pg_catalog.bool,
	OUT sqlstate pg_catalog.text,
	OUT message pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1000 ROWS 100 AS 'MODULE_PATHNAME', 'kafka_cache_fetch_many';
COMMENT ON FUNCTION kafka_cache.fetch_many(pg_catalog.regclass, pg_catalog.text[]) IS 'a data product''s values by keys of one column; for each key a value or an error';

CREATE FUNCTION kafka_cache.set(relation pg_catalog.regclass, key pg_catalog.text[], value pg_catalog.jsonb, expect_offset pg_catalog.int8 DEFAULT NULL)
	RETURNS pg_catalog.int8
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'kafka_cache_set';
COMMENT ON FUNCTION kafka_cache.set(pg_catalog.regclass, pg_catalog.text[], pg_catalog.jsonb, pg_catalog.int8) IS 'put a data product''s value by hand, at once; its offset; 40001 where the present record is not the expected one';

CREATE FUNCTION kafka_cache.purge(relation pg_catalog.regclass, key pg_catalog.text[], expect_offset pg_catalog.int8 DEFAULT NULL)
	RETURNS pg_catalog.bool
	LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'kafka_cache_purge';
COMMENT ON FUNCTION kafka_cache.purge(pg_catalog.regclass, pg_catalog.text[], pg_catalog.int8) IS 'forget a data product''s value, at once; was there one? 40001 where the present record is not the expected one';

-- What makes a product anew: rules, and what ordinary tables' triggers ask for.

CREATE TABLE kafka_cache.refresh_rules (
	product pg_catalog.regclass NOT NULL,
	source pg_catalog.regclass NOT NULL,
	keys pg_catalog.text NOT NULL,
	PRIMARY KEY (product, source));
COMMENT ON TABLE kafka_cache.refresh_rules IS 'on whose changes products are refreshed; written by refresh_on() and refresh_off()';
COMMENT ON COLUMN kafka_cache.refresh_rules.product IS 'the product';
COMMENT ON COLUMN kafka_cache.refresh_rules.source IS 'the table on whose changes it is refreshed';
COMMENT ON COLUMN kafka_cache.refresh_rules.keys IS 'the function that tells the product''s keys from an old and a new row of the source';
SELECT pg_catalog.pg_extension_config_dump('kafka_cache.refresh_rules', '');
GRANT SELECT ON kafka_cache.refresh_rules TO PUBLIC;

CREATE TABLE kafka_cache.refresh_positions (
	product pg_catalog.oid NOT NULL,
	source pg_catalog.oid NOT NULL,
	"position" pg_catalog.jsonb NOT NULL,
	PRIMARY KEY (product, source));
COMMENT ON TABLE kafka_cache.refresh_positions IS 'how far a rule''s source was worked off, with all that this asked for';
COMMENT ON COLUMN kafka_cache.refresh_positions.product IS 'the rule''s product';
COMMENT ON COLUMN kafka_cache.refresh_positions.source IS 'its source';
COMMENT ON COLUMN kafka_cache.refresh_positions."position" IS 'the source''s position';

CREATE TABLE kafka_cache.refresh_log (
	id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY,
	xid pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	product pg_catalog.oid NOT NULL,
	hash pg_catalog.int8,
	key pg_catalog.bytea,
	hints pg_catalog.jsonb);
COMMENT ON TABLE kafka_cache.refresh_log IS 'refreshes that transactions on ordinary tables have asked for, until they are done';
COMMENT ON COLUMN kafka_cache.refresh_log.id IS 'number of the request';
COMMENT ON COLUMN kafka_cache.refresh_log.xid IS 'the transaction';
COMMENT ON COLUMN kafka_cache.refresh_log.product IS 'the product';
COMMENT ON COLUMN kafka_cache.refresh_log.hash IS 'of the key, to find it';
COMMENT ON COLUMN kafka_cache.refresh_log.key IS 'the key as in the topic; NULL: all that are cached';
COMMENT ON COLUMN kafka_cache.refresh_log.hints IS 'rows that have changed, for the product''s augment function';
COMMENT ON SEQUENCE kafka_cache.refresh_log_id_seq IS 'numbers of requests';
CREATE INDEX refresh_log_xid ON kafka_cache.refresh_log (xid);
CREATE INDEX refresh_log_key ON kafka_cache.refresh_log (product, hash);

-- The queue of refreshes of data products.

CREATE FUNCTION kafka_cache.refresh(relation pg_catalog.regclass, VARIADIC key pg_catalog.text[])
	RETURNS pg_catalog.void
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kafka_cache_refresh';
COMMENT ON FUNCTION kafka_cache.refresh(pg_catalog.regclass, pg_catalog.text[]) IS 'have a key of a data product computed anew soon after this transaction';

CREATE FUNCTION kafka_cache.get_refresh_queue(
	OUT relation pg_catalog.regclass,
	OUT key pg_catalog.text,
	OUT requests pg_catalog.int8,
	OUT first_requested pg_catalog.timestamptz,
	OUT attempts pg_catalog.int4,
	OUT not_before pg_catalog.timestamptz,
	OUT message pg_catalog.text)
	RETURNS SETOF pg_catalog.record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'kafka_cache_refresh_queue';
COMMENT ON FUNCTION kafka_cache.get_refresh_queue() IS 'rows of the view kafka_cache.refresh_queue';

CREATE VIEW kafka_cache.refresh_queue AS
	SELECT q.relation, q.key, q.requests, q.first_requested, q.attempts, q.not_before, q.message
	FROM kafka_cache.get_refresh_queue() q;
COMMENT ON VIEW kafka_cache.refresh_queue IS 'keys of data products that are to be computed anew, or are right now';
COMMENT ON COLUMN kafka_cache.refresh_queue.relation IS 'the product';
COMMENT ON COLUMN kafka_cache.refresh_queue.key IS 'the key as text, for those who may read it';
COMMENT ON COLUMN kafka_cache.refresh_queue.requests IS 'how often it was asked for since it was computed last';
COMMENT ON COLUMN kafka_cache.refresh_queue.first_requested IS 'when it was asked for first';
COMMENT ON COLUMN kafka_cache.refresh_queue.attempts IS 'how often it has failed since it was computed last';
COMMENT ON COLUMN kafka_cache.refresh_queue.not_before IS 'after a failure: when it is tried again';
COMMENT ON COLUMN kafka_cache.refresh_queue.message IS 'why it failed; for the owner and pg_monitor';
GRANT SELECT ON kafka_cache.refresh_queue TO PUBLIC;

CREATE FUNCTION kafka_cache.rules_changed()
	RETURNS pg_catalog.trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'kafka_cache_rules_changed';
COMMENT ON FUNCTION kafka_cache.rules_changed() IS 'trigger of kafka_cache.refresh_rules: who works them off is told';
CREATE TRIGGER rules_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kafka_cache.refresh_rules
	FOR EACH STATEMENT EXECUTE FUNCTION kafka_cache.rules_changed();

CREATE FUNCTION kafka_cache.log_changes()
	RETURNS pg_catalog.trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'kafka_cache_log_changes';
COMMENT ON FUNCTION kafka_cache.log_changes() IS 'trigger of ordinary tables on whose changes products are refreshed; made by refresh_on()';

CREATE FUNCTION kafka_cache.refresh_on(product pg_catalog.regclass, source pg_catalog.regclass, keys pg_catalog.regprocedure)
	RETURNS pg_catalog.void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'kafka_cache_refresh_on';
COMMENT ON FUNCTION kafka_cache.refresh_on(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.regprocedure) IS 'refresh a product when a table changes; keys tells which keys, from an old and a new row';

CREATE FUNCTION kafka_cache.refresh_on(product pg_catalog.regclass, source pg_catalog.regclass, keys pg_catalog.text)
	RETURNS pg_catalog.void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'kafka_cache_refresh_on_named';
COMMENT ON FUNCTION kafka_cache.refresh_on(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.text) IS 'the same with the function''s name, as it may be called';

CREATE FUNCTION kafka_cache.refresh_off(product pg_catalog.regclass, source pg_catalog.regclass)
	RETURNS pg_catalog.void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'kafka_cache_refresh_off';
COMMENT ON FUNCTION kafka_cache.refresh_off(pg_catalog.regclass, pg_catalog.regclass) IS 'end what refresh_on() began';
