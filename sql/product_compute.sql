--
-- Computing: what becomes of a function's result, whose rights and settings it runs with, and what it sees.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
DROP ROLE IF EXISTS computes, asks;
RESET client_min_messages;
CREATE SCHEMA product_compute;
SET search_path = product_compute;
CREATE SERVER compute_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
CREATE FUNCTION compute(relation regclass, VARIADIC key text[]) RETURNS text
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_compute' LANGUAGE C STRICT;
CREATE FUNCTION augment(relation regclass, key text[], old jsonb, hints jsonb) RETURNS text
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_augment' LANGUAGE C STRICT;
-- A product of this function, and what it computes for these keys.
CREATE FUNCTION computed(function text, columns text DEFAULT 'v jsonb OPTIONS (value ''true'')', VARIADIC keys text[] DEFAULT '{1}') RETURNS SETOF text
	LANGUAGE plpgsql AS $$
DECLARE
	key text;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE product_compute.t (id int OPTIONS (key ''true'') NOT NULL, %s) SERVER compute_kafka OPTIONS (compute %L)',
		columns, 'product_compute.' || function);
	FOREACH key IN ARRAY keys LOOP
		RETURN NEXT product_compute.compute('product_compute.t', key);
	END LOOP;
	DROP FOREIGN TABLE product_compute.t;
END
$$;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (n int, label text);
CREATE DOMAIN posint AS int CHECK (VALUE > 0);

-- shapes
CREATE FUNCTION upto(id int) RETURNS TABLE (n bigint, "a ""name""" text) LANGUAGE sql STABLE
	AS 'SELECT n, NULLIF(n, 2) || ''é"\'' FROM generate_series(1::bigint, id) n';
SELECT computed('upto', 'v jsonb OPTIONS (value ''true'')', '0', '1', '3');
CREATE FUNCTION bare(id int) RETURNS SETOF numeric LANGUAGE sql STABLE AS 'SELECT NULLIF(n, 2) / 8.00 FROM generate_series(1, id) n';
SELECT computed('bare', 'v text OPTIONS (value ''true'')', '0', '1', '3');
CREATE FUNCTION pair(id int) RETURNS pair LANGUAGE sql STABLE AS 'SELECT ROW(NULLIF(id, 2), NULLIF(id, 3)::text)::product_compute.pair WHERE id < 9';
CREATE FUNCTION null_pair(id int) RETURNS pair LANGUAGE sql STABLE AS 'SELECT ROW(NULL, NULL)::product_compute.pair';
SELECT computed('pair', 'v jsonb OPTIONS (value ''true'')', '1', '2', '3', '9');
SELECT computed('pair', 'n int, label text', '1', '2', '3', '9');
SELECT computed('pair', 'n int OPTIONS (json ''a.n''), label text OPTIONS (json ''a.b.label'')', '1', '2', '3', '9');
SELECT computed('pair', 'n int OPTIONS (json ''a.n''), v jsonb OPTIONS (value ''true'')', '1', '2', '3', '9');
SELECT computed('null_pair');
CREATE FUNCTION scalar(id int) RETURNS text LANGUAGE sql STABLE AS 'SELECT NULLIF(repeat(''x'', id), '''')';
SELECT computed('scalar', 'v jsonb OPTIONS (value ''true'')', '0', '1', '3');
CREATE FUNCTION nothing(id int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT computed('nothing');
CREATE FUNCTION doc(id int) RETURNS jsonb LANGUAGE sql STABLE
	AS $$SELECT ('{null,[],"{\"n\": 1, \"label\": \"x\", \"more\": [1.50, null]}",7}'::jsonb[])[id]$$;
SELECT computed('doc', 'v jsonb OPTIONS (value ''true'')', '1', '2', '3', '4', '5');
SELECT computed('doc', 'n int, label text', '1', '3');
SELECT computed('doc', 'n int, label text', '2');
CREATE FUNCTION doc_text(id int) RETURNS json LANGUAGE sql STABLE AS $$SELECT ' { "n" : 1.0 } '::json$$;
SELECT computed('doc_text');
CREATE FUNCTION two(a uuid, b text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT a || b';
CREATE FOREIGN TABLE two (b text OPTIONS (key 'true', json 'deep.b'), a uuid OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka
	OPTIONS (key_format 'json', compute 'product_compute.flipped');
CREATE FUNCTION flipped(b text, a uuid, OUT x text, OUT y int) LANGUAGE sql IMMUTABLE AS 'SELECT b || a, 1';
CREATE FOREIGN TABLE two (b text OPTIONS (key 'true', json 'deep.b'), a uuid OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka
	OPTIONS (key_format 'json', compute 'product_compute.flipped');
SELECT compute('two', 'x', '00000000-0000-0000-0000-000000000001');
CREATE FUNCTION by_day(d posint) RETURNS int LANGUAGE sql STABLE AS 'SELECT d + 1';
CREATE FOREIGN TABLE by_day (d posint OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.by_day');
SELECT compute('by_day', '4');
-- what a table has taken, and what it computes of it in turn
CREATE FUNCTION kinds(id int) RETURNS TABLE (b bool, f float8, n numeric, u uuid, d date, ts timestamptz, i interval, m mood, a int[], p pair, ps pair[],
	j jsonb, jn jsonb, js json, by bytea, r int4range, e text[], x text) LANGUAGE sql STABLE AS $$
	SELECT true, 0.1::float8, 1.50, '00000000-0000-0000-0000-000000000001'::uuid, date '2020-02-29', timestamptz '2020-01-01 00:00:00+02', interval '1 day 2 hours',
		'bad'::product_compute.mood, ARRAY[1,NULL,3], ROW(1, NULL)::product_compute.pair, ARRAY[ROW(1, 'a')::product_compute.pair, NULL],
		'{"a": [1.0, null]}'::jsonb, 'null'::jsonb, ' [ 1 ]'::json, '\x00ff'::bytea, int4range(1, 5), '{}'::text[], E'\n\t\u0001' $$;
SELECT computed('kinds');
CREATE FUNCTION wrong(id int) RETURNS float8 LANGUAGE sql STABLE AS $$SELECT 'NaN'::float8$$;
SELECT computed('wrong');

-- whoever asks: the same settings, nobody else's names
CREATE FUNCTION settings(id int) RETURNS SETOF text LANGUAGE sql STABLE AS $$
	SELECT name || '=' || current_setting(name) FROM unnest('{search_path,timezone,datestyle,intervalstyle,bytea_output,extra_float_digits,lc_monetary,lc_numeric,lc_time,row_security}'::text[]) name
	UNION ALL SELECT now() - now() || '' UNION ALL SELECT timestamptz 'epoch' || '' $$;
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET intervalstyle = 'iso_8601';
SET bytea_output = 'escape';
SET row_security = off;
SET lc_time = 'POSIX';
SELECT computed('settings');
SHOW search_path;
SHOW timezone;
RESET timezone;
RESET datestyle;
RESET intervalstyle;
RESET bytea_output;
RESET row_security;
RESET lc_time;
CREATE TABLE ordinary (id int PRIMARY KEY, n int);
INSERT INTO ordinary VALUES (1, 10), (2, 20);
CREATE FUNCTION unqualified(id int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT n FROM ordinary o WHERE o.id = unqualified.id); END';
SELECT computed('unqualified');
ALTER FUNCTION unqualified SET search_path = product_compute;
SELECT computed('unqualified', 'v jsonb OPTIONS (value ''true'')', '2', '3');
-- whose rights
CREATE ROLE computes;
CREATE ROLE asks;
GRANT USAGE ON SCHEMA product_compute TO computes, asks;
GRANT SELECT ON ordinary TO computes;
CREATE FUNCTION rights(id int) RETURNS text LANGUAGE plpgsql STABLE
	AS 'BEGIN RETURN current_user || (SELECT sum(n) FROM product_compute.ordinary); END';
CREATE FOREIGN TABLE rights (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.rights');
ALTER FOREIGN TABLE rights OWNER TO computes;
SET ROLE asks;
SELECT compute('rights', '1'), current_user;
SELECT sum(n) FROM ordinary;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION rights FROM PUBLIC;
SELECT compute('rights', '1');
GRANT EXECUTE ON FUNCTION rights TO computes;
REVOKE SELECT ON ordinary FROM computes;
SELECT compute('rights', '1');
SELECT current_user = session_user AS back;
CREATE FUNCTION escapes(id int) RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE mine (); RETURN 1; END';
CREATE FUNCTION becomes(id int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RESET ROLE; RETURN 1; END';
SELECT computed('escapes');
SELECT computed('becomes');

-- what it sees: what is committed, and (where it writes) its own
CREATE FUNCTION n_of(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n FROM product_compute.ordinary WHERE ordinary.id = n_of.id';
CREATE FOREIGN TABLE n_of (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.n_of');
CREATE FUNCTION counts(id int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE product_compute.ordinary o SET n = n + 1 WHERE o.id = counts.id; RETURN (SELECT n FROM product_compute.ordinary o WHERE o.id = counts.id); END';
CREATE FOREIGN TABLE counts (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.counts');
SELECT compute('counts', '1'), compute('counts', '1'), compute('n_of', '1'), n FROM ordinary WHERE id = 1;
SELECT compute('n_of', id::text) FROM ordinary ORDER BY id;
BEGIN READ ONLY;
SELECT compute('n_of', '1');
SELECT compute('counts', '1');
ROLLBACK;
CREATE FUNCTION as_declared(id int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN UPDATE product_compute.ordinary SET n = 0; RETURN 1; END';
SELECT computed('as_declared');
-- a function that is replaced
CREATE OR REPLACE FUNCTION n_of(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT -1';
SELECT compute('n_of', '1');
CREATE FUNCTION rows_of(id int) RETURNS SETOF ordinary LANGUAGE sql STABLE AS 'SELECT * FROM product_compute.ordinary o WHERE o.id = rows_of.id';
CREATE FOREIGN TABLE rows_of (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.rows_of');
SELECT compute('rows_of', '2');
ALTER TABLE ordinary ADD COLUMN label text DEFAULT 'new', DROP COLUMN n;
SELECT compute('rows_of', '2');
ALTER TABLE ordinary ADD COLUMN n int DEFAULT 5;
SELECT compute('rows_of', '2');

-- errors, with where they come from, and no keys
\set SHOW_CONTEXT errors
\set VERBOSITY default
CREATE FUNCTION fails(id int) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RAISE EXCEPTION USING ERRCODE = 'XX123', MESSAGE = 'no luck'; END$$;
CREATE FOREIGN TABLE fails (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.fails');
SELECT compute('fails', '4711');
-- a product that needs itself, and some that need each other
CREATE FUNCTION compute_of(relation text, id int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN product_compute.compute(relation::regclass, id::text)::int; END';
CREATE FUNCTION own(id int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN product_compute.compute_of(''product_compute.own'', id % 3); END';
CREATE FOREIGN TABLE own (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.own');
\set SHOW_CONTEXT never
SELECT compute('own', '2');
SELECT compute('own', '5');
CREATE FUNCTION down(id int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN CASE WHEN id = 0 THEN 0 ELSE product_compute.compute_of(''product_compute.down'', id - 1) + 1 END; END';
CREATE FOREIGN TABLE down (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.down');
SELECT compute('down', '15');
SELECT compute('down', '16');
SELECT compute('down', '3');
-- after an error that was caught all is as before
CREATE FUNCTION caught(id int) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN product_compute.compute('product_compute.own', '2');
EXCEPTION WHEN others THEN
	RETURN SQLSTATE || current_setting('search_path') || product_compute.compute('product_compute.down', '14');
END $$;
CREATE FOREIGN TABLE caught (id int OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER compute_kafka OPTIONS (compute 'product_compute.caught');
SELECT compute('caught', '1'), current_setting('search_path');

-- a new value out of the old one and what has changed
CREATE FUNCTION add_up(id int, old jsonb, hints jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$SELECT CASE WHEN id > 0 THEN old || hints || to_jsonb(current_setting('timezone')) END$$;
ALTER FOREIGN TABLE down OPTIONS (ADD augment 'product_compute.add_up');
SELECT augment('down', '{1}', '[1]', '[{"source": "x", "old": null, "new": {"a": 1.50}}]');
SELECT augment('down', '{0}', '[1]', '[]');

SET client_min_messages = warning;
DROP SCHEMA product_compute CASCADE;
DROP SERVER compute_kafka CASCADE;
DROP ROLE computes, asks;
