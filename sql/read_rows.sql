--
-- Rows of reading: every query is asked twice, of a cached table and of an ordinary one with the same contents.
--
CREATE DATABASE read_rows;
\c read_rows
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');

-- Tables c.X (cached) and h.X (ordinary) of the same contents. same() asks a query of both, by search_path: "N rows"
-- when they agree.
SET jit = off;
CREATE SCHEMA c;
CREATE SCHEMA h;
CREATE FUNCTION make_both(name text, columns text, key text, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    keys text[] := string_to_array(key, ',');
    def text;
BEGIN
    EXECUTE format('CREATE TABLE h.%I (%s, PRIMARY KEY (%s))', name, columns, key);
    EXECUTE format('INSERT INTO h.%I %s', name, query);
    EXECUTE format('ANALYZE h.%I', name);
    SELECT string_agg(format('%I %s %s', attname, format_type(atttypid, atttypmod),
                             CASE WHEN attname = ANY (keys) THEN 'OPTIONS (key ''true'') NOT NULL' ELSE '' END), ', ' ORDER BY attnum)
    INTO def FROM pg_attribute WHERE attrelid = format('h.%I', name)::regclass AND attnum > 0;
    EXECUTE format('CREATE FOREIGN TABLE c.%I (%s) SERVER kafka OPTIONS (key_format %L)', name, def,
                   CASE WHEN cardinality(keys) > 1 THEN 'json' ELSE 'text' END);
    RETURN kcf_writer.fill(format('c.%I', name)::regclass, format('SELECT * FROM h.%I', name));
END
$$;
CREATE FUNCTION same(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rows text[][];
    answers text[];
    path text;
    n bigint;
BEGIN
    FOREACH path IN ARRAY ARRAY['c', 'h'] LOOP
        PERFORM set_config('search_path', path || ', public', true);
        EXECUTE format('SELECT count(*), string_agg(q::text, E''\n'' ORDER BY q::text) FROM (%s) q', query) INTO n, path;
        answers := answers || COALESCE(path, '');
    END LOOP;
    PERFORM set_config('search_path', 'public', true);
    IF answers[1] IS DISTINCT FROM answers[2] THEN
        RETURN format(E'DIFFERS\n--- cached\n%s\n--- ordinary\n%s', left(answers[1], 1000), left(answers[2], 1000));
    END IF;
    RETURN n || ' rows';
END
$$;

SELECT make_both('t', 'id int, name text, n int, w numeric, j jsonb, a text[], d timestamptz, long text', 'id',
	$$SELECT i, CASE WHEN i % 11 > 0 THEN 'name' || i END, i % 7, i / 8.0, CASE WHEN i % 3 > 0 THEN jsonb_build_object('i', i, 'x', ARRAY[i, 2]) END,
	         ARRAY['a' || i % 5, NULL], '2026-01-01'::timestamptz + i * '1 s'::interval, CASE WHEN i % 2000 = 0 THEN repeat('x' || i, 40000) END
	  FROM generate_series(1, 6000) i$$);
SELECT make_both('o', 'id int, t_id int, t_big bigint, t_small smallint, ids int[]', 'id',
	$$SELECT i, CASE WHEN i % 10 > 0 THEN i * 37 % 9000 END, i * 79::bigint, i % 9000, ARRAY[i, i, NULL, i + 100000, -i] FROM generate_series(1, 1500) i$$);
SELECT make_both('m', 'a int, b text, v int', 'a,b', $$SELECT i % 100, 'b' || i / 100, i FROM generate_series(1, 5000) i$$);
SELECT make_both('e', 'id int, v text', 'id', $$SELECT 1, 'x' WHERE false$$);

CREATE TABLE queries (id serial, query text);
COPY queries (query) FROM stdin;
SELECT * FROM t
SELECT count(*), sum(n), min(name), max(w), count(j), sum(length(long)) FROM t
SELECT * FROM t WHERE id = 17
SELECT * FROM t WHERE 17 = id
SELECT * FROM t WHERE id = 6001
SELECT * FROM t WHERE id = NULL::int
SELECT * FROM t WHERE id = 17 AND n = 3
SELECT * FROM t WHERE id = 17 AND n = 4
SELECT * FROM t WHERE id = 17 AND id = 18
SELECT * FROM t WHERE id = 17::bigint
SELECT * FROM t WHERE id = 17::smallint
SELECT * FROM t WHERE id = 4294967313
SELECT * FROM t WHERE id = 17.0
SELECT * FROM t WHERE id IN (1, 2, 2, 3, NULL, 1, 9999)
SELECT * FROM t WHERE id = ANY ('{1,2,4294967297}'::bigint[])
SELECT * FROM t WHERE id = ANY ('{5}'::smallint[])
SELECT * FROM t WHERE id = ANY ('{{1,2},{3,4}}')
SELECT * FROM t WHERE id = ANY (NULL::int[])
SELECT * FROM t WHERE id = ANY ('{}')
SELECT * FROM t WHERE id NOT IN (1, 2, 3)
SELECT * FROM t WHERE id <> ALL ('{1,2}') AND n = 2
SELECT * FROM t WHERE id = 1 OR id = 2
SELECT * FROM t WHERE id BETWEEN 10 AND 20
SELECT * FROM t WHERE name IS NULL AND n = 5
SELECT * FROM t WHERE id = (SELECT max(t_id) FROM o WHERE t_id < 6000)
SELECT * FROM t WHERE id = ANY (ARRAY(SELECT t_id FROM o WHERE id < 100))
SELECT * FROM t WHERE id IN (SELECT t_id FROM o WHERE id < 100)
SELECT * FROM t WHERE id NOT IN (SELECT t_id FROM o WHERE t_id IS NOT NULL) AND id < 50
SELECT * FROM t WHERE EXISTS (SELECT FROM o WHERE o.t_id = t.id AND o.id < 500)
SELECT * FROM o WHERE NOT EXISTS (SELECT FROM t WHERE o.t_id = t.id)
SELECT * FROM o WHERE NOT EXISTS (SELECT FROM t WHERE o.t_id = t.id AND t.n = 3)
SELECT o.id, t.* FROM o JOIN t ON t.id = o.t_id
SELECT o.id, t.* FROM o LEFT JOIN t ON t.id = o.t_id
SELECT o.id, t.id, t.n FROM o LEFT JOIN t ON t.id = o.t_id AND t.n = 2
SELECT o.id, t.id, t.n FROM o RIGHT JOIN t ON t.id = o.t_id WHERE t.id < 1000
SELECT o.id, t.id FROM o FULL JOIN t ON t.id = o.t_id
SELECT o.id, t.id FROM o JOIN t ON t.id = o.t_big
SELECT o.id, t.id FROM o LEFT JOIN t ON t.id = o.t_big
SELECT o.id, t.id FROM o JOIN t ON t.id = o.t_small
SELECT o.id, t.id FROM o JOIN t ON t.id = o.t_id + 1
SELECT o.id, t.id FROM o JOIN t ON t.id = ANY (o.ids)
SELECT o.id, t.id FROM o LEFT JOIN t ON t.id = ANY (o.ids) AND o.id < 10
SELECT o.id, (SELECT name FROM t WHERE t.id = o.t_id) FROM o
SELECT o.id, l.name FROM o LEFT JOIN LATERAL (SELECT * FROM t WHERE t.id = o.t_id AND t.n < o.id LIMIT 1) l ON true
SELECT o.id, l.* FROM o, LATERAL (SELECT t.id + o.id AS s, t.name FROM t WHERE t.id < 3) l WHERE o.id < 5
SELECT a.id, b.id FROM t a JOIN t b ON a.id = b.n WHERE b.id < 100
SELECT a.id, b.name, c.name FROM t a JOIN t b ON b.id = a.n JOIN t c ON c.id = b.id WHERE a.id < 300
SELECT * FROM m WHERE a = 5 AND b = 'b7'
SELECT * FROM m WHERE b = 'b7' AND a = 5 AND v = 0
SELECT * FROM m WHERE (a, b) = (5, 'b7')
SELECT * FROM m WHERE (a, b) IN ((5, 'b7'), (6, 'b8'), (600, 'b8'))
SELECT * FROM m WHERE a = 5
SELECT * FROM m WHERE a = 5 AND b IN ('b7', 'b8')
SELECT o.id, m.v FROM o JOIN m ON m.a = o.id AND m.b = 'b' || o.t_id % 50
SELECT o.id, m.v FROM o LEFT JOIN m ON m.a = o.id % 100 AND m.b = 'b' || o.id / 100
SELECT o.id, p.id, m.v FROM o JOIN o p ON p.id < 20 JOIN m ON m.a = o.id AND m.b = 'b' || p.id WHERE o.id < 20
SELECT t.id, m.v FROM t JOIN m ON m.a = t.n AND m.b = t.a[1]
SELECT * FROM e
SELECT * FROM e WHERE id = 1
SELECT o.id, e.v FROM o LEFT JOIN e ON e.id = o.id WHERE o.id < 5
SELECT count(*) FROM e
SELECT t FROM t WHERE id < 50
SELECT row_to_json(t) FROM t WHERE id < 50
SELECT (t).name, (t).j->>'i' FROM t WHERE id < 50
SELECT o.id, t FROM o LEFT JOIN t ON t.id = o.t_id
SELECT tableoid::regclass::text = 't', id FROM t WHERE id < 5
SELECT n, count(*), array_agg(id ORDER BY id DESC) FILTER (WHERE id < 100) FROM t GROUP BY n
SELECT DISTINCT n, a FROM t
SELECT id, rank() OVER (PARTITION BY n ORDER BY w) FROM t
(SELECT * FROM t ORDER BY id DESC LIMIT 10 OFFSET 5)
SELECT * FROM t WHERE id < 100 UNION ALL SELECT * FROM t WHERE id = 5
SELECT id FROM t EXCEPT SELECT t_id FROM o
SELECT id, d FROM t WHERE d > '2026-01-01 01:30' AND j @> '{"i": 5999}'
SELECT * FROM t TABLESAMPLE SYSTEM (100) WHERE false
SELECT count(*) FROM t a, t b WHERE a.n = b.id
SELECT generate_series(1, n), id FROM t WHERE id IN (3, 4)
WITH x AS MATERIALIZED (SELECT * FROM t WHERE n = 1), y AS (SELECT * FROM x WHERE id % 2 = 0) SELECT * FROM y JOIN t USING (id)
WITH RECURSIVE r AS (SELECT id, n FROM t WHERE id = 6000 UNION SELECT t.id, t.n FROM r JOIN t ON t.id = r.id / 2) SELECT * FROM r
SELECT * FROM t WHERE id IN (SELECT unnest(ids) FROM o WHERE id < 20)
SELECT CASE WHEN EXISTS (SELECT FROM t WHERE t.id = o.t_id) THEN 'y' ELSE 'n' END, o.id FROM o
SELECT length(long), md5(long) FROM t WHERE long IS NOT NULL
SELECT length(string_agg(long, '' ORDER BY id)) FROM t
\.

-- as planned, and with one kind of plan after the other
CREATE FUNCTION ask_all(setting text) RETURNS TABLE (query text, answer text) LANGUAGE plpgsql AS $$
DECLARE
    word text;
BEGIN
    FOREACH word IN ARRAY string_to_array(setting, ' ') LOOP
        PERFORM set_config(split_part(word, '=', 1), split_part(word, '=', 2), true);
    END LOOP;
    RETURN QUERY SELECT q.query, same(q.query) FROM queries q ORDER BY q.id;
END
$$;
\pset format unaligned
\t on
DELETE FROM queries WHERE query LIKE '%TABLESAMPLE%';
SELECT * FROM ask_all('work_mem=8MB');
-- no line but the first runs may say that something differs
SELECT * FROM ask_all('enable_hashjoin=off enable_mergejoin=off') WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('enable_nestloop=off enable_hashjoin=off') WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('enable_nestloop=off enable_mergejoin=off') WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('enable_indexscan=off enable_bitmapscan=off') WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('enable_seqscan=off enable_memoize=off') WHERE answer LIKE 'DIFF%';
SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END AS force_parallel \gset
SELECT * FROM ask_all('parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0 ' || :'force_parallel' || '=on') WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0 max_parallel_workers_per_gather=4 parallel_leader_participation=off')
	WHERE answer LIKE 'DIFF%';
SELECT * FROM ask_all('work_mem=64 enable_material=off') WHERE answer LIKE 'DIFF%';
\pset format aligned
\t off

-- keys of every kind: each row is found by its own key, and by nobody else's
CREATE TYPE color AS ENUM ('red', 'green', 'blue');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
SELECT make_both('k_uuid', 'k uuid, v int', 'k', 'SELECT md5(i::text)::uuid, i FROM generate_series(1, 300) i');
SELECT make_both('k_text', 'k text, v int', 'k', 'SELECT repeat(chr(64 + i % 26), i % 50) || i, i FROM generate_series(1, 300) i UNION ALL SELECT '''', 0 UNION ALL SELECT repeat(''y'', 5000), -1');
SELECT make_both('k_varchar', 'k varchar(20), v int', 'k', 'SELECT ''k'' || i, i FROM generate_series(1, 300) i');
SELECT make_both('k_char', 'k char(8), v int', 'k', 'SELECT ''k'' || i, i FROM generate_series(1, 300) i');
SELECT make_both('k_name', 'k name, v int', 'k', 'SELECT ''k'' || i, i FROM generate_series(1, 300) i');
SELECT make_both('k_bytea', 'k bytea, v int', 'k', 'SELECT decode(md5(i::text), ''hex''), i FROM generate_series(1, 300) i');
SELECT make_both('k_int2', 'k int2, v int', 'k', 'SELECT i - 150, i FROM generate_series(1, 300) i');
SELECT make_both('k_int8', 'k int8, v int', 'k', 'SELECT (i - 150) * 123456789012, i FROM generate_series(1, 300) i');
SELECT make_both('k_numeric', 'k numeric, v int', 'k', 'SELECT (i - 150) / 10.0, i FROM generate_series(1, 300) i UNION ALL SELECT ''NaN'', 0');
SELECT make_both('k_float8', 'k float8, v int', 'k', 'SELECT (i - 150) / 10.0, i FROM generate_series(1, 300) i UNION ALL SELECT ''NaN'', 0 UNION ALL SELECT ''-Infinity'', -1');
SELECT make_both('k_float4', 'k float4, v int', 'k', 'SELECT (i - 150) / 10.0, i FROM generate_series(1, 300) i');
SELECT make_both('k_bool', 'k bool, v int', 'k', 'SELECT true, 1');
SELECT make_both('k_date', 'k date, v int', 'k', 'SELECT ''2026-01-01''::date + i, i FROM generate_series(1, 300) i');
SELECT make_both('k_timestamptz', 'k timestamptz, v int', 'k', 'SELECT ''2026-01-01''::timestamptz + i * ''1 h''::interval, i FROM generate_series(1, 300) i');
SELECT make_both('k_interval', 'k interval, v int', 'k', 'SELECT i * ''1 h''::interval, i FROM generate_series(1, 300) i');
SELECT make_both('k_enum', 'k color, v int', 'k', 'SELECT unnest(enum_range(NULL::color)), 1');
SELECT make_both('k_domain', 'k positive, v int', 'k', 'SELECT i, i FROM generate_series(1, 300) i');
SELECT make_both('k_array', 'k int[], v int', 'k', 'SELECT ARRAY[i, NULL, -i], i FROM generate_series(1, 300) i');
SELECT make_both('k_pair', 'k pair, v int', 'k', 'SELECT ROW(i, ''x'' || i)::pair, i FROM generate_series(1, 300) i');
SELECT make_both('k_jsonb', 'k jsonb, v int', 'k', 'SELECT jsonb_build_object(''i'', i), i FROM generate_series(1, 300) i');
SELECT make_both('k_inet', 'k inet, v int', 'k', 'SELECT ''10.0.0.0''::inet + i, i FROM generate_series(1, 250) i');
SELECT make_both('k_range', 'k int4range, v int', 'k', 'SELECT int4range(i, i + 3), i FROM generate_series(1, 250) i');
CREATE FUNCTION check_keys() RETURNS TABLE (name text, as_join text, as_array text, as_scan text) LANGUAGE plpgsql AS $$
BEGIN
    FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'h'::regnamespace AND relname LIKE 'k%' AND relkind = 'r' ORDER BY 1 LOOP
        as_join := same(format('SELECT a.v, b.v AS w FROM h.%1$I a JOIN %1$I b ON a.k = b.k', name));
        as_array := CASE WHEN name <> 'k_array' THEN same(format('SELECT * FROM %1$I WHERE k = ANY (ARRAY(SELECT k FROM h.%1$I WHERE v %% 3 = 0))', name)) END;
        as_scan := same(format('SELECT * FROM %1$I WHERE k >= (SELECT k FROM h.%1$I ORDER BY v LIMIT 1)', name));
        RETURN NEXT;
    END LOOP;
END
$$;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT * FROM check_keys();
EXPLAIN (COSTS OFF) SELECT a.v, b.v FROM h.k_jsonb a JOIN c.k_jsonb b ON a.k = b.k;
EXPLAIN (COSTS OFF) SELECT a.v, b.v FROM h.k_pair a JOIN c.k_pair b ON a.k = b.k;
RESET enable_hashjoin;
RESET enable_mergejoin;
-- one value, several spellings
SELECT * FROM c.k_char WHERE k = 'k7      ';
SELECT * FROM c.k_numeric WHERE k = 1.30000;
SELECT * FROM c.k_numeric WHERE k = 'NaN';
SELECT * FROM c.k_float8 WHERE k = '-0';
SELECT * FROM c.k_interval WHERE k = '1 day';
-- composite keys whose columns are of other types are compared, not hashed
SELECT * FROM c.k_pair WHERE k = ROW(7, 'x7');
SELECT * FROM c.k_pair WHERE k = ROW(7, 'x7')::pair;

-- columns of the tuple's header that make no sense here
SELECT ctid, xmin, xmax, cmin, cmax, tableoid::regclass, id FROM c.t WHERE id IN (1, 2) ORDER BY id;
SELECT count(*) FROM c.t WHERE xmax = 0 AND xmin = 0;

-- row locks are taken as on any foreign table: not at all
SELECT id, name FROM c.t WHERE id = 5 FOR UPDATE;
SELECT t.id, o.id FROM c.t JOIN h.o ON o.t_id = t.id WHERE t.id < 300 ORDER BY 1 LIMIT 3 FOR SHARE OF t;
-- a row that was updated meanwhile is checked again with the key's condition
BEGIN;
SELECT o.id, t.name FROM h.o o JOIN c.t t ON t.id = o.t_id WHERE o.id = 9 FOR UPDATE OF o;
COMMIT;

-- rights on columns
CREATE ROLE read_rows_some;
GRANT USAGE ON SCHEMA c TO read_rows_some;
GRANT SELECT (id, n) ON c.t TO read_rows_some;
SET ROLE read_rows_some;
SELECT id, n FROM c.t WHERE id = 3;
SELECT name FROM c.t WHERE id = 3;
SELECT t FROM c.t WHERE id = 3;
RESET ROLE;
DROP OWNED BY read_rows_some;
DROP ROLE read_rows_some;

-- what cannot be written
INSERT INTO c.e VALUES (1, 'x');
UPDATE c.e SET v = 'x';
DELETE FROM c.e;
TRUNCATE c.e;
SELECT * FROM c.t TABLESAMPLE SYSTEM (1);

-- cursors: forward, backward by copies, held after the end of the transaction
BEGIN;
DECLARE forward CURSOR FOR SELECT id FROM c.t;
SELECT count(*) FROM c.t;
MOVE 5998 IN forward;
FETCH 5 FROM forward;
DECLARE back SCROLL CURSOR FOR SELECT id, name FROM c.t WHERE id < 4 ORDER BY id;
FETCH LAST FROM back;
FETCH FIRST FROM back;
FETCH BACKWARD FROM back;
DECLARE held CURSOR WITH HOLD FOR SELECT id, name FROM c.t WHERE id IN (1, 2, 3) ORDER BY id;
FETCH held;
COMMIT;
FETCH ALL FROM held;
CLOSE held;

-- in functions
CREATE FUNCTION find(wanted int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    result text;
BEGIN
    SELECT name INTO result FROM c.t WHERE id = wanted;
    RETURN result;
END
$$;
CREATE FUNCTION find_sql(wanted int) RETURNS SETOF c.t LANGUAGE sql STABLE AS $$ SELECT * FROM c.t WHERE id = wanted $$;
SELECT count(find(id)), min(find(id)) FROM h.o;
SELECT count(f.name) FROM h.o, find_sql(o.id) f;
DO $$
DECLARE
    r record;
    n int := 0;
BEGIN
    FOR i IN 1..20 LOOP
        SELECT * INTO STRICT r FROM c.t WHERE id = i * 10;
        n := n + r.n;
    END LOOP;
    FOR r IN SELECT * FROM c.t WHERE id < 100 LOOP
        BEGIN
            n := n + r.n;
            IF r.id % 10 = 0 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            n := n + (SELECT t.n FROM c.t t WHERE t.id = r.id + 1);
        END;
    END LOOP;
    RAISE NOTICE '%', n;
END
$$;
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
DECLARE
    r record;
    n int := 0;
BEGIN
    FOR r IN SELECT * FROM c.t WHERE id < 100 LOOP
        n := n + r.n;
        COMMIT;
    END LOOP;
    RAISE NOTICE '%', n;
END
$$;
CALL commits();
SELECT sum(n) FROM h.t WHERE id < 100;

-- a key in error under on_error 'fail': who meets it fails, who does not is not concerned
SELECT kcf_writer.spoil('c.m', 'SELECT 5, ''b7'', NULL');
SELECT count(*) FROM c.m;
SELECT * FROM c.m WHERE a = 5 AND b = 'b7';
SELECT * FROM c.m WHERE a = 6 AND b = 'b7';
ANALYZE c.m;
SELECT kcf_writer.put('c.m', 'SELECT 5, ''b7'', 1');
SELECT * FROM c.m WHERE a = 5 AND b = 'b7';
SELECT count(*) FROM c.m;

-- ANALYZE
ANALYZE c.t;
SELECT attname, inherited, null_frac::numeric(3,2), avg_width BETWEEN 1 AND 60 OR attname = 'long' AS width,
       n_distinct BETWEEN -1 AND -0.9 AS "unique", n_distinct = 7 AS seven
FROM pg_stats WHERE schemaname = 'c' AND tablename = 't' ORDER BY attname;
SELECT reltuples FROM pg_class WHERE oid = 'c.t'::regclass;

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE read_rows;
