-- An API for many tenants over cached tables. Run as a superuser, with -v brokers=HOST:PORT; the topics "members"
-- and "team" are compacted and made before. A tenant is an organization, and the first part of every key: what a request
-- can name is what belongs to it.

CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;

-- Who owns it all, who connects, and the roles that a token can ask for.
CREATE ROLE api_owner NOLOGIN;
CREATE ROLE api_server LOGIN NOINHERIT CONNECTION LIMIT 20;
CREATE ROLE api_reader NOLOGIN;
CREATE ROLE api_writer NOLOGIN;
GRANT api_reader TO api_writer;
GRANT api_reader, api_writer TO api_server;
ALTER ROLE api_server SET statement_timeout = '15s';

CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers :'brokers');
GRANT USAGE ON FOREIGN SERVER kafka TO api_owner;
GRANT USAGE ON SCHEMA kafka_cache TO api_owner;
CREATE SCHEMA app AUTHORIZATION api_owner;
CREATE SCHEMA api AUTHORIZATION api_owner;
GRANT USAGE ON SCHEMA api TO api_reader;

SET ROLE api_owner;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE FOREIGN TABLE app.members (
    org        uuid    OPTIONS (key 'true') NOT NULL,
    id         uuid    OPTIONS (key 'true') NOT NULL,
    name       text    NOT NULL CHECK (name <> ''),
    email      text    CHECK (email LIKE '%_@_%'),
    _partition integer OPTIONS (partition 'true'),
    _offset    bigint  OPTIONS (offset 'true'),
    _time      timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'members', key_format 'json', readonly 'false', delivery 'immediate');

-- Computed from them, and kept: a page about all members of an organization. Whoever changes one, here or in Kafka, has
-- it computed anew.
CREATE FUNCTION app.team(org uuid) RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT jsonb_build_object('members', count(*), 'names', coalesce(jsonb_agg(m.name ORDER BY m.name, m.id), '[]'))
    FROM app.members m WHERE m.org = team.org;
END;

CREATE FOREIGN TABLE app.team (
    org        uuid  OPTIONS (key 'true') NOT NULL,
    page       jsonb OPTIONS (value 'true')
) SERVER kafka OPTIONS (topic 'team', compute 'app.team', soft_ttl '10min');

CREATE FUNCTION app.team_of_member(old app.members, new app.members) RETURNS SETOF uuid LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(new.org, old.org);
END;

SELECT kafka_cache.refresh_on('app.team', source => 'app.members', keys => 'app.team_of_member');

-- The tenant that the token speaks for. The server has checked it and says so for each request.
CREATE FUNCTION app.tenant() RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    org uuid := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'org';
BEGIN
    IF org IS NULL THEN
        RAISE 'the token speaks for no organization' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN org;
END $$;

-- What a tenant sees. The barrier keeps a condition of the request from being asked about other tenants' rows.
CREATE VIEW api.members WITH (security_barrier) AS
SELECT id AS key, name, email, _time AS updated_at FROM app.members WHERE org = app.tenant();
COMMENT ON VIEW api.members IS E'@primaryKey key\nThe members of the organization.';

CREATE TYPE api.answer AS (value jsonb, "offset" bigint, computed_at timestamptz, stale boolean);
COMMENT ON TYPE api.answer IS 'A value, its version, and how old it is.';

-- One value by its key, as far as the tenant does not give it: a member's id; nothing for the team. With "after", what
-- update() returned, not before that can be seen.
CREATE FUNCTION api.fetch(product text, key text[] DEFAULT '{}', after jsonb DEFAULT NULL) RETURNS api.answer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    answer api.answer;
BEGIN
    IF after IS NOT NULL AND NOT kafka_cache.wait_for('app.members', after, '10 s') THEN
        RAISE 'the write cannot be seen yet' USING ERRCODE = 'serialization_failure';
    END IF;
    CASE product
        WHEN 'member' THEN
            SELECT jsonb_build_object('name', name, 'email', email), _offset, _time, false INTO answer
            FROM app.members WHERE org = app.tenant() AND id = key[1]::uuid;
        WHEN 'team' THEN
            SELECT f.value, f."offset", f.computed_at, f.stale INTO answer
            FROM kafka_cache.fetch('app.team', app.tenant()::text) f;
        ELSE
            RAISE 'there is no product "%"', product USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    RETURN answer;
END $$;

-- Puts one document. Returns where it lies: for "after", here and on every standby.
CREATE FUNCTION api.update(entity text, key text, data jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    written jsonb;
BEGIN
    CASE entity
        WHEN 'member' THEN
            INSERT INTO app.members (org, id, name, email) VALUES (app.tenant(), key::uuid, data ->> 'name', data ->> 'email')
            RETURNING jsonb_build_object(_partition, _offset) INTO written;
        ELSE
            RAISE 'there is no entity "%"', entity USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    RETURN written;
END $$;

COMMENT ON FUNCTION api.update IS E'@resultFieldName position';

GRANT EXECUTE ON FUNCTION app.tenant TO api_reader;
GRANT SELECT ON api.members TO api_reader;
GRANT EXECUTE ON FUNCTION api.fetch TO api_reader;
GRANT EXECUTE ON FUNCTION api.update TO api_writer;
RESET ROLE;
