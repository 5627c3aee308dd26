# What drills are written with. The server is the one that PG* say, the broker that of test/mock.

# A database with a loaded table. The topics are there for all drills, which leave them as they were found.
begin()
{
	psql -X -q -d postgres -c 'DROP DATABASE IF EXISTS drill' -c 'CREATE DATABASE drill'
	test/mock topic users 2 >/dev/null 2>&1 || true
	test/mock load users '*' 1 2000 %d '{"name": "n%d"}' >/dev/null
	sql "CREATE EXTENSION kafka_cache_fdw;
		CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '$BROKERS');
		CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, name text NOT NULL, age int) SERVER kafka OPTIONS (topic 'users')"
	until_is "SELECT ready, count(*) FROM kafka_cache.tables, users WHERE relation = 'users'::regclass GROUP BY ready" "t|2000"
}

say()
{
	printf -- '-- %s\n' "$*"
}

sql()
{
	psql -X -q -At -v ON_ERROR_STOP=1 -c "$1"
}

# The statement and its answer, for whoever watches.
show()
{
	psql -X -q -P pager=off -v ON_ERROR_STOP=1 -e -c "$1" | sed '/^$/d; s/^/   /'
}

# Wait until a query answers this; errors are answers too, such as those of a server that is not up.
until_is()
{
	local query=$1 wanted=$2 answer=
	local end=$((SECONDS + 60))

	while [ $SECONDS -lt $end ]; do
		answer=$(psql -X -q -At -c "$query" 2>&1 || true)
		[ "$answer" != "$wanted" ] || return 0
		read -rt 0.1 <> <(:) || true
	done
	echo "instead of $wanted: $answer" >&2
	echo "of: $query" >&2
	return 1
}

# A statement fails, and its SQLSTATE is this.
fails()
{
	local answer
	answer=$(psql -X -q -At -v VERBOSITY=sqlstate -c "$2" 2>&1 || true)
	[[ $answer == *"ERROR:  $1"* ]] || { echo "not $1 but: $answer" >&2; return 1; }
}

same()
{
	[ "$1" = "$2" ] || { echo "not the same: $1 and $2" >&2; return 1; }
}
