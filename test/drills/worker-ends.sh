#!/bin/bash
# The consumer is ended by somebody. The launcher starts it again; the cache is in shared memory and stays.

loaded=$(sql "SELECT loaded_at FROM kafka_cache.tables")
first=$(sql "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'drill'")
say "pg_terminate_backend($first)"
sql "SELECT pg_terminate_backend($first)" >/dev/null
same 2000 "$(sql 'SELECT count(*) FROM users')"
until_is "SELECT pid <> $first FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'drill' AND state = 'running'" t
show "SELECT kind, state, restarts, message FROM kafka_cache.workers"
test/mock produce users 0 1 '{"name": "after"}' >/dev/null
until_is "SELECT name FROM users WHERE id = 1" after
say "it follows the topic again, and nothing was loaded anew"
same "$loaded" "$(sql "SELECT loaded_at FROM kafka_cache.tables")"
