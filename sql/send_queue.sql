--
-- The send queue alone: another session is the producer, and answers in the way it is told.
--
CREATE DATABASE send_queue;
\c send_queue
\set SHOW_CONTEXT never
\set VERBOSITY verbose
SET client_min_messages = warning;
\set ECHO none
CREATE EXTENSION kafka_cache_fdw;
CREATE EXTENSION dblink;
\i test/writer/kcf_echo.sql
CREATE FUNCTION connect(name text) RETURNS text LANGUAGE sql AS $$
    SELECT dblink_connect(name, format('dbname=%s host=%s port=%s user=postgres', current_database(),
                                       split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')))
$$;
-- The producer starts; and how many records it has seen when it has left.
CREATE FUNCTION producer(how text, flushes int DEFAULT 1) RETURNS int LANGUAGE sql AS $$
    SELECT dblink_send_query('p', format('SELECT kcf_echo.produce(%L, %s)', how, flushes))
$$;
CREATE FUNCTION produced() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    SELECT r INTO n FROM dblink_get_result('p') AS d(r bigint);
    PERFORM FROM dblink_get_result('p') AS d(r bigint); -- to be ready for another query
    RETURN n;
END
$$;
-- An error as its SQLSTATE and texts: a place in the source is none of its own.
CREATE FUNCTION try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    detail text;
BEGIN
    EXECUTE command INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || split_part(SQLERRM, E'\n', 1), NULLIF(detail, ''));
END
$$;
SELECT connect('p') \g /dev/null
SELECT kcf_echo.hold();
\pset format unaligned
\pset tuples_only on
\set ECHO all

-- nobody is there
SET kafka_cache.produce_timeout = '1s';
SELECT try('SELECT kcf_echo.flush(1, 10)');
RESET kafka_cache.produce_timeout;

-- records of all sizes, small and beyond what the queue holds; none at all; more topics than fit, both ways
SELECT producer('answer', 9);
SELECT kcf_echo.flush(1, 10);
SELECT kcf_echo.flush(1, 10);
SELECT kcf_echo.flush(0, 0);
SELECT kcf_echo.flush(100000, 200);
SELECT kcf_echo.flush(300, 8000);
SELECT kcf_echo.flush(40, 100000);
SELECT kcf_echo.flush(1, 40000000);
SELECT kcf_echo.flush(10, 100, 1000);
SELECT kcf_echo.flush(200, 10000, 2);
SELECT produced();

-- a producer that leaves whenever it can is asked for again, and no flush is lost
SELECT producer('leave idle', 300);
SELECT count(kcf_echo.flush(1 + i % 3, 10)) FROM generate_series(1, 300) i;
SELECT produced();

-- time is over before anything is taken, and after
SET kafka_cache.produce_timeout = '1s';
SELECT producer('deaf');
SELECT try('SELECT kcf_echo.flush(5, 10)');
-- ... and a producer that does not even notice that we have left the flush before
SELECT try('SELECT kcf_echo.flush(5000, 100)');
SELECT dblink_cancel_query('p');
SELECT try('SELECT produced()');
SELECT produced();
SELECT producer('silent');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();
-- ... and time is what it says, also where the producer has looked at the flush a little later
SET kafka_cache.produce_timeout = '3s';
SELECT producer('silent');
SELECT clock_timestamp() AS begin \gset
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT clock_timestamp() - :'begin' BETWEEN '2.9 s' AND '5.5 s';
SELECT produced();
RESET kafka_cache.produce_timeout;

-- cancelled before anything is taken, and after
SELECT producer('cancel before');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();
SELECT producer('cancel after');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();

-- the producer leaves: with nothing taken, with something, and with a word on what became of it
SELECT producer('leave before');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();
SELECT producer('leave after');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();
SELECT producer('last word');
SELECT try('SELECT kcf_echo.flush(5, 10)');
SELECT produced();
SELECT producer('last word');
SELECT try('SELECT regexp_replace(kcf_echo.flush(100000, 200), ''\d+'', ''N'', ''g'')');
SELECT produced() < 1000;

-- an error between the beginning and the end leaves nothing behind
SELECT producer('answer', 2);
SELECT try('SELECT kcf_echo.begin(), kcf_echo.begin()');
SELECT kcf_echo.flush(1, 10);
DO $$
BEGIN
    PERFORM kcf_echo.begin();
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    NULL;
END
$$;
SELECT kcf_echo.flush(2, 10);
SELECT produced();

-- a backend that is terminated; the next one has its place
SELECT producer('terminate');
SELECT connect('b');
SELECT try($$SELECT t FROM dblink('b', 'SELECT kcf_echo.flush(5, 10)') AS d(t text)$$);
SELECT produced();
SELECT producer('answer');
SELECT dblink_disconnect('b'), connect('b');
SELECT t FROM dblink('b', 'SELECT kcf_echo.flush(5, 10)') AS d(t text);
SELECT produced();
SELECT dblink_disconnect('b');

SELECT kcf_echo.release();
\c postgres
DROP DATABASE send_queue;
