# Many tables in few processes: all get ready, and a slow one holds up no other. On a real Kafka.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '256MB' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { my ($query) = @_; return $node->safe_psql('postgres', $query); }

sub definition
{
	my ($table, $check) = @_;
	return "CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')"
	  . ($check ? ", CHECK ($check)" : '') . ") SERVER kafka OPTIONS (format 'text')";
}

# --- fifty tables, made in one transaction -------------------------------------------------------

my @names = map { "t$_" } 1 .. 50;
foreach my $name (@names)
{
	$kafka->topic($name, 2);
	$kafka->load($name, '*', 0, 100, 'key-%d', "$name-%d");
}
one('BEGIN; ' . join('; ', map { definition($_) } @names) . '; ROLLBACK');
one('BEGIN; ' . join('; ', map { definition($_) } @names) . '; COMMIT');
foreach my $name (@names)
{
	$node->wait_ready('postgres', $name) or fail("$name is not ready");
}
is(one("SELECT count(*), sum(entries), sum(records) FROM kafka_cache.tables WHERE state = 'ready'"), '50|5000|5000', 'fifty tables are ready');
is(one('SELECT count(*) FROM (' . join(' UNION ALL ', map { "SELECT * FROM $_" } @names) . ') t'), '5000', '... and read in one statement');
is(one("SELECT count(*) FROM kafka_cache.workers WHERE kind = 'consumer'"), '1', '... by one consumer');

# --- a slow one among them -----------------------------------------------------------------------

# Its records pass through a function of the user's that takes its time; what they wait for here is cancelled at the end.
one("CREATE FUNCTION slowly(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN true; END'"); # cancelled
$kafka->topic('slow', 1);
$kafka->load('slow', 0, 0, 100000, 'key-%d', 'value-%d');
one(definition('slow', 'slowly(value)'));
ok($node->wait_for('postgres', "SELECT records > 0 FROM kafka_cache.tables WHERE relation = 'slow'::regclass"), 'a slow table is being loaded');
foreach my $name (@names[ 0 .. 9 ])
{
	$kafka->produce($name, 0, 'key-new', 'new');
	$node->catch_up('postgres', $name, $kafka) or fail("$name does not follow");
}
is(one('SELECT count(*) FROM (' . join(' UNION ALL ', map { "SELECT * FROM $_ WHERE key = 'key-new'" } @names) . ') t'), '10', 'others follow their topics');
$kafka->topic('late', 1);
$kafka->load('late', 0, 0, 1000, 'key-%d', 'value-%d');
one(definition('late'));
ok($node->wait_ready('postgres', 'late'), 'another one is loaded');
is(one("SELECT ready FROM kafka_cache.tables WHERE relation = 'slow'::regclass"), 'f', '... before the slow one');
one('DROP FOREIGN TABLE slow');
ok($node->wait_for('postgres', "SELECT count(*) = 51 FROM kafka_cache.tables"), 'a table is dropped while it is loaded');

# --- the same, dealt to three consumers ----------------------------------------------------------

$node->configure('kafka_cache.consumers_per_database' => 3);
$node->restart;
foreach my $name (@names)
{
	$node->wait_ready('postgres', $name) or fail("$name is not ready");
}
is(one("SELECT count(*) FROM kafka_cache.workers WHERE kind = 'consumer'"), '3', 'three consumers');
is(one('SELECT count(*) FROM (' . join(' UNION ALL ', map { "SELECT * FROM $_" } @names) . ') t'), '5010', '... have loaded all tables');
ok($node->wait_for('postgres', 'SELECT count(*) = 51 FROM kafka_cache.tables'), '... each of them once');

# --- definitions that change ---------------------------------------------------------------------

$kafka->topic('elsewhere', 1);
$kafka->load('elsewhere', 0, 0, 7, 'key-%d', 'elsewhere');
one("ALTER FOREIGN TABLE t1 OPTIONS (ADD topic 'elsewhere')");
ok($node->catch_up('postgres', 't1', $kafka, 'elsewhere'), 'another topic is loaded');
is(one('SELECT count(*), min(value) FROM t1'), '7|elsewhere', '... in place of the first');
one("ALTER FOREIGN TABLE t1 ADD COLUMN _offset bigint OPTIONS (offset 'true')");
is(one('SELECT count(*), max(_offset) FROM t1'), '7|6', 'another column is filled: readers wait for it');
one("ALTER FOREIGN TABLE t1 ALTER COLUMN value SET NOT NULL, ADD CHECK (value <> 'elsewhere')");
is(one('SELECT count(*) FROM t1'), '0', 'another constraint holds');
is(one("SELECT errors, (SELECT count(*) FROM kafka_cache.errors WHERE relation = 't1'::regclass) FROM kafka_cache.tables WHERE relation = 't1'::regclass"),
	'7|7', '... what violates it is listed');
one("ALTER SERVER kafka OPTIONS (ADD client_id 'other')");
$kafka->produce('t2', 0, 'key-other', 'other');
ok($node->catch_up('postgres', 't2', $kafka), 'another client goes on');
is(one("SELECT records, reloads FROM kafka_cache.tables WHERE relation = 't2'::regclass"), '102|0', '... where the first one was');
one('DROP SERVER kafka CASCADE');
ok($node->wait_for('postgres', 'SELECT count(*) = 0 FROM kafka_cache.tables'), 'the server is dropped, and all tables with it');

$node->stop;
unlike($node->log_text, qr/terminated by signal|was not properly shut down|bytes behind/, 'nothing crashed, nothing leaked');
done_testing();
