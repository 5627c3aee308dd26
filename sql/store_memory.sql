--
-- Memory of cached tables: what is charged, what comes back, and what a full arena does.
--
CREATE DATABASE store_memory;
\c store_memory
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
CREATE FUNCTION used() RETURNS bigint LANGUAGE sql AS $$SELECT setting::bigint FROM kafka_cache.settings() WHERE name = 'memory_used'$$;
CREATE FUNCTION size() RETURNS bigint LANGUAGE sql AS $$SELECT setting::bigint FROM kafka_cache.settings() WHERE name = 'memory_size'$$;
SELECT used() AS before \gset

CREATE FOREIGN TABLE small (k int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka;
CREATE FOREIGN TABLE medium (k int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka;
CREATE FOREIGN TABLE large (k int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka;

-- A tiny table is cheap, whatever happens to it.
SELECT kcf_writer.fill('small', 'SELECT i, ''x'' FROM generate_series(1, 10) i');
SELECT bytes < 64 * 1024 AS tiny FROM kcf_writer.stats('small');
SELECT count(kcf_writer.put('small', format('SELECT i, ''y%s'' FROM generate_series(1, 10) i', n))) FROM generate_series(1, 500) n;
SELECT bytes < 128 * 1024 AS tiny FROM kcf_writer.stats('small');
SELECT count(*), min(t), max(t) FROM small;

-- All that is charged is what the tables say they take, and a bound on what is dead holds after every key was replaced
-- several times.
SELECT kcf_writer.fill('medium', 'SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 30000) i');
SELECT count(kcf_writer.put('medium', format('SELECT i, repeat(md5(i::text), %s) FROM generate_series(1, 30000) i ORDER BY md5((i * %s)::text)', n % 8 + 1, n))) FROM generate_series(1, 10) n;
SELECT kcf_writer.clean('medium') AS left_over;
SELECT entries, dead_bytes < live_bytes / 4 AS little_is_dead, bytes < live_bytes * 1.8 AS compact FROM kcf_writer.stats('medium');
SELECT count(*), min(length(t)), max(length(t)) FROM medium;

-- Deleted, all of it comes back but tombstones.
SELECT kcf_writer.del('medium', 'SELECT i, '''' FROM generate_series(1, 30000) i');
SELECT kcf_writer.clean('medium') AS left_over;
SELECT entries, bytes < 8 * 1024 * 1024 AS small FROM kcf_writer.stats('medium');

-- A cursor keeps what it sees, and lets it go.
SELECT kcf_writer.put('medium', 'SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 30000) i');
SELECT kcf_writer.clean('medium') AS left_over;
SELECT bytes AS medium FROM kcf_writer.stats('medium') \gset
BEGIN;
DECLARE c CURSOR FOR SELECT count(*), sum(k), min(length(t)), max(length(t)) FROM medium;
DECLARE d CURSOR FOR SELECT length(t) FROM medium;
FETCH 1 FROM d;
SELECT count(kcf_writer.put('medium', format('SELECT i, %L FROM generate_series(1, 30000) i', n))) FROM generate_series(1, 5) n;
SELECT kcf_writer.clean('medium') AS left_over;
FETCH c;
MOVE 15000 FROM d;
FETCH 1 FROM d;
MOVE ALL FROM d;
COMMIT;
SELECT count(*), sum(k), min(length(t)), max(length(t)) FROM medium;
SELECT kcf_writer.clean('medium') AS left_over;
SELECT bytes < :medium AS less FROM kcf_writer.stats('medium');

-- The arena full: an error for the writer, the rest goes on; twice the same number of rows fits.
CREATE FUNCTION fill_up(OUT filled bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kcf_writer.fill('large', 'SELECT 0, ''''');
    filled := 0;
    LOOP
        BEGIN
            filled := filled + kcf_writer.put('large', format('SELECT i, repeat(''x'', i %% 8000) FROM generate_series(%s, %s) i', filled + 1, filled + 1000));
        EXCEPTION WHEN OTHERS THEN
            RETURN;
        END;
    END LOOP;
END
$$;
SELECT filled FROM fill_up() \gset
SELECT used() > size() * 0.9 AS full, :filled > 20000 AS many;
SELECT count(*), min(t), max(t) FROM small;
SELECT count(*) FROM medium;
SELECT kcf_writer.finish();
SELECT used() = :before AS all_back;

SELECT filled AS again FROM fill_up() \gset
SELECT :again > :filled AS more_without_the_others;
SELECT kcf_writer.finish();
SELECT used() = :before AS all_back;

\c contrib_regression
DROP DATABASE store_memory;
