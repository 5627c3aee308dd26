#!/bin/bash
# DROP DATABASE while a table loads: our workers leave by themselves, and nothing of the database stays in memory.

test/mock load users '*' 1 20000 %d '{"name": "n%d"}' >/dev/null
sql "SELECT kafka_cache.reload('users')" >/dev/null
psql -X -q -d postgres -c 'DROP DATABASE drill'
until_is_in_postgres()
{
	PGDATABASE=postgres until_is "$@"
}
until_is_in_postgres "SELECT count(*) FROM pg_stat_activity WHERE datname = 'drill'" 0
PGDATABASE=postgres sql "CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw"
until_is_in_postgres "SELECT sum(value) FROM kafka_cache.metrics WHERE name = 'kafka_cache_tables'" 0
PGDATABASE=postgres show "SELECT kind, database, state FROM kafka_cache.workers"
test/mock load users '*' 2001 18000 %d NULL >/dev/null
