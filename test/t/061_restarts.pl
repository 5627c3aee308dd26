# What a consumer does when it, the broker or the topic goes away and comes back. On a real Kafka.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { restart_after_crash => 'on' });
$node->start;
$node->connect_kafka('postgres', $kafka);

$kafka->topic('users', 4);
$kafka->load('users', '*', 0, 2000, 'key-%d', 'value-%d');
$node->safe_psql('postgres',
	"CREATE FOREIGN TABLE users (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	 SERVER kafka OPTIONS (topic 'users', format 'text')");
ok($node->wait_ready('postgres', 'users'), 'loaded');

sub one { return $node->safe_psql('postgres', $_[0]); }
my $consumer = "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL";

# SIGTERM: positions lie beside the data, so nothing is read twice.
my $pid = one($consumer);
one("SELECT pg_terminate_backend($pid)");
$kafka->load('users', '*', 2000, 100, 'key-%d', 'value-%d');
like(one('SELECT count(*) FROM users'), qr/^2[01]\d\d$/, 'the rows are served meanwhile');
ok($node->wait_for('postgres', "SELECT count(*) = 1 FROM kafka_cache.workers WHERE kind = 'consumer' AND pid <> $pid"),
	'another consumer starts');
ok($node->catch_up('postgres', 'users', $kafka), '... and goes on');
is(one("SELECT entries, records, reloads FROM kafka_cache.tables"), '2100|2100|0', '... where the other was');

# kill -9: the server restarts as PostgreSQL does, and the topic is read again.
$pid = one($consumer);
my $offset = -s $node->logfile;
kill 'KILL', $pid;
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
ok($node->wait_for('postgres', 'SELECT true'), 'the server is back after a kill -9 of the consumer');
ok($node->wait_ready('postgres', 'users'), '... and so are the rows');
is(one('SELECT count(*), count(DISTINCT key) FROM users'), '2100|2100', '... all of them');

# The broker goes and comes back.
$kafka->broker(1, 'kill');
is(one('SELECT count(*) FROM users'), '2100', 'a cache that was ready is read without a broker');
$kafka->broker(1, 'start');
$kafka->produce('users', 0, 'key-new', 'after the restart');
ok($node->catch_up('postgres', 'users', $kafka), 'what comes after its restart arrives');
is(one("SELECT value FROM users WHERE key = 'key-new'"), 'after the restart', '... by key too');

# PostgreSQL starts, serves and stops without a broker.
$kafka->broker(1, 'kill');
$node->restart;
is(one('SELECT 1'), '1', 'PostgreSQL starts without a broker');
my ($status, $out, $err) = $node->psql('postgres', "SET kafka_cache.wait_timeout = '100ms'; SELECT count(*) FROM users");
isnt($status, 0, 'a table that is not ready is not read');
like($err, qr/users/, '... and the error names it');
$kafka->broker(1, 'start');
ok($node->wait_ready('postgres', 'users'), 'it loads when the broker is there');

# A topic that is created after the table.
one("CREATE FOREIGN TABLE late (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	 SERVER kafka OPTIONS (topic 'late', format 'text')");
ok($node->wait_for('postgres', "SELECT state = 'topic_missing' FROM kafka_cache.tables WHERE relation = 'late'::regclass"),
	'a topic that does not exist: the state says so');
is_deeply([ grep { $_ eq 'late' } map { $_->{topic} } $kafka->metadata ], [], '... and it is not created by asking');
$kafka->topic('late', 1);
$kafka->produce('late', 0, 'a', 'b');
ok($node->wait_ready('postgres', 'late'), 'it is found when it appears');
is(one('SELECT key, value FROM late'), 'a|b', '... with its record');

# A topic that is deleted: what was ready is served on; one that is re-created is loaded anew.
$kafka->delete_topic('late');
ok($node->wait_for('postgres', "SELECT state = 'topic_missing' FROM kafka_cache.tables WHERE relation = 'late'::regclass"),
	'a topic that is deleted: the state says so');
is(one('SELECT key, value FROM late'), 'a|b', '... and the rows stay');
$kafka->topic('late', 2);
$kafka->produce('late', 1, 'c', 'd');
ok($node->wait_for('postgres', "SELECT string_agg(key || value, ',') = 'cd' FROM late"), 'a re-created topic is loaded anew');

# One that has fewer partitions then, and had nothing in those that it still has, is not noticed to be another one.
$kafka->topic('fewer', 3);
$kafka->produce('fewer', 2, 'e', 'f');
one("CREATE FOREIGN TABLE fewer (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'text')");
ok($node->wait_ready('postgres', 'fewer'), 'records in the last of three partitions');
$kafka->delete_topic('fewer');
ok($node->wait_for('postgres', "SELECT state = 'topic_missing' FROM kafka_cache.tables WHERE relation = 'fewer'::regclass"),
	'... and the topic is deleted');
$kafka->topic('fewer', 2);
ok($node->wait_for('postgres', "SELECT message LIKE '1 of 3 partitions%' FROM kafka_cache.tables WHERE relation = 'fewer'::regclass"),
	'... and created again with two');
one("SELECT kafka_cache.reload('fewer')");
ok($node->wait_for('postgres', "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'fewer'::regclass"),
	'... reload() does not wait for records of a partition that is gone');
is(one('SELECT count(*) FROM fewer'), '0', '... whose rows go');

# reload() serves the old contents until the new are complete.
one("SELECT kafka_cache.reload('users')");
is(one('SELECT count(*) FROM users'), '2101', 'reload: rows are there at once');
ok($node->wait_for('postgres', "SELECT reloads > 0 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'users'::regclass"),
	'reload: it is done');
is(one('SELECT count(*) FROM users'), '2101', 'reload: rows are there afterwards');

$node->stop;
done_testing();
