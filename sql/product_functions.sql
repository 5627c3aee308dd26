--
-- Data products by function: fetch(), fetch_many(), set() and purge().
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
-- (the mock broker lets who asks for records wait, also when some come)
SELECT test.connect(', fetch_wait_max_ms ''10''');
RESET client_min_messages;
CREATE SCHEMA functions;
SET search_path = functions;

-- how often the functions below have been called
CREATE SEQUENCE calls;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('functions.calls') $$;
CREATE FUNCTION computed() RETURNS bigint LANGUAGE sql AS $$ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM functions.calls $$;

CREATE TABLE sessions (org int, type text, n int);
INSERT INTO sessions VALUES (1, 'web', 3), (1, 'app', 2), (2, 'web', 7);
CREATE FUNCTION per_org(org int) RETURNS TABLE (type text, n int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM functions.counted();
	IF org = 13 THEN
		RAISE EXCEPTION 'no luck' USING ERRCODE = 'KC013';
	END IF;
	RETURN QUERY SELECT s.type, s.n FROM functions.sessions s WHERE s.org = per_org.org ORDER BY s.type;
END $$;
SELECT test.mock('topic', 'functions_set', '2');
CREATE FOREIGN TABLE per_org (
	org int OPTIONS (key 'true') NOT NULL,
	rows jsonb OPTIONS (value 'true'),
	_offset bigint OPTIONS (offset 'true'),
	_time timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'functions_set', compute 'functions.per_org');
SELECT test.catch_up('per_org');

-- fetch: computed once, then from memory
SELECT value, "offset", stale, computed_at BETWEEN now() - interval '10 s' AND clock_timestamp() AS recent FROM kafka_cache.fetch('per_org', '1');
SELECT value, "offset", stale FROM kafka_cache.fetch('per_org', '1');
SELECT computed();
SELECT rows = f.value AS same_value, _offset = f."offset" AS same_offset, _time = f.computed_at AS same_time FROM per_org, kafka_cache.fetch('per_org', '1') f WHERE org = 1;
-- nothing is known too: a row of fetch, none of SELECT
SELECT value, "offset" IS NOT NULL AS kept, stale FROM kafka_cache.fetch('per_org', '99');
SELECT value, "offset" IS NOT NULL AS kept, stale FROM kafka_cache.fetch('per_org', '99');
SELECT computed();
SELECT * FROM per_org WHERE org = 99;
SELECT kafka_cache.fetch('per_org', '13');
-- of several, with a plan around it
SELECT o.org, f.value FROM (VALUES (1), (2)) o (org), kafka_cache.fetch('per_org', o.org::text) f ORDER BY 1;

-- keys that are none
SELECT * FROM kafka_cache.fetch('per_org', '1', '2');
SELECT * FROM kafka_cache.fetch('per_org', VARIADIC '{}');
SELECT * FROM kafka_cache.fetch('per_org', NULL);
SELECT * FROM kafka_cache.fetch('per_org', VARIADIC NULL);
SELECT * FROM kafka_cache.fetch('per_org', 'one');
SELECT * FROM kafka_cache.fetch(NULL, '1');
-- tables that are none
CREATE FOREIGN TABLE plain (k text OPTIONS (key 'true') NOT NULL, v int) SERVER kafka OPTIONS (topic 'functions_set');
SELECT * FROM kafka_cache.fetch('plain', '1');
SELECT * FROM kafka_cache.fetch('sessions', '1');
SELECT * FROM kafka_cache.fetch(1, '1');
SELECT * FROM kafka_cache.fetch_many('plain', '{1}');
SELECT kafka_cache.set('plain', '{1}', '{}');
SELECT kafka_cache.set('sessions', '{1}', '{}');
SELECT kafka_cache.purge('plain', '{1}');
SELECT kafka_cache.purge(1, '{1}');

-- fetch_many: a value or an error for each key, in their order
SELECT computed() AS before \gset
SELECT key, value, "offset" IS NOT NULL AS kept, stale, sqlstate, message FROM kafka_cache.fetch_many('per_org', '{2, 1, 13, one, 99, NULL, 1, 3}');
SELECT computed() - :before AS computed;
SELECT * FROM kafka_cache.fetch_many('per_org', '{}');
SELECT * FROM kafka_cache.fetch_many('per_org', NULL);
-- what a failure had done is undone, what others had done is not
CREATE TABLE traces (org int);
CREATE FUNCTION tracing(org int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO functions.traces VALUES (org);
	IF org % 2 = 1 THEN
		PERFORM 1 / (org - org);
	END IF;
	RETURN to_jsonb(org * 10);
END $$;
SELECT test.mock('topic', 'functions_scalar', '1');
CREATE FOREIGN TABLE tracing (org int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'functions_scalar', compute 'functions.tracing');
SELECT test.catch_up('tracing');
BEGIN;
SELECT key, value, "offset" IS NOT NULL AS kept, sqlstate, message FROM kafka_cache.fetch_many('tracing', '{1, 2, 3, 4}');
SELECT * FROM traces ORDER BY 1;
-- a transaction that has written keeps nothing of what it computes: others cannot see what that is made of
SELECT value, "offset" FROM kafka_cache.fetch('per_org', '1000');
COMMIT;
SELECT * FROM traces ORDER BY 1;

-- set: a value by hand, its version
SELECT kafka_cache.set('tracing', '{5}', '{"by": "hand", "n": 1.50}') AS first \gset
SELECT value, "offset" = :first AS version, stale FROM kafka_cache.fetch('tracing', '5');
SELECT value FROM tracing WHERE org = 5;
SELECT kafka_cache.set('tracing', '{5}', '2', :first) AS second \gset
SELECT :second > :first AS grows;
SELECT kafka_cache.set('tracing', '{5}', '3', :first);
SELECT kafka_cache.set('tracing', '{5}', '3', -1);
SELECT value, "offset" = :second AS version FROM kafka_cache.fetch('tracing', '5');
SELECT kafka_cache.set('tracing', '{7}', '"new"', -1) > :second AS grows;
SELECT kafka_cache.set('tracing', '{7}', '"new"', -2);
SELECT kafka_cache.set('tracing', '{8}', '"new"', 0);
SELECT kafka_cache.set('tracing', '{5}', 'null') > :second AS nothing;
SELECT value, "offset" > :second AS later FROM kafka_cache.fetch('tracing', '5');
SELECT * FROM tracing WHERE org = 5;
SELECT kafka_cache.set('tracing', '{5}', NULL);
SELECT kafka_cache.set('tracing', NULL, '1');
SELECT kafka_cache.set(NULL, '{5}', '1');
SELECT kafka_cache.set('tracing', '{}', '1');
SELECT kafka_cache.set('tracing', '{NULL}', '1');
SELECT kafka_cache.set('tracing', '{five}', '1');
-- versions are ordered, each later than the one before
SELECT count(DISTINCT v) AS versions, bool_and(v > before) AS grows
FROM (SELECT v, lag(v, 1, -1::bigint) OVER (ORDER BY n) AS before FROM (SELECT n, kafka_cache.set('tracing', '{100}', to_jsonb(n)) AS v FROM generate_series(1, 100) n) s) s;
SELECT value FROM kafka_cache.fetch('tracing', '100');

-- only what is there
CREATE FOREIGN TABLE unprimed (org int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'functions_scalar', compute 'functions.tracing', prime_on_miss 'false');
SELECT test.catch_up('unprimed');
SELECT value FROM kafka_cache.fetch('unprimed', '100');
SELECT value FROM kafka_cache.fetch('unprimed', '6');
SELECT key, value, sqlstate FROM kafka_cache.fetch_many('unprimed', '{100, 6}');

-- purge: was there one?
SELECT kafka_cache.purge('tracing', '{5}'), kafka_cache.purge('tracing', '{5}');
SELECT "offset" AS version FROM kafka_cache.fetch('tracing', '2') \gset
SELECT kafka_cache.purge('tracing', '{2}', :version + 1);
SELECT "offset" = :version AS unchanged FROM kafka_cache.fetch('tracing', '2');
SELECT kafka_cache.purge('tracing', '{2}', :version);
SELECT value, "offset" > :version AS later FROM kafka_cache.fetch('tracing', '2');
SELECT kafka_cache.purge('tracing', '{404}', -1), kafka_cache.purge('tracing', '{404}');
SELECT kafka_cache.purge('tracing', '{404}', 1);
SELECT kafka_cache.purge('tracing', '{2}', -2);
SELECT kafka_cache.purge('tracing', '{1, 2}');
SELECT kafka_cache.purge('tracing', NULL);
-- at once, whatever becomes of the transaction
BEGIN;
SELECT kafka_cache.set('tracing', '{9}', '"kept"') IS NOT NULL AS set;
ROLLBACK;
SELECT value FROM kafka_cache.fetch('tracing', '9');
BEGIN READ ONLY;
SELECT value FROM kafka_cache.fetch('tracing', '9');
SAVEPOINT s;
SELECT kafka_cache.set('tracing', '{9}', '1');
ROLLBACK TO s;
SELECT kafka_cache.purge('tracing', '{9}');
ROLLBACK;
-- in a transaction with one snapshot: what is computed in it is what it has
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT value FROM kafka_cache.fetch('tracing', '9');
SELECT kafka_cache.set('tracing', '{9}', '"later"') IS NOT NULL AS set;
SELECT value FROM kafka_cache.fetch('per_org', '1');
COMMIT;
SELECT value FROM kafka_cache.fetch('tracing', '9');

-- several key columns, mapped columns
CREATE TYPE member AS (name text, since date, tags text[]);
CREATE FUNCTION member_of(org int, name text) RETURNS member LANGUAGE sql STABLE AS
	$$ SELECT (upper(name), date '2026-01-01' + org, ARRAY[name, org::text])::functions.member WHERE org > 0 $$;
SELECT test.mock('topic', 'functions_row', '1');
CREATE FOREIGN TABLE members (
	org int OPTIONS (key 'true') NOT NULL,
	login varchar(5) OPTIONS (key 'true') NOT NULL,
	name text OPTIONS (json 'person.name'),
	since date,
	tags text[],
	_partition int OPTIONS (partition 'true'),
	_offset bigint OPTIONS (offset 'true')
) SERVER kafka OPTIONS (topic 'functions_row', compute 'functions.member_of(int, text)', key_format 'json', keep_value 'true');
SELECT test.catch_up('members');
SELECT value, "offset", stale FROM kafka_cache.fetch('members', '3', 'ann');
SELECT value, "offset", stale FROM kafka_cache.fetch('members', '3', 'ann');
SELECT org, login, name, since, tags FROM members WHERE org = 3 AND login = 'ann';
SELECT value FROM kafka_cache.fetch('members', '0', 'ann');
SELECT value FROM kafka_cache.fetch('members', '3', 'much too long');
SELECT value FROM kafka_cache.fetch('members', '3');
SELECT * FROM kafka_cache.fetch_many('members', '{3}');
-- what no column shows is kept, what does not fit is refused
SELECT kafka_cache.set('members', '{3, bob}', '{"person": {"name": "Bob", "age": 40}, "since": "2026-05-01"}') AS bob \gset
SELECT value FROM kafka_cache.fetch('members', '3', 'bob');
SELECT org, login, name, since, tags FROM members WHERE org = 3 AND login = 'bob';
SELECT kafka_cache.set('members', '{3, bob}', '{"since": "yesterday or so"}');
SELECT kafka_cache.set('members', '{3, bob}', '[1, 2]');
SELECT kafka_cache.set('members', '{3, bob}', 'null', :bob) = :bob + 1 AS nothing;
SELECT value FROM kafka_cache.fetch('members', '3', 'bob');

-- values of other types, with columns of other kinds beside them
CREATE FUNCTION about(id int) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_object('id', id, 'name', 'ä "' || id || '"', 'more', ARRAY[1.50, 2]) WHERE id > 0 $$;
SELECT test.mock('topic', 'functions_about', '1');
CREATE FOREIGN TABLE about_text (id int OPTIONS (key 'true') NOT NULL, document text OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'functions_about', compute 'functions.about');
CREATE FOREIGN TABLE about_json (id int OPTIONS (key 'true', json 'id') NOT NULL, document json OPTIONS (value 'true'), name text, _partition int OPTIONS (partition 'true'),
	_headers jsonb OPTIONS (headers 'true'), _time timestamptz OPTIONS (timestamp 'true')) SERVER kafka OPTIONS (topic 'functions_about', compute 'functions.about');
CREATE FOREIGN TABLE about_bytea (id int OPTIONS (key 'true') NOT NULL, document bytea OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'functions_about', compute 'functions.about');
SELECT test.catch_up('about_text'), test.catch_up('about_json'), test.catch_up('about_bytea');
SELECT value FROM kafka_cache.fetch('about_text', '1');
SELECT value FROM kafka_cache.fetch('about_json', '2');
SELECT value FROM kafka_cache.fetch('about_bytea', '3');
SELECT test.catch_up('about_text'), test.catch_up('about_json'), test.catch_up('about_bytea');
SELECT f.value = t.value AND f.value = j.value AND f.value = b.value AS same, f.value
FROM generate_series(1, 3) g, kafka_cache.fetch('about_text', g::text) t, kafka_cache.fetch('about_json', g::text) j, kafka_cache.fetch('about_bytea', g::text) b, kafka_cache.fetch('about_text', g::text) f
ORDER BY g;
SELECT kafka_cache.set('about_json', '{4}', '{"id": 5, "name": "x"}');
SELECT kafka_cache.set('about_json', '{4}', '{"id": 4, "name": "x"}') IS NOT NULL AS set;
SELECT id, document, name FROM about_json WHERE id = 4;

-- from expressions of a procedural language, which no plan surrounds
DO $$
DECLARE
	version bigint;
	gone boolean;
BEGIN
	version := kafka_cache.set('about_text', '{7}', '[7]');
	gone := kafka_cache.purge('about_text', '{7}', version);
	RAISE NOTICE '%, %', version > 0, gone;
END $$;

SET client_min_messages = warning;
DROP EXTENSION kafka_cache_fdw CASCADE;
DROP SCHEMA functions CASCADE;
