#!/bin/bash
# Kafka moves to other addresses. The option takes effect without a restart, and since other brokers may be another
# cluster, the tables load anew: a mistake in the address is seen at once, in state and message.

say "brokers that are not there"
sql "ALTER SERVER kafka OPTIONS (SET brokers '127.0.0.1:9')"
until_is "SELECT state, message LIKE '%127.0.0.1:9%refused%' FROM kafka_cache.tables" "connecting|t"
fails 55000 "SET kafka_cache.when_not_ready = error; SELECT count(*) FROM users"
show "SELECT relation, state, ready, entries FROM kafka_cache.tables"
sql "ALTER SERVER kafka OPTIONS (SET brokers '$BROKERS')"
until_is "SELECT state, count(*) FROM kafka_cache.tables, users GROUP BY state" "ready|2000"
