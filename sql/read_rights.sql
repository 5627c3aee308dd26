--
-- What a reader is told of a table that is not ready: its state; in words, which may name brokers, only its owner and
-- monitors.
--
CREATE DATABASE read_rights;
\c read_rights
\set ECHO none
SET client_min_messages = warning;
CREATE EXTENSION kafka_cache_fdw;
\i test/writer/kcf_writer.sql
\set ECHO all
RESET client_min_messages;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');
CREATE FOREIGN TABLE t (id int OPTIONS (key 'true') NOT NULL) SERVER kafka;
CREATE ROLE kcf_read_owner;
CREATE ROLE kcf_read_reader;
CREATE ROLE kcf_read_monitor IN ROLE pg_monitor;
ALTER FOREIGN TABLE t OWNER TO kcf_read_owner;
GRANT SELECT ON t TO kcf_read_reader, kcf_read_monitor;
SELECT kcf_writer.set_state('t', 'connecting', 'secret-broker:9092: connection refused');
SET kafka_cache.when_not_ready = error;
SET ROLE kcf_read_owner;
SELECT * FROM t;
SET ROLE kcf_read_monitor;
SELECT * FROM t;
SET ROLE kcf_read_reader;
SELECT * FROM t;
RESET ROLE;

\c contrib_regression
DROP DATABASE read_rights;
DROP ROLE kcf_read_owner, kcf_read_reader, kcf_read_monitor;
