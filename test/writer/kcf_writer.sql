-- Functions of kcf_writer.so. The database must be one that kafka_cache.databases leaves out: these functions are
-- the writer of its tables.
CREATE SCHEMA kcf_writer;
SET search_path = kcf_writer;
-- Make the query's rows (columns as the table's) the table's contents; published every `batch` rows.
CREATE FUNCTION fill(relation regclass, query text, batch int DEFAULT 1000) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_fill' LANGUAGE C STRICT;
-- The same without serving them: what a load in progress has.
CREATE FUNCTION begin_load(relation regclass, query text) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_begin_load' LANGUAGE C STRICT;
-- Upsert, delete and spoil the keys of the query's rows in what is served, as one batch.
CREATE FUNCTION put(relation regclass, query text) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_put' LANGUAGE C STRICT;
CREATE FUNCTION del(relation regclass, query text) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_del' LANGUAGE C STRICT;
CREATE FUNCTION spoil(relation regclass, query text) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_spoil' LANGUAGE C STRICT;
-- Put the query's rows again and again, `batch` rows for each publication, `rate` rows a second (0: as fast as it
-- goes), until `seconds` are over. Rows written.
CREATE FUNCTION churn(relation regclass, query text, batch int, rate float8, seconds float8) RETURNS bigint
	AS '$libdir/kcf_writer', 'kcf_writer_churn' LANGUAGE C STRICT;
-- Serve nothing any more, and what the consumer would say of the table.
CREATE FUNCTION withdraw(relation regclass) RETURNS void
	AS '$libdir/kcf_writer', 'kcf_writer_withdraw' LANGUAGE C STRICT;
CREATE FUNCTION set_state(relation regclass, state text, message text) RETURNS void
	AS '$libdir/kcf_writer', 'kcf_writer_set_state' LANGUAGE C STRICT;
CREATE FUNCTION set_at_end(relation regclass, at_end timestamptz) RETURNS void
	AS '$libdir/kcf_writer', 'kcf_writer_set_at_end' LANGUAGE C STRICT;
-- Free what no pin needs; true: something is left that a pin needs. Revoke pins older than this first.
CREATE FUNCTION clean(relation regclass, max_pin_age interval DEFAULT NULL) RETURNS boolean
	AS '$libdir/kcf_writer', 'kcf_writer_clean' LANGUAGE C;
CREATE FUNCTION stats(relation regclass, OUT entries bigint, OUT live_bytes bigint, OUT dead_bytes bigint,
					  OUT slab_bytes bigint, OUT index_bytes bigint, OUT bytes bigint) RETURNS record
	AS '$libdir/kcf_writer', 'kcf_writer_stats' LANGUAGE C STRICT;
-- Drop all contents, and the claim on the database. To be called before it is dropped.
CREATE FUNCTION finish() RETURNS void
	AS '$libdir/kcf_writer', 'kcf_writer_finish' LANGUAGE C STRICT;
RESET search_path;
