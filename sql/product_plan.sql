--
-- Plans of queries with data products: what is computed does not depend on costs and settings. The cached rows come
-- from a writer without Kafka (test/writer), in a database that has no consumer.
--
CREATE DATABASE product_plan;
\c product_plan
\set SHOW_CONTEXT never
CREATE EXTENSION kafka_cache_fdw;
SET client_min_messages = warning;
\set ECHO none
\i test/writer/kcf_writer.sql
\set ECHO all
RESET client_min_messages;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');

CREATE FUNCTION one(k int, OUT n int, OUT rows int[]) LANGUAGE sql STABLE AS 'SELECT k * 2, ARRAY[k, k + 1]';
CREATE FUNCTION two(a int, b text) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT to_jsonb(b || a)';
CREATE FOREIGN TABLE p (k int OPTIONS (key 'true') NOT NULL, n int, rows int[])
	SERVER kafka OPTIONS (compute 'public.one');
CREATE FOREIGN TABLE q (k int OPTIONS (key 'true') NOT NULL, n int, rows int[])
	SERVER kafka OPTIONS (compute 'public.one');
CREATE FOREIGN TABLE r (a int OPTIONS (key 'true') NOT NULL, b text OPTIONS (key 'true') NOT NULL,
	v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (compute 'public.two', key_format 'json');
CREATE FOREIGN TABLE plain (k int OPTIONS (key 'true') NOT NULL, name text) SERVER kafka;
CREATE TABLE o (id int PRIMARY KEY, k int, c int, name text, ks int[]);
CREATE TABLE c (id int PRIMARY KEY, k int, name text);
INSERT INTO o SELECT i, i % 20, i % 50, 'o' || i, ARRAY[i, i + 1] FROM generate_series(1, 100) i;
INSERT INTO c SELECT i, i % 7, 'c' || i FROM generate_series(1, 1000) i;
ANALYZE o, c;
SELECT kcf_writer.fill(t, 'SELECT i, i * 2, NULL FROM generate_series(1, 10) i') FROM unnest('{p,q}'::regclass[]) t;
SELECT kcf_writer.fill('r', 'SELECT i, ''x'', ''{}'' FROM generate_series(1, 10) i');
SELECT kcf_writer.fill('plain', 'SELECT i, ''x'' FROM generate_series(1, 1000) i');

-- What a plan does with each product, in whatever order the nodes are: its lines of access, without costs.
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		RETURN NEXT line;
	END LOOP;
END $$;
CREATE FUNCTION access(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
	RETURN (WITH RECURSIVE node AS (
			SELECT plan->0->'Plan' AS n
			UNION ALL
			SELECT json_array_elements(n->'Plans') FROM node WHERE n->'Plans' IS NOT NULL)
		SELECT string_agg((n->>'Alias') || ': ' || (n->>'Cache Access'), ', ' ORDER BY n->>'Alias')
			|| CASE WHEN (plan->0->'Plan'->>'Total Cost')::float8 >= 1e15 THEN ', a detour' ELSE '' END
		FROM node WHERE n->>'Cache Access' IS NOT NULL AND n->>'Alias' <> 'plain');
END $$;

-- conditions of its own
SELECT plan('SELECT * FROM p WHERE k = 1');
SELECT plan('SELECT * FROM p WHERE k IN (1, 2) AND n > 1');
SELECT plan('SELECT * FROM p WHERE k > 1');
SELECT plan('SELECT * FROM p');
SELECT plan('SELECT * FROM r WHERE a = 1 AND b = ''x''');
SELECT plan('SELECT * FROM r WHERE a = 1');
SELECT plan('SELECT * FROM p WHERE k = 1 OR k = 2');
SELECT access('SELECT * FROM p WHERE k = (SELECT max(k) FROM o)');
SELECT access('SELECT * FROM p WHERE k = ANY (ARRAY(SELECT k FROM o))');
PREPARE by_key(int) AS SELECT * FROM p WHERE k = $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE by_key(1);
RESET plan_cache_mode;

-- what is cached is read as it is, where the statement has a row of it for its target
SELECT plan('DELETE FROM p WHERE k = 1');
SELECT plan('DELETE FROM p');
SELECT plan('DELETE FROM p USING o WHERE p.k = o.k AND o.id = 3');
SELECT plan('DELETE FROM p USING q WHERE p.k = q.k AND q.n > 3');
SELECT plan('INSERT INTO p SELECT * FROM q WHERE k = 5');
SELECT plan('UPDATE p SET n = 1 WHERE k = 1');
-- readonly is for tables that others produce
SELECT is_insertable_into FROM information_schema.tables WHERE table_name = 'p';
SELECT is_updatable FROM information_schema.columns WHERE table_name = 'p' AND column_name = 'n';

-- joins: after all that decides which keys are asked for
SET enable_mergejoin = off;
SELECT plan('SELECT * FROM o JOIN p ON p.k = o.k');
SELECT plan('SELECT * FROM p JOIN o ON p.k = o.k WHERE o.id < 5');
SELECT plan('SELECT * FROM o JOIN p ON p.k = o.k JOIN c ON c.id = o.c WHERE c.name = ''c3''');
SELECT plan('SELECT * FROM o JOIN p ON p.k = o.k JOIN c ON c.id = p.n');
SELECT plan('SELECT * FROM o LEFT JOIN p ON p.k = o.k');
SELECT plan('SELECT * FROM p LEFT JOIN o ON p.k = o.k');
SELECT plan('SELECT * FROM o FULL JOIN p ON p.k = o.k');
SELECT plan('SELECT * FROM o JOIN p ON p.k = o.k WHERE EXISTS (SELECT FROM c WHERE c.id = o.c AND c.k = 3)');
SELECT access('SELECT * FROM o JOIN p ON p.k = o.k WHERE NOT EXISTS (SELECT FROM c WHERE c.id = o.c AND c.k = 3)');
SELECT plan('SELECT * FROM p WHERE k IN (SELECT k FROM o WHERE id < 5)');
SELECT plan('SELECT * FROM o WHERE EXISTS (SELECT FROM p WHERE p.k = o.k AND p.n > 1)');
SELECT plan('SELECT * FROM o WHERE NOT EXISTS (SELECT FROM p WHERE p.k = o.k AND p.n > 1)');
SELECT plan('SELECT * FROM o JOIN r ON r.a = o.k AND r.b = o.name');
SELECT plan('SELECT * FROM o JOIN r ON r.a = o.k WHERE r.b = ''x''');
SELECT plan('SELECT * FROM o, c, r WHERE r.a = o.k AND r.b = c.name AND o.id < 3 AND c.id < 3');

-- products that have each other
SELECT plan('SELECT * FROM p JOIN q ON p.k = q.k');
SELECT plan('SELECT * FROM q JOIN p ON p.k = q.k');
SELECT plan('SELECT * FROM o JOIN p ON p.k = o.k JOIN q ON q.k = p.n');
SELECT plan('SELECT * FROM q JOIN p ON q.k = p.n JOIN o ON p.k = o.k');
SELECT plan('SELECT * FROM p JOIN q ON p.k = q.k WHERE q.k = 3');

RESET enable_mergejoin;
-- Whatever the planner is told, a product is read the same way.
CREATE TABLE query (id int GENERATED ALWAYS AS IDENTITY, text text);
INSERT INTO query (text) VALUES
	('SELECT * FROM o JOIN p ON p.k = o.k'),
	('SELECT * FROM o LEFT JOIN p ON p.k = o.k'),
	('SELECT * FROM (o JOIN p ON p.k = o.k) JOIN c ON c.id = o.c'),
	('SELECT * FROM (c CROSS JOIN p) JOIN o ON p.k = o.k AND c.id = o.c'),
	('SELECT * FROM (p CROSS JOIN c) LEFT JOIN o ON p.k = o.k AND c.id = o.c WHERE o.id = 3'),
	('SELECT * FROM p JOIN (o LEFT JOIN c ON c.id = o.c) ON p.k = o.k'),
	('SELECT * FROM p JOIN (o LEFT JOIN c ON c.id = o.c) ON p.k = coalesce(c.k, 0)'),
	('SELECT * FROM o LEFT JOIN (p JOIN c ON p.n = c.id) ON p.k = o.k'),
	('SELECT * FROM o LEFT JOIN (p JOIN c ON p.k = c.k) ON c.id = o.c'),
	('SELECT * FROM o LEFT JOIN (c LEFT JOIN p ON p.k = c.k) ON c.id = o.c'),
	('SELECT * FROM o LEFT JOIN p ON p.k = o.k JOIN c ON c.id = o.c'),
	('SELECT * FROM o FULL JOIN (p JOIN c ON p.k = c.k) ON c.id = o.c'),
	('SELECT * FROM (o FULL JOIN c ON c.id = o.c) JOIN p ON p.k = coalesce(o.k, c.k)'),
	('SELECT * FROM p LEFT JOIN o ON p.k = o.k'),
	('SELECT * FROM o FULL JOIN p ON p.k = o.k'),
	('SELECT * FROM o FULL JOIN p USING (k) WHERE k = 3'),
	('SELECT * FROM p WHERE k IN (SELECT k FROM o)'),
	('SELECT * FROM p WHERE k IN (SELECT o.k FROM o JOIN c ON c.id = o.c)'),
	('SELECT * FROM p JOIN c ON c.id = p.n WHERE p.k IN (SELECT k FROM o)'),
	('SELECT * FROM p JOIN c ON c.k = p.k WHERE p.k IN (SELECT k FROM o)'),
	('SELECT * FROM p WHERE NOT EXISTS (SELECT FROM o WHERE o.k = p.k)'),
	('SELECT * FROM o WHERE EXISTS (SELECT FROM p WHERE p.k = o.k)'),
	('SELECT * FROM o WHERE k IN (SELECT k FROM p)'),
	('SELECT * FROM o WHERE k IN (SELECT k FROM p WHERE n > 3)'),
	('SELECT * FROM o WHERE NOT EXISTS (SELECT FROM p WHERE p.k = o.k)'),
	('SELECT * FROM o WHERE EXISTS (SELECT FROM p JOIN c ON c.id = p.n WHERE p.k = o.k)'),
	('SELECT * FROM o JOIN p ON p.k = o.k WHERE EXISTS (SELECT FROM c WHERE c.id = o.c)'),
	('SELECT * FROM o JOIN p ON p.k = o.k WHERE NOT EXISTS (SELECT FROM c WHERE c.id = o.c)'),
	('SELECT * FROM o JOIN p ON p.k = o.k WHERE EXISTS (SELECT FROM c WHERE c.id = p.n)'),
	('SELECT * FROM o JOIN p ON p.k = o.k WHERE NOT EXISTS (SELECT FROM c WHERE c.id = p.n)'),
	('SELECT * FROM o, LATERAL unnest(o.ks) u JOIN p ON p.k = u'),
	('SELECT * FROM o JOIN p ON p.k = ANY (o.ks)'),
	('SELECT * FROM o JOIN p ON p.k = o.k, LATERAL unnest(p.rows) e'),
	('SELECT * FROM o, LATERAL (SELECT * FROM p WHERE p.k = o.k) l'),
	('SELECT * FROM o, LATERAL (SELECT * FROM p WHERE p.k = o.k LIMIT 1) l'),
	('SELECT *, (SELECT n FROM p WHERE p.k = o.k) FROM o'),
	('WITH w AS MATERIALIZED (SELECT * FROM o) SELECT * FROM w JOIN p ON p.k = w.k'),
	('WITH w AS (SELECT * FROM p) SELECT * FROM w JOIN o ON o.k = w.k'),
	('SELECT * FROM (SELECT k FROM o UNION SELECT k FROM c) u JOIN p ON p.k = u.k'),
	('SELECT * FROM (SELECT k FROM o UNION ALL SELECT k FROM c) u JOIN p ON p.k = u.k'),
	('SELECT * FROM (SELECT k, n FROM p UNION ALL SELECT k, n FROM q) u JOIN o ON o.k = u.k'),
	('SELECT * FROM (SELECT k, n FROM p UNION ALL SELECT id, k FROM c) u JOIN o ON o.k = u.k'),
	('SELECT * FROM (SELECT k, count(*) FROM o GROUP BY k) g JOIN p ON p.k = g.k'),
	('SELECT * FROM (VALUES (1), (2)) v(k) JOIN p USING (k)'),
	('SELECT * FROM generate_series(1, 3) g JOIN p ON p.k = g'),
	('SELECT * FROM plain JOIN p ON p.k = plain.k'),
	('SELECT * FROM plain JOIN p USING (k) JOIN o USING (k)'),
	('SELECT * FROM p JOIN q ON p.k = q.k'),
	('SELECT * FROM p LEFT JOIN q ON p.k = q.k'),
	('SELECT * FROM p RIGHT JOIN q ON p.k = q.k'),
	('SELECT * FROM p JOIN q ON p.k = q.k JOIN o ON o.id = q.n'),
	('SELECT * FROM o JOIN p ON p.k = o.k JOIN q ON q.k = o.k'),
	('SELECT * FROM o JOIN p ON p.k = o.k JOIN q ON q.k = p.n'),
	('SELECT * FROM o LEFT JOIN p ON p.k = o.k LEFT JOIN q ON q.k = p.n'),
	('SELECT * FROM o LEFT JOIN (p LEFT JOIN q ON q.k = p.n) ON p.k = o.k'),
	('SELECT * FROM o LEFT JOIN (p JOIN q ON q.k = p.n) ON p.k = o.k'),
	('SELECT * FROM p JOIN q ON p.k = q.k JOIN o ON o.k = q.k JOIN r ON r.a = p.n AND r.b = o.name'),
	('SELECT * FROM r JOIN q ON q.k = r.a JOIN p ON p.k = q.n JOIN o ON o.id = r.a AND o.name = r.b'),
	('SELECT * FROM p a JOIN p b ON b.k = a.n JOIN o ON o.k = a.k'),
	('SELECT * FROM o, c, r WHERE r.a = o.k AND r.b = c.name AND o.id < 3'),
	('SELECT * FROM o LEFT JOIN r ON r.a = o.k AND r.b = o.name'),
	('SELECT * FROM o LEFT JOIN (r JOIN c ON c.name = r.b) ON r.a = o.k'),
	('SELECT * FROM (SELECT k, sum(n) FROM p GROUP BY k) g WHERE k = 3'),
	('SELECT * FROM (SELECT k, sum(n) FROM p GROUP BY k) g JOIN o USING (k)'),
	('SELECT p.k, count(*) FROM o JOIN p ON p.k = o.k GROUP BY p.k ORDER BY 2 LIMIT 3'),
	('SELECT * FROM o JOIN p ON p.k = o.k JOIN c ON c.id = p.n JOIN q ON q.k = c.k');
CREATE TABLE setting (list text);
INSERT INTO setting VALUES ('enable_nestloop=off'), ('enable_hashjoin=off'), ('enable_mergejoin=off'),
	('enable_hashjoin=off enable_mergejoin=off'), ('enable_nestloop=off enable_hashjoin=off'),
	('enable_indexscan=off'), ('enable_seqscan=off'), ('enable_memoize=off enable_material=off'),
	('geqo_threshold=2'), ('geqo_threshold=2 geqo_seed=0.7 enable_nestloop=off'), ('join_collapse_limit=1'),
	('from_collapse_limit=1 join_collapse_limit=1'), ('geqo=off'), ('enable_hashagg=off enable_sort=off'),
	('parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0 max_parallel_workers_per_gather=2'),
	('random_page_cost=0 cpu_operator_cost=10'), ('enable_partitionwise_join=on');
CREATE FUNCTION access_with(settings text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	setting text;
	result text;
BEGIN
	FOREACH setting IN ARRAY string_to_array(settings, ' ') LOOP
		PERFORM set_config(split_part(setting, '=', 1), split_part(setting, '=', 2), true);
	END LOOP;
	result := access(query);
	FOREACH setting IN ARRAY string_to_array(settings, ' ') LOOP
		EXECUTE 'RESET ' || split_part(setting, '=', 1);
	END LOOP;
	RETURN result;
END $$;
SELECT id, text, access(text) FROM query ORDER BY id;
SELECT text, list, access, other FROM query, setting,
	LATERAL (SELECT access(text), access_with(list, text) AS other) x
	WHERE access IS DISTINCT FROM other ORDER BY id, list;

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE product_plan;
