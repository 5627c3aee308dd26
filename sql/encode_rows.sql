-- Rows as records: what the document looks like, what comes with it, and what cannot be written.
SET client_min_messages = warning;
SELECT test.connect();
CREATE SCHEMA encode_rows;
SET search_path = encode_rows;
\getenv top KCF_MOCK_HOME
\set module :top '/build/kcf_test/kcf_test.so'
\cd :top
\set ECHO none
\i test/kcf_test/kcf_test.sql
\set ECHO all
-- sqlstate, message, detail and hint of what is refused
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text; hint text; context text; col text; tab text;
BEGIN
    EXECUTE statement;
    RETURN 'taken';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        context = PG_EXCEPTION_CONTEXT, col = COLUMN_NAME, tab = TABLE_NAME;
    RETURN concat_ws(E'\n    ', state || ': ' || message, 'DETAIL: ' || NULLIF(detail, ''), 'HINT: ' || NULLIF(hint, ''),
                     substring(context FROM 'column "[^\n]*'), NULLIF(tab || '.' || col, '.'));
END $$;
CREATE FUNCTION text_of(bytea) RETURNS text LANGUAGE sql AS $$ SELECT convert_from($1, 'UTF8') $$;
\pset format unaligned
\pset tuples_only on

-- NULL columns are left out; objects and arrays are shared, and lie where the first of their columns does.
CREATE FOREIGN TABLE nested (k int OPTIONS (key 'true', json 'ident.k'), a int, u_id int OPTIONS (json 'user.id'), b text,
    u_name text OPTIONS (json 'user.name'), zip text OPTIONS (json 'user.address.zip'), ids int[] OPTIONS (json 'groups[].id'),
    names text[] OPTIONS (json 'groups[].n.name'), tags text[] OPTIONS (json 'tags[]'), "dot.ted" int, "größe" int, "a""b\c" int) SERVER kafka;
SELECT text_of(key), text_of(value) FROM kcf_test_write(ROW(1, 2, 3, 'b', 'Ann', '0815', '{1,2}', '{x,NULL}', '{s,t}', 7, 8, 9)::nested);
SELECT text_of(key), text_of(value) FROM kcf_test_write(ROW(1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::nested);
SELECT text_of(value) FROM kcf_test_write(ROW(1, NULL, NULL, NULL, NULL, '0815', '{}', NULL, '{}', NULL, NULL, NULL)::nested);
SELECT text_of(value) FROM kcf_test_write(ROW(1, NULL, NULL, NULL, NULL, NULL, NULL, '{x,NULL}', NULL, NULL, NULL, NULL)::nested);
SELECT refused($$SELECT kcf_test_write(ROW(1, NULL, NULL, NULL, NULL, NULL, '{1,2}', '{x}', NULL, NULL, NULL, NULL)::nested)$$);
-- arrays of more dimensions, and of documents
CREATE FOREIGN TABLE deep (k text OPTIONS (key 'true'), m int[] OPTIONS (json 'g[].id'), j jsonb OPTIONS (json 'h[].x'), t text[] OPTIONS (json 'p.q[]')) SERVER kafka;
SELECT w, kcf_test_row(NULL::deep, 'k', w.value)::deep FROM (SELECT text_of(value) AS w, value
    FROM kcf_test_write(ROW('k', '{{1,2},{3,4}}', '[1, [2], {"y": null}, null]', '{a,b}')::deep)) w;
SELECT w, kcf_test_row(NULL::deep, 'k', w.value)::deep FROM (SELECT text_of(value) AS w, value
    FROM kcf_test_write(ROW('k', '{}', '[]', '{}')::deep)) w;
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, '{"a": 1}', NULL)::deep)$$);
-- two columns of one member: the first that is not NULL; one within the other: the inner one overrides
CREATE FOREIGN TABLE twice (k text OPTIONS (key 'true'), a int OPTIONS (json 'x'), b text OPTIONS (json 'x'), u jsonb OPTIONS (json 'user'),
    id int OPTIONS (json 'user.id'), zip int OPTIONS (json 'user.address.zip'), gs jsonb OPTIONS (json 'gs'), g int[] OPTIONS (json 'gs[].id')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, 'one', NULL, NULL, NULL, NULL, NULL)::twice);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, 'one', '{"b": 1, "id": "x"}', NULL, NULL, NULL, NULL)::twice);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, NULL, '{"b": 1, "id": "x", "zz": null}', 7, 8, NULL, NULL)::twice);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, NULL, '{"b": 1, "id": "x", "address": [1]}', 7, 8, '[{"id": 1, "r": "x"}, {"id": 2, "r": "y"}]', '{2,3}')::twice);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, '[1]', 7, NULL, NULL, NULL)::twice)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, NULL, NULL, NULL, '{"id": 1}', '{1}')::twice)$$);
CREATE FOREIGN TABLE torn (k text OPTIONS (key 'true'), a int OPTIONS (json 'x.a'), b int[] OPTIONS (json 'x[].b')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, NULL)::torn);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, '{1}')::torn);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '{1}')::torn)$$);

-- The value column: the document, whose members the other columns override.
CREATE FOREIGN TABLE doc (k text OPTIONS (key 'true', json 'id'), a int, b text OPTIONS (json 'u.b'), v jsonb OPTIONS (value 'true')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, NULL, '{"a": 2, "z": [1, {}]}')::doc);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, NULL, '{"a": 2, "id": "other", "u": {"b": 1}}')::doc);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, 'x', '{"u": 5}')::doc);
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, 'x', NULL)::doc);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, '[1]')::doc)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, 'null')::doc)$$);
CREATE FOREIGN TABLE doc_json (k text OPTIONS (key 'true'), a int, v json OPTIONS (value 'true')) SERVER kafka;
CREATE FOREIGN TABLE doc_text (k text OPTIONS (key 'true'), a int, v text OPTIONS (value 'true')) SERVER kafka;
CREATE FOREIGN TABLE doc_bytea (k text OPTIONS (key 'true'), a int, v bytea OPTIONS (value 'true')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', NULL, ' { "a" : 2.0 } ')::doc_json);
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, ' { "a" : 2.0 , "z":1e5} ')::doc_json);
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, ' { "\u0061" : 2.0 , "z":1e5, "a": 1} ')::doc_text);
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, '{"z":"ö"}')::doc_text);
SELECT text_of(value) FROM kcf_test_write(ROW('k', 1, convert_to('{"z":"ö"}', 'UTF8'))::doc_bytea);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '')::doc_text)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '{"a":')::doc_text)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '"a"')::doc_text)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '{"a":"\ud800"}')::doc_json)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, '\x7b2261223aff7d')::doc_bytea)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', 1, convert_to(repeat('[', 70000) || repeat(']', 70000), 'UTF8'))::doc_bytea)$$);
CREATE FOREIGN TABLE whole (k text OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', 'null')::whole);
SELECT text_of(value) FROM kcf_test_write(ROW('k', '[1, "a b"]')::whole);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL)::whole)$$);
CREATE FOREIGN TABLE only_key (k text OPTIONS (key 'true')) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k')::only_key);

-- Formats text and bytea: as it is.
CREATE FOREIGN TABLE as_text (k text OPTIONS (key 'true'), v text OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE as_text_jsonb (k text OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE as_bytea (k bytea OPTIONS (key 'true'), v bytea OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'bytea', key_format 'bytea');
SELECT text_of(key), text_of(value) FROM kcf_test_write(ROW('', '')::as_text);
SELECT text_of(key), text_of(value) FROM kcf_test_write(ROW('ö', ' no JSON ö ')::as_text);
SELECT text_of(value) FROM kcf_test_write(ROW('k', '{"a": null}')::as_text_jsonb);
SELECT key, value FROM kcf_test_write(ROW('\x00ff', '\xff00')::as_bytea);
SELECT key, value FROM kcf_test_write(ROW('', '')::as_bytea);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL)::as_text)$$);

-- Keys: never NULL, in JSON in the order of the columns, with their names.
CREATE FOREIGN TABLE many (a int OPTIONS (key 'true'), "b ""c" text OPTIONS (key 'true'), t timestamptz OPTIONS (key 'true'), v int) SERVER kafka OPTIONS (key_format 'json');
SET TimeZone = 'Asia/Tokyo';
SELECT text_of(key), text_of(value) FROM kcf_test_write(ROW(1, E'x\ny', '2026-01-31 12:00', 2)::many);
RESET TimeZone;
SELECT refused($$SELECT kcf_test_write(ROW(1, NULL, now(), 2)::many)$$);
SELECT refused($$SELECT kcf_test_write(ROW(NULL, '{}')::whole)$$);

-- Partition, time and headers; an offset never.
CREATE FOREIGN TABLE meta (k text OPTIONS (key 'true'), _p int OPTIONS (partition 'true'), _o bigint OPTIONS ("offset" 'true'),
    _t timestamptz OPTIONS (timestamp 'true'), _h jsonb OPTIONS (headers 'true')) SERVER kafka;
SELECT * FROM kcf_test_write(ROW('k', NULL, NULL, NULL, NULL)::meta);
SELECT partition, record_time, headers FROM kcf_test_write(ROW('k', 3, NULL, '2026-01-31 12:00:00.0019+00', '[]')::meta);
SELECT record_time FROM kcf_test_write(ROW('k', 3, NULL, '1970-01-01 00:00:00.001+00', '[]')::meta);
SELECT refused($$SELECT kcf_test_write(ROW('k', -1, NULL, NULL, NULL)::meta)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, 0, NULL, NULL)::meta)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, 'infinity', NULL)::meta)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, '1969-12-31', NULL)::meta)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, '1970-01-01 00:00+00', NULL)::meta)$$);
-- bytes that are shown as \x come back as bytes, every other text as it is
SELECT headers, (kcf_test_row(NULL::meta, 'k', '{}', headers => headers))._h FROM kcf_test_write(ROW('k', NULL, NULL, NULL,
    '[["a", "x"], ["ö", ""], ["", null], ["hex", "\\x41"], ["bytes", "\\xff00"], ["odd", "\\xff0"], ["large", "\\xFF"], ["nul", "\\x6100"], ["\\xc3", "a"], ["no", "\\x"]]')::meta);
SELECT refused(format($$SELECT kcf_test_write(ROW('k', NULL, NULL, NULL, %L)::meta)$$, h))
FROM unnest(ARRAY['{}', '1', 'null', '[1]', '["a"]', '[["a"]]', '[["a", "b", "c"]]', '[[1, "b"]]', '[[null, "b"]]', '[["a", 1]]', '[["a", {}]]', '[{"a": "b"}]']) h;
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, NULL, (SELECT jsonb_agg(jsonb_build_array('a', 'b')) FROM generate_series(1, 1001)))::meta)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', NULL, NULL, NULL, jsonb_build_array(jsonb_build_array('a', repeat('b', 1024 * 1024))))::meta)$$);

-- What JSON cannot say, or what would not come back.
CREATE TYPE pair AS (x float8, y jsonb);
CREATE FOREIGN TABLE anything (k text OPTIONS (key 'true'), f4 real, f8 float8, n numeric, js json, jb jsonb, arr int[], jbs jsonb[], f8s float8[], p pair, ps pair[],
    d numrange) SERVER kafka;
SELECT v, refused(format($$SELECT kcf_test_write(jsonb_populate_record(NULL::anything, %L))$$, v))
FROM unnest(ARRAY['{"k": "k", "f4": "NaN"}', '{"k": "k", "f4": "-inf"}', '{"k": "k", "f8": "NaN"}', '{"k": "k", "f8": "inf"}', '{"k": "k", "n": "NaN"}',
    '{"k": "k", "n": "inf"}', '{"k": "k", "n": "-inf"}', '{"k": "k", "f8s": [1, "NaN"]}', '{"k": "k", "p": {"x": "NaN"}}', '{"k": "k", "ps": [{"x": 1}, {"x": "inf"}]}',
    '{"k": "k", "arr": "[0:1]={1,2}"}', '{"k": "k", "arr": "[1:1][2:2]={{1}}"}', '{"k": "k", "d": "[NaN,NaN]"}', '{"k": "k", "d": "[1,infinity)"}']) v;
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, 'null', jb, arr, jbs, f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, ' null ', jb, arr, jbs, f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, '"\udc00"', jb, arr, jbs, f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, js, 'null', arr, jbs, f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, js, jb, arr, '{"[1]"}', f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, js, jb, arr, '{"1","null"}', f8s, p, ps, d)::anything AS r) y$$);
SELECT refused($$SELECT kcf_test_write(r) FROM (SELECT (jsonb_populate_record(NULL::anything, '{"k": "k"}')).*) x, LATERAL (SELECT (x.k, f4, f8, n, js, jb, arr, jbs, f8s, '(1,"null")', ps, d)::anything AS r) y$$);

-- json within others is read by way of jsonb, which does not take everything
CREATE FOREIGN TABLE jsons (k text OPTIONS (key 'true'), j json[]) SERVER kafka;
SELECT text_of(value) FROM kcf_test_write(ROW('k', ARRAY['{"b" : 1.50}', '1e5']::json[])::jsons);
SELECT refused($$SELECT kcf_test_write(ROW('k', ARRAY['"\u0000"']::json[])::jsons)$$);
SELECT refused($$SELECT kcf_test_write(ROW('k', ARRAY['1e999999']::json[])::jsons)$$);

DROP SCHEMA encode_rows CASCADE;
DROP SERVER kafka CASCADE;
