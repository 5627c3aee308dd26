--
-- Options of servers, user mappings, tables and columns: what is accepted, and what is said of what is not.
-- Nothing here talks to a broker.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;
CREATE SCHEMA options;
SET search_path = options;
CREATE FUNCTION server_properties(server oid, role oid) RETURNS TABLE (name text, value text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_server_properties' LANGUAGE C STRICT;
CREATE FUNCTION option_table() RETURNS TABLE (level text, name text, expected text, "default" text, required bool, secret bool,
	"right" text, alias_of text, property text, newer bool, doc text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_option_table' LANGUAGE C;
-- what a client is made of, but for our own defaults
CREATE FUNCTION resolve(server name, role regrole DEFAULT current_user::text::regrole) RETURNS SETOF text LANGUAGE sql AS
	$$ SELECT p.name || '=' || p.value
	   FROM pg_foreign_server s, options.server_properties(s.oid, role) p WHERE srvname = server
			AND NOT EXISTS (SELECT FROM options.option_table() o WHERE o.property = p.name AND o."default" = p.value)
	   ORDER BY p.name COLLATE "C" $$;

-- the wrapper itself has none
ALTER FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost');

-- servers
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw;
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (broker 'localhost:9092');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', zzzzzzzz '1');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', "client.id" 'me');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', "Client-Id" 'me');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', topic 'users');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', password 'hunter2');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw
	OPTIONS (brokers 'localhost:9092', ssl_key_pem '-----BEGIN PRIVATE KEY----- hunter2 -----END PRIVATE KEY-----');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092', bootstrap_servers 'localhost:9093');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', plugin_library_paths '/tmp/evil.so');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', "plugin.library.paths" '/tmp/evil.so');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', sasl_kerberos_keytab '$(touch /tmp/evil)');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', security_protocol 'sasl_ssl', sasl_mechanism 'GSSAPI');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', security_protocol 'sasl_ssl', sasl_mechanism 'SCRAM');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', security_protocol 'sasl_ssl');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', sasl_mechanism 'PLAIN');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', ssl_ca_pem 'no certificate');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw
	OPTIONS (brokers 'localhost', ssl_ca_pem '-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', socket_timeout_ms '999');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', socket_timeout_ms '10s');
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost', socket_keepalive_enable 'maybe');

-- every bad list of brokers, and every good one
CREATE FUNCTION try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
CREATE FUNCTION shown(value text) RETURNS text LANGUAGE sql AS
	$$ SELECT CASE WHEN length(value) > 40 THEN left(value, 8) || '... (' || length(value) || ')' ELSE replace(value, E'\n', '\n') END $$;
CREATE SERVER options_kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:9092');
SELECT shown(brokers) AS brokers, try(format('ALTER SERVER options_kafka OPTIONS (SET brokers %L)', brokers))
	FROM unnest(ARRAY['localhost', 'a:1', 'a:65535,b.example.com,10.0.0.1:9092', '[::1]:9092', '[::1]', 'a_b-c:9',
					  '', ',', 'a,', ',a', 'a,,b', 'a, b', 'a b', 'a:0', 'a:65536', 'a:', ':1', 'a:b', 'a:1:2',
					  '[::1', '[]:1', 'PLAINTEXT://a:1', 'a' || chr(10), 'a;b', 'a/b', repeat('a', 256)]) brokers;
ALTER SERVER options_kafka OPTIONS (SET brokers 'localhost:9092');

-- identities
SELECT shown(client_id) AS client_id, try(format('ALTER SERVER options_kafka OPTIONS (ADD client_id %L)', client_id)),
	   try('ALTER SERVER options_kafka OPTIONS (DROP client_id)') <> 'ok' AS refused
	FROM unnest(ARRAY['app', 'a.b_c-1', repeat('a', 100), repeat('a', 101), '', 'a b', 'a' || chr(10) || 'LOG: forged',
					  '%', '%{', '%{}', '%{a b}', '%{system_identifier}', 'x.%{cluster_name}', '%d', '{x}']) client_id;
-- a variable without a value may have one elsewhere: a warning here, an error for who wants to connect
ALTER SERVER options_kafka OPTIONS (ADD group_id '%{POD_NAMESPACE}.%{POD_NAME}');
SELECT resolve('options_kafka');
ALTER SERVER options_kafka OPTIONS (SET group_id 'cache.%{system_identifier}', ADD client_id 'app');
SELECT regexp_replace(resolve('options_kafka'), '\d{15,}', 'N');
ALTER SERVER options_kafka OPTIONS (DROP group_id, DROP client_id);

-- a value comes out in the library's spelling, an alias under the name it stands for
ALTER SERVER options_kafka OPTIONS (ADD security_protocol 'SASL_SSL', ADD sasl_mechanisms 'scram-sha-512',
	ADD linger_ms ' 007', ADD socket_nagle_disable 'off', ADD compression_type 'ZSTD');
SELECT resolve('options_kafka');
ALTER SERVER options_kafka OPTIONS (ADD queue_buffering_max_ms '7');

-- user mappings
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (username 'app');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (password 'hunter2');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (username 'app', password '');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (username 'app', password E'hunter2\n');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (username 'app', passwort 'hunter2');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (brokers 'localhost');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (sasl_oauthbearer_client_secret 'hunter2');
CREATE USER MAPPING FOR PUBLIC SERVER options_kafka OPTIONS (username 'everybody', sasl_password 'hunter2');
SELECT resolve('options_kafka');
CREATE USER MAPPING FOR CURRENT_USER SERVER options_kafka OPTIONS (username 'app', password 'hunter2', ssl_key_password 'hunter3');
SELECT resolve('options_kafka') INTERSECT SELECT unnest(ARRAY['sasl.username=********', 'sasl.password=********', 'ssl.key.password=********']);
-- credentials are for a protocol that uses them
ALTER SERVER options_kafka OPTIONS (DROP security_protocol);
ALTER SERVER options_kafka OPTIONS (DROP security_protocol, DROP sasl_mechanisms);
SELECT resolve('options_kafka');
ALTER SERVER options_kafka OPTIONS (ADD security_protocol 'plaintext');
SELECT resolve('options_kafka');

-- tables
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka OPTIONS (topics 'a');
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka OPTIONS (zzzzzzzz 'a');
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka OPTIONS (brokers 'a');
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka OPTIONS (shape 'f');
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka OPTIONS (atomic 'true', delivery 'immediate');
CREATE FOREIGN TABLE t (id text OPTIONS (key 'true')) SERVER options_kafka;
SELECT name, shown(value) AS value, try(format('ALTER FOREIGN TABLE t OPTIONS (ADD %I %L)', name, value)),
	   try(format('ALTER FOREIGN TABLE t OPTIONS (DROP %I)', name)) <> 'ok' AS refused
	FROM (VALUES ('topic', 'users'), ('topic', 'a.b_c-1'), ('topic', repeat('a', 249)), ('topic', repeat('a', 250)),
				 ('topic', ''), ('topic', '.'), ('topic', '..'), ('topic', 'a b'), ('topic', 'ü'),
				 ('format', 'json'), ('format', 'avro'), ('key_format', 'JSON'), ('key_format', 'xml'),
				 ('readonly', 'false'), ('readonly', 'no'), ('readonly', ''),
				 ('notify', 'users_changed'), ('notify', ''), ('notify', repeat('x', 64)),
				 ('notify_payload', 'none'), ('notify_payload', 'value'),
				 ('on_error', 'keep'), ('on_error', 'remove'), ('on_error', 'fail'), ('on_error', 'ignore'),
				 ('delivery', 'immediate'), ('delivery', 'outbox'), ('atomic', 'true'), ('keep_value', 'true'),
				 ('max_bytes', '64kB'), ('max_bytes', '63kB'), ('max_bytes', '1 GB'), ('max_bytes', '1.5GB'),
				 ('max_bytes', '-1'), ('max_bytes', '16TB'), ('max_bytes', '99999999999TB'), ('max_bytes', '10XB'),
				 ('max_record_bytes', '1'), ('max_record_bytes', '0'), ('max_record_bytes', '512MB'), ('max_record_bytes', '513MB'),
				 ('compression', 'zstd'), ('compression', 'brotli')) o (name, value);
ALTER FOREIGN TABLE t OPTIONS (ADD max_bytes '1 kB');
ALTER FOREIGN TABLE t OPTIONS (ADD format 'avro');
ALTER FOREIGN TABLE t OPTIONS (ADD topic 'no topic');

-- columns
ALTER FOREIGN TABLE t ADD COLUMN c text;
ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD jsn 'a');
ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD topic 'a');
ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD zzzzzzzz 'a');
ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD value 'true', ADD key 'true');
ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD value 'true', ADD json 'a');
SELECT shown(path) AS path, try(format('ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (ADD json %L)', path)) , try('ALTER FOREIGN TABLE t ALTER COLUMN c OPTIONS (DROP json)') <> 'ok' AS refused
	FROM unnest(ARRAY['a', 'displayName', 'user.id', 'a.b.c.d', 'Straße', 'with space', '', '.', 'a.', '.a', 'a..b', '[]',
					  'a[', 'a]', 'a[0]', 'a[]b', 'a[].b[].c', 'a' || chr(10)]) path;

-- all that is known of an option is in one table; these are the names of our own
SELECT level, name, expected, "default" FROM option_table() WHERE doc IS NOT NULL AND alias_of IS NULL;
SELECT level, count(*) FROM option_table() GROUP BY 1 ORDER BY 1;
SELECT name FROM option_table() GROUP BY level, name HAVING count(*) > 1;
-- secrets are in user mappings, all of them
SELECT level, secret, count(*) FROM option_table() GROUP BY 1, 2 ORDER BY 1, 2;

DROP FOREIGN TABLE t;
DROP SERVER options_kafka CASCADE;
DROP SCHEMA options CASCADE;
