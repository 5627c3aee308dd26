-- Values of every type as JSON and as keys: what is written is what decoding gives back, and no setting of the session has a say in it.
SET client_min_messages = warning;
SELECT test.connect();
CREATE SCHEMA encode_types;
SET search_path = encode_types;
\getenv top KCF_MOCK_HOME
\set module :top '/build/kcf_test/kcf_test.so'
\cd :top
\set ECHO none
\i test/kcf_test/kcf_test.sql
\set ECHO all
CREATE TYPE mood AS ENUM ('sad', 'ok', 'a"b', 'ö');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN wise AS text[] CHECK (cardinality(VALUE) < 4);
CREATE TYPE inside AS (a int, b text[], gone int, t timestamptz);
ALTER TYPE inside DROP ATTRIBUTE gone;
CREATE TYPE comp AS ("x y" int, y text, z numeric(6, 2), m mood, i inside, f float8, r int4range, d interval);
CREATE DOMAIN comp_domain AS comp CHECK ((VALUE)."x y" > 0);
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE TABLE cases (id int GENERATED ALWAYS AS IDENTITY, typ text, v text);
INSERT INTO cases (typ, v)
SELECT t.typ, v FROM (VALUES
    ('boolean', ARRAY['true', 'false']),
    ('smallint', ARRAY['0', '-32768', '32767']),
    ('int', ARRAY['0', '-2147483648', '2147483647']),
    ('bigint', ARRAY['0', '-9223372036854775808', '9223372036854775807']),
    ('real', ARRAY['0', '1', '-1.5', '0.1', '1e-45', '3.4028235e38', '1.17549435e-38', '16777216', '1e10']),
    ('float8', ARRAY['0', '1', '-1.5', '0.1', '5e-324', '1.7976931348623157e308', '1e15', '1e16', '1e22', '1e23', '0.30000000000000004',
        '123456789012345680', '-2.2250738585072014e-308', '1e-5']),
    ('numeric', ARRAY['0', '1.50', '0.00', '-0.0001', '1e30', '123456789012345678901234567890.123456789', '1e-30', '-99999.00000']),
    ('numeric(6,2)', ARRAY['1.5', '-9999.99', '0']),
    ('text', ARRAY['', 'plain', E'tab\tnewline\nreturn\rback\bfeed\f', E'quote" back\\slash /', E'\x01\x1f\x7f', 'ö€😀', ' blanks ', 'null',
        '{"a":1}', repeat('x', 7) || '"' || repeat('y', 8) || '\' || repeat('z', 9), repeat(E'\\"', 20), E'\u2028']),
    ('varchar(5)', ARRAY['', 'abcde', 'öö']),
    ('char(4)', ARRAY['ab', '', 'abcd']),
    ('name', ARRAY['', 'a name']),
    ('"char"', ARRAY['a', '']),
    ('uuid', ARRAY['00000000-0000-0000-0000-000000000000', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11']),
    ('bytea', ARRAY['', '\x00ff5c', '\x22']),
    ('date', ARRAY['2026-01-31', '2000-02-29', '0001-01-01', '9999-12-31', '10000-01-01', '5874897-12-31', '0001-12-31 BC', '4714-11-24 BC',
        'infinity', '-infinity', '1999-12-31', '1970-01-01']),
    ('time', ARRAY['00:00', '23:59:59.999999', '24:00', '12:30:00.5']),
    ('time(2)', ARRAY['12:30:00.456']),
    ('timetz', ARRAY['00:00+00', '23:59:59.999999-15:59', '12:30+05:45', '24:00+15:59:59']),
    ('timestamp', ARRAY['2026-01-31 12:00', '2026-01-31 12:00:00.5', '2026-01-31 23:59:59.999999', '1999-12-31 23:59:59.000001', '0001-01-01', '9999-12-31 23:59:59.999999',
        '10000-01-01', '294276-12-31 23:59:59.999999', '0044-03-15 12:00 BC', '4714-11-24 BC', 'infinity', '-infinity', '1600-02-29 00:00:00.1']),
    ('timestamptz', ARRAY['2026-01-31 12:00+00', '2026-07-31 12:00:00.123456+02', '2026-01-31 12:00:00-15:59:59', '1883-11-18 12:00 America/New_York',
        '0001-01-01 00:00+00', '10000-01-01 00:00+00', '294276-12-31 23:59:59.999999+00', '0044-03-15 12:00+00 BC', '4714-11-24 00:00+00 BC', 'infinity', '-infinity']),
    ('timestamptz(3)', ARRAY['2026-01-31 12:00:00.123456+00']),
    ('interval', ARRAY['1 day', '-1 year 2 months -3 days 04:05:06.789', '0', '178000000 years', '-00:00:01.5', '1 mon -1 day']),
    ('inet', ARRAY['10.0.0.1', '10.0.0.0/8', '::1', 'fe80::1/64']),
    ('cidr', ARRAY['10.0.0.0/8', '::/0']),
    ('macaddr', ARRAY['08-00-2b-01-02-03']),
    ('macaddr8', ARRAY['08:00:2b:01:02:03:04:05']),
    ('bit(3)', ARRAY['101']),
    ('varbit', ARRAY['', '10101']),
    ('money', ARRAY['12.34', '-1000.00']),
    ('oid', ARRAY['0', '4294967295']),
    ('regclass', ARRAY['pg_class', 'cases', '-']),
    ('regtype', ARRAY['int', 'mood', 'text[]']),
    ('regproc', ARRAY['now']),
    ('regrole', ARRAY['pg_monitor']),
    ('pg_lsn', ARRAY['0/0', 'FFFFFFFF/FFFFFFFF']),
    ('xid8', ARRAY['18446744073709551615']),
    ('point', ARRAY['(0.1,1e-300)', '(1,2)']),
    ('box', ARRAY['(0.1,0.2),(0.3,0.30000000000000004)']),
    ('circle', ARRAY['<(0.1,2),3>']),
    ('tsvector', ARRAY['', 'a:1A ''b c'':2']),
    ('tsquery', ARRAY['a & !b']),
    ('jsonpath', ARRAY['$.a[*] ? (@ > 1)']),
    ('xml', ARRAY['<a b="c">é</a>']),
    ('int4range', ARRAY['empty', '[1,5)', '(,)', '[1,)']),
    ('numrange', ARRAY['[1.50,2.0]']),
    ('daterange', ARRAY['[2026-01-01,2026-02-01)']),
    ('tsrange', ARRAY['[2026-01-01 12:00,infinity)']),
    ('tstzrange', ARRAY['[2026-01-01 12:00+01,2026-02-01 00:00+00)']),
    ('float_range', ARRAY['[0.1,0.30000000000000004)']),
    ('tstzmultirange', ARRAY['{}', '{[2026-01-01 12:00+01,2026-02-01 00:00+00),[2027-01-01 00:00+00,)}']),
    ('json', ARRAY['{"b" : [1, 2.50], "a":null}', '"x"', '[ ]', '1e5', '"\u00e9\u0000"', 'false']),
    ('jsonb', ARRAY['{"b": [1, 2.50, {"c": "x y"}], "a": null, "": {}}', '"x"', '[]', '1e5', 'true', '[[1, 2], [], [null]]', '{"k\"\\": "\u00e9\n"}']),
    ('mood', ARRAY['sad', 'a"b', 'ö']),
    ('positive', ARRAY['1']),
    ('int[]', ARRAY['{}', '{1,NULL,3}', '{{1,2},{3,4}}', '{{{1}},{{2}}}', '{NULL}']),
    ('text[]', ARRAY['{}', '{a,"b c","\"q\"",NULL,"NULL",""}', '{{a},{b}}']),
    ('float8[]', ARRAY['{0.1,1e-300}']),
    ('numeric[]', ARRAY['{1.50,NULL,2}']),
    ('timestamptz[]', ARRAY['{"2026-01-31 12:00+00",infinity,NULL}']),
    ('bytea[]', ARRAY['{"\\x00ff",NULL}']),
    ('interval[]', ARRAY['{"-1 year 2 mons"}']),
    ('money[]', ARRAY['{"1.50"}']),
    ('jsonb[]', ARRAY['{"{\"a\": 1}","[1]"}', '{"1"}', '{NULL,"[1]"}']),
    ('mood[]', ARRAY['{sad,NULL,"a\"b"}']),
    ('positive[]', ARRAY['{1,2}']),
    ('wise', ARRAY['{a,b}', '{}']),
    ('comp', ARRAY['(1,"a ""b""",1.50,ö,"(7,""{p,NULL}"",2026-01-31 12:00+00)",0.1,"[1,5)","-1 year 2 mons")', '(,,,,,,,)', '(,,,,"(,,)",,,)', '(0,,,,,1e-300,empty,1 day)']),
    ('comp_domain', ARRAY['(1,,,,,,,)']),
    ('comp[]', ARRAY['{"(1,a,,,,,,)",NULL,"(,,,,,,,)"}']),
    ('int2vector', ARRAY['1 2 3']),
    ('oidvector', ARRAY['26 27'])
    ) t (typ, vs), unnest(vs) v;

CREATE PROCEDURE tables() LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT DISTINCT typ FROM cases LOOP
        EXECUTE format('CREATE FOREIGN TABLE %I (k text OPTIONS (key ''true''), c %s) SERVER kafka OPTIONS (topic ''t'')', 'r_' || c.typ, c.typ);
        BEGIN
            EXECUTE format('CREATE FOREIGN TABLE %I (k %s OPTIONS (key ''true'')) SERVER kafka OPTIONS (topic ''t'')', 'k_' || c.typ, c.typ);
            EXECUTE format('CREATE FOREIGN TABLE %I (k %s OPTIONS (key ''true''), n int OPTIONS (key ''true'')) SERVER kafka OPTIONS (topic ''t'', key_format ''json'')',
                           'j_' || c.typ, c.typ);
        EXCEPTION WHEN undefined_function OR fdw_invalid_data_type THEN
            NULL;  -- it cannot be hashed
        END;
    END LOOP;
END $$;
CALL tables();

-- What the row is written as; here the session's settings may be odd.
CREATE FUNCTION encode_all() RETURNS TABLE (id int, "json" bytea, key bytea, json_key bytea) LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT cases.*, to_regclass(format('%I', 'k_' || typ)) AS has_key FROM cases ORDER BY cases.id LOOP
        id := c.id;
        EXECUTE format('SELECT w.value FROM holds_%s h, kcf_test_write(ROW(''k'', h.v)::%I) w', c.id, 'r_' || c.typ) INTO "json";
        key := NULL;
        json_key := NULL;
        IF c.has_key IS NOT NULL THEN
            EXECUTE format('SELECT w.key FROM holds_%s h, kcf_test_write(ROW(h.v)::%I) w', c.id, 'k_' || c.typ) INTO key;
            EXECUTE format('SELECT w.key FROM holds_%s h, kcf_test_write(ROW(h.v, 1)::%I) w', c.id, 'j_' || c.typ) INTO json_key;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
-- Each value as itself, so that reading the text of it is done once, under the usual settings.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT * FROM cases LOOP
        EXECUTE format('CREATE TEMP TABLE holds_%s AS SELECT %L::%s AS v', c.id, c.v, c.typ);
    END LOOP;
END $$;

CREATE TEMP TABLE usual AS SELECT * FROM encode_all();
\pset format unaligned
SELECT typ, v, convert_from(json, 'UTF8') AS json, convert_from(key, 'UTF8') AS key, convert_from(json_key, 'UTF8') AS json_key
FROM usual JOIN cases USING (id) ORDER BY id;

-- The same, by a session that wants to see everything otherwise.
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET IntervalStyle = sql_standard;
SET bytea_output = escape;
SET search_path = encode_types, pg_catalog;
CREATE TEMP TABLE odd AS SELECT * FROM encode_all();
SHOW DateStyle;
SHOW TimeZone;
SHOW extra_float_digits;
SHOW IntervalStyle;
SHOW bytea_output;
SHOW search_path;
RESET ALL;
SET client_min_messages = warning;
SET search_path = encode_types;
SELECT typ, v, convert_from(usual.json, 'UTF8') AS usual, convert_from(odd.json, 'UTF8') AS odd
FROM cases JOIN usual USING (id) JOIN odd USING (id)
WHERE (usual.json, usual.key, usual.json_key) IS DISTINCT FROM (odd.json, odd.key, odd.json_key) ORDER BY id;

-- And back. The column's value is the same to the bit; keys are equal, where they say so canonical.
CREATE FUNCTION decode_all(OUT id int, OUT what text, OUT fault text, OUT got text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    c record;
    same boolean;
BEGIN
    FOR c IN SELECT * FROM usual JOIN cases USING (id) LOOP
        id := c.id;
        what := 'column';
        EXECUTE format('SELECT r.r *= ROW(''k'', h.v)::%1$I, kcf_test_fault(%2$L, ''k'', $1), r.r::text FROM holds_%3$s h, (SELECT kcf_test_row(NULL::%1$I, ''k'', $1) AS r) r',
                       'r_' || c.typ, format('%I', 'r_' || c.typ), c.id) USING c.json INTO same, fault, got;
        IF same IS NOT TRUE THEN
            RETURN NEXT;
        END IF;
        CONTINUE WHEN c.key IS NULL;
        what := 'key';
        EXECUTE format('SELECT r.r *= ROW(h.v)::%1$I, kcf_test_fault(%2$L, $1, ''{}''), r.r::text FROM holds_%3$s h, (SELECT kcf_test_row(NULL::%1$I, $1, ''{}'') AS r) r',
                       'k_' || c.typ, format('%I', 'k_' || c.typ), c.id) USING c.key INTO same, fault, got;
        IF same IS NOT TRUE THEN
            RETURN NEXT;
        END IF;
        what := 'json key';
        EXECUTE format('SELECT r.r *= ROW(h.v, 1)::%1$I, kcf_test_fault(%2$L, $1, ''{}''), r.r::text FROM holds_%3$s h, (SELECT kcf_test_row(NULL::%1$I, $1, ''{}'') AS r) r',
                       'j_' || c.typ, format('%I', 'j_' || c.typ), c.id) USING c.json_key INTO same, fault, got;
        IF same IS NOT TRUE THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
SELECT typ, v, what, fault, got FROM decode_all() JOIN cases USING (id) ORDER BY id, what;

-- Which keys a reader takes for what we would have written.
SELECT typ, string_agg(DISTINCT split_part(kcf_test_key(format('%I', 'k_' || typ)::regclass, key), ' ', 1), ' and ') AS text,
       string_agg(DISTINCT split_part(kcf_test_key(format('%I', 'j_' || typ)::regclass, json_key), ' ', 1), ' and ') AS json
FROM usual JOIN cases USING (id) WHERE key IS NOT NULL GROUP BY typ ORDER BY typ COLLATE "C";

DROP SCHEMA encode_types CASCADE;
DROP SERVER kafka CASCADE;
