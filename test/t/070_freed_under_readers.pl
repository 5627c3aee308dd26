# What a reader has open is not freed under it, for whatever reason the table's contents go.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.max_pin_age' => '1h' });
$node->start;

foreach my $topic (qw(c d e))
{
	$kafka->topic($topic, 1);
}
$kafka->load('c', 0, 10, 100, 'k%d', '{"t":"good"}');
$kafka->load('d', 0, 10, 20000, 'k%d', '{"t":"badbadbad"}');
$kafka->load('e', 0, 10, 100, 'k%d', '{"t":"evil"}');
$node->connect_kafka('postgres', $kafka);
$node->safe_psql('postgres',
	"CREATE FOREIGN TABLE c (k text OPTIONS (key 'true') NOT NULL, t text) SERVER kafka OPTIONS (topic 'c')");
ok($node->catch_up('postgres', 'c', $kafka, 'c'), 'loaded');

# A session that has read one row.
my $session = $node->background_psql('postgres', on_error_stop => 0);

sub open_cursor
{
	$session->query('BEGIN; DECLARE cur CURSOR FOR SELECT t FROM c');
	return $session->query('FETCH cur');
}

sub consumer { return $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL") }

# Other contents where the memory was, if it was given back.
sub overwrite
{
	my ($db, $topic, $name) = @_;

	$node->safe_psql($db,
		"CREATE FOREIGN TABLE $name (k text OPTIONS (key 'true') NOT NULL, t text) SERVER kafka OPTIONS (topic '$topic')");
	ok($node->catch_up($db, $name, $kafka, $topic), 'another table is loaded');
	return;
}

# The consumer comes again while it cannot look at the table, since somebody waits to alter it.
is(open_cursor(), "good", 'a row is read');
my $alter = $node->background_psql('postgres', on_error_stop => 0);
$alter->query_until(qr/begun/, "BEGIN;\n\\echo begun\nALTER FOREIGN TABLE c OPTIONS (ADD max_bytes '32MB');\n");
$node->wait_for('postgres', "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'c'::regclass", 1);
my $pid = consumer();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(eventually(sub { my $now = consumer(); return $now ne '' && $now ne $pid }), 'another consumer has come');
overwrite('postgres', 'd', 'd');
is($session->query('FETCH 200 FROM cur'), join("\n", ("good") x 99), 'a cursor reads on after that');
$session->query('ROLLBACK');
$alter->query('ROLLBACK');
$alter->quit;

# The database is left out of kafka_cache.databases.
ok($node->catch_up('postgres', 'c', $kafka, 'c'), 'ready');
is(open_cursor(), "good", 'a row is read');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->connect_kafka('other', $kafka);
$node->safe_psql('postgres', "ALTER SYSTEM SET kafka_cache.databases = 'other'");
$node->reload;
ok(eventually(sub { $node->safe_psql('postgres', 'SELECT bool_and(NOT ready) FROM kafka_cache.tables') eq 't' }),
	'the tables are not served any more');
overwrite('other', 'd', 'd');
is($session->query('FETCH 200 FROM cur'), join("\n", ("good") x 99), 'a cursor reads on after that');
$session->query('ROLLBACK');
ok( eventually(
		sub {
			$node->safe_psql('postgres', "SELECT count(*) FROM kafka_cache.tables WHERE bytes > 0") eq '0';
		}),
	'then the memory is given back');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET kafka_cache.databases');
$node->reload;
ok($node->catch_up('postgres', 'c', $kafka, 'c'), 'the database is served again when it is listed again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM c'), 100, '... with all that it had');

# The tables cease to be ours: for that nobody has to lock them.
is(open_cursor(), "good", 'a row is read');
$node->safe_psql('postgres', 'ALTER FOREIGN DATA WRAPPER kafka_cache_fdw NO HANDLER');
ok(eventually(sub { $node->safe_psql('postgres', q{SELECT message = '0 tables' FROM kafka_cache.workers WHERE database = 'postgres'}) eq 't' }),
	'a wrapper without a handler has no tables');
overwrite('other', 'e', "e$_") foreach 1 .. 4;
is($session->query('FETCH 200 FROM cur'), join("\n", ("good") x 99), 'a cursor reads on after that');
$session->query('ROLLBACK');
$node->safe_psql('postgres', 'ALTER FOREIGN DATA WRAPPER kafka_cache_fdw HANDLER kafka_cache.kafka_cache_fdw_handler');
ok($node->catch_up('postgres', 'c', $kafka, 'c'), 'with the handler it is served again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM c'), 100, '... with all that it had');

# Reloads while each earlier state is being read: as many are kept as there are places, and no more.
my @sessions = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;

sub reloads { return $node->safe_psql('postgres', "SELECT reloads FROM kafka_cache.tables WHERE relation = 'c'::regclass") }

my $before = reloads();
foreach (@sessions)
{
	$_->query('BEGIN; DECLARE cur CURSOR FOR SELECT t FROM c');
	is($_->query('FETCH cur'), 'good', 'a row is read');
	$node->safe_psql('postgres', "SELECT kafka_cache.reload('c')");
	$node->wait_for('postgres', "SELECT reloads FROM kafka_cache.tables WHERE relation = 'c'::regclass", ++$before);
}
is(open_cursor(), 'good', 'a row is read');
my $opened = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$node->safe_psql('postgres', "SELECT kafka_cache.reload('c')");
$node->wait_for('postgres', "SELECT message LIKE '%until older contents are not read any more' FROM kafka_cache.tables WHERE relation = 'c'::regclass");
is(reloads(), $before, 'another reload waits, and says so');
is($node->safe_psql('postgres', 'SELECT count(*) FROM c'), 100, '... while what there is serves');
# All of them are old enough then.
$node->wait_for('postgres', "SELECT clock_timestamp() > timestamptz '$opened' + '1 s'");
$node->safe_psql('postgres', "ALTER SYSTEM SET kafka_cache.max_pin_age = '1s'");
$node->reload;
$node->wait_for('postgres', "SELECT reloads FROM kafka_cache.tables WHERE relation = 'c'::regclass", ++$before);
is(reloads(), $before, 'who reads old contents for too long gives way');
foreach (@sessions)
{
	is($_->query('FETCH 200 FROM cur'), '', '... so its cursor does not go on');
	like($_->{stderr}, qr/snapshot too old/, '... and it is told why');
	$_->query('ROLLBACK');
	$_->quit;
}
$session->query('ROLLBACK');

$session->quit;
$node->stop;
done_testing();
