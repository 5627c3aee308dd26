--
-- What cannot be written, and how that is said. At the end the topics hold what was not refused, and no more.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect(', message_max_bytes ''20000''');
CREATE SCHEMA modify_refused;
SET search_path = modify_refused;
SELECT test.topic('refused', 2), test.topic('refused_text', 1), test.topic('refused_part', 1);
CREATE FUNCTION tried(statement text) RETURNS TABLE (sqlstate text, message text, detail text, hint text, "column" text, "constraint" text) LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text; hint text; col text; con text;
BEGIN
    BEGIN
        EXECUTE statement;
        RETURN QUERY SELECT '00000', 'done', NULL, NULL, NULL, NULL;
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, col = COLUMN_NAME,
            con = CONSTRAINT_NAME;
    END;
    RETURN QUERY SELECT state, message, NULLIF(detail, ''), NULLIF(hint, ''), NULLIF(col, ''), NULLIF(con, '');
END
$$;
\x on
\pset format unaligned
\pset fieldsep ': '
\pset footer off

-- read-only, the default: in every way
CREATE FOREIGN TABLE ro (id int OPTIONS (key 'true') NOT NULL, v text, doc jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'refused');
CREATE VIEW ro_view AS SELECT id, v FROM ro;
CREATE TABLE parent (id int, v text, doc jsonb) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE ro_part (id int OPTIONS (key 'true') NOT NULL, v text, doc jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'refused');
ALTER TABLE parent ATTACH PARTITION ro_part FOR VALUES FROM (0) TO (10);
CREATE TABLE heap_part PARTITION OF parent FOR VALUES FROM (10) TO (20);
INSERT INTO heap_part VALUES (11, 'heap');
SELECT * FROM tried('INSERT INTO ro (id) VALUES (1)');
SELECT sqlstate, message FROM tried('UPDATE ro SET v = 1');
SELECT sqlstate, message FROM tried('DELETE FROM ro');
SELECT sqlstate, message FROM tried('EXPLAIN INSERT INTO ro (id) VALUES (1)');
SELECT sqlstate, message FROM tried('INSERT INTO ro_view VALUES (1)');
SELECT sqlstate, message FROM tried('INSERT INTO parent VALUES (1)');
SELECT sqlstate, message FROM tried('UPDATE parent SET id = 1 WHERE id = 11');
SELECT sqlstate, message FROM tried('DELETE FROM parent WHERE id = 1');
SELECT sqlstate, message FROM tried('WITH i AS (INSERT INTO ro (id) VALUES (1)) SELECT 1');
SELECT sqlstate, message FROM tried('INSERT INTO ro (id) VALUES (1) ON CONFLICT (id) DO NOTHING');
COPY ro (id, v) FROM stdin;
1	x
\.
COPY parent (id, v) FROM stdin;
1	x
\.
SELECT is_insertable_into FROM information_schema.tables WHERE table_schema = 'modify_refused' AND table_name = 'ro';
SELECT pg_relation_is_updatable('ro', false), pg_relation_is_updatable('ro_view', false);
-- nor does it fail where the transaction has a writer's lock
BEGIN;
PREPARE never AS INSERT INTO ro (id) VALUES (1);
SELECT is_insertable_into FROM information_schema.tables WHERE table_schema = 'modify_refused' AND table_name = 'ro_view';
SELECT sqlstate, message FROM tried('EXECUTE never');
ROLLBACK;
DEALLOCATE never;
-- also for who prepared it when it was allowed
ALTER FOREIGN TABLE ro OPTIONS (ADD readonly 'false');
PREPARE later AS INSERT INTO ro (id) VALUES (1);
BEGIN;
EXECUTE later;
EXECUTE later;
EXECUTE later;
EXECUTE later;
EXECUTE later;
EXECUTE later;
ROLLBACK;
ALTER FOREIGN TABLE ro OPTIONS (SET readonly 'true');
SELECT sqlstate, message FROM tried('EXECUTE later');
DROP FOREIGN TABLE ro CASCADE;

CREATE FOREIGN TABLE w (
	id int OPTIONS (key 'true') NOT NULL, v text NOT NULL, n int CONSTRAINT positive CHECK (n > 0), x float8,
	p int OPTIONS (partition 'true'), o bigint OPTIONS (offset 'true'), at timestamptz OPTIONS (timestamp 'true'), h jsonb OPTIONS (headers 'true')
) SERVER kafka OPTIONS (topic 'refused', readonly 'false');
SELECT pg_relation_is_updatable('w', false);
INSERT INTO w (id, v) VALUES (1, 'one');
-- what INSERT cannot mean
SELECT * FROM tried('INSERT INTO w (id, v) VALUES (1, 1) ON CONFLICT DO NOTHING');
SELECT * FROM tried('INSERT INTO w (id, v) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET v = 2');
SELECT sqlstate, message FROM tried('WITH i AS (INSERT INTO w (id, v) VALUES (1, 1) ON CONFLICT (id) DO NOTHING RETURNING id) SELECT * FROM i');
-- UPDATE without the document
SELECT * FROM tried('UPDATE w SET v = 2 WHERE id = 1');
SELECT sqlstate, message FROM tried('EXPLAIN UPDATE w SET v = 2 WHERE id = 1');
-- keys
SELECT * FROM tried('INSERT INTO w (v) VALUES (2)');
ALTER FOREIGN TABLE w ALTER id DROP NOT NULL;
SELECT * FROM tried('INSERT INTO w (v) VALUES (2)');
-- constraints
SELECT * FROM tried('INSERT INTO w (id) VALUES (2)');
SELECT * FROM tried('INSERT INTO w (id, v, n) VALUES (2, 2, 0)');
SELECT sqlstate, message FROM tried('INSERT INTO w (id, v, n) SELECT i, i, 2 - i FROM generate_series(1, 3) i');
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v) VALUES ('one', 1)$$);
-- what the brokers give
SELECT * FROM tried('INSERT INTO w (id, v, o) VALUES (2, 2, 0)');
SELECT sqlstate, message FROM tried('INSERT INTO w (id, v, p) VALUES (2, 2, -1)');
SELECT * FROM tried('INSERT INTO w (id, v, p) VALUES (2, 2, 2)');
INSERT INTO w (id, v, p) VALUES (2, '2', 2);
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v, at) VALUES (2, 2, 'infinity')$$);
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v, h) VALUES (2, 2, '{"a": 1}')$$);
-- what JSON cannot say
SELECT * FROM tried($$INSERT INTO w (id, v, x) VALUES (2, 2, 'NaN')$$);
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v, x) VALUES (2, 2, '-Infinity')$$);
-- sizes
SELECT * FROM tried($$INSERT INTO w (id, v) VALUES (2, repeat('x', 20000))$$);
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v, h) VALUES (2, 2, jsonb_build_array(jsonb_build_array('a', repeat('x', 20000))))$$);
ALTER FOREIGN TABLE w OPTIONS (ADD max_record_bytes '1000');
SELECT sqlstate, message FROM tried($$INSERT INTO w (id, v) VALUES (2, repeat('x', 1000))$$);
-- in transactions
BEGIN;
INSERT INTO w (id, v) VALUES (5, 'five');
PREPARE TRANSACTION 'refused';
BEGIN READ ONLY;
INSERT INTO w (id, v) VALUES (5, 'five');
ROLLBACK;
SELECT sqlstate, message FROM tried('MERGE INTO w USING (VALUES (1)) s (id) ON s.id = w.id WHEN MATCHED THEN DELETE');

-- the producer knows servers that are committed
BEGIN;
CREATE SERVER uncommitted FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
CREATE FOREIGN TABLE u (id int OPTIONS (key 'true') NOT NULL, v text) SERVER uncommitted OPTIONS (topic 'refused', readonly 'false', delivery 'immediate');
SELECT sqlstate, message, regexp_replace(detail, '[0-9]+', 'n') AS detail, hint FROM tried('INSERT INTO u VALUES (1)');
ROLLBACK;

-- with the document at hand
ALTER FOREIGN TABLE w OPTIONS (ADD keep_value 'true', DROP max_record_bytes);
SELECT kafka_cache.wait_ready('w', '30 s'), pg_relation_is_updatable('w', false);
SELECT * FROM tried('UPDATE w SET id = 2 WHERE id = 1');
SELECT sqlstate, message FROM tried('UPDATE w SET id = NULL WHERE id = 1');
SELECT sqlstate, message FROM tried('UPDATE w SET v = NULL WHERE id = 1');
SELECT sqlstate, message FROM tried('UPDATE w SET n = -1 WHERE id = 1');
SELECT * FROM tried('UPDATE w SET o = 1 WHERE id = 1');
SELECT * FROM tried('UPDATE w SET p = 1 - p WHERE id = 1');
BEGIN;
INSERT INTO w (id, v) VALUES (1, 'again');
SELECT * FROM tried($$UPDATE w SET v = 'again' WHERE id = 1$$);
SELECT sqlstate FROM tried('DELETE FROM w WHERE id = 1');
SELECT sqlstate FROM tried('DELETE FROM w WHERE id = 1');
ROLLBACK;
BEGIN;
SELECT sqlstate FROM tried($$UPDATE w SET v = 'once', o = DEFAULT WHERE id = 1$$);
SELECT sqlstate FROM tried($$UPDATE w SET v = 'twice' WHERE id = 1$$);
ROLLBACK;
CREATE VIEW small AS SELECT id, v, n, o FROM w WHERE n < 10 WITH CHECK OPTION;
SELECT sqlstate, message FROM tried('INSERT INTO small VALUES (3, 3, 30)');
ALTER FOREIGN TABLE w OPTIONS (ADD delivery 'immediate');
SELECT sqlstate, message FROM tried('INSERT INTO small VALUES (3, 3, 30) RETURNING o');

-- a value column: what would not come back is not sent
CREATE FOREIGN TABLE d (id int OPTIONS (key 'true') NOT NULL, v text NOT NULL CHECK (v <> 'bad'), n int, doc text OPTIONS (value 'true'), o bigint OPTIONS (offset 'true') NOT NULL)
	SERVER kafka OPTIONS (topic 'refused', readonly 'false');
SELECT * FROM tried($$INSERT INTO d (id, doc) VALUES (2, '{"n": 1}')$$);
SELECT * FROM tried($$INSERT INTO d (id, doc) VALUES (2, '{"v": "bad"}')$$);
SELECT * FROM tried($$INSERT INTO d (id, doc) VALUES (2, '{"v": "x", "n": "x"}')$$);
SELECT sqlstate, message, detail FROM tried($$INSERT INTO d (id, doc) VALUES (2, '{"v": "x", "n": 1e20}')$$);
SELECT sqlstate, message, detail FROM tried($$INSERT INTO d (id, doc) VALUES (2, '[1]')$$);
SELECT sqlstate, message, detail FROM tried($$INSERT INTO d (id, doc) VALUES (2, '{"v": "x"')$$);
SELECT sqlstate, message, detail FROM tried($$INSERT INTO d (id, doc) VALUES (2, NULL)$$);
CREATE FOREIGN TABLE txt (k text OPTIONS (key 'true') NOT NULL, v text OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'refused_text', format 'text', readonly 'false');
SELECT * FROM tried($$INSERT INTO txt VALUES ('k', NULL)$$);
INSERT INTO txt VALUES ('k', '');
SELECT * FROM tried($$UPDATE txt SET v = NULL$$);
SELECT k, v = '' AS empty FROM txt;

-- partitions: a row belongs where it is, and cannot be moved out of a cached table
CREATE FOREIGN TABLE part (id int OPTIONS (key 'true') NOT NULL, v text, doc jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'refused_part', readonly 'false');
ALTER TABLE parent ATTACH PARTITION part FOR VALUES FROM (20) TO (30);
DROP FOREIGN TABLE ro_part;
SELECT sqlstate, message FROM tried('INSERT INTO part VALUES (5)');
SELECT sqlstate, message FROM tried('INSERT INTO parent VALUES (25) ON CONFLICT DO NOTHING');
INSERT INTO parent VALUES (25, 'x');
SELECT sqlstate, message FROM tried('UPDATE parent SET id = 15 WHERE id = 25');
SELECT sqlstate, message FROM tried('UPDATE parent SET id = 26 WHERE id = 25');

-- what was not refused, and no more
SELECT test.mock('position', 'refused'), test.mock('position', 'refused_text'), test.mock('position', 'refused_part');
DROP EXTENSION kafka_cache_fdw CASCADE;
