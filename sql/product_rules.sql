--
-- Data products that are made anew when something else changes: refresh_on(), refresh_off(), refresh_every, domain,
-- augment.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect(', fetch_wait_max_ms ''10''');
RESET client_min_messages;
CREATE SCHEMA rules;
SET search_path = rules;
SET datestyle = 'ISO';

-- Where a row of a product becomes this, whatever the moment; a look at the cache computes nothing.
CREATE FUNCTION comes_to(query text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
	deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	LOOP
		EXECUTE query INTO found;
		EXIT WHEN found IS NOT DISTINCT FROM wanted OR clock_timestamp() > deadline;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN CASE WHEN found IS NOT DISTINCT FROM wanted THEN found ELSE format('still %s', found) END;
END $$;

-- --- definitions ---------------------------------------------------------------------------------------

SELECT test.mock('topic', 'rules_users', '2');
SELECT test.mock('topic', 'rules_users_per_org', '2');
SELECT test.mock('topic', 'rules_total', '1');
SELECT test.mock('topic', 'rules_orders_per_day', '1');
CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, org int, name text, _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (topic 'rules_users', readonly 'false');
CREATE FUNCTION count_users(org int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM rules.users u WHERE u.org = count_users.org';
CREATE FOREIGN TABLE users_per_org (org int OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (topic 'rules_users_per_org', compute 'rules.count_users');
CREATE FUNCTION add_up(what text) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT sum(n::numeric) FROM rules.users_per_org';
CREATE FOREIGN TABLE total (what text OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'rules_total', compute 'rules.add_up');
CREATE TABLE orders (id int PRIMARY KEY, day date, item text, amount numeric, gone text);
ALTER TABLE orders DROP COLUMN gone;
CREATE FUNCTION sum_orders(day date, item text) RETURNS TABLE (n bigint, sum numeric) LANGUAGE sql STABLE
	AS 'SELECT count(*), sum(amount) FROM rules.orders o WHERE o.day = sum_orders.day AND o.item = sum_orders.item HAVING count(*) > 0';
CREATE FOREIGN TABLE orders_per_day (day date OPTIONS (key 'true') NOT NULL, item text OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'rules_orders_per_day', key_format 'json', compute 'rules.sum_orders');
SELECT test.catch_up(t) FROM unnest('{users,users_per_org,total,orders_per_day}'::regclass[]) t;

CREATE FUNCTION orgs_of(old users, new users) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'VALUES (old.org), (new.org)';
CREATE FUNCTION orgs_of(old orders, new orders) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'VALUES (1)';
CREATE FUNCTION always(old users_per_org, new users_per_org) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'all' $$;
CREATE FUNCTION always(old total, new total) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
CREATE FUNCTION pairs(old users, new users) RETURNS TABLE (a int, b int) LANGUAGE sql IMMUTABLE AS 'SELECT 1, 2';
CREATE FUNCTION others(old users, new users) RETURNS SETOF uuid LANGUAGE sql IMMUTABLE AS 'SELECT NULL::uuid';
CREATE FUNCTION nothing(old users, new users) RETURNS void LANGUAGE sql IMMUTABLE AS '';
CREATE FUNCTION records(old users, new users) RETURNS SETOF record LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION days_of(old orders, new orders) RETURNS TABLE (day date, item text) LANGUAGE sql IMMUTABLE
	AS 'SELECT old.day, old.item UNION SELECT new.day, new.item';

-- what is refused
SELECT kafka_cache.refresh_on('users', 'users_per_org', 'always');
SELECT kafka_cache.refresh_on('orders', 'users', 'orgs_of');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'none');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'always');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'always(users_per_org,users_per_org)');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'pairs');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'nothing');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'others');
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'records');
SELECT kafka_cache.refresh_on('users_per_org', 'pg_class', 'orgs_of');
SELECT kafka_cache.refresh_on('users_per_org', 'kafka_cache.refresh_log', 'orgs_of');
CREATE VIEW everybody AS SELECT * FROM users;
SELECT kafka_cache.refresh_on('users_per_org', 'everybody', 'orgs_of');
SELECT kafka_cache.refresh_off('users_per_org', 'users');
SELECT kafka_cache.refresh_on('users_per_org', NULL, 'orgs_of');
-- a product of itself, and of what depends on it
SELECT kafka_cache.refresh_on('users_per_org', 'users_per_org', 'always');
SELECT kafka_cache.refresh_on('total', 'users_per_org', 'always');
SELECT kafka_cache.refresh_on('users_per_org', 'total', 'always');
-- ... nor of what is written to its topic
CREATE FOREIGN TABLE totals (what text OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'rules_total');
CREATE FUNCTION always(old totals, new totals) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
SELECT kafka_cache.refresh_on('users_per_org', 'totals', 'always');
DROP FOREIGN TABLE totals CASCADE;
SELECT * FROM kafka_cache.refresh_rules;
-- by signature, by name, with another schema's path; once more is another function
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'rules.orgs_of(rules.users,users)'::regprocedure);
SELECT kafka_cache.refresh_on('users_per_org', source => 'users', keys => 'orgs_of(users,users)');
SELECT kafka_cache.refresh_on('users_per_org', source => 'users', keys => 'orgs_of');
SELECT kafka_cache.refresh_on('orders_per_day', 'orders', 'days_of');
SELECT * FROM kafka_cache.refresh_rules ORDER BY product::text, source::text;
SELECT tgname, tgfoid::regprocedure FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal ORDER BY 1;

-- --- rights --------------------------------------------------------------------------------------------

SET client_min_messages = warning;
CREATE ROLE rules_owner;
CREATE ROLE rules_other;
RESET client_min_messages;
GRANT USAGE, CREATE ON SCHEMA rules TO rules_owner, rules_other;
GRANT USAGE ON FOREIGN SERVER kafka TO rules_owner;
BEGIN;
SET LOCAL ROLE rules_owner;
CREATE FOREIGN TABLE owned (org int OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'rules_users_per_org', compute 'rules.count_users');
SAVEPOINT s;
SELECT kafka_cache.refresh_on('owned', 'users', 'orgs_of');
ROLLBACK TO s;
SELECT kafka_cache.refresh_on('owned', 'orders', 'orgs_of');
ROLLBACK TO s;
SET LOCAL ROLE rules_other;
SELECT kafka_cache.refresh_on('owned', 'users', 'orgs_of');
ROLLBACK TO s;
-- who defines it may read it, whose functions are run may not
RESET ROLE;
SELECT kafka_cache.refresh_on('owned', 'users', 'orgs_of');
ROLLBACK TO s;
RESET ROLE;
GRANT SELECT ON users TO rules_owner;
GRANT TRIGGER ON orders TO rules_owner;
REVOKE EXECUTE ON FUNCTION orgs_of(users, users) FROM PUBLIC;
SET LOCAL ROLE rules_owner;
SAVEPOINT t;
SELECT kafka_cache.refresh_on('owned', 'users', 'orgs_of');
ROLLBACK TO t;
SELECT kafka_cache.refresh_on('owned', 'orders', 'orgs_of');
SELECT kafka_cache.refresh_off('owned', 'orders');
ROLLBACK;

-- --- a cached table as source --------------------------------------------------------------------------

INSERT INTO users SELECT n, n % 3, 'user ' || n FROM generate_series(1, 9) n;
-- nobody has asked for these
SELECT comes_to('SELECT string_agg(org || ''='' || n, '' '' ORDER BY org) FROM rules.users_per_org', '0=3 1=3 2=3');
SELECT comes_to('SELECT string_agg(what || ''='' || n, '' '') FROM rules.total', 'all=9');
-- a move concerns both
INSERT INTO users VALUES (1, 2, 'user 1');
SELECT comes_to('SELECT string_agg(org || ''='' || n, '' '' ORDER BY org) FROM rules.users_per_org', '0=3 1=2 2=4');
DELETE FROM users WHERE id IN (1, 2, 3);
SELECT comes_to('SELECT string_agg(org || ''='' || n, '' '' ORDER BY org) FROM rules.users_per_org', '0=2 1=2 2=2');
SELECT comes_to('SELECT string_agg(what || ''='' || n, '' '') FROM rules.total', 'all=6');
-- the same once more changes nothing: no key is computed
CREATE TEMP TABLE was AS SELECT org, _offset FROM users_per_org;
INSERT INTO users SELECT id, org, name FROM users;
INSERT INTO users VALUES (100, 100, 'the mark');
SELECT comes_to('SELECT n::text FROM rules.users_per_org WHERE org = 100', '1');
SELECT u.org FROM users_per_org u JOIN was USING (org) WHERE u._offset <> was._offset;
-- a function that fails: all that is cached is refreshed, and the rule goes on
CREATE FUNCTION choosy(old users, new users) RETURNS SETOF int LANGUAGE plpgsql AS $$
BEGIN
	IF new.name = 'bad' THEN
		RAISE EXCEPTION 'no key for %', new.name;
	END IF;
	RETURN NEXT old.org;
	RETURN NEXT new.org;
END $$;
SELECT kafka_cache.refresh_on('users_per_org', 'users', 'choosy');
INSERT INTO users VALUES (101, 0, 'bad');
SELECT comes_to('SELECT n::text FROM rules.users_per_org WHERE org = 0', '3');
INSERT INTO users VALUES (102, 0, 'good');
SELECT comes_to('SELECT n::text FROM rules.users_per_org WHERE org = 0', '4');
-- loaded again: all that is cached, too
SELECT kafka_cache.reload('users');
INSERT INTO users VALUES (103, 0, 'good');
SELECT comes_to('SELECT n::text FROM rules.users_per_org WHERE org = 0', '5');

-- --- an ordinary table as source -----------------------------------------------------------------------

INSERT INTO orders SELECT n, date '2026-01-01' + n % 2, 'pen', n FROM generate_series(1, 4) n;
SELECT comes_to('SELECT string_agg(format(''%s %s %s'', day, item, n), '', '' ORDER BY day) FROM rules.orders_per_day',
	'2026-01-01 pen [{"n": 2, "sum": 6}], 2026-01-02 pen [{"n": 2, "sum": 4}]');
UPDATE orders SET day = '2026-01-03' WHERE id = 1;
SELECT comes_to('SELECT string_agg(format(''%s %s'', day, n -> 0 ->> ''n''), '', '' ORDER BY day) FROM rules.orders_per_day', '2026-01-01 2, 2026-01-02 1, 2026-01-03 1');
-- what is rolled back asks for nothing; what a subtransaction has done counts where it counts
BEGIN;
SAVEPOINT s;
INSERT INTO orders VALUES (10, '2026-01-05', 'pen', 1);
ROLLBACK TO s;
INSERT INTO orders VALUES (11, '2026-01-06', 'pen', 1);
COMMIT;
SELECT comes_to('SELECT string_agg(format(''%s %s'', day, n -> 0 ->> ''n''), '', '' ORDER BY day) FROM rules.orders_per_day', '2026-01-01 2, 2026-01-02 1, 2026-01-03 1, 2026-01-06 1');
DELETE FROM orders WHERE id = 1;
SELECT comes_to('SELECT string_agg(format(''%s %s'', day, n -> 0 ->> ''n''), '', '' ORDER BY day) FROM rules.orders_per_day', '2026-01-01 2, 2026-01-02 1, 2026-01-06 1');
-- no row, no key
INSERT INTO orders VALUES (12, NULL, 'pen', 1);
-- the writer needs no right on anything but the table
GRANT INSERT ON orders TO rules_other;
SET ROLE rules_other;
INSERT INTO orders VALUES (13, '2026-01-07', 'pen', 1);
SELECT * FROM kafka_cache.refresh_log;
RESET ROLE;
SELECT comes_to('SELECT n -> 0 ->> ''n'' FROM rules.orders_per_day WHERE day = ''2026-01-07'' AND item = ''pen''', '1');
COPY orders (id, day, item, amount) FROM STDIN;
14	2026-01-07	pen	1
15	2026-01-07	ink	1
\.
SELECT comes_to('SELECT string_agg(item || n, '' '' ORDER BY item) FROM rules.orders_per_day WHERE day = ''2026-01-07''', 'ink[{"n": 1, "sum": 1}] pen[{"n": 2, "sum": 2}]');
-- all that is cached
TRUNCATE orders;
SELECT comes_to('SELECT count(*)::text FROM rules.orders_per_day', '0');
SELECT comes_to('SELECT count(*)::text FROM kafka_cache.refresh_log', '0');
-- names may change
ALTER TABLE orders RENAME TO sales;
ALTER FOREIGN TABLE orders_per_day RENAME TO sales_per_day;
CREATE OR REPLACE FUNCTION sum_orders(day date, item text) RETURNS TABLE (n bigint, sum numeric) LANGUAGE sql STABLE
	AS 'SELECT count(*), sum(amount) FROM rules.sales o WHERE o.day = sum_orders.day AND o.item = sum_orders.item HAVING count(*) > 0';
INSERT INTO sales VALUES (1, '2026-01-08', 'pen', 1);
SELECT comes_to('SELECT count(*)::text FROM rules.sales_per_day', '1');
-- a function that is gone: whoever writes is told, and goes on
ALTER FUNCTION days_of(sales, sales) RENAME TO dates_of;
INSERT INTO sales VALUES (2, '2026-01-08', 'pen', 1);
SELECT comes_to('SELECT n -> 0 ->> ''n'' FROM rules.sales_per_day', '2');
SELECT kafka_cache.refresh_on('sales_per_day', 'sales', 'dates_of');
-- one that fails is theirs to see
CREATE OR REPLACE FUNCTION dates_of(old sales, new sales) RETURNS TABLE (day date, item text) LANGUAGE plpgsql AS $$ BEGIN RAISE 'no dates'; END $$;
INSERT INTO sales VALUES (3, '2026-01-08', 'pen', 1);
SELECT count(*) FROM sales;

-- --- hints ---------------------------------------------------------------------------------------------

SELECT test.mock('topic', 'rules_counts', '1');
CREATE TABLE clicks (page int, n int);
INSERT INTO clicks VALUES (1, 10);
CREATE TABLE may_count (yes boolean);
INSERT INTO may_count VALUES (true);
-- computes only when it may
CREATE FUNCTION count_clicks(page int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF NOT (SELECT yes FROM rules.may_count) THEN
		RAISE EXCEPTION 'not now';
	END IF;
	RETURN (SELECT jsonb_build_object('n', sum(n), 'exact', true) FROM rules.clicks c WHERE c.page = count_clicks.page);
END $$;
CREATE FUNCTION add_clicks(page int, old jsonb, hints jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('exact', false, 'n', (old ->> 'n')::int + sum(coalesce((h -> 'new' ->> 'n')::int, 0) - coalesce((h -> 'old' ->> 'n')::int, 0)),
		'source', min(h ->> 'source')) FROM jsonb_array_elements(hints) h $$;
CREATE FUNCTION pages_of(old clicks, new clicks) RETURNS SETOF int LANGUAGE sql AS 'VALUES (old.page), (new.page)';
CREATE FOREIGN TABLE counts (page int OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'rules_counts', compute 'rules.count_clicks', augment 'rules.add_clicks');
SELECT test.catch_up('counts');
SELECT n FROM counts WHERE page = 1;
SELECT kafka_cache.refresh_on('counts', 'clicks', 'pages_of');
SELECT comes_to('SELECT count(*)::text FROM kafka_cache.refresh_queue', '0');
UPDATE may_count SET yes = false;
INSERT INTO clicks VALUES (1, 5), (1, 2), (2, 7);
UPDATE clicks SET n = n + 1 WHERE n = 5;
SELECT comes_to('SELECT n::text FROM rules.counts', '{"n": 18, "exact": false, "source": "rules.clicks"}');
-- the refresh is still wanted
SELECT comes_to('SELECT string_agg(key, '' '' ORDER BY key) FROM kafka_cache.refresh_queue WHERE relation = ''rules.counts''::regclass', '1 2');
UPDATE may_count SET yes = true;
SELECT comes_to('SELECT string_agg(n::text, '' '' ORDER BY page) FROM rules.counts', '{"n": 18, "exact": true} {"n": 7, "exact": true}');

-- --- a domain, an interval -----------------------------------------------------------------------------

SELECT test.mock('topic', 'rules_names', '1');
CREATE TABLE names (id int, name text);
INSERT INTO names SELECT n, 'name ' || n FROM generate_series(1, 5) n;
CREATE SEQUENCE computed;
CREATE FUNCTION name_of(id int) RETURNS text LANGUAGE sql AS $$ SELECT name || '.' || left(nextval('rules.computed')::text, 0) FROM rules.names n WHERE n.id = name_of.id $$;
CREATE FOREIGN TABLE named (id int OPTIONS (key 'true') NOT NULL, name jsonb OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (topic 'rules_names', compute 'rules.name_of', domain 'SELECT id::bigint FROM rules.names ; ');
SELECT comes_to('SELECT string_agg(name #>> ''{}'', '' '' ORDER BY id) FROM rules.named', 'name 1. name 2. name 3. name 4. name 5.');
-- from now on every so often, and new ones too
ALTER FOREIGN TABLE named OPTIONS (ADD refresh_every '300ms');
UPDATE names SET name = upper(name) WHERE id = 3;
INSERT INTO names VALUES (6, 'name 6');
SELECT comes_to('SELECT string_agg(name #>> ''{}'', '' '' ORDER BY id) FROM rules.named', 'name 1. name 2. NAME 3. name 4. name 5. name 6.');
-- without a domain: what is cached
ALTER FOREIGN TABLE named OPTIONS (DROP domain);
INSERT INTO names VALUES (7, 'name 7');
UPDATE names SET name = upper(name) WHERE id = 4;
SELECT comes_to('SELECT string_agg(name #>> ''{}'', '' '' ORDER BY id) FROM rules.named', 'name 1. name 2. NAME 3. NAME 4. name 5. name 6.');
ALTER FOREIGN TABLE named OPTIONS (DROP refresh_every);

-- --- the end of rules ----------------------------------------------------------------------------------

SELECT kafka_cache.refresh_off('sales_per_day', 'sales');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'sales'::regclass AND NOT tgisinternal;
SELECT kafka_cache.refresh_off('sales_per_day', 'sales');
DROP FOREIGN TABLE counts;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'clicks'::regclass AND NOT tgisinternal;
BEGIN;
DROP FOREIGN TABLE users_per_org CASCADE;
SELECT count(*) FROM kafka_cache.refresh_rules;
ROLLBACK;
SELECT count(*) FROM kafka_cache.refresh_rules;
DROP FOREIGN TABLE users CASCADE;
SELECT * FROM kafka_cache.refresh_rules;
SELECT count(*) FROM kafka_cache.refresh_positions p WHERE NOT EXISTS (SELECT FROM kafka_cache.refresh_rules r WHERE r.product = p.product AND r.source = p.source);
SET client_min_messages = warning;
DROP SCHEMA rules CASCADE;
SELECT count(*) FROM kafka_cache.refresh_rules;
DROP OWNED BY rules_owner, rules_other;
DROP ROLE rules_owner, rules_other;
