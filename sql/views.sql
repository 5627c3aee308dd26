--
-- The views and the functions on positions, with records in the topic.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS kafka_cache_fdw CASCADE;
SELECT test.connect();
RESET client_min_messages;
CREATE SCHEMA views;
SET search_path = views;

SELECT setting AS memory_before FROM kafka_cache.settings() WHERE name = 'memory_used' \gset
SELECT test.mock('topic', 'views', '3');
SELECT test.mock('produce', 'views', '0', '1', '{"a": "one"}');
SELECT test.mock('produce', 'views', '0', '2', '{"a": "two"}');
SELECT test.mock('produce', 'views', '0', '1', '{"a": "uno"}');
SELECT test.mock('produce', 'views', '1', '3', '{"a": "three"}');
SELECT test.mock('produce', 'views', '1', '3', NULL);
SELECT test.mock('produce', 'views', '1', '4', 'not json');
SELECT test.mock('produce', 'views', '1', '5', '{"a": 12345}');
CREATE FOREIGN TABLE seen (id int OPTIONS (key 'true'), a text CHECK (length(a) < 5)) SERVER kafka OPTIONS (topic 'views');
SELECT test.catch_up('seen');

CREATE VIEW state AS
	SELECT relation, topic, state, ready, entries, bytes > 0 AS memory, records, upserts, tombstones, errors, ignored, lag, staleness < '1 min' AS fresh,
		progress, loaded_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS loaded, cross_partition_keys, key_spellings, reloads
	FROM kafka_cache.tables WHERE relation = 'views.seen'::regclass;
CREATE VIEW bad AS
	SELECT partition, "offset", record_time BETWEEN now() - interval '1 min' AND clock_timestamp() AS recent, reason, column_name, message IS NOT NULL AS said,
		noticed_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS noticed
	FROM kafka_cache.errors WHERE relation = 'views.seen'::regclass ORDER BY 1, 2;
\x on
SELECT * FROM state;
\x off
SELECT partition, low, position, target, high, lag FROM kafka_cache.partitions WHERE relation = 'seen'::regclass ORDER BY 1;
SELECT * FROM bad;
SELECT kafka_cache.position('seen');

-- healed, deleted, and a partition that had nothing
SELECT test.mock('produce', 'views', '1', '4', '{"a": "four"}');
SELECT test.mock('produce', 'views', '1', '5', NULL);
SELECT test.mock('produce', 'views', '2', '6', '{"a": "six"}');
SELECT kafka_cache.wait_for('seen', '{"1": 5, "2": 0}');
SELECT entries, records, upserts, tombstones, errors, ignored, upserts + tombstones + errors + ignored = records AS adds_up FROM kafka_cache.tables WHERE relation = 'seen'::regclass;
SELECT * FROM bad;
SELECT kafka_cache.position('seen');
SELECT relation, partition, position, high, lag FROM kafka_cache.partitions WHERE relation = 'seen'::regclass ORDER BY 2;

-- a position: what was passed, what was not, partitions in part
SELECT kafka_cache.wait_for('seen', kafka_cache.position('seen')) AS all_of_it, kafka_cache.wait_for('seen', '{}') AS nothing, kafka_cache.wait_for('seen', '{"1": -1}') AS before,
	kafka_cache.wait_for('seen', jsonb_build_object(2, 0)) AS as_built, kafka_cache.wait_for('seen', '{"2": 1}', '20 ms') AS beyond, kafka_cache.wait_for('seen', '{"3": -1}', '20 ms') AS no_such_partition;

-- reload: what is there serves meanwhile
SELECT kafka_cache.reload('seen');
SELECT count(*) FROM seen;
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
SELECT until($$SELECT reloads = 1 AND progress = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'views.seen'::regclass$$);
SELECT entries, ready FROM state;

-- the memory of a dropped table is given back
SELECT setting::bigint > :memory_before AS used FROM kafka_cache.settings() WHERE name = 'memory_used';
SET client_min_messages = warning;
DROP SERVER kafka CASCADE;
SELECT until($$SELECT setting = '$$ || :memory_before || $$' FROM kafka_cache.settings() WHERE name = 'memory_used'$$) AS given_back;
SELECT count(*) FROM kafka_cache.tables;
DROP SCHEMA views CASCADE;
