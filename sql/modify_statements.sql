--
-- Statements that write: what INSERT, UPDATE, DELETE and COPY make of a cached table, read when it has come back.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
\set VERBOSITY terse
CREATE SCHEMA modify_statements;
SET search_path = modify_statements;
SELECT test.topic('modify', 3), test.topic('modify_now', 3);
CREATE FOREIGN TABLE t (
	id int OPTIONS (key 'true') NOT NULL,
	name text OPTIONS (json 'displayName') NOT NULL DEFAULT 'nobody',
	tags text[] OPTIONS (json 'groups[].id'),
	n int CHECK (n > 0),
	twice int GENERATED ALWAYS AS (n * 2) STORED,
	doc jsonb OPTIONS (value 'true'),
	p int OPTIONS (partition 'true'),
	o bigint OPTIONS (offset 'true'),
	at timestamptz OPTIONS (timestamp 'true'),
	h jsonb OPTIONS (headers 'true')
) SERVER kafka OPTIONS (topic 'modify', readonly 'false');
-- the same without a value column, sent at once
CREATE FOREIGN TABLE now (
	id int OPTIONS (key 'true') NOT NULL, name text, n int,
	p int OPTIONS (partition 'true') NOT NULL, o bigint OPTIONS (offset 'true') NOT NULL, at timestamptz OPTIONS (timestamp 'true') NOT NULL, h jsonb OPTIONS (headers 'true') NOT NULL
) SERVER kafka OPTIONS (topic 'modify_now', readonly 'false', delivery 'immediate', keep_value 'true');
SELECT kafka_cache.wait_ready('t', '30 s'), kafka_cache.wait_ready('now', '30 s');

-- INSERT: one row, several, from a query, prepared; the next statement sees it
INSERT INTO t (id, name) VALUES (1, 'Ann');
SELECT id, name, tags, n, twice, doc, h FROM t;
INSERT INTO t (id, name, n, tags) VALUES (2, 'Bob', 5, '{x,y}'), (3, 'Cid', NULL, '{}'), (4, DEFAULT, 7, NULL);
INSERT INTO t (id, n) SELECT i, i FROM generate_series(5, 7) i;
PREPARE ins(int, text) AS INSERT INTO t (id, name) VALUES ($1, $2);
EXECUTE ins(8, 'eight');
EXECUTE ins(9, 'nine');
SELECT id, name, tags, n, twice, doc FROM t ORDER BY id;
-- a key that is there is overwritten
INSERT INTO t (id, name, n) VALUES (9, 'nine again', 9);
SELECT id, name, n, twice, doc FROM t WHERE id = 9;

-- what goes with the value; time is in milliseconds
INSERT INTO t (id, name, p, at, h) VALUES (10, 'given', 2, '2026-01-02 03:04:05.678912+00', '[["a", "1"], ["b", null]]')
	RETURNING id, doc, p, o, at AT TIME ZONE 'UTC' AS at, h;
SELECT p, o IS NOT NULL AS o, at AT TIME ZONE 'UTC' AS at, h FROM t WHERE id = 10;

-- a document, and columns that override its members
INSERT INTO t (id, n, doc, name) VALUES (11, 3, '{"displayName": "of the document", "n": 1, "more": {"x": 1.50}}', NULL) RETURNING id, name, n, twice, doc;
INSERT INTO t (id, doc, name) VALUES (12, '{"displayName": "of the document", "groups": [{"id": "a", "z": 1}]}', NULL) RETURNING name, tags, doc;
SELECT name, n, doc FROM t WHERE id = 11;

-- UPDATE: what no column shows survives, also in elements
UPDATE t SET n = 4 WHERE id = 11 RETURNING id, name, n, twice, doc, o, at, h;
UPDATE t SET tags = '{a,b}' WHERE id = 12 RETURNING tags, doc;
UPDATE t SET name = upper(name), n = id WHERE id IN (5, 6, 7);
UPDATE t SET n = NULL WHERE id = 7;
UPDATE t SET doc = '{"displayName": "new", "q": 1}' WHERE id = 8 RETURNING name, n, doc;
UPDATE t SET h = '[["c", "3"]]', at = '2026-02-03 00:00:00+00' WHERE id = 10 RETURNING p, h, at AT TIME ZONE 'UTC' AS at;
UPDATE t SET id = id, name = 'same key' WHERE id = 9;
SELECT id, name, tags, n, twice, doc FROM t WHERE id > 4 ORDER BY id;
SELECT p, h, at AT TIME ZONE 'UTC' AS at FROM t WHERE id = 10;
UPDATE t SET name = 'ten' WHERE id = 10;
SELECT p, name, h, at > '2026-06-01' AS new_time FROM t WHERE id = 10;
UPDATE t SET n = s.n FROM (VALUES (1, 11), (1, 12), (2, 21)) s (id, n) WHERE s.id = t.id;
SELECT id, n IN (11, 12) AS one_of_them FROM t WHERE id = 1;
UPDATE t SET n = 1 WHERE id = 99;

-- DELETE
DELETE FROM t WHERE id = 12 RETURNING id, name, doc, p IS NOT NULL AS p, o IS NOT NULL AS o;
DELETE FROM t USING generate_series(1, 2) g WHERE t.id = 11 RETURNING t.id;
DELETE FROM t WHERE n BETWEEN 5 AND 6;
SELECT id FROM t ORDER BY id;
TRUNCATE t;

-- COPY
COPY t (id, name, n) FROM stdin;
20	twenty	20
21	twenty-one	\N
22	twenty-two	22
\.
COPY (SELECT id, name, n, twice, doc FROM t WHERE id >= 20 ORDER BY id) TO stdout;

-- together with others
WITH moved AS (DELETE FROM t WHERE id = 20 RETURNING id, name), put AS (INSERT INTO t (id, name) SELECT id + 100, name FROM moved RETURNING id)
	SELECT * FROM put;
SELECT id, name FROM t WHERE id IN (20, 120);
DELETE FROM t;
SELECT count(*) FROM t;

-- delivery immediate: the broker's word (the mock broker's clock stands still, so no word of time)
INSERT INTO now (id, name, p) VALUES (1, 'one', 1), (2, 'two', 1), (3, 'three', 2) RETURNING id, name, p, o;
INSERT INTO now (id, name, p, at) VALUES (4, 'four', 0, '2026-01-02 03:04:05.678912+00') RETURNING p, o;
SELECT id, name, p, o, CASE WHEN id = 4 THEN at AT TIME ZONE 'UTC' END AS at FROM now ORDER BY id;
BEGIN;
UPDATE now SET n = 5 WHERE id = 1 RETURNING n, p, o;
UPDATE now SET n = n + 1 WHERE id = 1;
SELECT n, p, o FROM now WHERE id = 1;
UPDATE now SET n = s.i FROM generate_series(1, 2) s (i) WHERE id = 2;
DELETE FROM now USING generate_series(1, 2) s WHERE id = 3 RETURNING id, name, p, o;
ROLLBACK;
SELECT id, n > 0 AS n, p FROM now ORDER BY id;
SELECT test.mock('position', 'modify_now');
DROP EXTENSION kafka_cache_fdw CASCADE;
