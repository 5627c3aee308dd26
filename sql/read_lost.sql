--
-- Snapshots that were taken away: rows in the slots of a plan are not read any more when their memory may be another's.
--
CREATE DATABASE read_lost;
\c read_lost
\set ECHO none
SET client_min_messages = warning;
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
\set VERBOSITY terse
\set SHOW_CONTEXT never
RESET client_min_messages;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
CREATE FOREIGN TABLE c (id int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka;
CREATE FOREIGN TABLE d (id int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka;
CREATE TABLE h AS SELECT i FROM generate_series(1, 5) i;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;

-- Contents of c that are found again, and what would be found in their place.
CREATE FUNCTION refill() RETURNS bigint LANGUAGE sql AS $$
	SELECT kcf_writer.fill('c', 'SELECT i, ''good '' || i || repeat(''x'', 50) FROM generate_series(1, 3) i')
$$;
CREATE FUNCTION replace_c() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n bigint := kcf_writer.fill('c', 'SELECT i, repeat(''NEW'', 50) FROM generate_series(1, 10) i');
	left_over boolean := kcf_writer.clean('c', '-1 s');
BEGIN
END
$$;
CREATE FUNCTION overwrite() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	left_over boolean := kcf_writer.clean('c', '-1 s');
	n bigint := kcf_writer.fill('d', 'SELECT i, repeat(''BAD'', 50) FROM generate_series(1, 50000) i');
BEGIN
	RAISE NOTICE 'something is kept: %', left_over;
END
$$;
SELECT refill();
SELECT kcf_writer.fill('d', $$SELECT i, 'd' FROM generate_series(1, 3) i$$);

-- A cursor rests with a row of c in a slot.
BEGIN;
DECLARE cur CURSOR FOR SELECT c.id, substr(c.t, 1, 6) AS t, h.i FROM c LEFT JOIN h ON length(c.t) > 0;
FETCH 2 FROM cur;
DO $$ DECLARE x text; BEGIN x := replace_c(); x := overwrite(); END $$;
FETCH 1 FROM cur;
ROLLBACK;

-- A function that runs while a row of c is in a slot of its caller: it gives up the caller's snapshot, which is then
-- kept for the time of the caller.
CREATE FUNCTION disturb(i int) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	x text;
BEGIN
	IF i = 2 THEN
		x := replace_c();
		PERFORM count(*) FROM d;
		x := overwrite();
	END IF;
	RETURN true;
END
$$;
SELECT refill();
SELECT c.id, substr(c.t, 1, 6) AS t, h.i FROM c LEFT JOIN h ON disturb(h.i) AND length(c.t) > 0 WHERE c.id = 1 LIMIT 4;
SELECT c.id, substr(c.t, 1, 6) AS t, h.i FROM c LEFT JOIN h ON disturb(h.i) AND length(c.t) > 0;

-- One that reads the same snapshot, and hides the error from its caller.
CREATE FUNCTION hide(i int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
	x text;
	n bigint;
BEGIN
	IF i = 2 THEN
		x := replace_c();
		BEGIN
			n := (SELECT count(*) FROM c);
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%', SQLERRM;
		END;
		x := overwrite();
	END IF;
	RETURN true;
END
$$;
SELECT refill();
SELECT c.id, substr(c.t, 1, 6) AS t, h.i FROM c LEFT JOIN h ON hide(h.i) AND length(c.t) > 0 WHERE c.id = 1 LIMIT 4;

-- Nothing is kept of it afterwards.
DO $$ DECLARE x text; BEGIN x := overwrite(); END $$;

-- Workers of a statement do not see another state than its transaction, whose own is lost.
CREATE FUNCTION count_c(i int) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
	RETURN (SELECT count(*) FROM c);
END
$$;
SELECT refill();
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET parallel_leader_participation = off;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM c;
SELECT kcf_writer.fill('c', 'SELECT i, repeat(''NEW'', 50) FROM generate_series(1, 10) i');
SELECT count(*) FROM c;
SELECT min(count_c(i)), max(count_c(i)) FROM h;
DO $$ DECLARE x text; BEGIN x := replace_c(); END $$;
SELECT min(count_c(i)), max(count_c(i)) FROM h;
ROLLBACK;
SELECT min(count_c(i)), max(count_c(i)) FROM h;
RESET parallel_leader_participation;

-- A load that is begun anew while somebody reads what it has.
SELECT kcf_writer.withdraw('c');
SELECT kcf_writer.begin_load('c', $$SELECT i, 'good ' || i FROM generate_series(1, 3) i$$);
SET kafka_cache.when_not_ready = partial;
BEGIN;
DECLARE cur CURSOR FOR SELECT * FROM c;
FETCH 1 FROM cur;
SELECT kcf_writer.begin_load('c', $$SELECT i, 'new' FROM generate_series(1, 3) i$$);
SELECT kcf_writer.fill('d', 'SELECT i, repeat(''BAD'', 50) FROM generate_series(1, 50000) i');
FETCH 3 FROM cur;
SELECT * FROM c;
ROLLBACK;
SELECT kcf_writer.fill('c', $$SELECT i, 'whole' FROM generate_series(1, 3) i$$);
SELECT kcf_writer.clean('c');

\c contrib_regression
DROP DATABASE read_lost;
