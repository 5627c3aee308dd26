-- Dashboards over the sample model (examples/sample-model.sql): functions whose results are kept, in a topic
-- and in memory, and computed anew when what they are made of changes. The topics have to exist, compacted.
--
-- Functions in the schema app compute, tables of the same names in the schema dashboards remember. Bodies
-- are BEGIN ATOMIC, so names in them are looked up once, here: computing runs with a search_path of
-- pg_catalog alone.

CREATE SCHEMA app;
CREATE SCHEMA dashboards;

-- How many sessions of each type do users of an organization have? Several rows: an array of objects.
CREATE FUNCTION app.sessions_per_organization(org_id uuid) RETURNS TABLE (type session_type, n bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.type, count(*) FROM sessions s JOIN users u ON u.id = s.user_id
    WHERE org_id = ANY (u.groups)
    GROUP BY s.type ORDER BY s.type;
END;

CREATE FOREIGN TABLE dashboards.sessions_per_organization (
    org_id  uuid        OPTIONS (key 'true') NOT NULL,
    rows    jsonb       OPTIONS (value 'true'),
    _time   timestamptz OPTIONS (timestamp 'true'),
    _offset bigint      OPTIONS (offset 'true')
) SERVER kafka OPTIONS (topic 'dashboards.sessions_per_organization', compute 'app.sessions_per_organization',
    soft_ttl '10min', refresh_every '1h', domain 'SELECT id FROM public.organizations');

-- Which users of an organization have no session? One unnamed column: an array of names.
CREATE FUNCTION app.users_without_session(org_id uuid) RETURNS SETOF text
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT u.display_name FROM users u
    WHERE org_id = ANY (u.groups) AND NOT EXISTS (SELECT FROM sessions s WHERE s.user_id = u.id)
    ORDER BY u.display_name;
END;

CREATE FOREIGN TABLE dashboards.users_without_session (
    org_id  uuid        OPTIONS (key 'true') NOT NULL,
    names   jsonb       OPTIONS (value 'true'),
    _time   timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'dashboards.users_without_session', compute 'app.users_without_session', soft_ttl '10min');

-- In which hour of a day (UTC) did most sessions begin? One row: columns.
CREATE FUNCTION app.busiest_hour(day date, OUT hour timestamptz, OUT sessions bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT date_trunc('hour', s._time, 'UTC'), count(*) FROM sessions s
    WHERE s._time >= day::timestamp AT TIME ZONE 'UTC' AND s._time < (day + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1;
END;

CREATE FOREIGN TABLE dashboards.busiest_hour (
    day      date        OPTIONS (key 'true') NOT NULL,
    hour     timestamptz,
    sessions bigint
) SERVER kafka OPTIONS (topic 'dashboards.busiest_hour', compute 'app.busiest_hour', soft_ttl '1min', negative_ttl '1min');

-- How much has a user spent, in an ordinary table? A scalar: the value.
CREATE FUNCTION app.spent(user_id uuid) RETURNS numeric
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT sum(o.amount) FROM orders o WHERE o.user_id = spent.user_id;
END;

CREATE FOREIGN TABLE dashboards.spent (
    user_id uuid  OPTIONS (key 'true') NOT NULL,
    amount  jsonb OPTIONS (value 'true')
) SERVER kafka OPTIONS (topic 'dashboards.spent', compute 'app.spent');

-- All of an organization's page at once: a product made of two products.
CREATE FUNCTION app.overview(org_id uuid) RETURNS jsonb
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT jsonb_build_object('name', o.name, 'sessions', coalesce(s.rows, '[]'), 'without_session', coalesce(jsonb_array_length(w.names), 0))
    FROM organizations o
    LEFT JOIN dashboards.sessions_per_organization s ON s.org_id = o.id
    LEFT JOIN dashboards.users_without_session w ON w.org_id = o.id
    WHERE o.id = overview.org_id;
END;

CREATE FOREIGN TABLE dashboards.overview (
    org_id  uuid  OPTIONS (key 'true') NOT NULL,
    page    jsonb OPTIONS (value 'true')
) SERVER kafka OPTIONS (topic 'dashboards.overview', compute 'app.overview');

-- What has to be computed anew when a row changes: a function of the old row and the new one, either of
-- which may be NULL, gives the product's keys; NULL is none. A user who moves is of two organizations.
CREATE FUNCTION app.organizations_of_user(old users, new users) RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT unnest(old.groups) UNION SELECT unnest(new.groups);
END;

CREATE FUNCTION app.organizations_of_session(old sessions, new sessions) RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT DISTINCT unnest(u.groups) FROM users u WHERE u.id IN (old.user_id, new.user_id);
END;

CREATE FUNCTION app.days_of_session(old sessions, new sessions) RETURNS SETOF date
LANGUAGE sql STABLE
BEGIN ATOMIC
    VALUES ((old._time AT TIME ZONE 'UTC')::date), ((new._time AT TIME ZONE 'UTC')::date);
END;

CREATE FUNCTION app.user_of_order(old orders, new orders) RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    VALUES (old.user_id), (new.user_id);
END;

CREATE FUNCTION app.organization_itself(old organizations, new organizations) RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    VALUES (old.id), (new.id);
END;

CREATE FUNCTION app.organization_of_sessions(old dashboards.sessions_per_organization, new dashboards.sessions_per_organization)
RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    VALUES (old.org_id), (new.org_id);
END;

CREATE FUNCTION app.organization_of_names(old dashboards.users_without_session, new dashboards.users_without_session)
RETURNS SETOF uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    VALUES (old.org_id), (new.org_id);
END;

-- Sources are cached tables, ordinary ones, and other products.
SELECT kafka_cache.refresh_on('dashboards.sessions_per_organization', source => 'sessions', keys => 'app.organizations_of_session');
SELECT kafka_cache.refresh_on('dashboards.sessions_per_organization', source => 'users', keys => 'app.organizations_of_user');
SELECT kafka_cache.refresh_on('dashboards.users_without_session', source => 'sessions', keys => 'app.organizations_of_session');
SELECT kafka_cache.refresh_on('dashboards.users_without_session', source => 'users', keys => 'app.organizations_of_user');
SELECT kafka_cache.refresh_on('dashboards.busiest_hour', source => 'sessions', keys => 'app.days_of_session');
SELECT kafka_cache.refresh_on('dashboards.spent', source => 'orders', keys => 'app.user_of_order');
SELECT kafka_cache.refresh_on('dashboards.overview', source => 'organizations', keys => 'app.organization_itself');
SELECT kafka_cache.refresh_on('dashboards.overview', source => 'dashboards.sessions_per_organization', keys => 'app.organization_of_sessions');
SELECT kafka_cache.refresh_on('dashboards.overview', source => 'dashboards.users_without_session', keys => 'app.organization_of_names');
