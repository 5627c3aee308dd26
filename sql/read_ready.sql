--
-- Reading what is not ready, not fresh, or not there. Another session is the writer, a third one waits.
--
CREATE DATABASE read_ready;
\c read_ready
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
CREATE EXTENSION dblink;
\i test/writer/kcf_writer.sql
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
SELECT dblink_connect(name, format('dbname=%s host=%s port=%s user=postgres application_name=%s', current_database(),
                                   split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), name))
FROM unnest(ARRAY['w', 'r']) name \g /dev/null
-- until the session r waits for what it has been sent
CREATE PROCEDURE wait_until_it_waits() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..3000 LOOP
        COMMIT;
        EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'r' AND state = 'active' AND wait_event_type = 'Extension');
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
\set ECHO all
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true') NOT NULL, v int) SERVER kafka;
CREATE FOREIGN TABLE u (id int OPTIONS (key 'true') NOT NULL, v int) SERVER kafka;

-- no process works for this database
SET kafka_cache.when_not_ready = error;
SELECT * FROM t;
SET kafka_cache.when_not_ready = wait;
SET kafka_cache.wait_timeout = 0;
SELECT * FROM t;
SET kafka_cache.wait_timeout = '100ms';
SELECT * FROM t;
EXPLAIN (COSTS OFF) SELECT * FROM t WHERE id = 1;
SET kafka_cache.when_not_ready = partial;
SELECT * FROM t;
RESET kafka_cache.when_not_ready;
-- nobody can load what is not committed, so waiting would be in vain
SET kafka_cache.wait_timeout = '1h';
BEGIN;
CREATE FOREIGN TABLE mine (id int OPTIONS (key 'true') NOT NULL) SERVER kafka;
SELECT * FROM mine;
ROLLBACK;

-- what a table says of itself
SET kafka_cache.when_not_ready = error;
CREATE FUNCTION w(query text) RETURNS text LANGUAGE sql AS $$ SELECT a FROM dblink('w', query) AS d(a text) $$;
SELECT w($$SELECT kcf_writer.begin_load('t', 'SELECT i, 0 FROM generate_series(1, 100) i')$$);
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'connecting', 'no broker answers')$$);
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'topic_missing', 'the brokers do not know topic "t"')$$);
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'auth_failed', 'wrong password')$$);
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'waiting_for_transaction', '')$$);
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'failed', 'something')$$);
SELECT * FROM t;
-- over the memory limit: another error, and no waiting
SELECT w($$SELECT kcf_writer.set_state('t', 'full', 'kafka_cache.memory is used up')$$);
SET kafka_cache.when_not_ready = wait;
SELECT * FROM t;
SELECT w($$SELECT kcf_writer.set_state('t', 'loading', '')$$);

-- partial: what is loaded so far
SET kafka_cache.when_not_ready = partial;
SELECT count(*) FROM t;
SELECT * FROM t WHERE id IN (5, 6, 7000) ORDER BY id;
EXPLAIN (ANALYZE, COSTS OFF, BUFFERS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM t WHERE id = 5;
EXPLAIN (ANALYZE, COSTS OFF, BUFFERS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM u;
RESET kafka_cache.when_not_ready;

-- waiting, until the table is ready
SELECT dblink_exec('r', 'SET kafka_cache.wait_timeout = ''1h''');
SELECT dblink_send_query('r', 'SELECT count(*) FROM t');
CALL wait_until_it_waits();
SELECT w($$SELECT kcf_writer.fill('t', 'SELECT i, 0 FROM generate_series(1, 1000) i')$$);
SELECT * FROM dblink_get_result('r') AS d(n bigint);
SELECT * FROM dblink_get_result('r') AS d(n bigint);
-- a join waits for all of its tables, and then has one state of both
SELECT dblink_send_query('r', 'SELECT count(*), sum(t.v), sum(u.v) FROM t JOIN u USING (id)');
CALL wait_until_it_waits();
SELECT w($$SELECT kcf_writer.put('t', 'SELECT i, 1 FROM generate_series(1, 1000) i')$$);
SELECT w($$SELECT kcf_writer.fill('u', 'SELECT i, 1 FROM generate_series(1, 1000) i')$$);
SELECT * FROM dblink_get_result('r') AS d(n bigint, t bigint, u bigint);
SELECT * FROM dblink_get_result('r') AS d(n bigint, t bigint, u bigint);
-- a statement that does not run needs nothing
SELECT w($$SELECT kcf_writer.withdraw('u')$$);
EXPLAIN (COSTS OFF) SELECT * FROM u;
SELECT count(t.v) FROM t LEFT JOIN u USING (id);

-- waiting ends with a cancelled query, a statement_timeout, its session
SELECT dblink_send_query('r', 'SELECT count(*) FROM u');
CALL wait_until_it_waits();
SELECT dblink_cancel_query('r');
SELECT * FROM dblink_get_result('r', false) AS d(n bigint);
SELECT * FROM dblink_get_result('r', false) AS d(n bigint);
SELECT * FROM dblink('r', 'SELECT count(*) FROM t') AS d(n bigint);
SET statement_timeout = '50ms';
SELECT count(*) FROM u;
RESET statement_timeout;
SELECT dblink_send_query('r', 'SELECT count(*) FROM u');
CALL wait_until_it_waits();
SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'r';
-- in time, and the error says why not
SET kafka_cache.wait_timeout = '50ms';
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.fill('u', 'SELECT i, 1 FROM generate_series(1, 1000) i')$$);
SELECT count(*) FROM u;
-- served contents are read whatever the state says
SELECT w($$SELECT kcf_writer.set_state('u', 'stalled', 'no broker answers')$$);
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.set_state('u', 'full', 'over max_bytes')$$);
SELECT count(*) FROM u;

-- staleness
SET kafka_cache.max_staleness = '1h';
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.set_at_end('u', now() - '59 min'::interval)$$);
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.set_at_end('u', now() - '61 min'::interval)$$);
\set VERBOSITY sqlstate
SELECT count(*) FROM u;
SELECT * FROM t JOIN u USING (id) WHERE id = 5;
\set VERBOSITY default
SELECT count(*) FROM t;
RESET kafka_cache.max_staleness;
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.set_at_end('u', '2000-01-01 00:00:00+00')$$);
SET kafka_cache.max_staleness = '1h';
SELECT count(*) FROM u;
-- each statement of a transaction with one snapshot is asked
SELECT w($$SELECT kcf_writer.set_at_end('u', now())$$);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM u;
SELECT w($$SELECT kcf_writer.set_at_end('u', now() - '61 min'::interval)$$);
\set VERBOSITY sqlstate
SELECT count(*) FROM u;
\set VERBOSITY default
ROLLBACK;
RESET kafka_cache.max_staleness;

-- positions, as of the statement's snapshot
CREATE FUNCTION explained(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE, ANALYZE, COSTS OFF, BUFFERS OFF, TIMING OFF, SUMMARY OFF) ' || query;
END
$$;
SELECT * FROM explained('SELECT v FROM u WHERE id = 5');
SELECT w($$SELECT kcf_writer.put('u', 'SELECT 5, 2')$$);
SELECT * FROM explained('SELECT v FROM u WHERE id = 5');
EXPLAIN (VERBOSE, COSTS OFF) SELECT v FROM u WHERE id = 5;
SELECT * FROM explained('SELECT count(*) FROM t JOIN u USING (id) WHERE t.v = 1 AND t.id < 10');

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE read_ready;
