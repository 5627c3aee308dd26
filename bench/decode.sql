\pset footer off
CREATE EXTENSION kafka_cache_fdw;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
\i test/kcf_test/kcf_test.sql
CREATE FOREIGN TABLE items (id uuid OPTIONS (key 'true') NOT NULL, name text, qty int, ts timestamptz, tags text[], attrs jsonb)
    SERVER kafka;
CREATE TYPE item AS (id uuid, name text, qty int, ts timestamptz, tags text[], attrs jsonb);

CREATE TEMP TABLE messages AS
SELECT id::text AS k,
       format('{"id":"%s","name":"item name number %s","qty":%s,"ts":"%s","tags":["tag%s","grp%s"],"attrs":{"w":%s,"ok":true,"color":"c%s"}}',
              id, i, i % 1000, to_char('2026-01-01'::timestamp + i * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'),
              i % 100, i % 7, i % 500, i % 16) AS v
FROM generate_series(1, 100000) i, LATERAL (SELECT md5(i::text)::uuid AS id) m;
CREATE TEMP TABLE arrays AS
SELECT array_agg(convert_to(k, 'UTF8')) AS k, array_agg(convert_to(v, 'UTF8')) AS v, avg(length(v)) AS bytes FROM messages;

CREATE TEMP TABLE rows AS SELECT array_agg(kcf_test_row(NULL::items, convert_to(k, 'UTF8'), convert_to(v, 'UTF8'))) AS r FROM messages;

CREATE TEMP TABLE results (what text, ns float8);
DO $$
DECLARE
    started timestamptz;
BEGIN
    FOR round IN 1 .. 7 LOOP
        INSERT INTO results SELECT what, kcf_test_bench('items', k, v, 3, what)
        FROM arrays, unnest(ARRAY['scan', 'decode', 'form']) what;
        INSERT INTO results SELECT 'write', kcf_test_write_bench(r, 3) FROM rows;
        started := clock_timestamp();
        PERFORM count(row_to_json(i)) FROM rows, unnest(r) i;
        INSERT INTO results VALUES ('row_to_json', extract(epoch FROM clock_timestamp() - started) * 1e9 / 1e5);
        started := clock_timestamp();
        PERFORM count(v::jsonb) FROM messages;
        INSERT INTO results VALUES ('jsonb_in', extract(epoch FROM clock_timestamp() - started) * 1e9 / 1e5);
        started := clock_timestamp();
        PERFORM count(jsonb_populate_record(NULL::item, v::jsonb)) FROM messages;
        INSERT INTO results VALUES ('jsonb_populate_record', extract(epoch FROM clock_timestamp() - started) * 1e9 / 1e5);
    END LOOP;
END $$;
SELECT round(bytes, 1) AS "bytes a document" FROM arrays;
SELECT what, round(min(ns)) AS "ns a record", round((1e3 / min(ns))::numeric, 2) AS "million records/s"
FROM results GROUP BY what ORDER BY min(ns);
