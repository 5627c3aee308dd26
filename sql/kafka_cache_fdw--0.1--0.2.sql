-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION kafka_cache_fdw UPDATE TO '0.2'" to load this file. \quit

-- What 0.2 adds to 0.1. CREATE EXTENSION runs the script of the first version and then this one, so that there is one text of
-- every object, and who updates gets what who installs gets.
