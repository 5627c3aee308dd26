-- A document with some of its members changed: the rest stays byte for byte.
SET client_min_messages = warning;
SELECT test.connect();
CREATE SCHEMA encode_rewrite;
SET search_path = encode_rewrite;
\getenv top KCF_MOCK_HOME
\set module :top '/build/kcf_test/kcf_test.so'
\cd :top
\set ECHO none
\i test/kcf_test/kcf_test.sql
\set ECHO all
\pset format unaligned
\pset tuples_only on
CREATE FOREIGN TABLE t (k text OPTIONS (key 'true'), a int, b text, u_id int OPTIONS (json 'user.id'), u_name text OPTIONS (json 'user.name'),
    zip text OPTIONS (json 'user.address.zip'), "a""b" int, "größe" int, j jsonb) SERVER kafka;
CREATE FUNCTION rewritten(document text, row_of t, VARIADIC changed text[]) RETURNS text LANGUAGE sql AS $$
    SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(convert_to(document, 'UTF8'), row_of, changed) $$;
CREATE FUNCTION r(a int DEFAULT NULL, b text DEFAULT NULL, u_id int DEFAULT NULL, u_name text DEFAULT NULL, zip text DEFAULT NULL, q int DEFAULT NULL,
    g int DEFAULT NULL, j jsonb DEFAULT NULL) RETURNS t LANGUAGE sql AS $$ SELECT ROW('k', a, b, u_id, u_name, zip, q, g, j)::t $$;

-- replaced, appended in the order of the columns, removed; nothing changed is nothing done
SELECT rewritten('{"a":1,"z":2,"b":"x"}', r(a => 3, b => 'y'), 'a', 'b');
SELECT rewritten('{"z":2}', r(b => 'y', a => 3), 'b', 'a');
SELECT rewritten('{"b":"x","z":2}', r(a => 3, b => 'y'), 'a');
SELECT rewritten('{"a":1,"z":2,"b":"x"}', r(), 'a');
SELECT rewritten('{"a":1,"z":2,"b":"x"}', r(), 'b');
SELECT rewritten('{"a":1,"b":"x"}', r(), 'a', 'b', 'u_id', 'zip');
SELECT rewritten('{"z":1}', r(), 'a', 'b', 'u_id', 'zip');
SELECT rewritten(E' {\n  "z" : 1\n} ', r(a => 3), 'b');
SELECT rewritten(E' {\n  "z" : 1\n} ', r(a => 3), VARIADIC '{}');
-- white space stays where it was
SELECT rewritten(E'{\n  "a" : 1 ,\n  "z" : [ 1 , { } ] ,\n  "b" : "x"\n}\n', r(a => 3, b => 'y'), 'a', 'b');
SELECT rewritten(E'{\n  "a" : 1 ,\n  "z" : [ 1 , { } ] ,\n  "b" : "x"\n}\n', r(a => 3), 'a', 'b');
SELECT rewritten(E'{\n  "a" : 1 ,\n  "z" : [ 1 , { } ] ,\n  "b" : "x"\n}\n', r(b => 'y'), 'a', 'b', 'g');
SELECT rewritten(E'{\n  "z" : 1.0\n}', r(a => 3, u_id => 4), 'a', 'u_id');
SELECT rewritten('{ }', r(a => 3), 'a');
SELECT rewritten('{ }', r(), 'a');
SELECT rewritten('{ "a" : 1 }', r(), 'a');
-- numbers, escapes and duplicates of others are nobody's business
SELECT rewritten('{"z":1.0e+2,"z":"\u00e9\/\u0000","a":1,"":0,"z":-0}', r(a => 3), 'a');
-- another spelling of a name is that name; of duplicates the last counts, and stays
SELECT rewritten('{"\u0061":1,"z":0}', r(a => 3), 'a');
SELECT rewritten('{"a":1,"z":0,"\u0061":2,"y":0}', r(a => 3), 'a');
SELECT rewritten('{"\u0061":1,"z":0,"a":2,"y":0,"a":[{}]}', r(), 'a');
SELECT rewritten('{"a":1,"a":2}', r(), 'a');
SELECT rewritten('{"a\"b":1,"z":0,"\u0061\u0022\u0062":2}', r(q => 5), 'a"b');
SELECT rewritten('{"gr\u00f6\u00dfe":1,"größe":2}', r(g => 5), 'größe');
SELECT rewritten('{"a\u0000":1,"\u0061\u0000":2}', r(a => 5), 'a');
-- members of members
SELECT rewritten('{"user":{"x":1,"id":2,"name":"A"},"z":0}', r(u_id => 3), 'u_id');
SELECT rewritten('{"user":{"x":1,"id":2,"address":{"street":"S","zip":"1"}},"z":0}', r(zip => '2', u_name => 'B'), 'zip', 'u_name');
SELECT rewritten('{"user":{"id":2}}', r(), 'u_id');
SELECT rewritten('{"user":{"id":2}}', r(zip => '1'), 'u_id', 'zip');
SELECT rewritten('{"user":{"id":2},"user":{"x":1}}', r(u_id => 3), 'u_id');
SELECT rewritten('{"user":{"x":1},"z":0,"\u0075ser":{"id":2,"\u0069d":5,"y":1}}', r(u_id => 3), 'u_id');
SELECT rewritten('{"z":0}', r(zip => '1'), 'zip');
SELECT rewritten('{"z":0}', r(), 'zip', 'u_id');
-- what is not an object makes way for one, where there is something to say
SELECT rewritten('{"user":5,"z":0}', r(u_id => 3), 'u_id');
SELECT rewritten('{"user":[{"id":1}],"z":0}', r(zip => '3'), 'zip');
SELECT rewritten('{"user":null,"z":0}', r(zip => '3'), 'zip');
SELECT rewritten('{"user":"x","z":0}', r(), 'u_id', 'zip');
SELECT rewritten('{"user":{"address":"x"},"z":0}', r(u_id => 1, zip => '3'), 'u_id', 'zip');
-- documents
SELECT rewritten('{"j":{"b":1},"a":1}', r(j => '{"x": [1, 2]}'), 'j');
SELECT rewritten('{"j":{"b":1},"a":1}', r(), 'j');
-- deep, and long
SELECT md5(rewritten('{"z":' || repeat('[', 5000) || repeat(']', 5000) || ',"a":1}', r(a => 2), 'a')) =
       md5('{"z":' || repeat('[', 5000) || repeat(']', 5000) || ',"a":2}');
SELECT md5(rewritten('{' || repeat('"z":{"a":1},"y":"\"}",', 100000) || '"a":1}', r(a => 2), 'a')) =
       md5('{' || repeat('"z":{"a":1},"y":"\"}",', 100000) || '"a":2}');
SELECT rewritten('{' || repeat('"a":{"a":1},', 100000) || '"a":1}', r(a => 2), 'a');

-- Arrays of objects: an element whose value remains keeps what else it has.
CREATE FOREIGN TABLE g (k text OPTIONS (key 'true'), ids int[] OPTIONS (json 'groups[].id'), names text[] OPTIONS (json 'groups[].n.name'),
    at timestamptz[] OPTIONS (json 'times[].at'), tags text[] OPTIONS (json 'tags[]')) SERVER kafka;
CREATE FUNCTION rewritten(document text, row_of g, VARIADIC changed text[]) RETURNS text LANGUAGE sql AS $$
    SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(convert_to(document, 'UTF8'), row_of, changed) $$;
CREATE FUNCTION g(ids int[] DEFAULT NULL, names text[] DEFAULT NULL, at timestamptz[] DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS g LANGUAGE sql AS
    $$ SELECT ROW('k', ids, names, at, tags)::g $$;
\set doc '{"groups": [ {"id" : 1, "role":"x"} , {"r":"y","\\u0069d":2},{"id":3} ],"z":0}'
SELECT :'doc';
SELECT rewritten(:'doc', g('{1,2,3}'), 'ids');
SELECT rewritten(:'doc', g('{3,1,4}'), 'ids');
SELECT rewritten(:'doc', g('{2}'), 'ids');
SELECT rewritten(:'doc', g('{}'), 'ids');
SELECT rewritten(:'doc', g(), 'ids');
SELECT rewritten(:'doc', g('{1,1,NULL,2}'), 'ids');
-- equal ones are used in their order, each once; NULL is an element without a value, of whatever kind
SELECT rewritten('{"groups":[{"id":1,"n":1},{"id":1,"n":2},{"id":1,"n":3}]}', g('{1,1}'), 'ids');
SELECT rewritten('{"groups":[{"id":1,"n":1},{"id":1,"n":2}]}', g('{1,1,1}'), 'ids');
SELECT rewritten('{"groups":[{"x":1},5,null,{"id":null,"x":2},{"id":7}]}', g('{7,NULL,NULL,NULL,NULL,NULL}'), 'ids');
SELECT rewritten('{"groups":[{"id":1,"id":2,"x":0}]}', g('{2,1}'), 'ids');
-- another spelling of a value is that value
SELECT rewritten('{"times":[{"at":"2026-01-31 12:00:00Z","x":1},{"at":"2026-01-31T14:00:00+01:00","x":2}]}', g(at => '{"2026-01-31 13:00+00","2026-01-31 12:00+00"}'), 'at');
SELECT rewritten('{"groups":[{"id":"1","x":1},{"id":2e0,"x":2}]}', g('{2,1}'), 'ids');
-- no array makes way for one
SELECT rewritten('{"groups":{"id":1},"z":0}', g('{1}'), 'ids');
SELECT rewritten('{"z":0}', g('{1}'), 'ids');
SELECT rewritten('{"groups":5}', g(), 'ids');
-- a column of the same array that does not change keeps its places
\set doc '{"groups":[{"id":1,"n":{"name":"a","x":1},"y":1},{"id":2,"n":{"name":"b"},"y":2}]}'
SELECT rewritten(:'doc', g('{2,1}', '{a,b}'), 'ids');
SELECT rewritten(:'doc', g('{2,NULL}', '{a,b}'), 'ids');
SELECT rewritten(:'doc', g('{1,2}', '{b,a}'), 'names');
SELECT rewritten(:'doc', g(NULL, '{a,b}'), 'ids');
SELECT rewritten(:'doc', g('{1,2}', NULL), 'names');
SELECT rewritten(:'doc', g('{1,2}', '{b,a}'), 'ids', 'names');
SELECT rewritten(:'doc', g('{2,1}', '{b,a}'), 'ids', 'names');
SELECT rewritten(:'doc', g('{2,3}', NULL), 'ids', 'names');
SELECT rewritten(:'doc', g(NULL, NULL), 'ids', 'names');
SELECT rewritten(:'doc', g('{1}', '{a,b}'), 'ids');
SELECT rewritten(:'doc', g('{1}', '{a,b}'), 'ids', 'names');
SELECT rewritten('{"groups":[{"id":1,"x":1},{"id":2,"x":2}]}', g('{2}', '{NULL,NULL}'), 'ids');
-- an array that is a column's whole value is written anew
SELECT rewritten('{"tags":[ "a" , "b" ]}', g(tags => '{b,c}'), 'tags');
-- long
SELECT length(rewritten('{"groups":[' || string_agg('{"id":' || i || ',"x":' || i || '}', ',') || ']}', g(array_agg(i ORDER BY i DESC)), 'ids')) =
       length('{"groups":[' || string_agg('{"id":' || i || ',"x":' || i || '}', ',') || ']}') FROM generate_series(1, 100000) i;
SELECT length(rewritten('{"groups":[' || string_agg('{"id":1}', ',') || ']}', g(array_agg(1)), 'ids')) FROM generate_series(1, 100000) i;

-- Columns within others, and of one member: those that change have the say.
CREATE FOREIGN TABLE within (k text OPTIONS (key 'true'), x int, y text OPTIONS (json 'x'), u jsonb OPTIONS (json 'user'), id int OPTIONS (json 'user.id'),
    gs jsonb OPTIONS (json 'gs'), ids int[] OPTIONS (json 'gs[].id')) SERVER kafka;
CREATE FUNCTION rewritten(document text, row_of within, VARIADIC changed text[]) RETURNS text LANGUAGE sql AS $$
    SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(convert_to(document, 'UTF8'), row_of, changed) $$;
SELECT rewritten('{"x":1}', ROW('k', 1, '2', NULL, NULL, NULL, NULL)::within, 'y');
SELECT rewritten('{"x":1}', ROW('k', 3, '2', NULL, NULL, NULL, NULL)::within, 'x', 'y');
SELECT rewritten('{"x":1}', ROW('k', NULL, '2', NULL, NULL, NULL, NULL)::within, 'x');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, '{"b": 3}', 1, NULL, NULL)::within, 'u');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, '{"b": 3}', 4, NULL, NULL)::within, 'u', 'id');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, '{"b": 3, "id": 5}', NULL, NULL, NULL)::within, 'u', 'id');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, NULL, 4, NULL, NULL)::within, 'u', 'id');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, '{"id": 1, "a": 2}', 4, NULL, NULL)::within, 'id');
SELECT rewritten('{"user":{"id":1,"a":2}}', ROW('k', NULL, NULL, '5', NULL, NULL, NULL)::within, 'u', 'id');
SELECT rewritten('{"gs":[{"id":1}]}', ROW('k', NULL, NULL, NULL, NULL, '[{"id": 2, "x": 1}]', '{2,3}')::within, 'gs', 'ids');
SELECT rewritten('{"gs":[{"id":1}]}', ROW('k', NULL, NULL, NULL, NULL, '[{"id": 2, "x": 1}]', NULL)::within, 'gs', 'ids');
SELECT rewritten('{"gs":[{"id":1}]}', ROW('k', NULL, NULL, NULL, NULL, '{"id": 2, "x": 1}', NULL)::within, 'gs', 'ids');

-- The value column has the old document, or the new one.
CREATE FOREIGN TABLE doc (k text OPTIONS (key 'true', json 'id'), a int, ids int[] OPTIONS (json 'gs[].id'), names text[] OPTIONS (json 'gs[].n'),
    v text OPTIONS (value 'true'), _o bigint OPTIONS ("offset" 'true'), _p int OPTIONS (partition 'true'), _t timestamptz OPTIONS (timestamp 'true'),
    _h jsonb OPTIONS (headers 'true')) SERVER kafka;
CREATE FUNCTION doc(v text, a int DEFAULT NULL, ids int[] DEFAULT NULL, names text[] DEFAULT NULL, o bigint DEFAULT 7, p int DEFAULT 3,
    t timestamptz DEFAULT '2026-01-31 12:00+00', h jsonb DEFAULT '[["a", "b"]]') RETURNS doc LANGUAGE sql AS $$ SELECT ROW('k', a, ids, names, v, o, p, t, h)::doc $$;
SELECT convert_from(value, 'UTF8'), partition, record_time, headers FROM kcf_test_rewrite(NULL, doc('{"id" : "k","a":1}', 2), '{a}');
SELECT convert_from(value, 'UTF8'), partition, record_time, headers FROM kcf_test_rewrite(NULL, doc('{"id":"k","a":1}', 2, p => 4, h => NULL), '{a,_p,_t,_h}');
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, doc('{"id":"other","b":1}', 2), '{v}');
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, doc('{"b":1}', 2), '{v,a}');
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, doc('{"a":5,"b":1}'), '{v,a}');
-- columns that do not change know nothing of a new document
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, doc('{"gs":[{"id":1,"x":1},{"id":2}]}', ids => '{1}', names => '{a,b,c}'), '{v,ids}');
SELECT kcf_test_rewrite(NULL, doc('[1]'), '{v}');
SELECT kcf_test_rewrite(NULL, doc('{'), '{v}');
SELECT kcf_test_rewrite(NULL, doc(NULL), '{a}');
SELECT kcf_test_rewrite(NULL, doc('{}'), '{_o}');
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, doc('{}', o => NULL), '{_o}');
CREATE FOREIGN TABLE as_text (k text OPTIONS (key 'true'), v text OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'text');
SELECT convert_from(value, 'UTF8') FROM kcf_test_rewrite(NULL, ROW('k', 'no JSON')::as_text, '{v}');
DROP SCHEMA encode_rewrite CASCADE;
DROP SERVER kafka CASCADE;
