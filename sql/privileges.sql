--
-- Who may set which option: every librdkafka property at every level, by a superuser, by a role that may read the
-- server's files, and by one that may not.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;
CREATE SCHEMA privileges;
SET search_path = privileges;
CREATE ROLE kcf_plain;
CREATE ROLE kcf_files IN ROLE pg_read_server_files;
GRANT USAGE ON FOREIGN DATA WRAPPER kafka_cache_fdw TO kcf_plain, kcf_files;
GRANT USAGE, CREATE ON SCHEMA privileges TO kcf_plain, kcf_files;
CREATE FUNCTION property_table() RETURNS TABLE (name text, class text, alias_of text, newer bool, why text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_property_table' LANGUAGE C;
CREATE FUNCTION option_table() RETURNS TABLE (level text, name text, expected text, "default" text, required bool, secret bool,
	"right" text, alias_of text, property text, newer bool, doc text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_option_table' LANGUAGE C;
CREATE FUNCTION server_properties(server oid, role oid) RETURNS TABLE (name text, value text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_server_properties' LANGUAGE C STRICT;

-- every property that is known, by class
SELECT class, count(*), count(*) FILTER (WHERE newer) AS newer, count(why) AS refused FROM property_table() GROUP BY 1 ORDER BY 1;

-- a value that the option accepts
CREATE FUNCTION good_value(expected text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN expected LIKE 'an integer from %' THEN split_part(expected, ' ', 4)
		WHEN expected = 'true or false' THEN 'true'
		WHEN expected = 'an absolute path' THEN '/nowhere'
		WHEN expected LIKE 'text in PEM %' THEN '-----BEGIN X----- -----END X-----'
		WHEN expected LIKE 'host:port %' THEN 'localhost'
		WHEN expected LIKE '% or %' AND expected NOT LIKE '% letters, %' THEN split_part(split_part(expected, ',', 1), ' ', 1)
		ELSE 'x' END $$;

-- what happens to one option
CREATE FUNCTION try(level text, option text, value text, role text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	others text := '';
BEGIN
	-- options that are wanted beside this one
	IF level = 'server' THEN
		IF option NOT IN ('brokers', 'bootstrap_servers', 'metadata_broker_list') THEN
			others := ', brokers ''localhost''';
		END IF;
		IF option <> 'security_protocol' THEN
			others := others || ', security_protocol ''sasl_ssl''';
		END IF;
		IF option NOT LIKE 'sasl_mechanism%' THEN
			others := others || ', sasl_mechanism ''PLAIN''';
		END IF;
	ELSIF level = 'user mapping' THEN
		IF option NOT LIKE '%username' THEN
			others := others || ', username ''x''';
		END IF;
		IF option NOT LIKE '%password' OR option LIKE 'ssl%' THEN
			others := others || ', password ''x''';
		END IF;
	END IF;
	EXECUTE format('SET LOCAL ROLE %I', role);
	BEGIN
		CASE level
			WHEN 'server' THEN
				EXECUTE format('CREATE SERVER kcf_tried FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (%I %L%s)', option, value, others);
			WHEN 'user mapping' THEN
				EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I OPTIONS (%I %L%s)', 'kcf_of_' || role, option, value, others);
			WHEN 'table' THEN
				EXECUTE format('CREATE FOREIGN TABLE kcf_tried (k text OPTIONS (key ''true'')) SERVER %I OPTIONS (%I %L)', 'kcf_of_' || role, option, value);
			WHEN 'column' THEN
				EXECUTE format('CREATE FOREIGN TABLE kcf_tried (k text OPTIONS (key ''true'', %I %L)) SERVER %I', option, value, 'kcf_of_' || role);
		END CASE;
		RAISE EXCEPTION 'accepted' USING ERRCODE = 'ZZZZZ';
	EXCEPTION
		WHEN SQLSTATE 'ZZZZZ' THEN
			RESET ROLE;
			RETURN 'accepted';
		WHEN OTHERS THEN
			RESET ROLE;
			-- ours, or something this test did not mean
			RETURN CASE WHEN sqlerrm ~ '^(librdkafka property|permission denied to set option|invalid (option|value for option)) ' THEN sqlstate ELSE sqlerrm END;
	END;
END $$;

CREATE ROLE kcf_super SUPERUSER;
DO $$
DECLARE
	role text;
BEGIN
	FOREACH role IN ARRAY ARRAY['kcf_super', 'kcf_files', 'kcf_plain'] LOOP
		EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers ''localhost'')', 'kcf_of_' || role);
		EXECUTE format('ALTER SERVER %I OWNER TO %I', 'kcf_of_' || role, role);
	END LOOP;
END $$;

SET client_min_messages = error;
CREATE TABLE tried AS
	SELECT p.name, p.class, p.why, spelling, l.level, role,
		   try(l.level, spelling, good_value(coalesce(o.expected, '')), role) AS outcome
	FROM property_table() p
		CROSS JOIN LATERAL (SELECT DISTINCT s FROM unnest(ARRAY[p.name, replace(p.name, '.', '_')]) s) s (spelling)
		CROSS JOIN unnest(ARRAY['server', 'user mapping', 'table', 'column']) l (level)
		CROSS JOIN unnest(ARRAY['kcf_super', 'kcf_files', 'kcf_plain']) r (role)
		LEFT JOIN option_table() o ON o.level = l.level AND o.name = spelling;
RESET client_min_messages;
SELECT count(*) FROM tried;
-- by class, level and role: what was answered how often
SELECT class, why IS NOT NULL AND class <> 'N' AS unsupported, level, role, outcome, count(*)
	FROM tried GROUP BY 1, 2, 3, 4, 5 ORDER BY class, unsupported, level, role, outcome;
-- nothing of class N goes through, except that we have an option of our own named group_id
SELECT spelling, level, role, outcome FROM tried WHERE class = 'N' AND outcome <> '42501' ORDER BY 1, 2, 3;
-- what a role that is not a superuser may do that concerns files: nothing, or only with the right for it
SELECT spelling, role, outcome FROM tried WHERE class = 'F' AND why IS NULL AND level = 'server' AND spelling NOT LIKE '%.%' AND role <> 'kcf_super' ORDER BY spelling COLLATE "C", role;
-- and none of it has loaded, run or written anything
SELECT count(*) FROM pg_foreign_server WHERE srvname = 'kcf_tried';
SELECT count(*) FROM pg_class WHERE relname = 'kcf_tried';

-- values that only a superuser may choose
SELECT value, role, try('server', 'security_protocol', value, role)
	FROM unnest(ARRAY['plaintext', 'ssl', 'sasl_ssl', 'sasl_plaintext']) value, unnest(ARRAY['kcf_super', 'kcf_plain']) role;
SET client_min_messages = error;
SELECT value, role, try('server', 'client_id', value, role)
	FROM unnest(ARRAY['%{POD_NAME}', '%{HOSTNAME}', '%{KAFKA_CACHE_ME}', '%{system_identifier}', '%{PATH}', '%{AWS_SECRET_ACCESS_KEY}']) value,
		 unnest(ARRAY['kcf_super', 'kcf_plain']) role;
RESET client_min_messages;
SET ROLE kcf_plain;
ALTER SERVER kcf_of_kcf_plain OPTIONS (ADD client_id '%{AWS_SECRET_ACCESS_KEY}');
ALTER SERVER kcf_of_kcf_plain OPTIONS (ADD ssl_ca_location '/etc/ssl', ADD security_protocol 'ssl');
ALTER SERVER kcf_of_kcf_plain OPTIONS (ADD debug 'all');
ALTER SERVER kcf_of_kcf_plain OPTIONS (ADD security_protocol 'sasl_plaintext', ADD sasl_mechanism 'PLAIN');
RESET ROLE;

-- the validator sees what a superuser does to somebody else's server; the client is not built with it
ALTER SERVER kcf_of_kcf_plain OPTIONS (ADD ssl_ca_location '/etc/ssl', ADD security_protocol 'ssl');
SELECT p.* FROM pg_foreign_server s, server_properties(s.oid, 'kcf_plain'::regrole) p WHERE srvname = 'kcf_of_kcf_plain';
ALTER SERVER kcf_of_kcf_plain OWNER TO kcf_files;
SELECT p.* FROM pg_foreign_server s, server_properties(s.oid, 'kcf_plain'::regrole) p WHERE srvname = 'kcf_of_kcf_plain' AND name LIKE 'ssl%' ORDER BY name;
REVOKE pg_read_server_files FROM kcf_files;
SELECT p.* FROM pg_foreign_server s, server_properties(s.oid, 'kcf_plain'::regrole) p WHERE srvname = 'kcf_of_kcf_plain';

DROP SERVER kcf_of_kcf_super, kcf_of_kcf_files, kcf_of_kcf_plain CASCADE;
DROP SCHEMA privileges CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER kafka_cache_fdw FROM kcf_plain, kcf_files;
DROP ROLE kcf_plain, kcf_files, kcf_super;
