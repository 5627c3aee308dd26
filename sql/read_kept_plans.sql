--
-- Plans that are kept follow the number of rows: here on a topic that fills after the statement was prepared.
--
SELECT test.connect();
SELECT test.topic('kept_plans', 1);
CREATE SCHEMA kept;
SET search_path = kept, public;
CREATE FOREIGN TABLE t (k text OPTIONS (key 'true') NOT NULL, v int) SERVER kafka OPTIONS (topic 'kept_plans');
SELECT test.catch_up('t');
CREATE FUNCTION planned_rows() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) EXECUTE all_rows' INTO plan;
    RETURN plan->0->'Plan'->'Plan Rows';
END
$$;
-- As soon as somebody has said that there are more rows.
CREATE PROCEDURE wait_for(wanted bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..3000 LOOP
        EXIT WHEN kept.planned_rows() = wanted;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
SET plan_cache_mode = force_generic_plan;
PREPARE all_rows AS SELECT * FROM t;
SELECT planned_rows();
SELECT test.mock('load', 'kept_plans', '0', '0', '5000', 'k%d', '{"v": 1}') LIKE 'ok%' AS produced;
SELECT test.catch_up('t');
CALL wait_for(5000);
SELECT planned_rows();
SET client_min_messages = warning;
DEALLOCATE all_rows;
DROP SCHEMA kept CASCADE;
DROP SERVER kafka CASCADE;
