# Requests for refreshes: by readers of stale rows, on standbys too; what is not done because it is done already, what
# is done when Kafka is back, and a queue that is full.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my %conf = (max_prepared_transactions => 2, 'kafka_cache.refresh_workers' => 0, 'kafka_cache.refresh_load' => 100, 'kafka_cache.memory' => '16MB', 'kafka_cache.producer_idle_timeout' => '1h');
my $node = KafkaCache::Cluster->new('primary', allows_streaming => 1, conf => {%conf});
$node->start;
$node->connect_kafka('postgres', $kafka, fetch_wait_max_ms => 20);

sub one { my ($sql, $on) = @_; return ($on // $node)->safe_psql('postgres', $sql); }
sub workers
{
	my ($n, $on) = @_;
	one("ALTER SYSTEM SET kafka_cache.refresh_workers = $n; SELECT pg_reload_conf()", $on);
	return ($on // $node)->wait_for('postgres', "SELECT count(*) <= $n FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher'");
}
my $done = 'SELECT count(*) = 0 FROM kafka_cache.refresh_queue';
sub records { my ($topic) = @_; return scalar(grep { $_->{key} eq '1' } committed($kafka, $topic)); }
sub metric { my ($name, $where) = @_; return one("SELECT value FROM kafka_cache.metrics WHERE name = 'kafka_cache_$name' AND " . ($where // 'true')); }

$kafka->topic($_, 2) foreach qw(versions lasting);
one(q{
	CREATE TABLE state (version int);
	INSERT INTO state VALUES (1);
	CREATE FUNCTION version_of(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT version FROM public.state';
	CREATE FOREIGN TABLE versions (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true'))
		SERVER kafka OPTIONS (compute 'public.version_of', soft_ttl '1 ms');
	CREATE FOREIGN TABLE lasting (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (compute 'public.version_of')});
ok($node->wait_ready('postgres', $_), "$_ is there") foreach qw(versions lasting);

# --- stale rows -----------------------------------------------------------------------------------------

is(one('SELECT value FROM versions WHERE n = 1'), 1, 'a row is computed');
ok($node->catch_up('postgres', 'versions', $kafka, 'versions'), '... and cached');
one('UPDATE state SET version = 2');
ok($node->wait_for('postgres', 'SELECT value = to_jsonb(1) AND (SELECT count(*) = 1 FROM kafka_cache.refresh_queue) FROM versions WHERE n = 1'), 'a stale row is shown, and asked for');
my $requests = one('SELECT requests FROM kafka_cache.refresh_queue');
is(one('BEGIN READ ONLY; SELECT value FROM versions WHERE n = 1; COMMIT'), 1, 'by who only reads, too');
is(one('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT value FROM versions WHERE n = 1; SELECT value FROM versions WHERE n = 1; COMMIT'), "1\n1", 'in a transaction with a fixed snapshot, too');
cmp_ok(one('SELECT requests FROM kafka_cache.refresh_queue'), '>=', $requests + 2, '... which counts up');
is(one('SELECT relation, key, attempts, not_before, message FROM kafka_cache.refresh_queue'), 'versions|1|0||', 'it is one key');
is(records('versions'), 1, 'nothing was computed for all that');
workers(1);
ok($node->wait_for('postgres', $done), 'it is refreshed');
ok($node->catch_up('postgres', 'versions', $kafka, 'versions'), '... and cached');
is(one('SELECT value FROM versions'), 2, 'with the new value');
is(records('versions'), 2, '... once');

# --- what is done already -------------------------------------------------------------------------------

workers(0);
one(q{ALTER FOREIGN TABLE versions OPTIONS (SET soft_ttl '1 h')});
one(q{ALTER FOREIGN TABLE versions OPTIONS (SET soft_ttl '1 ms')});
ok($node->wait_for('postgres', 'SELECT value = to_jsonb(2) AND (SELECT count(*) = 1 FROM kafka_cache.refresh_queue) FROM versions WHERE n = 1'), 'a stale row is asked for');
one(q{ALTER FOREIGN TABLE versions OPTIONS (SET soft_ttl '1 h')});
$kafka->produce('versions', 0, '1', '3');
ok($node->catch_up('postgres', 'versions', $kafka, 'versions'), 'meanwhile another server has renewed it');
my $before = records('versions');
workers(1);
ok($node->wait_for('postgres', $done), 'then there is nothing to do');
is(records('versions'), $before, '... and nothing is done');
one("SELECT kafka_cache.refresh('versions', '1')");
ok($node->wait_for('postgres', $done), 'who asks for it gets it computed');
is(records('versions'), $before + 1, '... however new it is');

# --- asked for by a transaction -------------------------------------------------------------------------

one('UPDATE state SET version = 6');
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; UPDATE state SET version = 7; SELECT kafka_cache.refresh('versions', '1');
	SAVEPOINT s; SELECT kafka_cache.refresh('versions', '2'); ROLLBACK TO s; SAVEPOINT s; SELECT kafka_cache.refresh('versions', '3'); RELEASE s});
is(one($done), 't', 'what an open transaction asks for is not heard of');
$session->query_safe('COMMIT');
ok($node->wait_for('postgres', $done), 'at its commit it is');
ok($node->catch_up('postgres', 'versions', $kafka, 'versions'), '... and done');
is(one("SELECT string_agg(n || '=' || value::text, ' ' ORDER BY n) FROM versions"), '1=7 3=7', 'it has seen what the transaction has done, and nothing was rolled back');
$session->query_safe(q{BEGIN; SELECT kafka_cache.refresh('versions', '4'); ROLLBACK; SELECT 1});
is(one($done), 't', 'a transaction that is rolled back asks for nothing');
$session->quit;
is(told($node, "BEGIN; SELECT kafka_cache.refresh('versions', '4'); PREPARE TRANSACTION 'p'")->{state}, '0A000', 'one that has asked cannot be prepared');
is(one($done), 't', '... and asks for nothing either');
is(told($node, "BEGIN; SAVEPOINT s; SELECT kafka_cache.refresh('versions', '4'); ROLLBACK TO s; PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'")->{state}, '', 'it can when it has taken that back');

# --- Kafka is away --------------------------------------------------------------------------------------

is(one('SELECT value FROM lasting WHERE n = 1'), 7, 'another product has a row');
ok($node->catch_up('postgres', 'lasting', $kafka, 'lasting'), '... which is cached');
one('UPDATE state SET version = 8');
$kafka->down;
one("SELECT kafka_cache.refresh('lasting', '1')");
ok($node->wait_for('postgres', "SELECT attempts > 0 AND message <> '' FROM kafka_cache.refresh_queue"), 'a row that cannot be kept stays in the queue, with the reason');
$kafka->up;
ok($node->wait_for('postgres', $done), 'when Kafka is back it is done');
ok($node->catch_up('postgres', 'lasting', $kafka, 'lasting'), '... and cached');
is(one('SELECT value FROM lasting WHERE n = 1'), 8, '... as it is now');

# --- a standby ------------------------------------------------------------------------------------------

workers(0);
my $standby = KafkaCache::Cluster->new('standby', standby_of => $node);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
ok($standby->wait_ready('postgres', $_), "a standby has $_") foreach qw(versions lasting);
one(q{ALTER FOREIGN TABLE versions OPTIONS (SET soft_ttl '1 ms'); UPDATE state SET version = 9});
$node->wait_for_catchup($standby, 'replay');
ok($standby->wait_for('postgres', 'SELECT (SELECT count(*) = 1 FROM versions WHERE n = 1) AND count(*) = 1 FROM kafka_cache.refresh_queue'), 'there, too, a stale row is asked for');
is(one($done), 't', '... there alone');
workers(1, $standby);
ok($standby->wait_for('postgres', 'SELECT value = to_jsonb(9) FROM versions WHERE n = 1'), '... and refreshed there');
ok($node->catch_up('postgres', 'versions', $kafka, 'versions'), 'through the topic');
is(one('SELECT value FROM versions WHERE n = 1'), 9, '... the primary has it, too');
workers(0, $standby);
$standby->stop;

# --- who sees what --------------------------------------------------------------------------------------

one(q{CREATE ROLE reader; CREATE ROLE value_reader; CREATE ROLE stranger; CREATE ROLE monitor IN ROLE pg_monitor;
	GRANT SELECT ON versions TO reader; GRANT SELECT (value) ON versions TO value_reader;
	CREATE OR REPLACE FUNCTION version_of(n int) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RAISE 'not for %', n; END$$;
	SELECT kafka_cache.refresh('versions', '1')});
workers(1);
ok($node->wait_for('postgres', "SELECT message = 'not for 1' FROM kafka_cache.refresh_queue"), 'what a function says is there');
sub seen { my ($role) = @_; return one("SET ROLE $role; SELECT relation, key, message IS NULL FROM kafka_cache.refresh_queue"); }
is(seen('reader'), 'versions|1|t', 'but not for readers');
is(seen('value_reader'), 'versions||t', '... nor is the key, for who may not read it');
is(seen('stranger'), '', 'strangers see nothing');
is(seen('monitor'), 'versions||f', 'monitors see no data');
is(told($node, "SET ROLE value_reader; SELECT kafka_cache.refresh('versions', '1')")->{state}, '42501', 'who may not read the key may not ask');
is(told($node, "SET ROLE reader; SELECT kafka_cache.refresh('versions', '1')")->{state}, '', 'who may read it may');
is(told($node, "SET ROLE reader; SELECT kafka_cache.refresh('state', '1')")->{state}, '42501', 'no table of others');
is(told($node, "SELECT kafka_cache.refresh('state', '1')")->{state}, '42809', 'no table of ours');
is(metric('refresh_queue_failing', "labels ->> 'relation' = 'public.versions'"), 1, 'it is counted as failing');
workers(0);

# --- full -----------------------------------------------------------------------------------------------

is(told($node, "SELECT kafka_cache.refresh('lasting', n::text) FROM generate_series(1, 100000) n")->{state}, '53400', 'the queue has an end');
is(one(q{SELECT count(*) FROM kafka_cache.refresh_queue WHERE relation = 'lasting'::regclass}), 0, '... and a statement that meets it has asked for nothing');
foreach my $chunk (100, 1)
{
	is(told($node, "DO \$\$BEGIN FOR i IN 1 .. 1000000 LOOP
		PERFORM kafka_cache.refresh('lasting', (i * 100 + n)::text) FROM generate_series(0, $chunk - 1) n; COMMIT; END LOOP; END\$\$")->{state}, '53400', "it is full, but for less than $chunk");
}
cmp_ok(metric('refresh_queue_keys', "labels ->> 'relation' = 'public.lasting'"), '>', 1000, '... after many keys');
one(q{CREATE OR REPLACE FUNCTION version_of(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT version FROM public.state'});
is(metric('refresh_requests_dropped_total'), 0, 'what was refused is not dropped');
is(one('SELECT value FROM versions WHERE n = 99'), 9, 'what is missing is computed as ever');
ok($node->wait_for('postgres', "SELECT (SELECT count(*) = 1 FROM versions WHERE n = 99) AND value > 0 FROM kafka_cache.metrics WHERE name = 'kafka_cache_refresh_requests_dropped_total'"),
	'requests of readers are dropped, and counted');
is(one("SELECT count(*) FROM kafka_cache.refresh_queue WHERE key = '99' AND relation = 'versions'::regclass"), 0, '... and the row is read all the same');
one('DROP FOREIGN TABLE lasting');
workers(8);
ok($node->wait_for('postgres', $done), 'what is dropped is forgotten');

$node->stop;
done_testing;
