--
-- Requests for refreshes: kafka_cache.refresh(), what readers of stale rows ask for, kafka_cache.refresh_queue.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect(', fetch_wait_max_ms ''10''');
RESET client_min_messages;
CREATE SCHEMA queue;
SET search_path = queue;

-- what is looked at is another session's work
CREATE FUNCTION comes_to(query text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
	deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXECUTE query INTO found;
		EXIT WHEN found IS NOT DISTINCT FROM wanted OR clock_timestamp() > deadline;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN found;
END $$;

CREATE TABLE state (version int);
INSERT INTO state VALUES (1);
CREATE FUNCTION version_of(org int, name text) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF name = 'bad' THEN
		RAISE EXCEPTION 'no luck with %', org;
	END IF;
	RETURN (SELECT version FROM queue.state);
END $$;
SELECT test.mock('topic', 'queue_versions', '2');
CREATE FOREIGN TABLE versions (
	org int OPTIONS (key 'true') NOT NULL,
	name varchar(5) OPTIONS (key 'true') NOT NULL,
	value jsonb OPTIONS (value 'true'),
	at timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'queue_versions', key_format 'json', compute 'queue.version_of(int, text)');
SELECT test.catch_up('versions');

-- asked for
SELECT kafka_cache.refresh('versions', '1', 'Ann');
SELECT comes_to('SELECT value FROM versions', '1');
SELECT comes_to('SELECT count(*) FROM kafka_cache.refresh_queue', '0');
UPDATE state SET version = 2;
SELECT value FROM versions WHERE org = 1 AND name = 'Ann';
SELECT count(*) FROM (SELECT kafka_cache.refresh('versions', VARIADIC ARRAY['1', 'Ann']) FROM generate_series(1, 100)) s;
SELECT comes_to('SELECT value FROM versions', '2');
-- keys in other spellings are the same key
SELECT kafka_cache.refresh('versions', ' 01 ', 'Ann');
SELECT comes_to('SELECT count(*) FROM kafka_cache.refresh_queue', '0');
SELECT org, name, value FROM versions;

-- read when it was stale: the row as it is, and a new one soon
UPDATE state SET version = 3;
SELECT value FROM versions WHERE org = 1 AND name = 'Ann';
ALTER FOREIGN TABLE versions OPTIONS (ADD soft_ttl '1 ms');
SELECT comes_to('SELECT value FROM queue.versions WHERE org = 1 AND name = ''Ann''', '3');
ALTER FOREIGN TABLE versions OPTIONS (DROP soft_ttl);

-- one that fails stays, and says why
SELECT kafka_cache.refresh('versions', '7', 'bad'), kafka_cache.refresh('versions', '7', 'good');
SELECT comes_to('SELECT message FROM kafka_cache.refresh_queue WHERE attempts > 0', 'no luck with 7');
SELECT comes_to('SELECT count(*) FROM kafka_cache.refresh_queue', '1');
SELECT relation, key, requests, attempts > 0 AS attempts, not_before > first_requested AS later, message FROM kafka_cache.refresh_queue;
SELECT comes_to('SELECT count(*) FROM queue.versions WHERE org = 7', '1');
SELECT count(*) AS failed FROM kafka_cache.metrics WHERE name = 'kafka_cache_refreshes_total' AND labels ->> 'outcome' = 'failed' AND value > 0;

-- what cannot be asked for
SELECT kafka_cache.refresh('versions', '1');
SELECT kafka_cache.refresh('versions');
SELECT kafka_cache.refresh('versions', '1', 'Ann', 'x');
SELECT kafka_cache.refresh('versions', 'one', 'Ann');
SELECT kafka_cache.refresh('versions', '1', 'much too long');
SELECT kafka_cache.refresh('versions', NULL, 'Ann');
SELECT kafka_cache.refresh('versions', VARIADIC NULL);
SELECT kafka_cache.refresh('state', '1');
SELECT kafka_cache.refresh('kafka_cache.refresh_queue', '1');
SELECT test.mock('topic', 'queue_plain', '1');
CREATE FOREIGN TABLE plain (k int OPTIONS (key 'true') NOT NULL, v text) SERVER kafka OPTIONS (topic 'queue_plain');
SELECT kafka_cache.refresh('plain', '1');

-- a product that is none any more
ALTER FOREIGN TABLE versions OPTIONS (DROP compute);
SELECT comes_to('SELECT count(*) FROM kafka_cache.refresh_queue', '0');

-- settings
SET kafka_cache.refresh_workers = 2;
SET kafka_cache.refresh_load = 0;

DROP SCHEMA queue CASCADE;
DROP SERVER kafka CASCADE;
