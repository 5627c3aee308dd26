--
-- changes() and wait_for_change(): what has become of a table since a position.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
RESET client_min_messages;
CREATE SCHEMA changes;
SET search_path = changes;

SELECT test.mock('topic', 'changes', '2');
SELECT test.mock('produce', 'changes', '0', 'a', '{"v": 1}');
SELECT test.mock('produce', 'changes', '0', 'b', '{"v": 2}');
SELECT test.mock('produce', 'changes', '1', 'c', '{"v": 3}');
CREATE FOREIGN TABLE t (k text OPTIONS (key 'true') NOT NULL, v int CHECK (v < 100)) SERVER kafka OPTIONS (topic 'changes');
SELECT test.catch_up('t');
SELECT kafka_cache.position('t') AS loaded \gset

-- nothing yet
SELECT * FROM kafka_cache.changes('t', :'loaded');
SELECT * FROM kafka_cache.changes('t', '{}');
SELECT * FROM kafka_cache.changes('t', NULL);
SELECT kafka_cache.wait_for_change('t', :'loaded', '0'), kafka_cache.wait_for_change('t', '{}', '10 ms'), kafka_cache.wait_for_change('t', NULL);
-- what was deleted before the load nobody knows
SELECT * FROM kafka_cache.changes('t', '{"0": 0}');
SELECT * FROM kafka_cache.changes('t', '{"0": 1, "1": -1}');
SELECT * FROM kafka_cache.changes('t', '{"0": 1}');

-- each key once, with what is there now
SELECT test.mock('produce', 'changes', '0', 'a', '{"v": 10}');
SELECT test.mock('produce', 'changes', '0', 'a', '{"v": 11}');
SELECT test.mock('produce', 'changes', '0', 'b', NULL);
SELECT test.mock('produce', 'changes', '0', 'never', NULL);
SELECT test.mock('produce', 'changes', '0', 'back', '{"v": 1}');
SELECT test.mock('produce', 'changes', '0', 'back', NULL);
SELECT test.mock('produce', 'changes', '0', 'back', '{"v": 2}');
SELECT test.mock('produce', 'changes', '1', 'd', '{"v": 4}');
SELECT kafka_cache.wait_for_change('t', :'loaded') IS NOT NULL AS moved;
SELECT test.catch_up('t');
SELECT kafka_cache.wait_for_change('t', :'loaded', '0') = kafka_cache.position('t') AS at_once;
SELECT key, deleted, partition, "offset", record_time BETWEEN now() - interval '1 min' AND clock_timestamp() + interval '1 s' AS recent
FROM kafka_cache.changes('t', :'loaded') ORDER BY partition, "offset";
-- of the partitions that are named, from what is named
SELECT key, "offset" FROM kafka_cache.changes('t', '{"1": 0}');
SELECT key, "offset" FROM kafka_cache.changes('t', '{"0": 5}') ORDER BY 2;
SELECT key FROM kafka_cache.changes('t', kafka_cache.position('t'));
-- with the rows of the same state
SELECT c.key, c.deleted, t.v FROM kafka_cache.changes('t', :'loaded') c LEFT JOIN t ON t.k = c.key ORDER BY 1;
SELECT (kafka_cache.changes('t', '{"1": 0}')).key;
SELECT array_agg(c.key ORDER BY c.key) FROM (VALUES ('{"1": 0}'::jsonb), ('{"0": 7}')) p (since), kafka_cache.changes('t', p.since) c;

-- bad records: silent where the row stays, a deletion where it goes, a change where it fails
CREATE FOREIGN TABLE removed (k text OPTIONS (key 'true') NOT NULL, v int CHECK (v < 100)) SERVER kafka OPTIONS (topic 'changes', on_error 'remove');
CREATE FOREIGN TABLE failing (k text OPTIONS (key 'true') NOT NULL, v int CHECK (v < 100)) SERVER kafka OPTIONS (topic 'changes', on_error 'fail');
SELECT test.catch_up('removed'), test.catch_up('failing');
SELECT kafka_cache.position('t') AS before_bad \gset
SELECT test.mock('produce', 'changes', '0', 'a', '{"v": 1000}');
SELECT test.mock('produce', 'changes', '0', 'b', 'not json');
SELECT test.catch_up('t'), test.catch_up('removed'), test.catch_up('failing');
SELECT key, deleted FROM kafka_cache.changes('t', :'before_bad');
SELECT key, deleted FROM kafka_cache.changes('removed', :'before_bad') ORDER BY 1;
SELECT key, deleted FROM kafka_cache.changes('failing', :'before_bad') ORDER BY 1;

-- keys of several partitions: another one's row may come back to light
SELECT test.mock('topic', 'changes_multi', '3');
SELECT test.mock('produce', 'changes_multi', '0', 'k', '{"v": 0}', 'at', '1000');
SELECT test.mock('produce', 'changes_multi', '1', 'k', '{"v": 1}', 'at', '2000');
SELECT test.mock('produce', 'changes_multi', '0', 'other', '{"v": 0}', 'at', '1000');
SELECT test.mock('produce', 'changes_multi', '1', 'other', '{"v": 1}', 'at', '1500');
CREATE FOREIGN TABLE multi (k text OPTIONS (key 'true') NOT NULL, v int) SERVER kafka OPTIONS (topic 'changes_multi');
SELECT test.catch_up('multi');
SELECT * FROM multi ORDER BY k;
SELECT kafka_cache.position('multi') AS p1 \gset
SELECT key FROM kafka_cache.changes('multi', :'p1');
SELECT test.mock('produce', 'changes_multi', '1', 'k', '{"v": 11}', 'at', '500');
SELECT test.mock('produce', 'changes_multi', '2', 'new', '{"v": 2}', 'at', '500');
SELECT test.catch_up('multi');
SELECT * FROM multi ORDER BY k;
SELECT key, deleted, partition, "offset", record_time = 'epoch'::timestamptz + interval '1 s' AS first_of_it FROM kafka_cache.changes('multi', :'p1') ORDER BY 1;
SELECT key FROM kafka_cache.changes('multi', '{"0": 1}');
SELECT kafka_cache.position('multi') AS p2 \gset
-- its end, and its end in one partition only
SELECT test.mock('produce', 'changes_multi', '0', 'k', NULL, 'at', '3000');
SELECT test.mock('produce', 'changes_multi', '0', 'other', NULL, 'at', '1400');
SELECT test.catch_up('multi');
SELECT * FROM multi ORDER BY k;
SELECT key, deleted, partition FROM kafka_cache.changes('multi', :'p2') ORDER BY 1;
SELECT key FROM kafka_cache.changes('multi', kafka_cache.position('multi'));

-- keys as text: what the type prints, whatever the session's settings are
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET bytea_output = 'escape';
SET extra_float_digits = -5;
CREATE TABLE key_types (n serial, type text, format text, keys text[], since bigint);
INSERT INTO key_types (type, format, keys) VALUES
	('timestamptz', 'text', '{"2026-01-02 03:04:05+00", infinity}'),
	('date', 'text', '{2026-01-02}'),
	('float8', 'text', '{0.1, NaN, -Infinity, 0.30000000000000004}'),
	('bytea', 'bytea', '{abc, ü}'),
	('boolean', 'text', '{yes, false}'),
	('uuid', 'json', ARRAY['"6F1F0000-0000-0000-0000-000000000001"', '{"k": "6f1f0000-0000-0000-0000-000000000002"}']),
	('int[]', 'text', ARRAY['{1,2}', '[0:1]={1,2}']),
	('text', 'text', ARRAY['a "b" \ c', 'ä', '']);
SELECT test.topic('changes_types', 1);
SELECT test.mock('produce', 'changes_types', '0', '', '{}');
-- all read one topic; who cannot read a key passes it over
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM key_types LOOP
		EXECUTE format('CREATE FOREIGN TABLE %I (k %s OPTIONS (key ''true'') NOT NULL) SERVER kafka OPTIONS (topic ''changes_types'', key_format %L)',
			'type_' || r.n, r.type, r.format);
	END LOOP;
END
$$;
SELECT count(*) FROM key_types WHERE test.catch_up(('type_' || n)::regclass);
DO $$
DECLARE
	r record;
	word text;
BEGIN
	FOR r IN SELECT * FROM key_types ORDER BY n LOOP
		FOREACH word IN ARRAY r.keys LOOP
			UPDATE key_types SET since = split_part(test.mock('produce', 'changes_types', '0', word, '{}'), ' ', 3)::bigint - cardinality(keys)
				WHERE n = r.n;
		END LOOP;
	END LOOP;
END
$$;
SELECT count(*) FROM key_types WHERE test.catch_up(('type_' || n)::regclass);
SELECT type, (SELECT string_agg(c.key, ' ' ORDER BY c."offset") FROM kafka_cache.changes(('type_' || n)::regclass, '{"0": 0}') c
	WHERE c."offset" > since AND c."offset" <= since + cardinality(keys)) AS keys
FROM key_types ORDER BY n;
-- several columns: the JSON object
SELECT test.topic('changes_pairs', 1);
SELECT test.mock('produce', 'changes_pairs', '0', 'no key', '{}') LIKE 'ok%' AS produced;
CREATE FOREIGN TABLE pairs (a text OPTIONS (key 'true') NOT NULL, b numeric OPTIONS (key 'true') NOT NULL, c float8[] OPTIONS (key 'true') NOT NULL,
	d timestamptz OPTIONS (key 'true') NOT NULL, e bytea OPTIONS (key 'true') NOT NULL) SERVER kafka OPTIONS (topic 'changes_pairs', key_format 'json');
SELECT test.catch_up('pairs');
SELECT test.mock('produce', 'changes_pairs', '0', '{"a": "x \"y\" ö", "b": 1.50, "c": [0.1], "d": "2026-01-02T03:04:05Z", "e": "\\x00ff"}', '{}');
SELECT test.mock('produce', 'changes_pairs', '0', '{"b": "NaN", "a": "", "c": ["NaN", 1], "d": "infinity", "e": ""}', NULL);
SELECT test.catch_up('pairs');
SELECT key, deleted FROM kafka_cache.changes('pairs', '{"0": 0}') ORDER BY "offset";
RESET timezone;
RESET datestyle;
RESET bytea_output;
RESET extra_float_digits;

-- a position that is not reached: it may speak of another topic
SET kafka_cache.wait_timeout = '20 ms';
SELECT * FROM kafka_cache.changes('t', '{"0": 10000}');
SELECT * FROM kafka_cache.changes('t', '{"7": 0}');
SELECT * FROM kafka_cache.changes('t', '{"2147483647": 9223372036854775807}');
SELECT * FROM kafka_cache.changes('t', '{"2147483647": -1}');
SELECT * FROM kafka_cache.changes('t', '{"0": "x"}');
RESET kafka_cache.wait_timeout;

-- a reload remembers deletions from its own position on
SELECT kafka_cache.position('multi') AS p3 \gset
SELECT test.mock('produce', 'changes_multi', '2', 'new', '{"v": 3}');
SELECT test.catch_up('multi');
SELECT key FROM kafka_cache.changes('multi', :'p3');
SELECT kafka_cache.reload('multi');
SELECT test.reloaded('multi');
SELECT key FROM kafka_cache.changes('multi', :'p3');
SELECT key FROM kafka_cache.changes('multi', kafka_cache.position('multi'));

-- what is not complete has no changes
SET kafka_cache.when_not_ready = partial;
SET kafka_cache.wait_timeout = '10 ms';
CREATE FOREIGN TABLE nowhere (k text OPTIONS (key 'true') NOT NULL) SERVER kafka OPTIONS (topic 'changes_nowhere');
SELECT * FROM kafka_cache.changes('nowhere', '{"0": -1}');
RESET kafka_cache.when_not_ready;
RESET kafka_cache.wait_timeout;
SELECT kafka_cache.wait_for_change('nowhere', '{"0": -1}', '10 ms');

-- whose: keys are read
CREATE ROLE kcf_reader;
CREATE ROLE kcf_key_reader;
CREATE ROLE kcf_value_reader;
CREATE ROLE kcf_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA changes TO PUBLIC;
GRANT SELECT ON t TO kcf_reader;
GRANT SELECT (k) ON t TO kcf_key_reader;
GRANT SELECT (v) ON t TO kcf_value_reader;
SET ROLE kcf_reader;
SELECT count(*) FROM kafka_cache.changes('t', :'loaded');
SET ROLE kcf_key_reader;
SELECT count(*) FROM kafka_cache.changes('t', :'loaded');
SET ROLE kcf_value_reader;
SELECT count(*) FROM kafka_cache.changes('t', :'loaded');
SELECT kafka_cache.wait_for_change('t', :'loaded', '0') IS NOT NULL AS moved;
SET ROLE kcf_monitor;
SELECT count(*) FROM kafka_cache.changes('t', :'loaded');
SELECT kafka_cache.wait_for_change('t', :'loaded', '0');
RESET ROLE;
SELECT * FROM kafka_cache.changes('pg_class', '{}');
SELECT * FROM kafka_cache.wait_for_change('pg_class', '{}');

SET client_min_messages = warning;
DROP SERVER kafka CASCADE;
DROP SCHEMA changes CASCADE;
DROP ROLE kcf_reader, kcf_key_reader, kcf_value_reader, kcf_monitor;
