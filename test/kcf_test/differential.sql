-- Compares the decoder with the server's own functions, document by document and column by column.
-- Expects kcf_test.sql loaded, a foreign server "kafka", and table docs (id int, doc bytea).
-- Leaves table mismatches, empty when all is well.
SET client_min_messages = warning;
SET timezone = 'Europe/Berlin';

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'ö', '[]');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN short AS text NOT NULL CHECK (length(VALUE) < 10);
CREATE DOMAIN many AS int[] CHECK (cardinality(VALUE) < 4);
CREATE TYPE inner_comp AS (a int, b text[]);
CREATE TYPE comp AS (x int, y text, z numeric(6, 2), m mood, i inner_comp);

-- Columns: the table's name, the type, the column's name, its path ('': the column's name).
CREATE TABLE cols (tab text, typ text, col text, path text);
INSERT INTO cols
SELECT 'd_' || n, typ, 'c', path
FROM (VALUES
    ('boolean', 'bool'), ('smallint', 'int2'), ('int', 'int4'), ('bigint', 'int8'), ('float8', 'float8'), ('real', 'float4'),
    ('numeric', 'numeric'), ('numeric(6,2)', 'num62'), ('text', 'text'), ('varchar(5)', 'vc'), ('varchar', 'vcx'), ('char(3)', 'bp'),
    ('uuid', 'uuid'), ('date', 'date'), ('timestamp', 'ts'), ('timestamptz', 'tz'), ('timestamptz(3)', 'tz3'), ('time', 'time'),
    ('interval', 'interval'), ('json', 'json'), ('jsonb', 'jsonb'), ('bytea', 'bytea'), ('mood', 'mood'), ('positive', 'positive'),
    ('short', 'short'), ('many', 'many'), ('comp', 'comp'), ('inet', 'inet'), ('int4range', 'range'), ('name', 'name'), ('oid', 'oid'),
    ('text[]', 'texts'), ('int[]', 'ints'), ('bigint[]', 'bigints'), ('uuid[]', 'uuids'), ('jsonb[]', 'jsonbs'), ('json[]', 'jsons'),
    ('numeric[]', 'numerics'), ('mood[]', 'moods'), ('positive[]', 'positives'), ('short[]', 'shorts'), ('comp[]', 'comps'),
    ('timestamptz[]', 'tzs'), ('varchar(4)[]', 'vcs'), ('float8[]', 'float8s'), ('bool[]', 'bools')) v (typ, path),
    LATERAL (SELECT path AS n) n
UNION ALL VALUES
    ('d_user_id', 'text', 'c', 'user.id'), ('d_user_zip', 'int', 'c', 'user.address.zip'), ('d_user', 'jsonb', 'c', 'user'),
    ('d_group_ids', 'int[]', 'c', 'groups[].id'), ('d_group_names', 'text[]', 'c', 'groups[].n.name'),
    ('d_group_jsonb', 'jsonb', 'c', 'groups[].id'), ('d_groups', 'text', 'c', 'groups'), ('d_tags', 'text[]', 'c', 'tags[]'),
    ('d_dotted', 'text', 'dot.ted', ''), ('d_accent', 'text', 'größe', ''), ('d_quoted', 'int', 'a"b\c', '');

DO $$
DECLARE
    c record;
    wide text := '';
BEGIN
    FOR c IN SELECT * FROM cols LOOP
        EXECUTE format('CREATE FOREIGN TABLE %I (k text OPTIONS (key ''true''), %I %s %s) SERVER kafka',
                       c.tab, c.col, c.typ, CASE WHEN c.path <> '' THEN format('OPTIONS (json %L)', c.path) ELSE '' END);
        -- short cannot be NULL, and most documents do not have it
        IF c.path <> '' AND c.typ <> 'short' THEN
            wide := wide || format(', %I %s OPTIONS (json %L)', c.tab, c.typ, c.path);
        END IF;
        -- the server's own opinion, by jsonb_populate_record
        EXECUTE format('CREATE TYPE %I AS (v %s)', 'one_' || c.tab, c.typ);
        EXECUTE format($f$
            CREATE FUNCTION %I(v json, OUT ok boolean, OUT r %I) LANGUAGE plpgsql AS $b$
            BEGIN
                ok := false;
                IF v::text ~ '(^|[^\\])(\\\\)*\\u0001' AND %L <> 'json' THEN RETURN; END IF;
                IF %L = 'json' THEN r := ROW(v)::%I;
                ELSE r := jsonb_populate_record(NULL::%I, jsonb_build_object('v', v::text::jsonb));
                END IF;
                ok := true;
            EXCEPTION WHEN others THEN
                NULL;
            END $b$ $f$, 'ref_' || c.tab, 'one_' || c.tab, c.typ, c.typ, 'one_' || c.tab, 'one_' || c.tab);
    END LOOP;
    EXECUTE format('CREATE FOREIGN TABLE wide (k text OPTIONS (key ''true'') %s) SERVER kafka', wide);
END $$;

-- What json_in and jsonb_in say of the document: ok, encoding or json. The escape of NUL is no fault of the
-- document for us, nor are numbers too large for numeric; both are of a member that is mapped.
CREATE FUNCTION judge(doc bytea, OUT verdict text, OUT t text) LANGUAGE plpgsql AS $$
DECLARE
    state text;
BEGIN
    BEGIN
        t := convert_from(doc, 'UTF8');
    EXCEPTION WHEN others THEN
        verdict := CASE WHEN get_byte(doc, 0) = 0 THEN 'json' ELSE 'encoding' END;
        RETURN;
    END;
    t := regexp_replace(t, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u0001', 'g');
    verdict := 'ok';
    PERFORM t::jsonb;
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
    verdict := 'json';
    IF state = '22003' THEN
        BEGIN
            -- json_in lets lone surrogates pass, those who resolve escapes do not
            PERFORM CASE json_typeof(t::json) WHEN 'object' THEN (SELECT count(*) FROM json_each_text(t::json))
                    WHEN 'array' THEN (SELECT count(*) FROM json_array_elements_text(t::json)) END;
            verdict := 'ok';
        EXCEPTION WHEN others THEN
            NULL;
        END;
    END IF;
END $$;

CREATE FUNCTION member(j json, name text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN json_typeof(j) = 'object' THEN
        (SELECT value FROM json_each(j) WITH ORDINALITY e WHERE key = name ORDER BY ordinality DESC LIMIT 1) END
$$;

-- What a path names in the member that it begins with; NULL: nothing. bad: it goes through something that is no array.
CREATE FUNCTION follow(j json, path text, OUT v json, OUT bad boolean) LANGUAGE plpgsql AS $$
DECLARE
    step text;
    inside text[];
BEGIN
    bad := false;
    v := j;
    FOREACH step IN ARRAY (string_to_array(split_part(path, '[]', 1), '.'))[2:] LOOP
        v := member(v, step);
    END LOOP;
    IF path NOT LIKE '%[]%' OR v IS NULL OR json_typeof(v) = 'null' THEN
        RETURN;
    END IF;
    IF json_typeof(v) <> 'array' THEN
        bad := true;
        RETURN;
    END IF;
    inside := string_to_array(ltrim(split_part(path, '[]', 2), '.'), '.');
    SELECT '[' || COALESCE(string_agg(COALESCE(m::text, 'null'), ',' ORDER BY n), '') || ']' INTO v
    FROM (SELECT n, CASE cardinality(inside) WHEN 0 THEN e WHEN 1 THEN member(e, inside[1])
                 ELSE member(member(e, inside[1]), inside[2]) END AS m
          FROM json_array_elements(v) WITH ORDINALITY a (e, n)) x;
END $$;

CREATE TABLE judged AS SELECT id, doc, (judge(doc)).* FROM docs;
CREATE TABLE mismatches (id int, tab text, what text, expected text, got text);
CREATE TABLE counts (what text, n bigint);

-- The verdict on the document, with nothing of it and with everything mapped.
CREATE FOREIGN TABLE nothing (k text OPTIONS (key 'true')) SERVER kafka;
INSERT INTO mismatches
SELECT id, 'nothing', 'verdict', verdict, got
FROM (SELECT id, verdict, COALESCE(kcf_test_fault('nothing', 'k', doc), 'ok') AS got FROM judged) x
WHERE split_part(got, ' ', 1) <> verdict;
INSERT INTO counts SELECT 'documents ' || verdict, count(*) FROM judged GROUP BY verdict;

-- A document that is no object has no members.
INSERT INTO mismatches
SELECT id, 'wide', 'shape', 'json_shape', got
FROM (SELECT id, COALESCE(kcf_test_fault('wide', 'k', doc), 'ok') AS got FROM judged
      WHERE verdict = 'ok' AND json_typeof(t::json) <> 'object') x
WHERE split_part(got, ' ', 1) <> 'json_shape';
CREATE TABLE objects AS SELECT id, doc, t::json AS j FROM judged WHERE verdict = 'ok' AND json_typeof(t::json) = 'object';

-- The last member of each name.
CREATE TABLE members AS
SELECT DISTINCT ON (id, key) id, key, value
FROM objects, json_each(j) WITH ORDINALITY
WHERE key IN (SELECT CASE path WHEN '' THEN col ELSE split_part(replace(path, '[]', ''), '.', 1) END FROM cols)
ORDER BY id, key, ordinality DESC;
ANALYZE members;

-- Each column by itself: refused when the server refuses, else the same to the bit. Absent and null are NULL.
DO $$
DECLARE
    c record;
    name text;
    values_of_json text;
BEGIN
    FOR c IN SELECT * FROM cols LOOP
        name := CASE c.path WHEN '' THEN c.col ELSE split_part(replace(c.path, '[]', ''), '.', 1) END;
        values_of_json := CASE WHEN c.typ = 'json'
            THEN format($v$regexp_replace((got_row).%I::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u0001', 'g')::json$v$, c.col)
            ELSE format('(got_row).%I', c.col) END;
        EXECUTE format($f$
            CREATE TEMP TABLE compared AS
            SELECT id, doc, v, bad, ok, r, kcf_test_fault(%1$L, 'k', doc) AS fault, kcf_test_row(NULL::%1$I, 'k', doc) AS got_row
            FROM objects LEFT JOIN (SELECT * FROM members WHERE key = %3$L) m USING (id)
            LEFT JOIN LATERAL follow(value, %4$L) f ON value IS NOT NULL
            LEFT JOIN LATERAL %2$I(COALESCE(v, 'null')) ref ON bad IS NOT TRUE AND (json_typeof(v) <> 'null' OR %5$L = 'short')
            $f$, c.tab, 'ref_' || c.tab, name, CASE WHEN c.path = '' THEN 'x' ELSE c.path END, c.typ);
        EXECUTE format($f$
            INSERT INTO mismatches
            SELECT id, %1$L, 'fault', CASE WHEN bad OR NOT ok THEN 'refused' ELSE 'taken' END, COALESCE(fault, 'taken') FROM compared
            WHERE COALESCE(bad OR NOT ok, false) <> (fault IS NOT NULL)
            UNION ALL
            SELECT id, %1$L, 'value', r::text, got_row::text FROM compared
            WHERE NOT COALESCE(bad OR NOT ok, false) AND fault IS NULL
              AND NOT ROW(%2$s)::%3$I *= COALESCE(r, ROW(NULL)::%3$I)
            $f$, c.tab, values_of_json, 'one_' || c.tab);
        INSERT INTO counts SELECT 'values taken', count(*) FROM compared WHERE ok;
        INSERT INTO counts SELECT 'values refused', count(*) FROM compared WHERE bad OR NOT ok;
        DROP TABLE compared;
    END LOOP;
END $$;

-- All columns at once: the first bad column is what is told, and good rows are the sum of their columns.
DO $$
DECLARE
    c record;
    sames text := '';
    first_fault text := '';
BEGIN
    FOR c IN SELECT * FROM cols WHERE path <> '' AND typ <> 'short' LOOP
        sames := sames || format(' AND ROW((w).%1$I)::%2$I *= ROW((kcf_test_row(NULL::%1$I, ''k'', doc)).%3$I)::%2$I',
                               c.tab, 'one_' || c.tab, c.col);
        first_fault := first_fault || format(', replace(kcf_test_fault(%L, ''k'', doc), '' c: '', %L)', c.tab, ' ' || c.tab || ': ');
    END LOOP;
    EXECUTE format($f$
        INSERT INTO mismatches
        SELECT id, 'wide', 'fault', expected, got
        FROM (SELECT id, COALESCE(NULL %s) AS expected, kcf_test_fault('wide', 'k', doc) AS got FROM objects) x
        WHERE expected IS DISTINCT FROM got $f$, first_fault);
    EXECUTE format($f$
        INSERT INTO mismatches
        SELECT id, 'wide', 'value', NULL, w::text
        FROM (SELECT id, doc, kcf_test_row(NULL::wide, 'k', doc) AS w FROM objects) x
        WHERE kcf_test_fault('wide', 'k', doc) IS NULL AND NOT (true %s) $f$, sames);
END $$;
