--
-- kafka_cache.metrics: what there is, from when on, who sees it, and that each counter counts.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
RESET client_min_messages;
CREATE SCHEMA metrics;
SET search_path = metrics;

-- all there is, of a table that nobody has met yet: counters begin at zero
CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1');
BEGIN;
CREATE FOREIGN TABLE "new ""one""" (id int OPTIONS (key 'true'), a text) SERVER nowhere OPTIONS (topic 'metrics_new');
SELECT name, kind, string_agg(DISTINCT label, ' ' ORDER BY label) AS labels, count(*) AS samples,
	CASE WHEN kind = 'gauge' THEN NULL ELSE bool_and(value = 0) END AS zero
FROM kafka_cache.metrics LEFT JOIN LATERAL jsonb_object_keys(labels) label ON true
WHERE labels ? 'relation' OR name ~ 'server|memory|tables|info'
GROUP BY name, kind ORDER BY name COLLATE "C";
SELECT DISTINCT labels ->> 'relation' AS relation FROM kafka_cache.metrics WHERE labels ? 'relation';
SELECT labels ->> 'state' AS state, value FROM kafka_cache.metrics WHERE name = 'kafka_cache_state' AND value <> 0;
SELECT value FROM kafka_cache.metrics WHERE name = 'kafka_cache_staleness_seconds';
ROLLBACK;
SELECT name, kind, string_agg(DISTINCT label, ' ' ORDER BY label) AS labels, count(DISTINCT m.labels) AS samples
FROM kafka_cache.metrics m, jsonb_object_keys(labels) label
WHERE NOT labels ? 'relation'
GROUP BY name, kind ORDER BY name COLLATE "C";

-- what the names promise, and that each says what it means
SELECT DISTINCT name FROM kafka_cache.metrics
WHERE name !~ '^kafka_cache_[a-z_]+$' OR (kind = 'counter') <> (name ~ '_total$') OR (kind = 'histogram') <> (name ~ '_(bucket|sum|count)$') OR help !~ '^[A-Z].*\.$';
SELECT name, labels, count(*) FROM kafka_cache.metrics GROUP BY 1, 2 HAVING count(*) > 1;

-- counting
SELECT test.mock('topic', 'metrics', '2');
SELECT test.mock('produce', 'metrics', '0', '1', '{"a": "one"}');
SELECT test.mock('produce', 'metrics', '0', '2', '{"a": "two"}');
SELECT test.mock('produce', 'metrics', '1', '1', '{"a": "uno"}');
CREATE FOREIGN TABLE counted (id int OPTIONS (key 'true'), a text CHECK (length(a) < 5)) SERVER kafka OPTIONS (topic 'metrics', readonly 'false', delivery 'immediate');
CREATE FUNCTION of_table(what text) RETURNS TABLE (label text, value float8) LANGUAGE sql AS $$
	SELECT labels - 'relation' - 'database' - 'topic' ->> min(k), value
	FROM kafka_cache.metrics LEFT JOIN LATERAL jsonb_object_keys(labels - 'relation' - 'database' - 'topic') k ON true
	WHERE name = 'kafka_cache_' || what AND labels ->> 'relation' = 'metrics.counted'
	GROUP BY labels, value $$;
SELECT test.catch_up('counted');
SELECT * FROM of_table('records_total') ORDER BY 1;
SELECT * FROM of_table('visible_latency_seconds_count');
SELECT test.mock('produce', 'metrics', '0', '3', '{"a": "three"}');
SELECT test.mock('produce', 'metrics', '0', '4', 'not json');
SELECT test.mock('produce', 'metrics', '0', NULL, '{}');
SELECT test.mock('produce', 'metrics', '1', '2', NULL);
SELECT test.mock('produce', 'metrics', '1', 'x', '{"a": "four"}');
SELECT test.catch_up('counted');
SELECT * FROM of_table('records_total') ORDER BY 1;
SELECT * FROM of_table('rejected_total') WHERE value > 0 ORDER BY 1;
SELECT * FROM of_table('visible_latency_seconds_count');
SELECT value > 0 AND value < 100 AS sum FROM of_table('visible_latency_seconds_sum');
SELECT bool_and(value >= before) AS rising, max(value) FILTER (WHERE label = '+Inf') AS all_of_them
FROM (SELECT label, value, lag(value, 1, 0) OVER (ORDER BY replace(label, '+Inf', 'Infinity')::float8) AS before FROM of_table('visible_latency_seconds_bucket')) b;
SELECT name, labels ->> 'partition' AS partition, value FROM kafka_cache.metrics
WHERE labels ->> 'relation' = 'metrics.counted' AND labels ->> 'topic' = 'metrics' ORDER BY 1, 2;
SELECT name, value FROM kafka_cache.metrics
WHERE labels ->> 'relation' = 'metrics.counted' AND name ~ '_(ready|load_progress|entries|listed_errors|cross_partition_keys|key_spellings|reloads_total|clients_total)$' ORDER BY 1;
SELECT label FROM of_table('state') WHERE value = 1;
SELECT value < 60 AS fresh FROM of_table('staleness_seconds');
SELECT abs(value - extract(epoch FROM loaded_at)) < 0.01 AS loaded FROM of_table('loaded_timestamp_seconds'), kafka_cache.tables WHERE relation = 'counted'::regclass;
SELECT m.value = t.bytes AND l.value = s.value AS memory
FROM of_table('bytes') m, of_table('limit_bytes') l, kafka_cache.tables t, kafka_cache.metrics s
WHERE t.relation = 'counted'::regclass AND s.name = 'kafka_cache_memory_limit_bytes';

-- a load reads everything again, and counts on
SELECT kafka_cache.reload('counted');
CREATE FUNCTION until(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	ok boolean;
	until timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	LOOP
		EXECUTE query INTO ok;
		EXIT WHEN ok OR clock_timestamp() > until;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN ok;
END
$$;
SELECT until($$SELECT value = 1 FROM metrics.of_table('reloads_total')$$);
SELECT * FROM of_table('records_total') ORDER BY 1;
SELECT * FROM of_table('visible_latency_seconds_count');
SELECT upserts, tombstones, errors, ignored FROM kafka_cache.tables WHERE relation = 'counted'::regclass;

-- writing
CREATE TABLE before AS SELECT name, labels, value FROM kafka_cache.metrics;
CREATE VIEW since AS
	SELECT m.name, m.labels, m.value - b.value AS more
	FROM kafka_cache.metrics m JOIN before b USING (name, labels)
	WHERE name ~ '^kafka_cache_produce_(total|errors_total|latency_seconds_count)' AND m.value <> b.value;
INSERT INTO counted VALUES (5, 'five'), (6, 'six');
INSERT INTO counted VALUES (7, 'sev');
SELECT name, labels - 'database' AS labels, more FROM since ORDER BY 1, 2;
SELECT value AS up FROM kafka_cache.metrics WHERE name = 'kafka_cache_worker_up' AND labels ->> 'kind' = 'producer';

-- the text says the same
SELECT bool_and(m.line = t.line) AS same, count(*) > 100 AS all_of_them
FROM (SELECT row_number() OVER () AS n, line FROM regexp_split_to_table(kafka_cache.metrics_text(), '\n') line WHERE line !~ '^(#|$)' AND line !~ 'staleness|pin|bytes') t
	JOIN (SELECT row_number() OVER () AS n, name || CASE WHEN labels = '{}' THEN '' ELSE '{' || (
			SELECT string_agg(format('%s="%s"', key, l.value), ',' ORDER BY strpos(',kind,version,postgresql,librdkafka,database,number,relation,topic,partition,state,outcome,reason,error,le,', ',' || key || ','))
			FROM jsonb_each_text(labels) l) || '}' END || ' ' || value AS line
		FROM kafka_cache.metrics WHERE name !~ 'staleness|pin|bytes') m USING (n);

-- who sees what: tables with a right on them, the rest everybody
CREATE ROLE kcf_metrics_reader;
CREATE ROLE kcf_metrics_monitor IN ROLE pg_monitor;
CREATE ROLE kcf_metrics_stranger;
GRANT SELECT ON counted TO kcf_metrics_reader;
CREATE FOREIGN TABLE others (id int OPTIONS (key 'true'), a text) SERVER nowhere OPTIONS (topic 'metrics_others');
CREATE FUNCTION seen() RETURNS TABLE (seen text, text_too boolean, server boolean) LANGUAGE sql AS $$
	SELECT string_agg(DISTINCT labels ->> 'relation', ' ' ORDER BY labels ->> 'relation'),
		string_agg(DISTINCT labels ->> 'relation', ' ' ORDER BY labels ->> 'relation') IS NOT DISTINCT FROM
			(SELECT string_agg(DISTINCT m[1], ' ' ORDER BY m[1]) FROM regexp_matches(kafka_cache.metrics_text(), 'relation="([^"]*)"', 'g') m),
		count(*) FILTER (WHERE name = 'kafka_cache_memory_used_bytes') = 1
	FROM kafka_cache.metrics $$;
GRANT USAGE ON SCHEMA metrics TO PUBLIC;
SET ROLE kcf_metrics_reader;
SELECT * FROM seen();
SET ROLE kcf_metrics_monitor;
SELECT * FROM seen();
SET ROLE kcf_metrics_stranger;
SELECT * FROM seen();
RESET ROLE;

SET client_min_messages = warning;
DROP SERVER kafka, nowhere CASCADE;
DROP SCHEMA metrics CASCADE;
DROP ROLE kcf_metrics_reader, kcf_metrics_monitor, kcf_metrics_stranger;
