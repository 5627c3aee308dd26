--
-- The settings kafka_cache.*, and what kafka_cache.settings() tells of an installation.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;

SELECT name, context, vartype, unit, boot_val, min_val, max_val, enumvals
FROM pg_settings WHERE name LIKE 'kafka\_cache.%' ORDER BY name COLLATE "C";

-- the prefix is ours
SET kafka_cache.no_such_setting = 1;

SET kafka_cache.when_not_ready = 'partial';
SHOW kafka_cache.when_not_ready;
SET kafka_cache.when_not_ready = 'sometimes';
RESET kafka_cache.when_not_ready;
SET kafka_cache.wait_timeout = '1.5s';
SHOW kafka_cache.wait_timeout;
SET kafka_cache.wait_timeout = '-1';
RESET kafka_cache.wait_timeout;
SET kafka_cache.max_staleness = '2min';
SHOW kafka_cache.max_staleness;
RESET kafka_cache.max_staleness;
SET kafka_cache.memory = '2GB';
SET kafka_cache.databases = 'a';
ALTER SYSTEM SET kafka_cache.databases = 'a,,b';
ALTER SYSTEM SET kafka_cache.max_tables = 0;

-- one row for each setting, and what else a bug report needs
SELECT name, setting <> '' AS said, meaning <> '' AS explained FROM kafka_cache.settings();
SELECT name FROM pg_settings WHERE name LIKE 'kafka\_cache.%' EXCEPT SELECT name FROM kafka_cache.settings();
SELECT s.setting = e.extversion AS same_version
FROM kafka_cache.settings() s, pg_extension e
WHERE s.name = 'kafka_cache_fdw' AND e.extname = 'kafka_cache_fdw';

-- nothing of servers and their users is among them
CREATE SERVER settings_server FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'canary-broker:1');
CREATE USER MAPPING FOR CURRENT_USER SERVER settings_server OPTIONS (username 'canary-user', password 'canary-password');
SELECT * FROM kafka_cache.settings() s WHERE s::text LIKE '%canary%';
SET client_min_messages = warning;
DROP SERVER settings_server CASCADE;
