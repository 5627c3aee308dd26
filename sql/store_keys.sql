--
-- Identity of keys: for every type, keys that its "=" calls equal are one row, others are not, and each is found.
--
CREATE DATABASE store_keys;
\c store_keys
\set SHOW_CONTEXT never
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
CREATE COLLATION nondeterministic (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN word AS text;
CREATE TYPE pair AS (a int, b text);

-- Literals of a type as keys of a cached table: in its first column, behind others of varying length, and as one of two
-- key columns. There is a row for each distinct value, and each literal finds one.
CREATE FUNCTION keys(type text, VARIADIC literals text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    base text := split_part(type, ' COLLATE ', 1);
    options text := 'OPTIONS (key ''true'') ' || COALESCE(substring(type FROM 'COLLATE .*'), '') || ' NOT NULL';
    list text := (SELECT string_agg(format('(%s, %L::%s)', i, l, type), ', ') FROM unnest(literals) WITH ORDINALITY u (l, i));
    place text;
    columns text;
    query text;
    literal text;
    expected bigint;
    rows bigint;
    n bigint;
BEGIN
    EXECUTE format('SELECT count(DISTINCT k) FROM (VALUES %s) u (i, k)', list) INTO expected;
    FOREACH place IN ARRAY ARRAY['first', 'later', 'two'] LOOP
        columns := CASE place WHEN 'first' THEN format('k %s %s, t text', base, options)
                              WHEN 'later' THEN format('t text, n int, k %s %s', base, options)
                              ELSE format('t text OPTIONS (key ''true'') NOT NULL, n int, k %s %s', base, options) END;
        query := CASE place WHEN 'first' THEN 'SELECT k, repeat(''x'', i)'
                            WHEN 'later' THEN 'SELECT nullif(repeat(''x'', i), ''x''), i, k'
                            ELSE 'SELECT t, i, k' END || format(' FROM (VALUES %s) u (i, k)', list);
        IF place = 'two' THEN query := query || ', (VALUES (''p''), (''q'')) t (t)'; END IF;
        EXECUTE format('CREATE FOREIGN TABLE c (%s) SERVER kafka OPTIONS (key_format %L)', columns, CASE place WHEN 'two' THEN 'json' ELSE 'text' END);
        -- twice, so that every key is replaced; some are deleted later and put again
        PERFORM kcf_writer.fill('c', query || ' UNION ALL ' || query, 7);
        PERFORM kcf_writer.del('c', query || ' LIMIT 3');
        PERFORM kcf_writer.put('c', query);
        SELECT entries INTO rows FROM kcf_writer.stats('c');
        SELECT count(*) INTO n FROM c;
        IF n <> rows OR rows <> expected * (1 + (place = 'two')::int) THEN
            RETURN format('%s: %s distinct values, %s rows, a scan finds %s', place, expected, rows, n);
        END IF;
        FOREACH literal IN ARRAY literals LOOP
            EXECUTE format('SELECT count(*) FROM c WHERE k = %L::%s %s', literal, type, CASE place WHEN 'two' THEN 'AND t = ''q''' END) INTO n;
            IF n <> 1 THEN RETURN format('%s: %s rows for %s', place, n, literal); END IF;
        END LOOP;
        DROP FOREIGN TABLE c;
    END LOOP;
    RETURN format('%s keys of %s literals', expected, cardinality(literals));
END
$$;

-- Compared as bytes
SELECT keys('bool', 't', 'f', 'true');
SELECT keys('"char"', 'a', 'b', '', '\377');
SELECT keys('int2', '1', '-1', '01', '32767', '-32768', '0');
SELECT keys('int4', '1', '-1', '01', '2147483647', '-2147483648', '0');
SELECT keys('int8', '1', '-1', '01', '9223372036854775807', '-9223372036854775808', '4294967297', '0');
SELECT keys('oid', '1', '4294967295', '2147483648', '2147483647', '0');
SELECT keys('regclass', 'pg_class', 'pg_catalog.pg_class', '1259', '0', '4000000000');
SELECT keys('xid8', '1', '18446744073709551615', '9223372036854775808');
SELECT keys('pg_lsn', '0/0', '0/00', 'FFFFFFFF/FFFFFFFF', 'ffffffff/ffffffff');
SELECT keys('date', '2026-01-01', 'infinity', '-infinity', '0044-03-15 BC', '2026-01-01');
SELECT keys('time', '12:00', '12:00:00.000000', '24:00', '00:00', '12:00:00.000001');
SELECT keys('timestamp', '2026-01-01', '2026-01-01 00:00:00', 'infinity', '-infinity', '1999-12-31 23:59:59.999999');
SELECT keys('timestamptz', '2026-01-01 00:00+00', '2026-01-01 01:00+01', 'infinity', '-infinity');
SELECT keys('mood', 'sad', 'ok', 'happy', 'sad');
SELECT keys('uuid', '6f1f2b3c-0000-4000-8000-0123456789ab', '6F1F2B3C-0000-4000-8000-0123456789AB', '00000000-0000-0000-0000-000000000000', '6f1f2b3c000040008000-0123456789ac');
SELECT keys('macaddr', '08:00:2b:01:02:03', '08002b010203', 'ff:ff:ff:ff:ff:ff');
SELECT keys('macaddr8', '08:00:2b:01:02:03:04:05', '08002b0102030405', '08:00:2b:01:02:03');
SELECT keys('text', '', 'a', 'A', 'a ', repeat('a', 126), repeat('a', 127), repeat('a', 128), repeat('a', 100000), 'ä', E'a\u0308');
SELECT keys('varchar(20)', '', 'a', 'a ', 'b');
SELECT keys('bytea', '', '\x00', '\x0000', '\x61', 'a', '\xff');
SELECT keys('positive', '1', '01', '2147483647');
SELECT keys('word', 'a', 'b', '');

-- Compared by the type's own functions
SELECT keys('numeric', '1', '1.0', '1.00', '1e0', '0', '-0', '0.000', 'NaN', 'nan', 'Infinity', '-Infinity', '1e1000', '1.000000000000000000000000000001');
SELECT keys('numeric(10,2)', '1', '1.004', '1.01', '-1');
SELECT keys('float4', '0', '-0', 'NaN', 'nan', 'Infinity', '1.5', '-1.5', '1e-40');
SELECT keys('float8', '0', '-0', 'NaN', 'nan', '-Infinity', '0.1', '0.10000000000000001', '1e-310');
SELECT keys('char(5)', 'a', 'a ', 'a    ', '', ' ', 'b');
SELECT keys('name', 'a', 'b', repeat('n', 63), '');
SELECT keys('interval', '1 day', '24 hours', '1 month', '30 days', '720:00:00', '1 day -24 hours', '0');
SELECT keys('timetz', '12:00+00', '13:00+01', '12:00:00+00', '12:00+02');
SELECT keys('inet', '10.0.0.1', '10.0.0.1/32', '10.0.0.1/24', '::1', '::0001');
SELECT keys('cidr', '10.0.0.0/8', '10/8', '10.0.0.0/16');
SELECT keys('jsonb', '{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1.0, "b": 2}', '1', '1.0', '"1"', 'null', '[]', '{}', '[1, 2]', '[2, 1]');
SELECT keys('int[]', '{}', '{1,2}', '{2,1}', '[0:1]={1,2}', '{NULL}', '{{1,2}}');
SELECT keys('text[]', '{a}', '{"a"}', '{A}', '{}');
SELECT keys('numeric[]', '{1.0}', '{1.00}', '{0}', '{-0}');
SELECT keys('int4range', '[1,4]', '[1,5)', '(0,5)', 'empty', '[1,1)', '(,)', '[1,)');
SELECT keys('int4multirange', '{[1,4]}', '{[1,5)}', '{[1,3),[3,5)}', '{}');
SELECT keys('pair', '(1,a)', '(01,a)', '(1,A)', '(,)', '(1,)');
SELECT keys('text COLLATE nondeterministic', 'a', 'A', 'ä', 'Ä', 'b', 'a ');

-- No default hash operator class, no key
CREATE FUNCTION refused(type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
BEGIN
    EXECUTE format('CREATE FOREIGN TABLE c (k %s OPTIONS (key ''true'') NOT NULL) SERVER kafka', type);
    RETURN 'created';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
    RETURN SQLSTATE || ': ' || message;
END
$$;
SELECT refused(t) FROM unnest(ARRAY['money', 'point', 'json', 'xml', 'tsvector', 'bit(3)', 'point[]']) t;

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE store_keys;
