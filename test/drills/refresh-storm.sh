#!/bin/bash
# What products are made of changes all the time, while refreshers, the producer and a server process are ended and Kafka goes away.
# Nothing is to be done: when all is quiet again, every row of every product is what its function says.

test/mock topic per_user 2 >/dev/null 2>&1 || true
test/mock topic per_group 2 >/dev/null 2>&1 || true
sql "ALTER SYSTEM SET kafka_cache.refresh_workers = 2"
sql "ALTER SYSTEM SET kafka_cache.refresh_load = 100"
sql "SELECT pg_reload_conf()" >/dev/null
# The mock broker lets who asks for records wait, also when some come.
sql "ALTER SERVER kafka OPTIONS (ADD fetch_wait_max_ms '10')"
sql "CREATE TABLE visits (user_id int, pages int, PRIMARY KEY (user_id, pages));
	INSERT INTO visits SELECT g, 1 FROM generate_series(1, 200) g;
	-- of a cached table and an ordinary one
	CREATE FUNCTION per_user(id int) RETURNS TABLE (name text, visits bigint, pages bigint) LANGUAGE sql STABLE AS \$\$
		SELECT u.name, count(v.pages), sum(v.pages) FROM public.users u LEFT JOIN public.visits v ON v.user_id = u.id WHERE u.id = per_user.id GROUP BY u.name \$\$;
	CREATE FOREIGN TABLE users_visits (id int OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'per_user', compute 'public.per_user');
	-- of another product
	CREATE FUNCTION per_group(n int) RETURNS jsonb LANGUAGE sql STABLE AS \$\$
		SELECT to_jsonb(sum((p.rows->0->>'pages')::bigint)) FROM public.users_visits p WHERE p.id % 10 = n AND p.id <= 200 \$\$;
	CREATE FOREIGN TABLE groups_visits (n int OPTIONS (key 'true') NOT NULL, pages jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'per_group', compute 'public.per_group');
	CREATE FUNCTION of_user(old users, new users) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k FROM unnest(ARRAY[(old).id, (new).id]) k WHERE k <= 200 \$\$;
	CREATE FUNCTION of_visit(old visits, new visits) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k FROM unnest(ARRAY[(old).user_id, (new).user_id]) k WHERE k IS NOT NULL \$\$;
	CREATE FUNCTION of_product(old users_visits, new users_visits) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k % 10 FROM unnest(ARRAY[(old).id, (new).id]) k WHERE k IS NOT NULL \$\$;"
until_is "SELECT count(*) FROM kafka_cache.tables WHERE ready" 3
sql "SELECT kafka_cache.refresh_on('users_visits', 'users', 'of_user(users, users)');
	SELECT kafka_cache.refresh_on('users_visits', 'visits', 'of_visit(visits, visits)');
	SELECT kafka_cache.refresh_on('groups_visits', 'users_visits', 'of_product(users_visits, users_visits)')" >/dev/null
same 200 "$(sql "SELECT count(p.rows) FROM generate_series(1, 200) g JOIN users_visits p ON p.id = g")"
same 10 "$(sql "SELECT count(p.pages) FROM generate_series(0, 9) g JOIN groups_visits p ON p.n = g")"

say "both sources change"
change()
{
	psql -X -q -At -c "UPDATE visits SET pages = pages + 100 WHERE user_id IN (SELECT (random() * 199)::int + 1 FROM generate_series(1, 20))" \
		-c "INSERT INTO visits SELECT (random() * 199)::int + 1, -$1" -c "DELETE FROM visits WHERE pages < 0 AND pages > -$1 AND random() < 0.3"
	test/mock load users '*' $((1 + RANDOM % 180)) 20 %d "{\"name\": \"name $1 of %d\"}"
}
storm=$(mktemp /tmp/kcf-storm-XXXXXX)
echo 0 >"$storm"
(
	trap 'exit 0' TERM
	for ((round = 1; ; round++)); do
		change "$round" >/dev/null 2>&1 || true
		echo "$round" >"$storm.new"
		mv "$storm.new" "$storm"
	done
) &
changing=$!
trap 'kill $changing 2>/dev/null || true; rm -f "$storm" "$storm.new"' EXIT
rounds()
{
	local until=$(($(cat "$storm") + $1)) end=$((SECONDS + 60))
	while [ "$(cat "$storm")" -lt "$until" ]; do
		[ $SECONDS -lt $end ] || { echo "the changes do not go on" >&2; return 1; }
		read -rt 0.05 <> <(:) || true
	done
}
strike()
{
	sql "SELECT count(pg_terminate_backend(pid)) FROM kafka_cache.workers WHERE kind = '$1' AND database = 'drill' AND pid IS NOT NULL" >/dev/null
}

rounds 5
for n in 1 2 3; do
	say "refreshers and the producer are ended, time $n"
	strike refresher
	rounds 3
	strike producer
	rounds 3
done
say "Kafka is away for a while"
test/mock down '*' >/dev/null
psql -X -q -At -c "UPDATE visits SET pages = pages + 1000 WHERE user_id <= 50" >/dev/null
strike refresher
until_is "SELECT staleness > interval '3 s' FROM kafka_cache.tables WHERE relation = 'users'::regclass" t
test/mock up '*' >/dev/null
rounds 3
say "kill -9 of a refresher, or of whoever is there: PostgreSQL starts all over"
until kill -9 "$(sql "SELECT pid FROM kafka_cache.workers WHERE database = 'drill' AND pid IS NOT NULL ORDER BY kind = 'refresher' DESC LIMIT 1")" 2>/dev/null; do
	read -rt 0.1 <> <(:) || true
done
until_is "SELECT 1" 1
until_is "SELECT pid IS NOT NULL FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'drill'" t
rounds 5
kill $changing
wait $changing || true

say "all is quiet"
until_is "SELECT count(*) FROM users_visits p WHERE id <= 200 AND p.rows IS DISTINCT FROM (SELECT jsonb_agg(f) FROM per_user(p.id) f)" 0
until_is "SELECT count(*) FROM groups_visits p WHERE p.pages IS DISTINCT FROM per_group(p.n)" 0
until_is "SELECT count(*) FROM kafka_cache.refresh_queue" 0
until_is "SELECT count(*) FROM kafka_cache.refresh_log" 0
same "200 10" "$(sql "SELECT (SELECT count(*) FROM users_visits WHERE id <= 200) || ' ' || (SELECT count(*) FROM groups_visits)")"
show "SELECT name, labels->>'relation' AS relation, value FROM kafka_cache.metrics WHERE name LIKE 'kafka_cache_product%' AND value > 0 ORDER BY 2, 1"
sql "ALTER SYSTEM RESET ALL"
sql "SELECT pg_reload_conf()" >/dev/null
