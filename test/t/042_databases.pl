# Many databases, few worker slots, several consumers, a standby.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;

sub consumers
{
	my ($node, $db, $expected) = @_;
	return $node->wait_for('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = '$db'", $expected);
}

# --- more databases than worker slots ------------------------------------------------

my $node = KafkaCache::Cluster->new('many', conf => { 'max_worker_processes' => 4 });
$node->start;
my @databases = map { "db_$_" } 1 .. 8;
$node->safe_psql('postgres', join("\n", map { "CREATE DATABASE $_;" } @databases));
$node->restart;
my ($last) = $databases[-1];
$node->connect_kafka($last, $kafka);
ok(consumers($node, $last, 1), 'the last of many databases gets its consumer');
ok($node->wait_for('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer'"),
	'the others have been visited and are left alone');
unlike($node->log_text, qr/serves at most|no free background worker slot/, '... without a shortage');

# Three slots are left by the launcher and PostgreSQL's own for logical replication: two consumers fit.
$node->connect_kafka($databases[0], $kafka);
ok(consumers($node, $databases[0], 1), 'a second consumer');
$node->connect_kafka($databases[1], $kafka);
ok($node->wait_for($databases[1], "SELECT state IN ('no_slot', 'starting') AND pid IS NULL FROM kafka_cache.workers WHERE database = current_database() AND message LIKE '%max_worker_processes%'"),
	'where there is no slot the view says so');
$node->safe_psql($databases[1], "CREATE FOREIGN TABLE t (id int OPTIONS (key 'true')) SERVER kafka");
like($node->safe_psql($databases[1], 'SELECT message FROM kafka_cache.tables'), qr/max_worker_processes/,
	'... and the table too');
my $lines = () = $node->log_text =~ /no free background worker slot/g;
is($lines, 1, 'one line in the log');
$node->safe_psql($databases[0], 'DROP EXTENSION kafka_cache_fdw CASCADE');
ok(consumers($node, $databases[1], 1), 'when a slot is free it is taken');
$node->safe_psql('postgres', join('; ', map { "DROP DATABASE $_" } $_)) foreach @databases[2 .. 4];
ok(consumers($node, $last, 1), 'databases without the extension can be dropped');
$node->stop;

# --- several consumers in one database -----------------------------------------------------------------

$kafka->topic("topic_$_", 2) foreach 1 .. 12;
$node = KafkaCache::Cluster->new('several', conf => { 'kafka_cache.consumers_per_database' => 3, 'kafka_cache.max_tables' => 12 });
$node->start;
$node->connect_kafka('postgres', $kafka);
ok(consumers($node, 'postgres', 3), 'three consumers');
foreach my $n (1 .. 12)
{
	$kafka->load("topic_$n", '*', 1, 100, '%d', '{"a": "%d"}');
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE topic_$n (id int OPTIONS (key 'true'), a text) SERVER kafka");
}
ok($node->catch_up('postgres', "topic_$_", $kafka), "topic_$_ is loaded") foreach 1 .. 12;
is($node->safe_psql('postgres', 'SELECT sum(entries), count(DISTINCT relation), bool_and(ready) FROM kafka_cache.tables'), '1200|12|t',
	'each table is loaded by one of them');
is($node->safe_psql('postgres', join(' UNION ALL ', map { "SELECT count(*) FROM topic_$_ WHERE a = id::text" } 1 .. 12)),
	join("\n", (100) x 12), '... whole');
$node->safe_psql('postgres', "CREATE FOREIGN TABLE too_many (id int OPTIONS (key 'true'), a text) SERVER kafka OPTIONS (topic 'topic_1')");
ok($node->wait_for('postgres', "SELECT NOT ready AND message LIKE '%kafka_cache.max_tables is reached%' FROM kafka_cache.tables WHERE relation = 'too_many'::regclass"),
	'one table too many says so');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE topic_12 RENAME TO topic_12_old; DROP FOREIGN TABLE topic_12_old");
ok($node->wait_ready('postgres', 'too_many'), '... and takes its place when there is one');
$node->safe_psql('postgres', "DROP FOREIGN TABLE too_many; CREATE FOREIGN TABLE topic_12 (id int OPTIONS (key 'true'), a text) SERVER kafka");
my $pids = $node->safe_psql('postgres', "SELECT string_agg(pid::text, ' ') FROM kafka_cache.workers WHERE kind = 'consumer'");
is(scalar(split / /, $pids), 3, 'the view shows all');
$node->safe_psql('postgres', 'CREATE DATABASE copy', extra_params => []);
$node->safe_psql('copy', "SELECT 1");
$node->connect_kafka('copy', $kafka);
ok(consumers($node, 'copy', 3), 'three in a second database');
$node->safe_psql('postgres', 'DROP DATABASE copy');
ok(consumers($node, 'copy', 0), '... which all leave for DROP DATABASE');
kill 'TERM', split(/ /, $pids);
foreach my $n (1 .. 12)
{
	$kafka->produce("topic_$n", 0, '1000', '{"a": "1000"}');
}
ok($node->catch_up('postgres', "topic_$_", $kafka), "after their restart topic_$_ goes on") foreach 1 .. 12;
is($node->safe_psql('postgres', 'SELECT sum(entries), sum(records) FROM kafka_cache.tables'), '1212|1212', '... where it was');
$node->safe_psql('postgres', 'DROP EXTENSION kafka_cache_fdw CASCADE');
ok(consumers($node, 'postgres', 0), 'DROP EXTENSION sends all away');
$node->stop;

# --- a hot standby ------------------------------------------------------------------------------------

my $primary = KafkaCache::Cluster->new('primary', allows_streaming => 1);
$primary->start;
$primary->connect_kafka('postgres', $kafka);
$primary->safe_psql('postgres', "CREATE FOREIGN TABLE topic_1 (id int OPTIONS (key 'true'), a text) SERVER kafka");
my $standby = KafkaCache::Cluster->new('standby', standby_of => $primary);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
ok(consumers($standby, 'postgres', 1), 'a standby has a consumer of its own');
ok($standby->catch_up('postgres', 'topic_1', $kafka), '... which loads');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM topic_1'), 101, '... and serves');
is($standby->safe_psql('postgres', "SELECT setting FROM kafka_cache.settings() WHERE name = 'recovery'"), 'on', 'settings say so');
my ($status, $out, $err) = $standby->psql('postgres', "INSERT INTO topic_1 VALUES (1, 'x')");
isnt($status, 0, 'no INSERT there');
my $pid = $standby->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
$standby->promote;
$standby->wait_for('postgres', 'SELECT NOT pg_is_in_recovery()');
is($standby->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'"), $pid, 'promotion keeps the consumer');
is($standby->safe_psql('postgres', 'SELECT count(*), min(reloads) FROM topic_1, kafka_cache.tables'), '101|0', '... and the cache');
$standby->safe_psql('postgres', "CREATE FOREIGN TABLE topic_2 (id int OPTIONS (key 'true'), a text) SERVER kafka");
ok($standby->catch_up('postgres', 'topic_2', $kafka), 'DDL works there then');
$primary->safe_psql('postgres', 'DROP FOREIGN TABLE topic_1');
$standby->stop;
$primary->stop;

done_testing();
