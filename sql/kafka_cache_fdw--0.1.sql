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
