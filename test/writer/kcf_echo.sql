-- Functions of kcf_echo.so: a session that is the producer, and one that sends. hold() keeps the real one away.
CREATE SCHEMA kcf_echo;
SET search_path = kcf_echo;
CREATE FUNCTION hold() RETURNS void AS '$libdir/kcf_echo', 'kcf_echo_hold' LANGUAGE C STRICT;
CREATE FUNCTION release() RETURNS void AS '$libdir/kcf_echo', 'kcf_echo_release' LANGUAGE C STRICT;
CREATE FUNCTION produce(how text, flushes int) RETURNS bigint
	AS '$libdir/kcf_echo', 'kcf_echo_produce' LANGUAGE C STRICT;
CREATE FUNCTION flush(records int, size int, topics int DEFAULT 1) RETURNS text
	AS '$libdir/kcf_echo', 'kcf_echo_flush' LANGUAGE C STRICT;
CREATE FUNCTION begin() RETURNS void AS '$libdir/kcf_echo', 'kcf_echo_begin' LANGUAGE C STRICT;
RESET search_path;
