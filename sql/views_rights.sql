--
-- Who sees which rows of the views, and who may call which function on a table.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;
CREATE SCHEMA rights;
SET search_path = rights;
CREATE ROLE kcf_owner;
CREATE ROLE kcf_reader;
CREATE ROLE kcf_column_reader;
CREATE ROLE kcf_monitor IN ROLE pg_monitor;
CREATE ROLE kcf_stranger;
CREATE SERVER rights_server FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
CREATE USER MAPPING FOR kcf_owner SERVER rights_server OPTIONS (username 'canary-user', password 'canary-password');
GRANT USAGE ON SCHEMA rights TO PUBLIC;
GRANT CREATE ON SCHEMA rights TO kcf_owner;
GRANT USAGE ON FOREIGN SERVER rights_server TO kcf_owner;
SET ROLE kcf_owner;
CREATE FOREIGN TABLE owned (id int OPTIONS (key 'true'), a text) SERVER rights_server OPTIONS (topic 'rights');
GRANT SELECT ON owned TO kcf_reader;
GRANT SELECT (a) ON owned TO kcf_column_reader;
RESET ROLE;
CREATE FOREIGN TABLE others (id int OPTIONS (key 'true'), a text) SERVER rights_server OPTIONS (topic 'rights');
CREATE TABLE ordinary (id int);
GRANT SELECT ON ordinary TO PUBLIC;

CREATE FUNCTION as_role(role name, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE query INTO answer;
	RESET ROLE;
	RETURN COALESCE(answer, 'nothing');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;

-- a table is in the view from its CREATE on; its rows for those with a right on it
CREATE TABLE roles (n int, role name);
INSERT INTO roles VALUES (1, 'kcf_owner'), (2, 'kcf_reader'), (3, 'kcf_column_reader'), (4, 'kcf_monitor'), (5, 'kcf_stranger');
SELECT role, as_role(role, $$SELECT string_agg(relation::text, ' ' ORDER BY relation::text)
	FROM kafka_cache.tables WHERE relation::text IN ('owned', 'others')$$) AS tables
FROM roles ORDER BY n;
-- what is said in words may name brokers
SELECT role, as_role(role, $$SELECT count(message) FROM kafka_cache.tables WHERE relation = 'rights.owned'::regclass$$) AS messages
FROM roles WHERE role NOT IN ('kcf_owner', 'kcf_monitor') ORDER BY n;
SELECT role, as_role(role, 'SELECT count(*) FROM kafka_cache.partitions JOIN kafka_cache.errors USING (relation)') AS partitions_and_errors,
	as_role(role, $$SELECT count(*) > 0 FROM kafka_cache.workers WHERE kind = 'launcher'$$) AS launcher_seen,
	as_role(role, 'SELECT count(message) FROM kafka_cache.workers WHERE NOT pg_has_role(''pg_monitor'', ''usage'')') AS worker_messages
FROM roles ORDER BY n;

-- functions
SELECT role, as_role(role, $$SELECT kafka_cache.wait_ready('rights.owned', '0')$$) AS wait_ready,
	as_role(role, $$SELECT kafka_cache.wait_for('rights.owned', '{"0": 1}', '0')$$) AS wait_for
FROM roles ORDER BY n;
SELECT role, as_role(role, $$SELECT kafka_cache.position('rights.owned')$$) AS position,
	as_role(role, $$SELECT 'done' FROM kafka_cache.reload('rights.owned')$$) AS reload
FROM roles ORDER BY n;

-- secrets are nowhere
SELECT count(*) FROM kafka_cache.tables t WHERE t::text LIKE '%canary%';
SELECT count(*) FROM kafka_cache.workers w WHERE w::text LIKE '%canary%';

-- not ours, not there
SELECT kafka_cache.wait_ready('ordinary');
SELECT kafka_cache.position('ordinary');
SELECT kafka_cache.wait_for('ordinary', '{}');
SELECT kafka_cache.reload('ordinary');
SELECT kafka_cache.reload('kafka_cache.tables');
SELECT kafka_cache.wait_ready('no_such_table');
SELECT kafka_cache.wait_ready(1::regclass);
SELECT kafka_cache.wait_ready(NULL) IS NULL AS nothing;

-- positions
SELECT kafka_cache.wait_for('owned', '[]', '0');
CREATE TABLE bad_positions (n serial, position jsonb);
INSERT INTO bad_positions (position) VALUES ('5'), ('"a"'), ('null'), ('[1]'), ('{"a": 1}'), ('{"": 1}'), ('{"-1": 1}'), ('{"01": 1}'),
	('{"0x1": 1}'), ('{"2147483648": 1}'), ('{"99999999999": 1}'), ('{"0": "1"}'), ('{"0": null}'), ('{"0": 1.5}'), ('{"0": -2}'),
	('{"0": 9223372036854775808}'), ('{"0": 1e30}'), ('{"0": {"1": 2}}'), ('{"0": [1]}');
SELECT position, as_role('kcf_owner', format('SELECT kafka_cache.wait_for(''rights.owned'', %L, ''0'')', position)) AS answer
FROM bad_positions ORDER BY n;
-- good ones of a table that will never be there: time is over
SELECT kafka_cache.wait_for('owned', p::jsonb, '10 ms')
FROM unnest(ARRAY['{}', '{"0": -1}', '{"0": 1.0, "2147483647": 9223372036854775807}']) p;
SELECT kafka_cache.wait_ready('owned', '-1 month'), kafka_cache.wait_for('owned', '{}', '-1 s');

SET client_min_messages = warning;
DROP SERVER rights_server CASCADE;
DROP SCHEMA rights CASCADE;
DROP ROLE kcf_owner, kcf_reader, kcf_column_reader, kcf_monitor, kcf_stranger;
