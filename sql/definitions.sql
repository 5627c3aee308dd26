--
-- Definitions of tables: what CREATE and ALTER refuse, what columns come to, and which changes are noticed.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;
CREATE SCHEMA definitions;
SET search_path = definitions;
CREATE SERVER definitions_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');

-- a key
CREATE FOREIGN TABLE t (id text) SERVER definitions_kafka;
CREATE FOREIGN TABLE t () SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id json OPTIONS (key 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id point OPTIONS (key 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id point[] OPTIONS (key 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER definitions_kafka OPTIONS (key_format 'bytea');
CREATE FOREIGN TABLE t (a text OPTIONS (key 'true'), b text OPTIONS (key 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (a text OPTIONS (key 'true'), b text OPTIONS (key 'true', json 'b[].c')) SERVER definitions_kafka
	OPTIONS (key_format 'json');
CREATE FOREIGN TABLE t (a int, id int OPTIONS (key 'true') GENERATED ALWAYS AS (a + 1) STORED) SERVER definitions_kafka;
-- the record's parts, with the types they have
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), v int OPTIONS (value 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), v varchar OPTIONS (value 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), v bytea OPTIONS (value 'true')) SERVER definitions_kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), v text OPTIONS (value 'true')) SERVER definitions_kafka OPTIONS (format 'bytea');
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), p bigint OPTIONS (partition 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), o int OPTIONS ("offset" 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), t timestamp OPTIONS (timestamp 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), h json OPTIONS (headers 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), v json OPTIONS (value 'true'), w json OPTIONS (value 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), a int OPTIONS (json 'a[].b')) SERVER definitions_kafka;
-- without JSON there are no members
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true'), a int) SERVER definitions_kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true', json 'id'), v text OPTIONS (value 'true')) SERVER definitions_kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true')) SERVER definitions_kafka OPTIONS (format 'bytea');
-- the topic has the table's name, if it can
CREATE FOREIGN TABLE "no topic" (id int OPTIONS (key 'true')) SERVER definitions_kafka;
SELECT relname FROM pg_class WHERE relnamespace = 'definitions'::regnamespace;

-- and everything that is fine
CREATE FUNCTION definition(relation regclass, OUT topic text, OUT columns text, OUT nkeys int, OUT rows bigint, OUT client bigint,
	OUT changes bigint) AS '$libdir/kafka_cache_fdw', 'kafka_cache_definition' LANGUAGE C STRICT;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN short AS varchar(10);
CREATE DOMAIN code AS short CHECK (VALUE <> '');
CREATE TYPE address AS (street text, zip text);
CREATE FOREIGN TABLE users (
	id uuid OPTIONS (key 'true') NOT NULL,
	gone int,
	display_name text OPTIONS (json 'displayName') NOT NULL,
	email text CHECK (email <> ''),
	groups uuid[] OPTIONS (json 'groups[].id'),
	tags jsonb OPTIONS (json 'tags[]', key 'false'),
	feeling mood, nick code, home address, homes address[],
	upper_name text GENERATED ALWAYS AS (upper(display_name)) STORED,
	_value jsonb OPTIONS (value 'true'), _partition int OPTIONS (partition 'true'), _offset bigint OPTIONS ("offset" 'true'),
	_time timestamptz OPTIONS (timestamp 'true'), _headers jsonb OPTIONS (headers 'true')
) SERVER definitions_kafka OPTIONS (topic 'all.users');
ALTER FOREIGN TABLE users DROP COLUMN gone;
CREATE FOREIGN TABLE pairs (a int OPTIONS (key 'true', json 'doc.a'), b code OPTIONS (key 'true')) SERVER definitions_kafka OPTIONS (key_format 'json');
CREATE FOREIGN TABLE blobs (id bytea OPTIONS (key 'true'), v bytea OPTIONS (value 'true')) SERVER definitions_kafka
	OPTIONS (key_format 'bytea', format 'bytea');
CREATE FOREIGN TABLE texts (id numeric OPTIONS (key 'true'), v jsonb OPTIONS (value 'true')) SERVER definitions_kafka OPTIONS (format 'text');
CREATE FOREIGN TABLE keys (id jsonb OPTIONS (key 'true')) SERVER definitions_kafka OPTIONS (key_format 'json');
CREATE FOREIGN TABLE arrays (id int[] OPTIONS (key 'true')) SERVER definitions_kafka;
SELECT relname, topic, columns, nkeys FROM pg_class, definition(oid) WHERE relkind = 'f' AND relnamespace = 'definitions'::regnamespace
	ORDER BY relname;

-- ALTER is held to the same
ALTER FOREIGN TABLE users DROP COLUMN id;
ALTER FOREIGN TABLE users ALTER COLUMN id OPTIONS (DROP key);
ALTER TABLE users ALTER COLUMN id OPTIONS (SET key 'false');
ALTER FOREIGN TABLE users ALTER COLUMN id TYPE xml;
ALTER FOREIGN TABLE users ALTER COLUMN _offset TYPE numeric;
ALTER FOREIGN TABLE users OPTIONS (ADD format 'text');
ALTER FOREIGN TABLE users OPTIONS (ADD key_format 'bytea');
ALTER FOREIGN TABLE pairs OPTIONS (SET key_format 'text');
ALTER FOREIGN TABLE keys RENAME TO "no topic";
ALTER FOREIGN TABLE keys ADD COLUMN v int OPTIONS (value 'true');
ALTER FOREIGN TABLE keys ADD COLUMN v int, ALTER COLUMN v OPTIONS (ADD json 'a'), ALTER COLUMN v OPTIONS (ADD value 'true');
-- nor does inheritance get around it
CREATE TABLE parent (id text);
ALTER FOREIGN TABLE texts INHERIT parent;
CREATE TABLE number_parent (id numeric);
ALTER FOREIGN TABLE texts INHERIT number_parent;
ALTER TABLE number_parent ADD COLUMN more text;
ALTER FOREIGN TABLE texts NO INHERIT number_parent;
SELECT columns FROM definition('texts');

-- a foreign table of another wrapper is none of ours, whatever the wrapper's name or its options
CREATE FOREIGN DATA WRAPPER kafka_cache_fdw2;
CREATE SERVER definitions_other FOREIGN DATA WRAPPER kafka_cache_fdw2 OPTIONS (brokers 'x y');
CREATE FOREIGN TABLE other (id json) SERVER definitions_other OPTIONS (topic 'a b');
SELECT definition('other');
SELECT definition('parent');
SELECT definition(1);

--
-- What is noticed: in a session that has looked before, which of the two fingerprints of a table differ afterwards,
-- and whether the session had to look again at all.
--
CREATE TABLE seen AS SELECT 'users'::regclass::oid AS users;
CREATE TABLE noticed (n serial, command text, rows text, client text, looked bool);
CREATE FUNCTION notice_of(command text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	before record;
	after record;
BEGIN
	SELECT * INTO before FROM definitions.definition((SELECT users FROM definitions.seen));
	EXECUTE command;
	SELECT * INTO after FROM definitions.definition((SELECT users FROM definitions.seen));
	INSERT INTO noticed (command, rows, client, looked)
		VALUES (command, CASE WHEN before.rows = after.rows THEN 'same' ELSE 'NEW' END,
				CASE WHEN before.client = after.client THEN 'same' ELSE 'NEW' END, before.changes <> after.changes);
END $$;
CREATE ROLE kcf_owner;
GRANT ALL ON SCHEMA definitions TO kcf_owner;
GRANT USAGE ON FOREIGN SERVER definitions_kafka TO kcf_owner;
SELECT count(notice_of(command)) FROM unnest(ARRAY[
	-- nothing to do with us
	'CREATE TABLE nothing (id int PRIMARY KEY, check (id > 0))', 'ALTER TABLE nothing ADD COLUMN a int', 'DROP TABLE nothing',
	'CREATE TEMP TABLE nothing (id int)', 'DROP TABLE pg_temp.nothing', 'CREATE TYPE nothing AS (a int)', 'DROP TYPE nothing',
	'GRANT SELECT ON users TO PUBLIC', 'COMMENT ON FOREIGN TABLE users IS ''they''', 'ANALYZE seen',
	-- the table's rows stay what they are
	'ALTER FOREIGN TABLE users OPTIONS (ADD notify ''users_changed'')', 'ALTER FOREIGN TABLE users OPTIONS (ADD max_bytes ''1GB'')',
	'ALTER FOREIGN TABLE users OPTIONS (ADD readonly ''false'')', 'ALTER FOREIGN TABLE users RENAME TO people',
	'ALTER FOREIGN TABLE people RENAME TO users', 'ALTER FOREIGN TABLE users RENAME COLUMN display_name TO name',
	'ALTER FOREIGN TABLE users ALTER COLUMN email SET DEFAULT ''x''', 'ALTER TYPE mood ADD VALUE ''so so''',
	'ALTER FOREIGN TABLE users ALTER COLUMN name OPTIONS (SET json ''displayName'')',
	-- they change
	'ALTER FOREIGN TABLE users RENAME COLUMN email TO mail', 'ALTER FOREIGN TABLE users ALTER COLUMN mail OPTIONS (ADD json ''e.mail'')',
	'ALTER FOREIGN TABLE users ADD COLUMN age int', 'ALTER FOREIGN TABLE users ALTER COLUMN age TYPE bigint', 'ALTER FOREIGN TABLE users ALTER COLUMN age SET NOT NULL',
	'ALTER FOREIGN TABLE users ADD CONSTRAINT adult CHECK (age >= 18)', 'ALTER FOREIGN TABLE users DROP CONSTRAINT adult',
	'ALTER FOREIGN TABLE users DROP COLUMN age', 'ALTER FOREIGN TABLE users ALTER COLUMN mail TYPE varchar(100)',
	'ALTER FOREIGN TABLE users ALTER COLUMN mail TYPE varchar(200)', 'ALTER FOREIGN TABLE users ALTER COLUMN mail TYPE text COLLATE "C"',
	'ALTER FOREIGN TABLE users OPTIONS (SET topic ''users'')', 'ALTER FOREIGN TABLE users OPTIONS (ADD on_error ''remove'')', 'ALTER FOREIGN TABLE users OPTIONS (ADD keep_value ''true'')',
	'ALTER TYPE address ADD ATTRIBUTE city text', 'ALTER TYPE address RENAME ATTRIBUTE city TO town', 'ALTER TYPE address DROP ATTRIBUTE town',
	'ALTER DOMAIN short ADD CONSTRAINT no_x CHECK (VALUE <> ''x'')', 'ALTER DOMAIN short DROP CONSTRAINT no_x', 'ALTER DOMAIN code SET NOT NULL', 'ALTER DOMAIN code DROP NOT NULL',
	-- where they come from, and as whom
	'ALTER SERVER definitions_kafka OPTIONS (SET brokers ''localhost:2'')', 'ALTER SERVER definitions_kafka OPTIONS (ADD socket_timeout_ms ''5000'')',
	'CREATE USER MAPPING FOR kcf_owner SERVER definitions_kafka OPTIONS (username ''a'', password ''b'')',
	'CREATE USER MAPPING FOR PUBLIC SERVER definitions_kafka OPTIONS (username ''a'', password ''b'')',
	'ALTER USER MAPPING FOR PUBLIC SERVER definitions_kafka OPTIONS (SET password ''c'')',
	'CREATE USER MAPPING FOR CURRENT_USER SERVER definitions_kafka OPTIONS (username ''a'', password ''c'')',
	'DROP USER MAPPING FOR CURRENT_USER SERVER definitions_kafka', 'ALTER FOREIGN TABLE users OWNER TO kcf_owner',
	'DROP USER MAPPING FOR kcf_owner SERVER definitions_kafka', 'DROP USER MAPPING FOR PUBLIC SERVER definitions_kafka',
	'ALTER SERVER definitions_kafka OWNER TO kcf_owner']) WITH ORDINALITY c (command, n);
SELECT rows, client, looked, command FROM noticed ORDER BY n;

-- in an aborted transaction nothing stays, and what was handed out in it is gone with it
BEGIN;
ALTER FOREIGN TABLE users OPTIONS (SET topic 'elsewhere');
SELECT topic FROM definition('users');
SAVEPOINT s;
ALTER FOREIGN TABLE users OPTIONS (SET topic 'farther');
SELECT topic FROM definition('users');
ROLLBACK TO s;
SELECT topic FROM definition('users');
ROLLBACK;
SELECT topic FROM definition('users');

-- what a dump restores is incomplete for a while; whoever leaves it so is told on use
SET check_function_bodies = off;
CREATE FOREIGN TABLE restored (id int) SERVER definitions_kafka;
SELECT definition('restored');
RESET check_function_bodies;
CREATE FOREIGN TABLE IF NOT EXISTS restored (id int OPTIONS (key 'true')) SERVER definitions_kafka;
CREATE FOREIGN TABLE IF NOT EXISTS new_one (id int) SERVER definitions_kafka;
SET check_function_bodies = off;
ALTER FOREIGN TABLE restored ALTER COLUMN id OPTIONS (ADD key 'true');
RESET check_function_bodies;
SELECT columns FROM definition('restored');

SET client_min_messages = warning;
DROP SCHEMA definitions CASCADE;
DROP SERVER definitions_kafka CASCADE;
DROP FOREIGN DATA WRAPPER kafka_cache_fdw2 CASCADE;
DROP ROLE kcf_owner;
