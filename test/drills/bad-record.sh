#!/bin/bash
# Somebody writes what cannot be a row. The record is listed, the others go on; the producer mends it by writing the
# key again.

test/mock produce users 0 7 '{"name": "n7", "age": "seven"}' >/dev/null
until_is "SELECT count(*) FROM kafka_cache.errors" 1
show "SELECT relation, partition, \"offset\", reason, column_name, message FROM kafka_cache.errors"
say "the row that was there is still served; on_error decides that"
same n7 "$(sql 'SELECT name FROM users WHERE id = 7')"
test/mock produce users 0 7 '{"name": "n7", "age": 7}' >/dev/null
until_is "SELECT count(*), (SELECT age FROM users WHERE id = 7) FROM kafka_cache.errors" "0|7"
