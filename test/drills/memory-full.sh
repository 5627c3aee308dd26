#!/bin/bash
# A table has no room left. It stops at the record that did not fit, says so, and serves what it has; with room it
# goes on where it stopped.

sql "ALTER FOREIGN TABLE users OPTIONS (ADD max_bytes '512kB')"
test/mock load users '*' 2001 10000 %d '{"name": "one too many %d"}' >/dev/null
until_is "SELECT state FROM kafka_cache.tables" full
show "SELECT relation, state, ready, entries < 12000 AS incomplete, bytes, message FROM kafka_cache.tables"
same n2000 "$(sql 'SELECT name FROM users WHERE id = 2000')"
say "more room"
sql "ALTER FOREIGN TABLE users OPTIONS (SET max_bytes '32MB')"
until_is "SELECT state, count(*) FROM kafka_cache.tables, users GROUP BY state" "ready|12000"
test/mock load users '*' 2001 10000 %d NULL >/dev/null
