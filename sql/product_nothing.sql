--
-- The record null of a data product: nothing is there, and that is known; and what a computation sees of cached tables.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
RESET client_min_messages;
CREATE SCHEMA product_nothing;
SET search_path = product_nothing;
CREATE FUNCTION compute(relation regclass, VARIADIC key text[]) RETURNS text
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_compute' LANGUAGE C STRICT;
CREATE FUNCTION scalar(k text) RETURNS text LANGUAGE sql STABLE AS 'SELECT k';
CREATE FUNCTION one(k text, OUT v int, OUT label text) LANGUAGE sql STABLE AS 'SELECT 1, k';
CREATE FUNCTION of_source(k text) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT sum(s.v) FROM product_nothing.source s); END';

SELECT test.mock('topic', 'product_nothing', '1');
SELECT test.mock('produce', 'product_nothing', '0', 'a', '{"v": 1, "label": "x"}');
SELECT test.mock('produce', 'product_nothing', '0', 'b', 'null');
SELECT test.mock('produce', 'product_nothing', '0', 'c', E' \nnull\t');
SELECT test.mock('produce', 'product_nothing', '0', 'd', 'nul');
SELECT test.mock('produce', 'product_nothing', '0', 'e', '"null"');
SELECT test.mock('produce', 'product_nothing', '0', 'f', '[null]');

CREATE FOREIGN TABLE plain (k text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true'), "offset" bigint OPTIONS ("offset" 'true'))
	SERVER kafka OPTIONS (topic 'product_nothing');
CREATE FOREIGN TABLE product (k text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true'), "offset" bigint OPTIONS ("offset" 'true'))
	SERVER kafka OPTIONS (topic 'product_nothing', compute 'product_nothing.scalar', keep_value 'true');
CREATE FOREIGN TABLE mapped (k text OPTIONS (key 'true') NOT NULL, v int NOT NULL, label text CHECK (label <> ''))
	SERVER kafka OPTIONS (topic 'product_nothing', compute 'product_nothing.one');
SELECT test.catch_up('plain'), test.catch_up('product'), test.catch_up('mapped');
SELECT * FROM plain ORDER BY k;
SELECT * FROM product ORDER BY k;
SELECT * FROM mapped ORDER BY k;
SELECT "offset", reason FROM kafka_cache.errors WHERE relation = 'mapped'::regclass ORDER BY 1;
SELECT relation, entries, errors FROM kafka_cache.tables WHERE relation::text IN ('plain', 'product', 'mapped') ORDER BY 1;
SELECT count(*) FROM product;

-- to others it is a deletion; over a row, over nothing, and taken away
SELECT kafka_cache.position('product') AS loaded \gset
SELECT test.mock('produce', 'product_nothing', '0', 'a', 'null');
SELECT test.catch_up('plain'), test.catch_up('product'), test.catch_up('mapped');
SELECT count(*) FILTER (WHERE k = 'a') FROM product;
SELECT key, deleted FROM kafka_cache.changes('plain', :'loaded');
SELECT key, deleted FROM kafka_cache.changes('product', :'loaded');
SELECT test.mock('produce', 'product_nothing', '0', 'b', 'null');
SELECT test.mock('produce', 'product_nothing', '0', 'c', NULL);
SELECT test.mock('produce', 'product_nothing', '0', 'd', '{"v": 4, "label": "y"}');
SELECT test.catch_up('product'), test.catch_up('mapped');
SELECT key, deleted FROM kafka_cache.changes('product', :'loaded') ORDER BY 1;
SELECT * FROM mapped ORDER BY k;
SELECT "offset", reason FROM kafka_cache.errors WHERE relation = 'mapped'::regclass ORDER BY 1;
SELECT test.mock('produce', 'product_nothing', '0', 'b', '{"v": 2, "label": "z"}');
SELECT test.catch_up('product'), test.catch_up('mapped');
SELECT k, v FROM product ORDER BY k;
SELECT * FROM mapped ORDER BY k;

-- a computation sees what is cached now, in a transaction with a fixed state too; which stays fixed for its own reads
SELECT test.mock('topic', 'product_source', '1');
SELECT test.mock('produce', 'product_source', '0', 'a', '{"v": 1}');
CREATE FOREIGN TABLE source (k text OPTIONS (key 'true') NOT NULL, v int) SERVER kafka OPTIONS (topic 'product_source');
CREATE FOREIGN TABLE of_source (k text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka
	OPTIONS (topic 'product_nothing', compute 'product_nothing.of_source');
SELECT test.catch_up('source');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(v), compute('of_source', 'x') FROM source;
SELECT test.mock('produce', 'product_source', '0', 'b', '{"v": 10}');
SELECT test.catch_up('source');
SELECT sum(v), compute('of_source', 'x') FROM source;
SELECT of_source('x'), compute('of_source', 'x'), of_source('x');
DO $$
BEGIN
	PERFORM product_nothing.compute('product_nothing.of_source', NULL);
EXCEPTION WHEN others THEN
	RAISE NOTICE '%', SQLSTATE;
END $$;
SELECT sum(v), compute('of_source', 'x') FROM source;
COMMIT;
SELECT sum(v), compute('of_source', 'x') FROM source;
-- within a statement whose parallel workers are at work
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CREATE TABLE many AS SELECT n FROM generate_series(1, 20000) n;
ANALYZE many;
ALTER FUNCTION compute PARALLEL RESTRICTED;
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		RETURN NEXT substring(line FROM '(Gather|Parallel Seq Scan)');
	END LOOP;
END $$;
\set query 'SELECT compute(\'of_source\', (n % 3)::text) c FROM many WHERE n % 2000 = 0'
SELECT * FROM plan_of(:'query') line WHERE line IS NOT NULL;
SELECT count(*), sum(c::bigint) FROM (:query) q;
CREATE OR REPLACE FUNCTION of_source(k text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN (SELECT sum(s.v) FROM product_nothing.source s); END';
SELECT count(*), sum(c::bigint) FROM (:query) q;

SET client_min_messages = warning;
DROP SERVER kafka CASCADE;
DROP SCHEMA product_nothing CASCADE;
