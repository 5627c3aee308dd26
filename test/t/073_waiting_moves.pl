# Who waits for a table goes on waiting for it when its database gets another place among the workers'.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.wait_timeout' => '1h' });
$node->start;
$node->connect_kafka('postgres', $kafka);
$kafka->topic('late', 1);
$kafka->load('late', 0, 0, 3, 'k%d', '{}');
$kafka->down;
$node->safe_psql('postgres', "CREATE FOREIGN TABLE late (k text OPTIONS (key 'true') NOT NULL) SERVER kafka; CREATE DATABASE other");
$node->wait_for('postgres', "SELECT state = 'connecting' AND NOT ready FROM kafka_cache.tables");
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr/begun/, "\\echo begun\nSELECT 'rows: ' || count(*) FROM late;\n");
$node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%count(*) FROM late%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()", 1);

# Its place goes to another database.
$node->safe_psql('postgres', "ALTER SYSTEM SET kafka_cache.databases = 'other'");
$node->reload;
$node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = 'postgres'", 0);
$node->connect_kafka('other', $kafka);
$node->wait_for('other', "SELECT count(*) FROM kafka_cache.workers WHERE database = 'other' AND state = 'running'", 1);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET kafka_cache.databases');
$node->reload;
$node->wait_for('postgres', "SELECT count(*) FROM kafka_cache.workers WHERE database = 'postgres' AND state = 'running'", 1);
$kafka->up;
ok($node->wait_ready('postgres', 'late'), 'the table is loaded in another place');
like($session->query_until(qr/rows: \d+/, ''), qr/rows: 3/, 'who waited for it before is served');

$session->quit;
$node->stop;
done_testing();
