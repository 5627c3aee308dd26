--
-- What the extension consists of, and that each part of it says what it is.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
RESET client_min_messages;

-- everything it made; types of rows belong to it by themselves since 17
SELECT object FROM (
	SELECT pg_describe_object(classid, objid, objsubid) AS object
	FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kafka_cache_fdw')
		AND classid <> 'pg_type'::regclass) o
ORDER BY object COLLATE "C";

-- nothing without a comment: objects, then columns
SELECT pg_describe_object(classid, objid, objsubid) AS uncommented
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kafka_cache_fdw')
	AND classid <> 'pg_type'::regclass AND obj_description(objid, classid::regclass::text::name) IS NULL;
SELECT attrelid::regclass, attname AS uncommented
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'kafka_cache'::regnamespace AND relkind = 'v' AND attnum > 0 AND col_description(attrelid, attnum) IS NULL;

-- columns and types of the views
SELECT attrelid::regclass AS view, attnum, attname, format_type(atttypid, atttypmod) AS type
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'kafka_cache'::regnamespace AND relkind = 'v' AND attnum > 0
ORDER BY relname COLLATE "C", attnum;

-- functions: who may call them is decided inside, so none runs as somebody else
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result, provolatile, proisstrict, proparallel
FROM pg_proc p
WHERE pronamespace = 'kafka_cache'::regnamespace AND proname NOT LIKE 'get\_%'
ORDER BY proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'kafka_cache'::regnamespace AND prosecdef;
SELECT p.oid::regprocedure, pg_get_function_arguments(p.oid)
FROM pg_proc p
WHERE pronamespace = 'kafka_cache'::regnamespace AND pronargdefaults > 0
ORDER BY proname COLLATE "C";

-- the schema is the extension's own: one that is there already is not taken
BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION kafka_cache_fdw CASCADE;
CREATE SCHEMA kafka_cache;
CREATE EXTENSION kafka_cache_fdw;
ROLLBACK;
