# Refreshers: workers that compute data products anew, each key once, whatever becomes of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => {
	'kafka_cache.refresh_workers' => 0, 'kafka_cache.refresh_load' => 100, max_worker_processes => 16, restart_after_crash => 'on' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub setting
{
	my ($name, $value) = @_;
	return one("ALTER SYSTEM SET kafka_cache.$name = '$value'; SELECT pg_reload_conf()");
}
sub refreshers { return one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND datname = 'postgres'"); }
sub refreshers_are { my ($n) = @_; return $node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND datname = 'postgres'", $n); }
my $done = 'SELECT count(*) = 0 FROM kafka_cache.refresh_queue';

# How often each key of a topic was put, as "count of keys x records".
sub puts
{
	my ($topic) = @_;
	my (%keys, %times);

	$keys{ $_->{key} }++ foreach committed($kafka, $topic);
	$times{$_}++ foreach values %keys;
	return join ' ', map { "$times{$_}x$_" } sort keys %times;
}

# so that all that was put is there to be counted
$kafka->topic($_, 2, 'min.compaction.lag.ms' => 3600000) foreach qw(squares failing pairs slow others);
one(q{
	CREATE FUNCTION square(n int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT n::bigint * n';
	CREATE FOREIGN TABLE squares (n int OPTIONS (key 'true') NOT NULL, square jsonb OPTIONS (value 'true'), at timestamptz OPTIONS (timestamp 'true'))
		SERVER kafka OPTIONS (topic 'squares', compute 'public.square');
	CREATE FUNCTION fails(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 / (n - n)';
	CREATE FOREIGN TABLE failing (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'failing', compute 'public.fails');
	CREATE FUNCTION pair(a text, b uuid) RETURNS TABLE (one text, other uuid) LANGUAGE sql STABLE AS 'SELECT a, b';
	CREATE FOREIGN TABLE pairs (a text OPTIONS (key 'true') NOT NULL, b uuid OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'pairs', key_format 'json', compute 'public.pair');
	-- as slow as a lock is held
	CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql STABLE AS
		'BEGIN PERFORM pg_advisory_lock_shared(77); PERFORM pg_advisory_unlock_shared(77); RETURN n; END';
	CREATE FOREIGN TABLE slow (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'slow', compute 'public.slow');
});
ok($node->wait_ready('postgres', $_), "$_ is there") foreach qw(squares failing pairs slow);

# --- asking ---------------------------------------------------------------------------------------------

one(q{SELECT kafka_cache.refresh('squares', n::text) FROM generate_series(1, 1000) n;
	SELECT kafka_cache.refresh('squares', '7') FROM generate_series(1, 9);
	SELECT kafka_cache.refresh('pairs', 'x', '6F1F0000-0000-0000-0000-000000000001')});
is(one(q{SELECT count(*), sum(requests), max(requests) FILTER (WHERE key = '7'), bool_and(attempts = 0 AND not_before IS NULL AND message IS NULL AND first_requested < now())
	FROM kafka_cache.refresh_queue WHERE relation = 'squares'::regclass}), '1000|1009|10|t', 'requests are counted by key');
is(one(q{SELECT key FROM kafka_cache.refresh_queue WHERE relation = 'pairs'::regclass}), '{"a":"x","b":"6f1f0000-0000-0000-0000-000000000001"}', 'a key of several columns');
is(refreshers(), 0, 'nobody works where there may be nobody');
is(told($node, "SELECT kafka_cache.refresh('squares', '1', '2')")->{state}, '22023', 'too many parts');
is(told($node, "SELECT kafka_cache.refresh('squares', 'x')")->{state}, '22P02', 'a part that is no value of its column');
is(told($node, "SELECT kafka_cache.refresh('squares', VARIADIC ARRAY[NULL]::text[])")->{state}, '22004', 'a part that is null');
like(told($node, "BEGIN READ ONLY; SELECT kafka_cache.refresh('squares', '7'); COMMIT")->{err}, qr/\A\s*\z/, 'a transaction that only reads may ask');

# --- each once ------------------------------------------------------------------------------------------

setting('refresh_workers', 2);
ok($node->wait_for('postgres', $done), 'two refreshers work it off');
is(puts('squares'), '1000x1', 'each key was computed once');
ok($node->catch_up('postgres', 'squares', $kafka, 'squares'), 'the table has them');
is(one('SELECT count(*), count(*) FILTER (WHERE square = to_jsonb(n::bigint * n)) FROM squares'), '1000|1000', 'and they are right');
is(one('SELECT rows FROM pairs'), '[{"one": "x", "other": "6f1f0000-0000-0000-0000-000000000001"}]', 'and the pair');
is(one("SELECT count(*) FROM kafka_cache.workers WHERE kind = 'refresher' AND database = 'postgres'"), refreshers(), 'the view of workers has them');

one("SELECT kafka_cache.refresh('pairs', repeat('x', 100000), '6f1f0000-0000-0000-0000-000000000002')");
ok($node->wait_for('postgres', $done), 'a long key');
ok($node->catch_up('postgres', 'pairs', $kafka, 'pairs'), '... is done');
is(one("SELECT length(a), length(rows -> 0 ->> 'one') FROM pairs WHERE length(a) > 1"), '100000|100000', '... as any other');

# --- one ends midway ------------------------------------------------------------------------------------

my $blocker = $node->background_psql('postgres');
$blocker->query_safe('SELECT pg_advisory_lock(77)');
one("SELECT kafka_cache.refresh('slow', n::text) FROM generate_series(1, 50) n");
my $waiting = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND wait_event = 'advisory'";
ok($node->wait_for('postgres', $waiting, 2), 'two are at work');
is(one("SELECT count(*) FROM kafka_cache.refresh_queue WHERE relation = 'slow'::regclass"), 50, 'what is worked on is still there');
# asked for again while it is computed
one("SELECT kafka_cache.refresh('slow', n::text) FROM generate_series(1, 50) n");
my $victim = one("SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND wait_event = 'advisory'");
one("SELECT pg_terminate_backend($victim)");
ok($node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $victim", 0), 'one is ended');
is(one("SELECT count(*), sum(requests), max(attempts) FROM kafka_cache.refresh_queue WHERE relation = 'slow'::regclass"), '50|100|0', 'its claim has lapsed, and no request is lost');
ok($node->wait_for('postgres', $waiting, 2), 'another one takes its place');
$blocker->query_safe('SELECT pg_advisory_unlock(77)');
ok($node->wait_for('postgres', $done), 'all is done');
ok($node->catch_up('postgres', 'slow', $kafka, 'slow'), 'the table has caught up');
is(one('SELECT count(*) FROM slow'), 50, 'no key is missing');
like(puts('slow'), qr/\A(49x1 1x2|50x1|48x1 2x2|47x1 3x2)\z/, 'only what was asked for while it was computed was computed twice');

# --- one fails ------------------------------------------------------------------------------------------

one(q{SELECT kafka_cache.refresh('failing', n::text) FROM generate_series(1, 3) n; SELECT kafka_cache.refresh('squares', n::text) FROM generate_series(1, 100) n});
ok($node->wait_for('postgres', "SELECT count(*) = 0 FROM kafka_cache.refresh_queue WHERE relation = 'squares'::regclass"), 'others are done beside one that fails');
ok($node->wait_for('postgres', q{SELECT count(*) = 3 AND bool_and(attempts >= 2 AND message = 'division by zero' AND not_before > first_requested)
	FROM kafka_cache.refresh_queue WHERE relation = 'failing'::regclass}), 'its attempts and what it said are there');
is(one("SELECT count(*) FROM failing"), 0, 'it has no row');
is(puts('squares'), '900x1 100x2', 'what was asked for again was computed again');
one("CREATE OR REPLACE FUNCTION fails(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
ok($node->wait_for('postgres', $done), 'once it does not fail any more it is done');
is(one('SELECT count(*) FROM failing'), 3, '... and has its rows');

# --- what is gone ---------------------------------------------------------------------------------------

setting('refresh_workers', 0);
ok(refreshers_are(0), 'none may be there: all leave');
one(q{SELECT kafka_cache.refresh('failing', '1'), kafka_cache.refresh('squares', '1'), kafka_cache.refresh('pairs', 'x', '6f1f0000-0000-0000-0000-000000000001');
	DROP FOREIGN TABLE failing; ALTER FOREIGN TABLE pairs OPTIONS (DROP compute)});
is(one("SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM kafka_cache.refresh_queue"), 'pairs squares', 'what was dropped is not shown');
setting('refresh_workers', 8);
ok($node->wait_for('postgres', $done), 'what is no product any more is forgotten');
is(puts('pairs'), '2x1', '... and not computed');

# --- a crash --------------------------------------------------------------------------------------------

$blocker->query_safe('SELECT pg_advisory_lock(77)');
one("SELECT kafka_cache.refresh('slow', '1')");
ok($node->wait_for('postgres', $waiting, 1), 'one is at work');
my $pid = one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND wait_event = 'advisory'");
kill 'KILL', $pid;
ok(KafkaCache::Cluster::eventually(sub { my ($status) = $node->psql('postgres', "SELECT 1 FROM kafka_cache.refresh_queue"); return $status == 0 && $node->log_text =~ /terminated by signal 9/; }), 'the server comes back');
ok($node->wait_ready('postgres', 'slow'), '... with its tables');
one("SELECT kafka_cache.refresh('slow', '99')");
ok($node->wait_for('postgres', $done), 'and works');
ok($node->catch_up('postgres', 'slow', $kafka, 'slow'), '... and the table has it');
is(one('SELECT count(*) FROM slow WHERE n = 99'), 1, 'as asked');

# --- what a function may do ------------------------------------------------------------------------------

one(q{
	CREATE FUNCTION of_others(n int) RETURNS jsonb LANGUAGE sql STABLE AS
		'SELECT jsonb_build_array((SELECT square FROM public.squares s WHERE s.n = of_others.n), (SELECT count(*) FROM public.slow), current_user)';
	CREATE FOREIGN TABLE others (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'others', compute 'public.of_others');
	CREATE ROLE owner;
	GRANT SELECT ON squares, slow TO owner;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner;
	GRANT CREATE, USAGE ON SCHEMA public TO owner;
	ALTER FOREIGN TABLE others OWNER TO owner;
	SELECT kafka_cache.refresh('others', '4'), kafka_cache.refresh('others', '6000')});
ok($node->wait_for('postgres', 'SELECT count(*) = 2 FROM others'), 'a function that reads a cached table and a product');
is(one('SELECT string_agg(n || value::text, $$ $$ ORDER BY n) FROM others'), '4[16, 51, "owner"] 6000[36000000, 51, "owner"]', '... which is computed for it, as the owner');

# --- the extension goes and comes -----------------------------------------------------------------------

one("SELECT kafka_cache.refresh('others', '5')");
one('DROP EXTENSION kafka_cache_fdw CASCADE');
ok(refreshers_are(0), 'without the extension there is none');
$node->connect_kafka('postgres', $kafka);
one(q{CREATE FOREIGN TABLE squares (n int OPTIONS (key 'true') NOT NULL, square jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'squares', compute 'public.square')});
is(one('SELECT count(*) FROM kafka_cache.refresh_queue'), 0, 'nor is the queue, when it is there again');
one("SELECT kafka_cache.refresh('squares', '7000')");
ok($node->wait_for('postgres', 'SELECT count(*) = 1 FROM squares WHERE n = 7000 AND square = to_jsonb(49000000)'), 'and all works again');

# --- the database is wanted -------------------------------------------------------------------------------

one('CREATE DATABASE other');
$node->connect_kafka('other', $kafka);
$node->safe_psql('other', q{
	CREATE FUNCTION square(n int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT n::bigint * n';
	CREATE FOREIGN TABLE squares (n int OPTIONS (key 'true') NOT NULL, square jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'squares', compute 'public.square')});
ok($node->wait_ready('other', 'squares'), 'another database has it, too');
$node->safe_psql('other', "SELECT kafka_cache.refresh('squares', '5000')");
ok($node->wait_for('other', $done), 'it has a refresher of its own');
is(one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND datname = 'other' AND backend_xmin IS NULL AND xact_start IS NULL"), 1, 'which holds nothing while it is idle');
is($node->safe_psql('other', 'SELECT count(*) FROM kafka_cache.refresh_queue'), 0, 'its queue is its own');
# (cancelled by the command)
$node->safe_psql('other', q{CREATE FUNCTION lasts(n int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM pg_sleep(600); RETURN 1; END';
	CREATE FOREIGN TABLE lasts (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'others', compute 'public.lasts');
	SELECT kafka_cache.refresh('lasts', '1')});
ok($node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND query = 'refreshing public.lasts' AND wait_event = 'PgSleep'", 1), 'it computes something that lasts');
one('DROP DATABASE other');
is(one("SELECT count(*) FROM pg_stat_activity WHERE datname = 'other'"), 0, 'it gives way to DROP DATABASE');

$node->stop;
done_testing;
