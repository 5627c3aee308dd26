#!/bin/bash
# kill -9 of a backend (or the OOM killer). PostgreSQL ends all its processes and starts anew with empty shared memory:
# the tables load again by themselves, and queries wait for them.

sql "CREATE TABLE ours AS SELECT 1 AS one"
victim=$(sql "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'drill'")
say "kill -9 $victim"
kill -9 "$victim"
until_is "SELECT count(*), (SELECT one FROM ours) FROM users" "2000|1"
show "SELECT relation, state, entries, loaded_at > now() - interval '1 minute' AS just_loaded FROM kafka_cache.tables"
