--
-- Definitions of data products: which functions a table can have, and which tables a function.
--
\set SHOW_CONTEXT never
\set VERBOSITY default
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;
CREATE SCHEMA product_definitions;
SET search_path = product_definitions;
CREATE SERVER products_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
CREATE FUNCTION product(relation regclass, OUT shape text, OUT fields text, OUT call text, OUT augment text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_product' LANGUAGE C STRICT;
CREATE TYPE pair AS (n bigint, label text);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN small AS int CHECK (VALUE < 100);

CREATE FUNCTION set_of(id int) RETURNS TABLE (n bigint, label text) LANGUAGE sql STABLE AS 'SELECT 1::bigint, ''a''';
CREATE FUNCTION one_named(id int) RETURNS TABLE (n bigint) LANGUAGE sql STABLE AS 'SELECT 1::bigint';
CREATE FUNCTION bare(id int) RETURNS SETOF bigint LANGUAGE sql STABLE AS 'SELECT 1::bigint';
CREATE FUNCTION pairs(id int) RETURNS SETOF pair LANGUAGE sql STABLE AS 'SELECT 1::bigint, ''a''';
CREATE FUNCTION one(id int) RETURNS pair LANGUAGE sql STABLE AS 'SELECT 1::bigint, ''a''';
CREATE FUNCTION out_of(id int, OUT n bigint, OUT label text) LANGUAGE sql STABLE AS 'SELECT 1::bigint, ''a''';
CREATE FUNCTION out_one(id int, OUT n bigint) LANGUAGE sql STABLE AS 'SELECT 1::bigint';
CREATE FUNCTION scalar(id int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 1::bigint';
CREATE FUNCTION document(id int) RETURNS jsonb LANGUAGE sql AS 'SELECT ''{}''::jsonb';
CREATE FUNCTION nobody_knows(id int) RETURNS record LANGUAGE sql STABLE AS 'SELECT 1, 2';
CREATE FUNCTION void(id int) RETURNS void LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION more(id int, n int DEFAULT 1) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION two(a int, b text) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION "Odd ""Name"(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION same(id anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT id';
CREATE FUNCTION over(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION over(id bigint) RETURNS int LANGUAGE sql STABLE AS 'SELECT 8';
CREATE FUNCTION wide(id bigint) RETURNS int LANGUAGE sql STABLE AS 'SELECT 8';
CREATE FUNCTION unsure(id text) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION rows(id int) RETURNS SETOF pg_class LANGUAGE sql STABLE AS 'SELECT * FROM pg_catalog.pg_class LIMIT 0';
CREATE PROCEDURE proc(id int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION add_up(id int, old jsonb, hints jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT old';
CREATE FUNCTION add_text(id int, old jsonb, hints jsonb) RETURNS text LANGUAGE sql STABLE AS 'SELECT ''''';

-- A table with these columns behind the key, and these options: refused, or what it comes to.
CREATE FUNCTION try(columns text, options text, key text DEFAULT 'id int OPTIONS (key ''true'') NOT NULL') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	message text; detail text; hint text;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE product_definitions.t (%s%s) SERVER products_kafka OPTIONS (%s)', key, ', ' || columns, options);
	SELECT concat_ws(' | ', shape, fields, call, augment) INTO line FROM product_definitions.product('product_definitions.t');
	DROP FOREIGN TABLE product_definitions.t;
	RETURN line;
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ' ' || message, NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;
\set v '\'v jsonb OPTIONS (value \'\'true\'\')\''
\pset format unaligned
\pset tuples_only on

-- what a function gives, and where it goes
SELECT try(:v, $$compute 'product_definitions.set_of'$$);
SELECT try(:v, $$compute 'product_definitions.one_named'$$);
SELECT try(:v, $$compute 'product_definitions.bare'$$);
SELECT try(:v, $$compute 'product_definitions.pairs'$$);
SELECT try(:v, $$compute 'product_definitions.one'$$);
SELECT try(:v, $$compute 'product_definitions.out_of'$$);
SELECT try(:v, $$compute 'product_definitions.out_one'$$);
SELECT try('n bigint', $$compute 'product_definitions.out_one'$$);
SELECT try(:v, $$compute 'product_definitions.scalar'$$);
SELECT try(:v, $$compute 'product_definitions.document'$$);
SELECT try('n bigint, label text', $$compute 'product_definitions.one'$$);
SELECT try('n bigint, ' || :v, $$compute 'product_definitions.one'$$);
SELECT try('n bigint OPTIONS (json ''a.b''), label text', $$compute 'product_definitions.out_of'$$);
SELECT try('a int, b text', $$compute 'product_definitions.document'$$);
SELECT try('v text OPTIONS (value ''true'')', $$compute 'product_definitions.set_of'$$);
SELECT try('v bytea OPTIONS (value ''true''), o bigint OPTIONS ("offset" ''true''), t timestamptz OPTIONS (timestamp ''true'')', $$compute 'product_definitions.set_of'$$);
SELECT try(:v, $$compute 'product_definitions.rows'$$) LIKE 'set | oid:document relname:document %';
SELECT try(:v, $$compute 'product_definitions."Odd ""Name"'$$);
SELECT try(:v, $$compute 'product_definitions.same'$$);
SELECT try(:v, $$compute 'product_definitions.two', key_format 'json'$$, 'a int OPTIONS (key ''true''), b text OPTIONS (key ''true'')');
SELECT try(:v, $$compute 'product_definitions.two', key_format 'json'$$, 'b text OPTIONS (key ''true''), a int OPTIONS (key ''true'')');
SELECT try(:v, $$compute 'product_definitions.scalar'$$, 'id product_definitions.small OPTIONS (key ''true'')');
-- what does not go
SELECT try('n bigint', $$compute 'product_definitions.set_of'$$);
SELECT try('n bigint, label text', $$compute 'product_definitions.set_of'$$);
SELECT try('n bigint, ' || :v, $$compute 'product_definitions.set_of'$$);
SELECT try('n bigint', $$compute 'product_definitions.one'$$);
SELECT try('n int, label text', $$compute 'product_definitions.one'$$);
SELECT try('n bigint, label text, o text', $$compute 'product_definitions.one'$$);
SELECT try('n bigint, label text GENERATED ALWAYS AS (''x'') STORED', $$compute 'product_definitions.one'$$);
SELECT try('n bigint', $$compute 'product_definitions.scalar'$$);
SELECT try('o bigint OPTIONS ("offset" ''true'')', $$compute 'product_definitions.scalar'$$);
SELECT try(NULL, $$compute 'product_definitions.scalar'$$);
SELECT try(:v, $$compute 'product_definitions.nobody_knows'$$);
SELECT try(:v, $$compute 'product_definitions.void'$$);
SELECT try(:v, $$compute 'product_definitions.set_of'$$, 'id int OPTIONS (key ''true'', json ''id'')');
-- which function it is
SELECT try(:v, $$compute 'scalar'$$);
SELECT try(:v, $$compute 'product_definitions.nothing'$$);
SELECT try(:v, $$compute 'nowhere.scalar'$$);
SELECT try(:v, $$compute 'product_definitions.proc'$$);
SELECT try(:v, $$compute 'pg_catalog.count'$$);
SELECT try(:v, $$compute 'product_definitions.more'$$);
SELECT try(:v, $$compute 'product_definitions.unsure'$$);
SELECT try(:v, $$compute 'product_definitions.wide'$$);
SELECT try(:v, $$compute 'product_definitions.over'$$);
SELECT try(:v, $$compute 'product_definitions.over(bigint)'$$);
SELECT try(:v, $$compute 'product_definitions.over(text)'$$);
SELECT try(:v, $$compute 'product_definitions.unsure(text)'$$);
SELECT try(:v, $$compute 'product_definitions.two(int, text)'$$);
CREATE FUNCTION pg_temp.passing(id int) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT try(:v, $$compute 'pg_temp.passing'$$);
SELECT try(:v, $$compute 'a.b.c.d'$$);
SELECT try(:v, $$compute 'not a name'$$);
SELECT try(:v, $$compute 'product_definitions.scalar(int'$$);
SELECT try(:v, $$compute ''$$);
-- with what other options
SELECT try(:v, $$compute 'product_definitions.scalar', format 'text'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', format 'JSON', keep_value 'true', key_format 'json', delivery 'immediate'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', atomic 'true'$$);
SELECT try(:v, $$soft_ttl '1s'$$);
SELECT try(:v, $$prime_on_miss 'false'$$);
SELECT try(:v, $$domain 'SELECT 1'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', soft_ttl '2min', hard_ttl '90s'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', soft_ttl '90s', hard_ttl '1 min 30 s', negative_ttl '1ms', refresh_every '1 day', prime_on_miss 'off'$$);
SELECT ttl, try(:v, format($$compute 'product_definitions.scalar', soft_ttl %L$$, ttl))
	FROM unnest(ARRAY['PT1H', '1:30', '0.5 s', '2 weeks', '3650 days', '0', '-1s', '1 month', '1 year', '4000 days', '0.0001s', 'infinity', '', 'soon']) ttl;
-- the keys that are to be there
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT oid::int FROM pg_class'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain E'SELECT n\n FROM generate_series(1, 3) n -- all\n'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT id FROM t'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT ''a''::text'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT 1, 2'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT 1; SELECT 2'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELEC 1'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'DELETE FROM pg_catalog.pg_class RETURNING 1'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'WITH d AS (DELETE FROM pg_catalog.pg_class RETURNING 1) SELECT 1'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'SELECT 1 INTO x'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain 'CREATE TABLE x ()'$$);
SELECT try(:v, $$compute 'product_definitions.scalar', domain '   '$$);
SELECT try(:v, $$compute 'product_definitions.two', key_format 'json', domain 'SELECT relpages, relname FROM pg_class'$$, 'a int OPTIONS (key ''true''), b text OPTIONS (key ''true'')');
-- what changes a value without the function
SELECT try(:v, $$compute 'product_definitions.set_of', augment 'product_definitions.add_up'$$);
SELECT try(:v, $$compute 'product_definitions.set_of', augment 'product_definitions.add_text'$$);
SELECT try(:v, $$compute 'product_definitions.set_of', augment 'product_definitions.scalar'$$);
SELECT try(:v, $$compute 'product_definitions.set_of', augment 'add_up'$$);
\pset tuples_only off
\pset format aligned

-- ALTER is looked at likewise; a restore is not
CREATE FOREIGN TABLE p (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka
	OPTIONS (compute 'product_definitions.set_of', soft_ttl '1s');
ALTER FOREIGN TABLE p OPTIONS (SET soft_ttl '2s', ADD hard_ttl '3s');
ALTER FOREIGN TABLE p OPTIONS (SET hard_ttl '1s');
ALTER FOREIGN TABLE p OPTIONS (SET compute 'product_definitions.none');
ALTER FOREIGN TABLE p OPTIONS (DROP compute);
ALTER FOREIGN TABLE p ADD COLUMN n bigint;
ALTER FOREIGN TABLE p ALTER COLUMN v OPTIONS (DROP value);
ALTER FOREIGN TABLE p OPTIONS (SET compute 'product_definitions.bare');
SELECT shape, call FROM product('p');
CREATE OR REPLACE FUNCTION bare(id int) RETURNS SETOF bigint LANGUAGE sql VOLATILE AS 'SELECT 1::bigint';
SELECT shape, call FROM product('p');
DROP FUNCTION bare;
SELECT shape, call FROM product('p');
CREATE FUNCTION bare(id int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT 1';
SELECT shape, call FROM product('p');
SET check_function_bodies = off;
CREATE FOREIGN TABLE later (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka
	OPTIONS (compute 'product_definitions.not_yet', domain 'SELECT id FROM product_definitions.not_yet');
RESET check_function_bodies;
SELECT shape FROM product('later');
CREATE FUNCTION not_yet(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
SELECT shape FROM product('later');

-- its rows depend on whether a table is a product, not on how old they may be
CREATE FUNCTION definition(relation regclass, OUT topic text, OUT columns text, OUT nkeys int, OUT rows bigint, OUT client bigint,
	OUT changes bigint) AS '$libdir/kafka_cache_fdw', 'kafka_cache_definition' LANGUAGE C STRICT;
CREATE FOREIGN TABLE f (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka;
SELECT rows AS plain FROM definition('f') \gset
ALTER FOREIGN TABLE f OPTIONS (ADD compute 'product_definitions.scalar');
SELECT rows <> :plain AS other, rows AS product FROM definition('f') \gset
\echo :other
ALTER FOREIGN TABLE f OPTIONS (SET compute 'product_definitions.set_of', ADD soft_ttl '1s', hard_ttl '1h', domain 'SELECT 1', refresh_every '1min',
	prime_on_miss 'false', negative_ttl '1min', augment 'product_definitions.add_up');
SELECT rows = :product AS same FROM definition('f');

-- the owner must be allowed to run it, whoever reads
SET client_min_messages = warning;
DROP ROLE IF EXISTS product_owner, product_reader;
RESET client_min_messages;
CREATE ROLE product_owner;
GRANT USAGE ON FOREIGN SERVER products_kafka TO product_owner;
GRANT CREATE, USAGE ON SCHEMA product_definitions TO product_owner;
REVOKE EXECUTE ON FUNCTION scalar, add_up FROM PUBLIC;
SET ROLE product_owner;
CREATE FOREIGN TABLE o (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka
	OPTIONS (compute 'product_definitions.scalar');
CREATE FOREIGN TABLE o (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka
	OPTIONS (compute 'product_definitions.over', augment 'product_definitions.add_up');
CREATE FOREIGN TABLE o (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER products_kafka
	OPTIONS (compute 'product_definitions.over');
RESET ROLE;
-- names are the owner's to look up, not the reader's
SET search_path = pg_catalog;
REVOKE USAGE ON SCHEMA product_definitions FROM PUBLIC;
CREATE ROLE product_reader;
SELECT 'product_definitions.o'::regclass::oid AS o \gset
CREATE FUNCTION public.product(relation oid, OUT shape text, OUT fields text, OUT call text, OUT augment text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_product' LANGUAGE C STRICT;
SET ROLE product_reader;
SELECT shape, call FROM public.product(:o);
RESET ROLE;
DROP FUNCTION public.product;

SET client_min_messages = warning;
DROP SCHEMA product_definitions CASCADE;
DROP SERVER products_kafka CASCADE;
DROP ROLE product_owner, product_reader;
