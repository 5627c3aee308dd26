--
-- What a computation sees of cached tables in a transaction with a fixed state, with workers too.
--
CREATE DATABASE product_snapshot;
\c product_snapshot
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
CREATE FUNCTION compute(relation regclass, VARIADIC key text[]) RETURNS text
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_compute' LANGUAGE C STRICT;
CREATE FOREIGN TABLE source (id int OPTIONS (key 'true') NOT NULL, v int) SERVER kafka;
SELECT kcf_writer.fill('source', 'SELECT n, n FROM generate_series(1, 50000) n');
CREATE FUNCTION one(id int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(v) FROM public.source WHERE source.id <> one.id';
CREATE FUNCTION several(id int) RETURNS TABLE (s bigint) LANGUAGE sql STABLE PARALLEL SAFE
	AS 'SELECT sum(v) FROM public.source WHERE source.id <> several.id';
CREATE FOREIGN TABLE one_t (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (compute 'public.one');
CREATE FOREIGN TABLE several_t (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (compute 'public.several');
ALTER FUNCTION one RENAME TO other;
SELECT compute('one_t', '0');
ALTER FUNCTION other RENAME TO one;
CREATE FUNCTION twice(id int) RETURNS SETOF text LANGUAGE plpgsql STABLE
	AS 'BEGIN RETURN NEXT (SELECT sum(v) FROM public.source); RETURN NEXT public.compute(''public.one_t'', id::text); END';
CREATE FOREIGN TABLE twice_t (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (compute 'public.twice');
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT * FROM several(0);

-- each computation: what is there now, whatever the transaction sees itself
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(v), compute('one_t', '0'), compute('several_t', '0'), compute('twice_t', '0') FROM source;
SELECT kcf_writer.put('source', 'SELECT n, n FROM generate_series(50001, 50010) n');
SELECT sum(v), compute('one_t', '0'), compute('several_t', '0'), compute('twice_t', '0') FROM source;
DECLARE c CURSOR FOR SELECT id, compute('several_t', '0') FROM source ORDER BY id LIMIT 3;
FETCH 1 FROM c;
SELECT kcf_writer.put('source', 'SELECT 1, 1000');
FETCH 1 FROM c;
SELECT compute('several_t', '0');
SAVEPOINT s;
SELECT compute('one_t', 'x');
ROLLBACK TO s;
SELECT kcf_writer.put('source', 'SELECT 1, 1');
FETCH 1 FROM c;
SELECT sum(v), compute('one_t', '0'), compute('several_t', '0'), compute('twice_t', '0') FROM source;
COMMIT;
SELECT sum(v), compute('one_t', '0'), compute('several_t', '0'), compute('twice_t', '0') FROM source;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT sum(v), compute('one_t', '0'), compute('several_t', '0'), compute('twice_t', '0') FROM source;
COMMIT;

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE product_snapshot;
