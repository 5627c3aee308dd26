-- What tests in SQL can call; loaded into the database of `make regress` and of `make isolation`.
--
--   SELECT test.connect();                                  the extension, and a server "kafka" on the mock broker
--   SELECT test.mock('topic', 'users', '4');                a command to the mock broker (test/mock_kafka.c), its answer
--   SELECT test.topic('users', 4);                          the same, unless the topic is there already
--   SELECT test.mock('produce', 'users', '0', 'k1', NULL);  NULL is NULL: a tombstone
--   SELECT test.catch_up('users');                          wait until the table has all that the topic has
CREATE SCHEMA test;

CREATE FUNCTION test.mock(VARIADIC words text[]) RETURNS text LANGUAGE plpgsql
SET client_min_messages = warning AS $$
DECLARE
    command text := current_setting('test.mock');
    word text;
    answer text;
BEGIN
    FOREACH word IN ARRAY words LOOP
        command := command || ' ''' || replace(COALESCE(word, 'NULL'), '''', '''\''''') || '''';
    END LOOP;
    CREATE TEMPORARY TABLE IF NOT EXISTS test_answer (line text);
    EXECUTE format('COPY pg_temp.test_answer FROM PROGRAM %L', command || ' || true');
    DELETE FROM pg_temp.test_answer RETURNING line INTO answer;
    IF answer IS NULL OR answer NOT LIKE 'ok%' THEN
        RAISE EXCEPTION 'mock broker: %', answer;
    END IF;
    RETURN answer;
END
$$;

-- A topic, unless it is there: the mock broker cannot delete one.
CREATE FUNCTION test.topic(name text, partitions int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM test.mock('topic', name, partitions::text);
EXCEPTION WHEN raise_exception THEN
    IF SQLERRM NOT LIKE '%already exists%' THEN
        RAISE;
    END IF;
END
$$;

CREATE FUNCTION test.connect(options text DEFAULT '') RETURNS void LANGUAGE plpgsql
SET client_min_messages = warning AS $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
    EXECUTE format('CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers %L%s)',
                   current_setting('test.brokers'), options);
END
$$;

-- Ready, and past every record that the topic has now (the mock broker tells where its partitions end).
CREATE FUNCTION test.catch_up(relation regclass) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    topic text;
    ends jsonb;
BEGIN
    SELECT o.option_value INTO STRICT topic
    FROM pg_foreign_table f, pg_options_to_table(f.ftoptions) o
    WHERE f.ftrelid = relation AND o.option_name = 'topic';
    ends := substr(test.mock('position', topic), 4)::jsonb;
    RETURN kafka_cache.wait_ready(relation, '30 s') AND kafka_cache.wait_for(relation, ends, '30 s');
END
$$;

-- Wait until a reload that was asked for is done: what is served has been loaded since.
CREATE FUNCTION test.reloaded(rel regclass) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..3000 LOOP
        PERFORM 1 FROM kafka_cache.tables WHERE relation = rel AND reloads > 0 AND state = 'ready';
        IF FOUND THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN false;
END
$$;
