--
-- What a miss gives is what a hit gives: of all shapes and types, over the topic and back.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect(', fetch_wait_max_ms ''10''');
RESET client_min_messages;
CREATE SCHEMA shapes;
SET search_path = shapes;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (n int, label text);
CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> 'no');

-- how often the functions below were called
CREATE SEQUENCE calls;
CREATE FUNCTION asked(id int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''shapes.calls''); SELECT id';
CREATE FUNCTION product(name text, columns text, options text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM test.mock('topic', 'shapes_' || name, '2');
	EXECUTE format('CREATE FOREIGN TABLE shapes.%I (id int OPTIONS (key ''true'') NOT NULL, %s) SERVER kafka OPTIONS (topic %L, compute %L, negative_ttl ''1h'' %s)',
		name, columns, 'shapes_' || name, 'shapes.' || name || '_of', options);
END $$;
\set v '\'v jsonb OPTIONS (value \'\'true\'\')\''

CREATE FUNCTION rows_of(id int) RETURNS TABLE (n int, t text) LANGUAGE sql AS $$SELECT n, repeat('ä"', n) FROM generate_series(1, shapes.asked(id)) n$$;
SELECT product('rows', :v);
SELECT test.catch_up('rows');
SELECT * FROM rows WHERE id = 2;
SELECT * FROM rows WHERE id = 0;
CREATE FUNCTION texts_of(id int) RETURNS TABLE (n int, t text) LANGUAGE sql AS $$SELECT n, repeat('ä"', n) FROM generate_series(1, shapes.asked(id)) n$$;
SELECT product('texts', 'v text OPTIONS (value ''true'')');
SELECT test.catch_up('texts');
SELECT * FROM texts WHERE id = 2;
CREATE FUNCTION bytes_of(id int) RETURNS SETOF text LANGUAGE sql AS $$SELECT repeat('ä', n) FROM generate_series(1, shapes.asked(id)) n$$;
SELECT product('bytes', 'v bytea OPTIONS (value ''true'')', ', keep_value ''true''');
SELECT test.catch_up('bytes');
SELECT * FROM bytes WHERE id = 2;
CREATE FUNCTION scalar_of(id int) RETURNS numeric LANGUAGE sql AS $$SELECT NULLIF(shapes.asked(id), 0) / 8.0$$;
SELECT product('scalar', :v);
SELECT test.catch_up('scalar');
SELECT * FROM scalar WHERE id = 1;
SELECT * FROM scalar WHERE id = 0;

-- and once more, from memory
SELECT test.catch_up('rows'), test.catch_up('texts'), test.catch_up('bytes'), test.catch_up('scalar');
SELECT last_value AS calls FROM calls;
SELECT * FROM rows WHERE id IN (0, 2);
SELECT * FROM texts WHERE id = 2;
SELECT * FROM bytes WHERE id = 2;
SELECT * FROM scalar WHERE id IN (0, 1);
SELECT last_value AS calls FROM calls;

-- every type that a column can have
CREATE FUNCTION kinds_of(id int, OUT b bool, OUT i2 int2, OUT i8 int8, OUT f4 float4, OUT f8 float8, OUT n numeric, OUT t text, OUT c char(3), OUT s short,
	OUT u uuid, OUT d date, OUT tm time, OUT ts timestamp, OUT tz timestamptz, OUT iv interval, OUT m mood, OUT j json, OUT jb jsonb, OUT ba bytea, OUT ip inet,
	OUT r int4range, OUT p pair, OUT a int[], OUT ta text[], OUT pa pair[]) LANGUAGE plpgsql AS $$
BEGIN
	IF shapes.asked(id) = 1 THEN
		p := ROW(1, 'x y');
		SELECT true, -1::int2, 9007199254740993, 0.1::float4, 1e-300::float8, 1.500, E'x\n"\\é', 'a', 'abc', '00000000-0000-0000-0000-00000000000a'::uuid, date '2020-02-29',
			time '23:59:59.999999', timestamp '1999-12-31 23:59:59.5', timestamptz '2000-01-01 00:00:00+14', interval '1 mon 2 days 03:04:05.6', 'bad',
			'[1,  2.0]', '{"a": [1.0, null, "x"]}', '\x00ff', '10.0.0.1/8', int4range(1, 5), '{1,NULL,3}', '{"",NULL,"null"}',
			ARRAY[ROW(1, NULL)::shapes.pair, NULL]
		INTO b, i2, i8, f4, f8, n, t, c, s, u, d, tm, ts, tz, iv, m, j, jb, ba, ip, r, a, ta, pa;
	ELSIF id = 2 THEN
		t := '';
		jb := 'null';
		a := '{}';
	END IF;
END $$;
SELECT product('kinds', 'b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, t text, c char(3), s shapes.short, u uuid, d date, tm time, ts timestamp, tz timestamptz,
	iv interval, m shapes.mood, j json, jb jsonb, ba bytea, ip inet, r int4range, p shapes.pair, a int[], ta text[], pa shapes.pair[]');
SELECT test.catch_up('kinds');
SET timezone = 'America/New_York';
SELECT * FROM kinds WHERE id = 1;
SELECT * FROM kinds WHERE id = 2;
SELECT * FROM kinds WHERE id = 3;
SELECT md5(string_agg(k::text, ' ' ORDER BY id)) AS computed FROM kinds k WHERE id = ANY ('{1,2,3}') \gset
RESET timezone;
SELECT test.catch_up('kinds');
SELECT last_value AS calls FROM calls;
SET timezone = 'America/New_York';
SELECT md5(string_agg(k::text, ' ' ORDER BY id)) = :'computed' AS same FROM kinds k;
SELECT * FROM kinds WHERE id = 2;
SELECT last_value AS calls FROM calls;
RESET timezone;
-- columns below members, a value column beside them, and what the log says
CREATE FUNCTION deep_of(id int, OUT n int, OUT label text, OUT more int[]) LANGUAGE sql AS $$SELECT NULLIF(shapes.asked(id), 2), 'x', '{1}'::int[] WHERE id > 0$$;
SELECT product('deep', 'n int OPTIONS (json ''a.b''), v jsonb OPTIONS (value ''true''), h jsonb OPTIONS (headers ''true''),
	part int OPTIONS (partition ''true''), off bigint OPTIONS ("offset" ''true'')');
SELECT test.catch_up('deep');
SELECT id, n, v, h, part IS NULL AS nowhere, off IS NULL AS unknown FROM deep WHERE id = 1;
SELECT id, n, v, h, part IS NULL AS nowhere, off IS NULL AS unknown FROM deep WHERE id = 2;
SELECT * FROM deep WHERE id = 0;
SELECT test.catch_up('deep');
SELECT id, n, v, h, part IS NULL AS nowhere, off IS NULL AS unknown FROM deep ORDER BY id;
SELECT last_value AS calls FROM calls;

-- what is computed and is no row
CREATE FUNCTION strict_of(id int, OUT n int, OUT s text) LANGUAGE sql AS $$SELECT NULLIF(shapes.asked(id), 2), repeat('x', least(id, 3))$$;
SELECT product('strict', 'n int NOT NULL CHECK (n < 5), s varchar(3)');
SELECT test.catch_up('strict');
SELECT * FROM strict WHERE id = 1;
SELECT * FROM strict WHERE id = 2;
SELECT * FROM strict WHERE id = 5;
CREATE OR REPLACE FUNCTION strict_of(id int, OUT n int, OUT s text) LANGUAGE sql AS $$SELECT NULLIF(shapes.asked(id), 2), repeat('x', id)$$;
\set VERBOSITY terse
SELECT * FROM strict WHERE id = 4;
\set VERBOSITY default
SELECT id FROM strict ORDER BY id;
-- bad records of others are computed anew
SELECT test.mock('produce', 'shapes_strict', '0', '3', '{"n": "x"}');
SELECT test.catch_up('strict');
SELECT * FROM strict WHERE id = 3;
SELECT test.catch_up('strict');
ALTER FOREIGN TABLE strict OPTIONS (ADD on_error 'fail');
SELECT test.mock('produce', 'shapes_strict', '0', '1', 'no json');
SELECT test.catch_up('strict');
SELECT count(*) FROM strict;
SELECT * FROM strict WHERE id = 1;
SELECT test.catch_up('strict');
SELECT count(*) FROM strict;

-- keys of other types
CREATE FUNCTION by_key_of(k numeric, d date) RETURNS text LANGUAGE sql STABLE AS 'SELECT k || '' '' || d';
SELECT test.mock('topic', 'shapes_by_key', '2');
CREATE FOREIGN TABLE by_key (k numeric(6,2) OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true'), d date OPTIONS (key 'true') NOT NULL)
	SERVER kafka OPTIONS (topic 'shapes_by_key', key_format 'json', compute 'shapes.by_key_of');
SELECT test.catch_up('by_key');
SELECT * FROM by_key WHERE k = 1.5 AND d = '2020-01-01';
SELECT * FROM by_key WHERE k = 1.50 AND d = date '2020-01-01';
SELECT test.catch_up('by_key');
SELECT count(*) FROM by_key;
SELECT * FROM by_key WHERE d = '2020-01-01';
SELECT * FROM by_key WHERE k IN (1.5, 2) AND d = '2020-01-01' ORDER BY k;
-- a key that the column cannot have is no row's: nothing is computed
SELECT * FROM by_key WHERE k = 1.555 AND d = '2020-01-01';
SELECT * FROM by_key WHERE k = 123456 AND d = '2020-01-01';
SELECT k.k, p.v FROM (VALUES (1.5), (1.501), (1e10), (2)) k (k) LEFT JOIN by_key p ON p.k = k.k AND p.d = '2020-01-01' ORDER BY 1;
SELECT test.catch_up('by_key');
SELECT k, v FROM by_key ORDER BY k;
CREATE FUNCTION bounded_of(a varchar, b text) RETURNS text LANGUAGE sql STABLE AS $$SELECT '<' || a || '|' || b || '>'$$;
SELECT test.mock('topic', 'shapes_bounded', '2');
CREATE FOREIGN TABLE bounded (a varchar(3) OPTIONS (key 'true') NOT NULL, b short OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'shapes_bounded', key_format 'json', compute 'shapes.bounded_of');
SELECT test.catch_up('bounded');
SELECT x, y, p.* FROM (VALUES ('abc', 'xy'), ('abcd', 'xy'), ('abc   ', 'xy'), ('a', 'no'), ('a', '123456'), ('', '')) k (x, y) LEFT JOIN bounded p ON a = x AND b = y
	ORDER BY x COLLATE "C", y COLLATE "C";
SELECT test.catch_up('bounded');
SELECT a, b, v FROM bounded ORDER BY a COLLATE "C", b COLLATE "C";
SELECT errors FROM kafka_cache.tables WHERE relation = 'bounded'::regclass;
CREATE FUNCTION texty_of(k text) RETURNS int LANGUAGE sql STABLE AS 'SELECT length(k)';
SELECT test.mock('topic', 'shapes_texty', '1');
CREATE FOREIGN TABLE texty (k text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'shapes_texty', compute 'shapes.texty_of');
SELECT test.catch_up('texty');
SELECT left(k, 3) AS k, v FROM texty WHERE k = ANY (ARRAY['', 'a', repeat('é', 500), NULL, 'a', E'\n']) ORDER BY v;
SELECT test.catch_up('texty');
SELECT length(k), v FROM texty ORDER BY v;

SET client_min_messages = warning;
DROP SERVER kafka CASCADE;
DROP SCHEMA shapes CASCADE;
