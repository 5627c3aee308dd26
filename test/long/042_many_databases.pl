# More databases than the registry has places for: those without the extension take none.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
$kafka->topic('t', 1);
$kafka->load('t', 0, 1, 10, '%d', '{}');

my $node = KafkaCache::Cluster->new('many');
$node->start;
my @databases = map { "db_$_" } 1 .. 80;
$node->safe_psql('postgres', join("\n", map { "CREATE DATABASE $_;" } @databases));
$node->restart;
foreach my $db (@databases[ 0, 40, 79 ])
{
	$node->connect_kafka($db, $kafka);
	$node->safe_psql($db, "CREATE FOREIGN TABLE t (id int OPTIONS (key 'true')) SERVER kafka");
	ok($node->catch_up($db, 't', $kafka), "$db has its consumer");
}
ok($node->wait_for('postgres',
		"SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer'"),
	'the others have been visited and are left alone');
unlike($node->log_text, qr/serves at most|no free background worker slot/, '... without a shortage');

# Then as many with the extension as there are places.
foreach my $db (@databases[ 1 .. 12 ])
{
	$node->safe_psql($db, 'CREATE EXTENSION kafka_cache_fdw');
}
ok($node->wait_for($databases[0], "SELECT count(*) >= 15 FROM kafka_cache.workers WHERE kind = 'consumer'"),
	'consumers without a worker slot are there to be seen');
$node->stop;

done_testing();
