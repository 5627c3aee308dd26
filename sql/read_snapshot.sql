--
-- What a statement sees: one state of all cached tables, whoever writes meanwhile. Another session is the writer,
-- called from the middle of a statement by dblink.
--
CREATE DATABASE read_snapshot;
\c read_snapshot
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
CREATE EXTENSION dblink;
\i test/writer/kcf_writer.sql
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
SELECT dblink_connect(name, format('dbname=%s host=%s port=%s user=postgres', current_database(),
                                   split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')))
FROM unnest(ARRAY['w', 'r']) name \g /dev/null
\set ECHO all

-- All rows of a and b always have the same v, the number of the batch that wrote them.
CREATE FOREIGN TABLE a (id int OPTIONS (key 'true') NOT NULL, v int, pad text) SERVER kafka;
CREATE FOREIGN TABLE b (id int OPTIONS (key 'true') NOT NULL, v int) SERVER kafka;
CREATE FOREIGN TABLE late (id int OPTIONS (key 'true') NOT NULL, v int) SERVER kafka;
CREATE TABLE ids AS SELECT id FROM generate_series(1, 2000) id;
ANALYZE ids;
CREATE FUNCTION write_a(version int) RETURNS text LANGUAGE sql VOLATILE PARALLEL RESTRICTED AS $$
    SELECT 'wrote ' || n FROM dblink('w', format($w$
        SELECT kcf_writer.put('a', 'SELECT i, %1$s, repeat(''x'', i %% 300) FROM generate_series(1, 2000) i')$w$, version)) AS d(n bigint)
$$;
-- Is something held for readers? Also frees what is not.
CREATE FUNCTION held() RETURNS boolean LANGUAGE sql AS $$
    SELECT h FROM dblink('w', $w$ SELECT kcf_writer.clean('a') $w$) AS d(h boolean)
$$;
-- The writer takes away what is older than no time at all.
CREATE FUNCTION revoke_pins() RETURNS boolean LANGUAGE sql VOLATILE PARALLEL RESTRICTED AS $$
    SELECT h FROM dblink('w', $w$ SELECT kcf_writer.clean('a', '0 s') $w$) AS d(h boolean)
$$;
SELECT kcf_writer.fill('a', 'SELECT i, 0, repeat(''x'', i % 300) FROM generate_series(1, 2000) i');
SELECT kcf_writer.fill('b', 'SELECT i, 0 FROM generate_series(1, 2000) i');

-- one statement: scans before and after a write
WITH x AS MATERIALIZED (SELECT min(v), max(v) FROM a), w AS MATERIALIZED (SELECT write_a(1) FROM x)
	SELECT x.*, w.*, (SELECT max(v) FROM a), (SELECT v FROM a WHERE id = 7) FROM x, w;
SELECT min(v), max(v) FROM a;
-- ... a self-join, looked up after the write
WITH x AS MATERIALIZED (SELECT * FROM a WHERE id < 100), w AS MATERIALIZED (SELECT write_a(2) FROM x LIMIT 1)
	SELECT count(*), count(*) FILTER (WHERE x.v = a.v) FROM w, x JOIN a USING (id);
-- ... of another table
WITH x AS MATERIALIZED (SELECT * FROM b WHERE id < 3), w AS MATERIALIZED (SELECT write_a(3) FROM x LIMIT 1)
	SELECT max(a.v) FROM w, a;
SELECT max(v) FROM a;
-- ... and by the workers of a parallel query that start after it
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
EXPLAIN (COSTS OFF) SELECT min(v), max(v) FROM a WHERE v > (SELECT -length(write_a(4)));
SELECT min(v), max(v) FROM a WHERE v > (SELECT -length(write_a(4)));
SELECT min(v), max(v) FROM a;
SELECT write_a(3);
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;
SELECT held();

-- functions: STABLE ones see what the statement sees, VOLATILE ones what is there
CREATE FUNCTION stable_v() RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN (SELECT v FROM a WHERE id = 5); END $$;
CREATE FUNCTION stable_sql_v() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT max(v) FROM a $$;
CREATE FUNCTION volatile_v() RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN (SELECT v FROM a WHERE id = 5); END $$;
CREATE FUNCTION stable_caught() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM 1 / (v - v) FROM a WHERE id = 5;
    RETURN -1;
EXCEPTION WHEN division_by_zero THEN
    RETURN (SELECT v FROM a WHERE id = 6);
END
$$;
WITH x AS MATERIALIZED (SELECT stable_v() s1, stable_sql_v() s2, volatile_v() s3, stable_caught() s4), w AS MATERIALIZED (SELECT write_a(4) FROM x)
	SELECT x.*, stable_v(), stable_sql_v(), volatile_v(), stable_caught() FROM x, w;
WITH x AS MATERIALIZED (SELECT stable_v() s1, v FROM a WHERE id = 8), w AS MATERIALIZED (SELECT write_a(5) FROM x)
	SELECT x.*, stable_v(), stable_sql_v(), volatile_v(), (SELECT v FROM a WHERE id = 8) FROM x, w;
-- a loop that waits for a change sees it
CREATE FUNCTION wait_for_6() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    n int := 0;
BEGIN
    WHILE (SELECT v FROM a WHERE id = 1) < 6 LOOP
        n := n + 1;
        IF n = 3 THEN
            PERFORM write_a(6);
        END IF;
    END LOOP;
    RETURN n;
END
$$;
SELECT wait_for_6() FROM b WHERE id = 1;
SELECT held();

-- READ COMMITTED: each statement its own, an open cursor keeps its own
BEGIN;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 1 FROM c;
SELECT write_a(7);
SELECT min(v), max(v) FROM a;
DECLARE d CURSOR FOR SELECT v FROM a;
SELECT write_a(8);
FETCH 1 FROM c;
FETCH 1 FROM d;
SELECT v FROM a WHERE id = 1;
CLOSE c;
SELECT held();
FETCH 1 FROM d;
CLOSE d;
SELECT held();
COMMIT;

-- REPEATABLE READ: one for the transaction
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT min(v), max(v) FROM a;
SELECT write_a(9);
SELECT min(v), max(v), stable_v(), volatile_v() FROM a;
SELECT v FROM a WHERE id = 3;
SAVEPOINT s;
SELECT 1 / (v - 8) FROM a WHERE id = 3;
ROLLBACK TO s;
SELECT v FROM a WHERE id = 3;
SELECT held();
-- what was loaded later is not in it
SELECT n FROM dblink('w', $$ SELECT kcf_writer.fill('late', 'SELECT 1, 1') $$) AS d(n bigint);
SELECT * FROM late;
ROLLBACK;
SELECT held();
SELECT v FROM a WHERE id = 3;
SELECT * FROM late;

-- what holds memory goes with failed statements, subtransactions and held cursors
SELECT 1 / (v - 9) FROM a;
SELECT held();
BEGIN;
SAVEPOINT s;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 1 FROM c;
SELECT write_a(10);
SELECT held();
ROLLBACK TO s;
SELECT held();
DECLARE c CURSOR WITH HOLD FOR SELECT v FROM a;
FETCH 1 FROM c;
SELECT write_a(11);
SELECT held();
COMMIT;
SELECT held();
FETCH 1 FROM c;
CLOSE c;
-- a cursor of a subtransaction that did not fail goes on
BEGIN;
SAVEPOINT s;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 1 FROM c;
RELEASE s;
SELECT write_a(12);
FETCH 1 FROM c;
SELECT held();
COMMIT;
SELECT held();

\set VERBOSITY terse
-- memory is needed: a cursor of an idle session loses its snapshot, its session goes on
BEGIN;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 1 FROM c;
SELECT write_a(13);
SELECT revoke_pins();
SAVEPOINT s;
FETCH 1 FROM c;
ROLLBACK TO s;
SELECT max(v) FROM a;
COMMIT;
-- ... and one of a busy session: its newer snapshots stay
BEGIN;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 1 FROM c;
SELECT write_a(14);
WITH x AS MATERIALIZED (SELECT max(v) v FROM a), w AS MATERIALIZED (SELECT revoke_pins() r FROM x)
	SELECT x.v, w.r, max(a.v) FROM x, w, a GROUP BY 1, 2;
SAVEPOINT s;
FETCH 1 FROM c;
ROLLBACK TO s;
SELECT held();
COMMIT;
-- ... and a statement that runs
WITH x AS MATERIALIZED (SELECT max(v) v FROM a), w AS MATERIALIZED (SELECT write_a(15), revoke_pins() r FROM x)
	SELECT x.v, w.r, max(a.v) FROM x, w, a GROUP BY 1, 2;
SELECT held();
-- a transaction with one snapshot cannot go on without it, but with everything else
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT max(v) FROM a;
SELECT write_a(16);
SELECT revoke_pins();
SELECT count(*) FROM ids;
SAVEPOINT s;
SELECT max(v) FROM a;
ROLLBACK TO s;
SELECT v FROM a WHERE id = 1;
ROLLBACK;
SELECT max(v) FROM a;

\set VERBOSITY default
-- a definition that changes under an open cursor: it reads on, others wait for the new contents
BEGIN;
DECLARE c CURSOR FOR SELECT v FROM b;
FETCH 1 FROM c;
SELECT * FROM dblink('w', $$ ALTER SERVER kafka OPTIONS (SET brokers 'elsewhere:9092') $$) AS d(t text);
SELECT * FROM dblink('w', $$ SELECT kcf_writer.withdraw('b') $$) AS d(t text);
FETCH 1 FROM c;
SET LOCAL kafka_cache.when_not_ready = error;
SAVEPOINT s;
SELECT max(v) FROM b;
ROLLBACK TO s;
FETCH 1 FROM c;
COMMIT;
SELECT n FROM dblink('w', $$ SELECT kcf_writer.fill('b', 'SELECT i, 16 FROM generate_series(1, 2000) i') $$) AS d(n bigint);
SELECT n FROM dblink('w', $$ SELECT kcf_writer.fill('a', 'SELECT i, 16, NULL FROM generate_series(1, 2000) i') $$) AS d(n bigint);

-- Under a writer that rewrites everything, batch by batch: no statement sees two batches, whatever its plan and
-- wherever its parts run.
CREATE FUNCTION consistent(query text, times int, OUT answers bigint, OUT mixed bigint, OUT states bigint, OUT back bigint)
LANGUAGE plpgsql AS $$
DECLARE
    lo int;
    hi int;
    last int := 0;
BEGIN
    answers := 0; mixed := 0; states := 0; back := 0;
    FOR i IN 1..times LOOP
        EXECUTE query INTO lo, hi;
        answers := answers + 1;
        IF lo IS DISTINCT FROM hi THEN
            mixed := mixed + 1;
        END IF;
        IF hi < last AND last - hi < 20 THEN -- (the writer begins again after 200 versions)
            back := back + 1;
        END IF;
        IF hi <> last THEN
            states := states + 1;
        END IF;
        last := hi;
    END LOOP;
END
$$;
CREATE TABLE questions (id int, query text);
INSERT INTO questions VALUES
	(1, 'SELECT min(v), max(v) FROM a'),
	(2, 'SELECT min(least(a.v, b.v)), max(greatest(a.v, b.v)) FROM a JOIN a b USING (id)'),
	(3, 'SELECT min(v), max(v) FROM ids JOIN a USING (id)'),
	(4, 'SELECT min(v), max(v) FROM a WHERE id = ANY (ARRAY(SELECT id FROM ids))'),
	(5, 'SELECT min(least(a.v, stable_v())), max(greatest(a.v, stable_v())) FROM a WHERE id % 10 = 0'),
	(6, 'SELECT min(stable_v()), max(stable_v()) FROM ids WHERE id % 10 = 0'),
	(7, 'SELECT (SELECT min(v) FROM a), (SELECT max(v) FROM ids JOIN a USING (id))'),
	(8, 'SELECT min(least(x.v, y.v)), max(greatest(x.v, y.v)) FROM (SELECT v FROM a UNION ALL SELECT v FROM ids JOIN a USING (id)) x, (SELECT v FROM a LIMIT 1) y'),
	(9, 'SELECT max(nested()), 0 FROM ids WHERE id % 100 = 0');
-- a parallel query inside of a parallel query
CREATE FUNCTION nested() RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS $$
DECLARE
    lo int;
    hi int;
BEGIN
    SELECT min(v), max(v) INTO lo, hi FROM ids JOIN a USING (id);
    RETURN hi - lo;
END
$$;
SELECT dblink_send_query('w', $$
	SET statement_timeout = '300s';
	SELECT kcf_writer.churn('a', 'SELECT i, 16 + version, repeat(''x'', i % 300) FROM generate_series(1, 200) version, generate_series(1, 2000) i',
		2000, 100000, 300) $$);
DO $$ BEGIN WHILE (SELECT max(v) FROM a) = 16 LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
RESET enable_hashjoin;
RESET enable_mergejoin;
SET parallel_leader_participation = off;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END AS force_parallel \gset
SET :force_parallel = on;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
-- with an older snapshot held by the same session
RESET :force_parallel;
BEGIN;
DECLARE c CURSOR FOR SELECT v FROM a;
FETCH 0 FROM c;
SELECT id, answers, mixed, back FROM questions, consistent(query, 10) ORDER BY id;
SELECT count(DISTINCT v) FROM (SELECT v FROM a) q;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT id, answers, mixed, back, states FROM questions, consistent(query, 5) ORDER BY id;
COMMIT;
SELECT sum(states) > 5 AS "changes" FROM questions, consistent(query, 10);
EXPLAIN (COSTS OFF) SELECT min(stable_v()), max(stable_v()) FROM ids WHERE id % 10 = 0;
SELECT dblink_cancel_query('w');
SELECT * FROM dblink_get_result('w', false) AS d(n text);
SELECT * FROM dblink_get_result('w', false) AS d(n text);
SELECT * FROM dblink_get_result('w', false) AS d(n text);
RESET parallel_leader_participation;
SELECT held();
-- nothing is left of all these versions
SELECT slab_bytes < 4000000 AS small FROM kcf_writer.stats('a');

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE read_snapshot;
