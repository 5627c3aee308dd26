--
-- Plans of reading: what is looked up by key, what is scanned. The rows come from a writer without Kafka
-- (test/writer), in a database that has no consumer.
--
CREATE DATABASE read_plan;
\c read_plan
\set SHOW_CONTEXT never
CREATE EXTENSION kafka_cache_fdw;
SET client_min_messages = warning;
\set ECHO none
\i test/writer/kcf_writer.sql
\set ECHO all
RESET client_min_messages;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET max_parallel_workers_per_gather = 0;

CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, name text, org int, score numeric) SERVER kafka
	OPTIONS (topic 'app.users');
CREATE FOREIGN TABLE orgs (id text OPTIONS (key 'true') NOT NULL, name text) SERVER kafka;
CREATE FOREIGN TABLE members (org int OPTIONS (key 'true') NOT NULL, usr int OPTIONS (key 'true') NOT NULL, role text)
	SERVER kafka OPTIONS (key_format 'json');
CREATE TABLE orders (id int PRIMARY KEY, user_id int, user_big bigint, user_small smallint, org_name text, wanted int[]);
INSERT INTO orders SELECT i, i * 7 % 1000, i * 7 % 1000, i % 100, 'org' || i % 10, ARRAY[i, i + 1] FROM generate_series(1, 1000) i;
ANALYZE orders;

-- plans can be made before anything is loaded
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 1;
EXPLAIN SELECT * FROM users;

SELECT kcf_writer.fill('users', 'SELECT i, ''user'' || i, i % 10, i / 4.0 FROM generate_series(1, 10000) i');
SELECT kcf_writer.fill('orgs', 'SELECT ''org'' || i, ''Organization '' || i FROM generate_series(1, 1000) i');
SELECT kcf_writer.fill('members', 'SELECT i % 10, i, ''role'' || i % 3 FROM generate_series(1, 10000) i');

-- the number of rows is exact without ANALYZE
EXPLAIN SELECT * FROM users;
SELECT kcf_writer.del('users', 'SELECT i, NULL, NULL, NULL FROM generate_series(9001, 10000) i');
EXPLAIN SELECT count(*) FROM users;

-- key = constant, both ways round
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE 42 = id;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42 AND name <> 'x' AND org > 2;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42 AND id = 43;
EXPLAIN (COSTS OFF) SELECT * FROM orgs WHERE id = 'org1';
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = (SELECT max(user_id) FROM orders);
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = length(current_user);
EXPLAIN (COSTS OFF, FORMAT JSON) SELECT * FROM users WHERE id = 42;

-- other integers
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42::bigint;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42::smallint;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = ANY ('{1,2,99999999999}'::bigint[]);

-- not a key lookup
EXPLAIN (COSTS OFF) SELECT * FROM users;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id > 42;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE name = 'user1';
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id <> 42;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 42.0;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id + 1 = 43;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = org;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = (random() * 100)::int;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = 1 OR name = 'x';
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id IS NOT DISTINCT FROM 42;
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id <> ALL ('{1,2}');
EXPLAIN (COSTS OFF) SELECT * FROM orgs WHERE id LIKE 'org1';
EXPLAIN (COSTS OFF) SELECT * FROM orgs WHERE id = 'org1'::name;
EXPLAIN (COSTS OFF) SELECT * FROM members WHERE org = 1;

-- arrays
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id IN (1, 2, 3);
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = ANY (ARRAY[1, 2, NULL]);
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id = ANY (ARRAY(SELECT user_id FROM orders));
EXPLAIN (COSTS OFF) SELECT * FROM users WHERE id IN (1, 2) AND id = 2;
EXPLAIN SELECT * FROM users WHERE id IN (1, 2, 3);

-- several key columns
EXPLAIN (COSTS OFF) SELECT * FROM members WHERE usr = 11 AND org = 1;
EXPLAIN (COSTS OFF) SELECT * FROM members WHERE (org, usr) = (1, 11) AND role = 'role2';
EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN members m ON m.usr = o.user_id AND m.org = o.id;
EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN members m ON m.usr = o.user_id AND m.org = 3;
EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN members m ON m.usr = o.user_id WHERE o.id < 5;
-- one value for several columns
EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN members m ON m.usr = o.user_id AND m.org = o.user_id WHERE o.id < 5;
SELECT o.id, m.* FROM orders o JOIN members m ON m.usr = o.user_id AND m.org = o.user_id WHERE o.id IN (143, 286);
-- values from two relations
EXPLAIN (COSTS OFF) SELECT * FROM orders o CROSS JOIN orders p JOIN members m ON m.usr = o.user_id AND m.org = p.id
	WHERE o.id < 5 AND p.id < 5;

-- joins by key
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_id;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o LEFT JOIN users u ON o.user_id = u.id;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o LEFT JOIN users u ON o.user_id = u.id AND u.org = 3;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_big;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_small;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_id + 1 WHERE o.id < 100;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = ANY (o.wanted) WHERE o.id < 10;
EXPLAIN (COSTS OFF) SELECT o.id, g.name FROM orders o JOIN orgs g ON g.id = o.org_name;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = 5;
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o WHERE EXISTS (SELECT FROM users u WHERE u.id = o.user_id AND u.org = 1);
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = o.user_id);
EXPLAIN (COSTS OFF) SELECT o.id, (SELECT u.name FROM users u WHERE u.id = o.user_id) FROM orders o;
EXPLAIN (COSTS OFF) SELECT o.id, l.name FROM orders o, LATERAL (SELECT * FROM users u WHERE u.id = o.user_id LIMIT 1) l;
EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN users u ON u.id = o.user_id JOIN members m ON m.usr = u.id AND m.org = u.org
	WHERE o.id < 100;
EXPLAIN (COSTS OFF) WITH o AS MATERIALIZED (SELECT * FROM orders LIMIT 10) SELECT * FROM o JOIN users u ON u.id = o.user_id;
SELECT o.id, (SELECT u.name FROM users u WHERE u.id = o.user_id) FROM orders o ORDER BY 1 LIMIT 3;

-- with other kinds of joins on offer, what the planner knows of the key's uniqueness
RESET enable_hashjoin;
EXPLAIN (VERBOSE, COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.id;
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN users u ON o.user_id = u.id;
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN members m ON o.user_id = m.usr AND m.org = o.id;
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN members m ON o.user_id = m.usr;
EXPLAIN (COSTS OFF) SELECT u.id FROM users u LEFT JOIN (SELECT id FROM users) v USING (id);
EXPLAIN SELECT DISTINCT id FROM users;
EXPLAIN SELECT id, count(*) FROM users GROUP BY id;
SET enable_hashjoin = off;

-- prepared statements: custom and generic
PREPARE by_id(int) AS SELECT * FROM users WHERE id = $1;
SET plan_cache_mode = force_custom_plan;
EXPLAIN (COSTS OFF) EXECUTE by_id(3);
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE by_id(3);
EXECUTE by_id(3);
EXECUTE by_id(NULL);
PREPARE by_ids(int[]) AS SELECT * FROM users WHERE id = ANY ($1);
EXPLAIN (COSTS OFF) EXECUTE by_ids('{1,2}');
EXECUTE by_ids('{2,2,NULL,1}');
EXECUTE by_ids(NULL);
EXECUTE by_ids('{}');
RESET plan_cache_mode;

-- a view with a security barrier: the key's "=" tells nobody anything, other conditions wait
CREATE FUNCTION tells(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$;
CREATE VIEW some_users WITH (security_barrier) AS SELECT * FROM users WHERE org = 2;
EXPLAIN (COSTS OFF) SELECT * FROM some_users WHERE id = 12;
EXPLAIN (COSTS OFF) SELECT * FROM some_users WHERE tells(name) AND id IN (11, 12);
SELECT * FROM some_users WHERE tells(name) AND id IN (11, 12);

-- partitions and inheritance
CREATE TABLE events (id int, kind text, note text) PARTITION BY LIST (kind);
CREATE TABLE events_local PARTITION OF events FOR VALUES IN ('local');
CREATE FOREIGN TABLE events_kafka (id int OPTIONS (key 'true') NOT NULL, kind text, note text) SERVER kafka;
ALTER TABLE events ATTACH PARTITION events_kafka FOR VALUES IN ('kafka');
INSERT INTO events VALUES (1, 'local', 'one'), (2, 'local', 'two');
SELECT kcf_writer.fill('events_kafka', 'SELECT i, ''kafka'', ''k'' || i FROM generate_series(1, 3) i');
SELECT tableoid::regclass, * FROM events ORDER BY 1, 2;
EXPLAIN (COSTS OFF) SELECT * FROM events WHERE id = 2;
EXPLAIN (COSTS OFF) SELECT * FROM events WHERE kind = 'kafka' AND id = 2;
EXPLAIN (COSTS OFF) SELECT o.id, e.note FROM orders o JOIN events e ON e.id = o.id WHERE o.id < 10;
SELECT o.id, e.note FROM orders o JOIN events e ON e.id = o.id WHERE o.id < 10 ORDER BY 1, 2;
-- a parent's key need not be unique in its children
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN events e ON o.id = e.id;
CREATE TABLE child () INHERITS (users);
INSERT INTO child VALUES (1, 'user1 again', 1, 1);
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN users u ON o.user_id = u.id;
EXPLAIN (COSTS OFF) SELECT o.id FROM orders o LEFT JOIN ONLY users u ON o.user_id = u.id;
SELECT tableoid::regclass, id, name FROM users WHERE id = 1 ORDER BY 1;
DROP TABLE child;

-- keys of other types
CREATE TYPE color AS ENUM ('red', 'green', 'blue');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FOREIGN TABLE k_uuid (k uuid OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_varchar (k varchar(10) OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_char (k char(10) OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_enum (k color OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_domain (k positive OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_numeric (k numeric OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_float (k float8 OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_time (k timestamptz OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_array (k int[] OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_bool (k bool OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE FOREIGN TABLE k_oid (k oid OPTIONS (key 'true') NOT NULL) SERVER kafka;
EXPLAIN (COSTS OFF) SELECT * FROM k_uuid WHERE k = '6f1f0000-0000-0000-0000-000000000000';
EXPLAIN (COSTS OFF) SELECT * FROM k_varchar WHERE k = 'x';
EXPLAIN (COSTS OFF) SELECT * FROM k_varchar WHERE k = ANY ('{x,y}');
EXPLAIN (COSTS OFF) SELECT * FROM k_char WHERE k = 'x';
EXPLAIN (COSTS OFF) SELECT * FROM k_char WHERE k = 'x'::text;
EXPLAIN (COSTS OFF) SELECT * FROM k_enum WHERE k = 'red';
EXPLAIN (COSTS OFF) SELECT * FROM k_domain WHERE k = 1;
EXPLAIN (COSTS OFF) SELECT * FROM k_domain WHERE k = ANY ('{1,2}');
EXPLAIN (COSTS OFF) SELECT * FROM k_numeric WHERE k = 1;
EXPLAIN (COSTS OFF) SELECT * FROM k_float WHERE k = 1;
EXPLAIN (COSTS OFF) SELECT * FROM k_float WHERE k = 1::real;
SET timezone = 'UTC';
SET datestyle = 'ISO';
EXPLAIN (COSTS OFF) SELECT * FROM k_time WHERE k = '2026-01-01';
EXPLAIN (COSTS OFF) SELECT * FROM k_time WHERE k = '2026-01-01'::date;
EXPLAIN (COSTS OFF) SELECT * FROM k_array WHERE k = '{1,2}';
EXPLAIN (COSTS OFF) SELECT * FROM k_bool WHERE k;
EXPLAIN (COSTS OFF) SELECT * FROM k_oid WHERE k = 1259;
EXPLAIN (COSTS OFF) SELECT * FROM k_oid WHERE k::int = 1259;

-- collations: what is equal under one deterministic collation is so under all
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FOREIGN TABLE k_folded (k text OPTIONS (key 'true') COLLATE ignore_case NOT NULL) SERVER kafka;
EXPLAIN (COSTS OFF) SELECT * FROM orgs WHERE id = 'org1' COLLATE "C";
EXPLAIN (COSTS OFF) SELECT * FROM orgs WHERE id = 'org1' COLLATE ignore_case;
EXPLAIN (COSTS OFF) SELECT * FROM k_folded WHERE k = 'Org1';
EXPLAIN (COSTS OFF) SELECT * FROM k_folded WHERE k = 'Org1' COLLATE "C";

-- settings of the planner
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM k_bool WHERE k;
RESET enable_seqscan;
SET enable_indexscan = off;
EXPLAIN (COSTS OFF) SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = 1;
RESET enable_indexscan;

-- parallel: slabs are dealt out, lookups run in workers
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT count(*) FROM users;
EXPLAIN (COSTS OFF) SELECT count(*), sum(length(u.name)) FROM orders o JOIN users u ON u.id = o.user_id;
EXPLAIN (COSTS OFF) SELECT count(*) FROM users u JOIN members m ON m.usr = u.id AND m.org = u.org;

SELECT kcf_writer.finish();
\c contrib_regression
DROP DATABASE read_plan;
