#!/bin/bash
# Kafka cannot be reached. The contents stay and are served; staleness says how old they are, and who cannot live with
# that says so by max_staleness. Nothing is to be done when Kafka is back.

say "all brokers are down"
test/mock down '*' >/dev/null
until_is "SELECT staleness > interval '3 s' FROM kafka_cache.tables" t
same 2000 "$(sql 'SELECT count(*) FROM users')"
show "SELECT relation, state, ready, staleness > interval '3 s' AS stale, message FROM kafka_cache.tables"
fails 40001 "SET kafka_cache.max_staleness = '2s'; SELECT count(*) FROM users"
say "the brokers are back"
test/mock up '*' >/dev/null
test/mock produce users 0 1 '{"name": "back"}' >/dev/null
until_is "SELECT name FROM users WHERE id = 1" back
until_is "SET kafka_cache.max_staleness = '2s'; SELECT count(*) FROM users" 2000
