-- The decoder and its inverse as SQL functions; :module is the path of kcf_test.so.
CREATE FUNCTION kcf_test_row(row_of anyelement, key bytea, value bytea, partition int DEFAULT 0, "offset" bigint DEFAULT 0,
    record_time bigint DEFAULT 1700000000000, headers bytea[] DEFAULT NULL) RETURNS anyelement LANGUAGE c AS :'module';
CREATE FUNCTION kcf_test_fault(relation regclass, key bytea, value bytea, partition int DEFAULT 0, "offset" bigint DEFAULT 0,
    record_time bigint DEFAULT 1700000000000, headers bytea[] DEFAULT NULL) RETURNS text LANGUAGE c AS :'module';
CREATE FUNCTION kcf_test_key(relation regclass, key bytea) RETURNS text LANGUAGE c STRICT AS :'module';
CREATE FUNCTION kcf_test_bench(relation regclass, keys bytea[], documents bytea[], rounds int, what text DEFAULT 'form')
    RETURNS float8 LANGUAGE c STRICT AS :'module';
CREATE FUNCTION kcf_test_write(written anyelement, OUT key bytea, OUT value bytea, OUT partition int, OUT record_time bigint, OUT headers bytea[])
    LANGUAGE c STRICT AS :'module';
CREATE FUNCTION kcf_test_rewrite(document bytea, written anyelement, changed text[], OUT key bytea, OUT value bytea, OUT partition int,
    OUT record_time bigint, OUT headers bytea[]) LANGUAGE c AS :'module';
CREATE FUNCTION kcf_test_write_bench(written anyarray, rounds int) RETURNS float8 LANGUAGE c STRICT AS :'module';
