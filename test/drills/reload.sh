#!/bin/bash
# In doubt about contents, read the topic again: the old ones are served until the new ones are complete.

before=$(sql "SELECT reloads FROM kafka_cache.tables")
show "SELECT kafka_cache.reload('users')"
until_is "SELECT reloads > $before AND ready FROM kafka_cache.tables" t
same 2000 "$(sql 'SELECT count(*) FROM users')"
