--
-- What PostgreSQL does around a statement that writes: triggers, views, partitions, transactions, plans, rights.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
CREATE SCHEMA modify_around;
SET search_path = modify_around;
SELECT test.topic('around', 2), test.topic('around_p', 1), test.topic('around_q', 1);
CREATE FOREIGN TABLE t (
	id int OPTIONS (key 'true') NOT NULL, name text NOT NULL, n int, s text,
	p int OPTIONS (partition 'true'), o bigint OPTIONS (offset 'true'), at timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'around', readonly 'false', keep_value 'true');
SELECT kafka_cache.wait_ready('t', '30 s');
SELECT test.mock('produce', 'around', '0', '100', '{"name":"theirs","n":1,"hidden":{"a":[1,2.50]}}');
SELECT test.catch_up('t');

-- triggers
CREATE TABLE log (i serial, what text);
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		IF OLD.n = -2 THEN RETURN NULL; END IF;
		RETURN OLD;
	END IF;
	IF NEW.n = -1 THEN RETURN NULL; END IF;
	NEW.s := TG_OP || ' of ' || NEW.name;
	RETURN NEW;
END $$;
CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (what) SELECT concat_ws(' ', TG_OP, 'old', to_jsonb(OLD) - '{p,o,at}'::text[], 'new', to_jsonb(NEW) - '{at,p}'::text[]);
	RETURN NULL;
END $$;
CREATE FUNCTION statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES (TG_WHEN || ' ' || TG_OP); RETURN NULL; END $$;
CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION before_row();
CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION after_row();
CREATE TRIGGER s1 BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION statement();
CREATE TRIGGER s2 AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION statement();
INSERT INTO t (id, name, n) VALUES (1, 'Ann', 1), (2, 'Bob', -1) RETURNING id, s, o;
UPDATE t SET n = 5 WHERE id = 1 RETURNING id, n, s, o;
UPDATE t SET n = -1 WHERE id = 1;
UPDATE t SET n = -2 WHERE id = 1;
DELETE FROM t WHERE id = 1;
UPDATE t SET n = 2 WHERE id = 1;
DELETE FROM t WHERE id = 1 RETURNING id, n;
COPY t (id, name, n) FROM stdin;
3	Cid	3
4	Dan	-1
\.
SELECT what FROM log ORDER BY i;
SELECT id, name, n, s FROM t WHERE id < 100 ORDER BY id;
-- a trigger's change of a column that nobody sets is written, what no column shows is not lost
UPDATE t SET n = 2 WHERE id = 100;
SELECT n, s FROM t WHERE id = 100;
DROP TRIGGER b ON t;
DROP TRIGGER a ON t;
DROP TRIGGER s1 ON t;
DROP TRIGGER s2 ON t;
-- one that may not change what it changes
CREATE FUNCTION new_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 1; RETURN NEW; END $$;
CREATE TRIGGER k BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION new_key();
UPDATE t SET n = 3 WHERE id = 3;
DROP TRIGGER k ON t;

-- views
CREATE VIEW v AS SELECT id, name AS label, n FROM t WHERE n > 0 WITH CHECK OPTION;
INSERT INTO v VALUES (5, 'five', 5) RETURNING *;
UPDATE v SET label = 'FIVE' WHERE id = 5;
UPDATE v SET n = -5 WHERE id = 5;
INSERT INTO v VALUES (6, 'six', -6);
SELECT * FROM v WHERE id < 100 ORDER BY id;
DELETE FROM v WHERE id = 5;
SELECT id FROM t ORDER BY id;

-- transactions
BEGIN;
INSERT INTO t (id, name) VALUES (10, 'ten');
SELECT count(*) FROM t WHERE id = 10;
SAVEPOINT a;
INSERT INTO t (id, name) VALUES (11, 'eleven');
ROLLBACK TO a;
INSERT INTO t (id, name) VALUES (12, 'twelve');
EXPLAIN (COSTS off) SELECT * FROM t WHERE id = 10;
EXPLAIN (COSTS off) INSERT INTO t (id, name) VALUES (13, 'thirteen');
COMMIT;
SELECT id, name FROM t WHERE id BETWEEN 10 AND 13 ORDER BY id;
BEGIN;
INSERT INTO t (id, name) VALUES (14, 'fourteen');
DELETE FROM t;
ROLLBACK;
DO $$
BEGIN
	INSERT INTO t (id, name) VALUES (15, 'fifteen');
	BEGIN
		INSERT INTO t (id, name) VALUES (16, 'sixteen'), (NULL, 'nobody');
	EXCEPTION WHEN not_null_violation THEN NULL;
	END;
	UPDATE t SET n = 3 WHERE id = 3;
END $$;
SELECT id FROM t WHERE id >= 14 ORDER BY id;
-- a row that a statement writes twice is written once, as with ordinary tables
BEGIN;
UPDATE t SET n = 7 FROM generate_series(1, 3) WHERE id = 3;
DELETE FROM t USING generate_series(1, 3) WHERE id = 12;
EXPLAIN (COSTS off) SELECT FROM t;
COMMIT;

-- but neither of two changes is lost silently, where the statement's own functions and triggers write its rows
CREATE FUNCTION put(k int, v int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (id, name, n) VALUES (k, 'put', v); RETURN v; END $$;
UPDATE t SET n = put(id, 70) + 1 WHERE id = 3;
DELETE FROM t WHERE id = 3 AND put(id, 70) = 70;
UPDATE t SET n = put(id + 200, 70) + 1 FROM generate_series(1, 3) WHERE id IN (3, 10);
SELECT id, n FROM t WHERE id IN (3, 10, 203, 210) ORDER BY id;
DELETE FROM t WHERE id IN (203, 210);
DROP FUNCTION put;

-- altered on the way
SET kafka_cache.wait_timeout = '1h';
BEGIN;
INSERT INTO t (id, name) VALUES (220, 'before');
ALTER FOREIGN TABLE t ADD COLUMN more int;
INSERT INTO t (id, name, more) VALUES (221, 'after', 1);
SAVEPOINT a;
SELECT more FROM t;
ROLLBACK TO a;
UPDATE t SET more = 2;
ROLLBACK TO a;
COMMIT;
RESET kafka_cache.wait_timeout;
SELECT id, name, more FROM t WHERE id IN (220, 221) ORDER BY id;
BEGIN;
INSERT INTO t (id, name, more) VALUES (220, 'dropped', 1);
ALTER FOREIGN TABLE t DROP COLUMN more;
COMMIT;
SELECT id, name FROM t WHERE id IN (220, 221) ORDER BY id;
DELETE FROM t WHERE id IN (220, 221);
-- what was written to another topic is not waited for
SELECT test.topic('around_other', 1);
BEGIN;
INSERT INTO t (id, name) SELECT i, 'here' FROM generate_series(230, 250) i;
ALTER FOREIGN TABLE t OPTIONS (SET topic 'around_other');
INSERT INTO t (id, name) VALUES (230, 'there');
COMMIT;
SELECT id, name FROM t;
ALTER FOREIGN TABLE t OPTIONS (SET topic 'around');
SELECT count(*) FROM t WHERE id BETWEEN 230 AND 250;
DELETE FROM t WHERE id BETWEEN 230 AND 250;

-- EXPLAIN sends nothing, EXPLAIN ANALYZE does
SELECT test.mock('position', 'around') AS before \gset
EXPLAIN (COSTS off) INSERT INTO t (id, name) VALUES (20, 'x');
EXPLAIN (COSTS off) UPDATE t SET n = 4 WHERE id = 3;
EXPLAIN (COSTS off) UPDATE t SET n = 4 FROM generate_series(1, 2) g WHERE t.id = g;
EXPLAIN (COSTS off) DELETE FROM t;
SELECT test.mock('position', 'around') = :'before' AS nothing_sent;
EXPLAIN (ANALYZE, COSTS off, BUFFERS off, TIMING off, SUMMARY off) INSERT INTO t (id, name) VALUES (20, 'x'), (21, 'y');
SELECT id FROM t WHERE id IN (20, 21) ORDER BY id;
EXPLAIN (ANALYZE, COSTS off, BUFFERS off, TIMING off, SUMMARY off) DELETE FROM t WHERE id IN (20, 21);
ALTER FOREIGN TABLE t OPTIONS (ADD atomic 'true');
EXPLAIN (COSTS off, FORMAT json) DELETE FROM t;
ALTER FOREIGN TABLE t OPTIONS (DROP atomic, ADD delivery 'immediate');
EXPLAIN (COSTS off) DELETE FROM t;
ALTER FOREIGN TABLE t OPTIONS (DROP delivery);

-- a plan that is kept follows the table
SET plan_cache_mode = force_generic_plan;
PREPARE put(int, text) AS INSERT INTO t (id, name) VALUES ($1, $2) RETURNING o IS NOT NULL AS o;
PREPARE change(int, int) AS UPDATE t SET n = $2 WHERE id = $1 RETURNING n;
EXECUTE put(30, 'thirty');
EXECUTE change(30, 1);
ALTER FOREIGN TABLE t OPTIONS (ADD delivery 'immediate');
EXECUTE put(31, 'thirty-one');
EXECUTE change(31, 1);
ALTER FOREIGN TABLE t OPTIONS (DROP delivery, DROP keep_value);
EXECUTE change(31, 2);
ALTER FOREIGN TABLE t OPTIONS (ADD keep_value 'true');
EXECUTE change(31, 3);
RESET plan_cache_mode;

-- partitions: routed, moved into a cached table, pruned
CREATE TABLE parent (id int, name text, region text) PARTITION BY LIST (region);
CREATE FOREIGN TABLE p (name text, id int OPTIONS (key 'true'), region text) SERVER kafka OPTIONS (topic 'around_p', readonly 'false', keep_value 'true');
CREATE FOREIGN TABLE q (id int OPTIONS (key 'true'), name text, region text, o bigint OPTIONS (offset 'true')) SERVER kafka OPTIONS (topic 'around_q', readonly 'false', keep_value 'true', delivery 'immediate');
ALTER FOREIGN TABLE q DROP COLUMN o;
CREATE TABLE h (id int, name text, region text);
ALTER TABLE parent ATTACH PARTITION p FOR VALUES IN ('p');
ALTER TABLE parent ATTACH PARTITION q FOR VALUES IN ('q');
ALTER TABLE parent ATTACH PARTITION h FOR VALUES IN ('h');
INSERT INTO parent VALUES (1, 'one', 'p'), (2, 'two', 'q'), (3, 'three', 'h'), (4, 'four', 'p') RETURNING tableoid::regclass, *;
COPY parent FROM stdin;
5	five	q
6	six	p
7	seven	h
\.
SELECT tableoid::regclass, * FROM parent ORDER BY id;
UPDATE parent SET name = upper(name) WHERE id IN (1, 2, 3) RETURNING tableoid::regclass, *;
UPDATE parent SET region = 'p' WHERE id = 7 RETURNING tableoid::regclass, *;
UPDATE parent SET region = 'h' WHERE id = 1;
UPDATE parent SET region = 'q' WHERE id = 1;
DELETE FROM parent WHERE id IN (2, 3, 4) RETURNING tableoid::regclass, id;
SELECT tableoid::regclass, * FROM parent ORDER BY id;
INSERT INTO q VALUES (8, 'eight', 'p');
INSERT INTO q VALUES (8, 'eight', 'q');
SELECT * FROM q ORDER BY id;

-- rights: of who writes
CREATE ROLE around_writer;
GRANT USAGE ON SCHEMA modify_around TO around_writer;
GRANT INSERT (id, name) ON t TO around_writer;
GRANT INSERT, SELECT ON v TO around_writer;
SET ROLE around_writer;
INSERT INTO t (id, name) VALUES (40, 'forty');
INSERT INTO t (id, name, n) VALUES (41, 'forty-one', 1);
UPDATE t SET name = 'x' WHERE id = 40;
DELETE FROM t;
INSERT INTO v VALUES (41, 'forty-one', 1);
RESET ROLE;
SELECT id, name FROM t WHERE id IN (40, 41) ORDER BY id;
DROP OWNED BY around_writer;
DROP ROLE around_writer;

-- system columns, and rows as wholes, go on as before
SELECT xmin, xmax, cmin, cmax, tableoid::regclass FROM t WHERE id = 40;
SELECT ctid FROM t WHERE id = 40;
DELETE FROM t WHERE id = 40 AND xmin = '0' RETURNING tableoid::regclass, t.id;
UPDATE t SET name = t::text WHERE id = 41 RETURNING name ~ '^\(41,forty-one,1' AS ok;
DELETE FROM t a USING t b WHERE a.id = b.id AND b.id = 41 RETURNING a.id;
DROP EXTENSION kafka_cache_fdw CASCADE;
