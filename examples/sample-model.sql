-- The sample model of the demo: users belong to organizations and have sessions, each in a compacted
-- topic of JSON documents keyed by a UUID; orders are an ordinary table. Run with -v brokers=HOST:PORT.

CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers :'brokers');

CREATE FOREIGN TABLE organizations (
    id           uuid        OPTIONS (key 'true') NOT NULL,
    name         text        NOT NULL
) SERVER kafka OPTIONS (topic 'organizations');

CREATE FOREIGN TABLE users (
    id           uuid        OPTIONS (key 'true') NOT NULL,
    display_name text        OPTIONS (json 'displayName') NOT NULL,
    email        text        CHECK (email LIKE '%_@_%'),
    groups       uuid[]      OPTIONS (json 'groups[].id'),
    _offset      bigint      OPTIONS (offset 'true'),
    _time        timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'users', readonly 'false', keep_value 'true');

CREATE TYPE session_type AS ENUM ('REGULAR', 'MEETINGSCREEN');

CREATE FOREIGN TABLE sessions (
    id           uuid         OPTIONS (key 'true') NOT NULL,
    user_id      uuid         OPTIONS (json 'user.id') NOT NULL,
    type         session_type NOT NULL,
    ip_address   inet         OPTIONS (json 'ipAddress'),
    _time        timestamptz  OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'sessions');

-- A user with the names of her organizations; one that has not arrived yet shows as NULL.
CREATE VIEW users_with_groups AS
SELECT u.id, u.display_name, array_agg(o.name ORDER BY o.name) FILTER (WHERE g.id IS NOT NULL) AS groups
FROM users u
LEFT JOIN LATERAL unnest(u.groups) AS g(id) ON true
LEFT JOIN organizations o ON o.id = g.id
GROUP BY u.id, u.display_name;

CREATE TABLE orders (
    id      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL,
    amount  numeric(10, 2) NOT NULL
);

INSERT INTO orders (user_id, amount)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n % 4000), 12, '0'))::uuid, (n % 97) + 0.99
FROM generate_series(1, 20000) AS n;
ANALYZE orders;
