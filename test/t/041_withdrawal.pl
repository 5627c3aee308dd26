# Commands that want a database for themselves do not wait for our workers, and give them back.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = KafkaCache::Cluster->new('main');
$node->start;

my $consumer = "FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = '%s'";

sub has_consumer
{
	my ($db) = @_;
	return $node->wait_for('postgres', sprintf("SELECT count(*) = 1 $consumer", $db));
}

sub pid_of
{
	my ($db) = @_;
	return $node->safe_psql('postgres', sprintf("SELECT pid $consumer", $db));
}

# A database with a consumer that knows a table.
sub make_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, "CREATE EXTENSION kafka_cache_fdw;
		CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1');
		CREATE FOREIGN TABLE t (id int OPTIONS (key 'true')) SERVER kafka");
	$node->wait_for($db, "SELECT topic IS NOT NULL FROM kafka_cache.tables WHERE relation = 't'::regclass")
	  or BAIL_OUT("no consumer in $db");
	return;
}

# A command that ends well, long before PostgreSQL's own patience (5 s) does.
sub quick
{
	my ($sql, $what) = @_;
	my $start = time;
	my ($status, $out, $err) = $node->psql('postgres', $sql);

	is($err, '', "$what: no error, no warning");
	cmp_ok(time - $start, '<', 3, "$what: at once");
	note sprintf('%s: %.0f ms', $what, (time - $start) * 1000);
	return;
}

# --- what it is for ---------------------------------------------------------------------------------

make_database('one');
quick('ALTER DATABASE one RENAME TO two', 'RENAME');
ok(has_consumer('two'), '... and the consumer is back');

my $pid = pid_of('two');
quick('CREATE DATABASE copy TEMPLATE two', 'CREATE DATABASE ... TEMPLATE');
ok(has_consumer('two'), '... the consumer of the template is back');
isnt(pid_of('two'), $pid, '... it was away');
ok(has_consumer('copy'), '... and the copy has one of its own');

my $space = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
quick('ALTER DATABASE copy SET TABLESPACE elsewhere', 'SET TABLESPACE');
ok(has_consumer('copy'), '... and the consumer is back');

quick('DROP DATABASE copy', 'DROP DATABASE');
quick('DROP DATABASE two WITH (FORCE)', 'DROP DATABASE ... WITH (FORCE)');
$node->safe_psql('postgres', 'CREATE EXTENSION kafka_cache_fdw');
ok($node->wait_for('postgres', "SELECT setting FROM kafka_cache.settings() WHERE name = 'tables'", 0),
	'nothing is left of their tables');

# Created and dropped while the launcher may be about to visit it.
foreach my $round (1 .. 10)
{
	$node->safe_psql('postgres', 'CREATE DATABASE fleeting');
	my ($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE fleeting');
	is($err, '', "round $round: DROP right after CREATE");
}

# --- who may not, disturbs nobody ------------------------------------------------------------------

make_database('mine');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE ROLE creator LOGIN CREATEDB;
	CREATE ROLE owner LOGIN; CREATE DATABASE owned OWNER owner');
$pid = pid_of('mine');
foreach my $attempt (
	[ 'stranger', 'DROP DATABASE mine' ], [ 'stranger', 'DROP DATABASE mine WITH (FORCE)' ],
	[ 'stranger', 'ALTER DATABASE mine RENAME TO yours' ], [ 'stranger', 'CREATE DATABASE copy TEMPLATE mine' ],
	[ 'stranger', 'ALTER DATABASE mine SET TABLESPACE elsewhere' ],
	[ 'creator', 'DROP DATABASE mine' ], [ 'creator', 'ALTER DATABASE mine RENAME TO yours' ],
	[ 'creator', 'CREATE DATABASE copy TEMPLATE mine' ])
{
	my ($role, $sql) = @$attempt;
	my ($status, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);
	like($err, qr/must be owner|permission denied/, "$role: $sql is refused");
}
foreach my $sql ('DROP DATABASE mine', 'CREATE DATABASE copy TEMPLATE mine', 'ALTER DATABASE mine SET TABLESPACE elsewhere')
{
	my ($status, $out, $err) = $node->psql('postgres', "BEGIN; $sql");
	like($err, qr/cannot run inside a transaction block/, "in a transaction block: $sql is refused");
}
is(pid_of('mine'), $pid, 'the consumer never left');

# --- commands that fail give back what they took -----------------------------------------------------

foreach my $sql ('ALTER DATABASE mine RENAME TO postgres', 'CREATE DATABASE postgres TEMPLATE mine', "CREATE DATABASE copy TEMPLATE mine ENCODING 'LATIN1'")
{
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	isnt($status, 0, "$sql fails");
	ok(has_consumer('mine'), '... and the consumer is back');
}

# With somebody else connected PostgreSQL waits for five seconds: that wait is cancelled, or its session ended.
my $guest = $node->background_psql('mine');
foreach my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $command = $node->background_psql('postgres', on_error_stop => 0);
	my $dropper = $command->query_safe('SELECT pg_backend_pid()');
	$command->query_until(qr/sent/, "\\echo sent\nDROP DATABASE mine;\n");
	ok($node->wait_for('postgres', "SELECT state = 'withdrawn' FROM kafka_cache.workers WHERE database = 'mine'"),
		'a DROP DATABASE that waits for others');
	$node->safe_psql('postgres', "SELECT $end($dropper)");
	ok(has_consumer('mine'), "... and after $end the consumer is back");
	eval { $command->quit };
}
my ($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE mine');
like($err, qr/is being accessed by other users/, 'an unasked guest is in the way as ever');
ok(has_consumer('mine'), '... and the consumer is back');
$guest->quit;

# --- RENAME is transactional ------------------------------------------------------------------------

$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE mine RENAME TO yours; ROLLBACK');
ok(has_consumer('mine'), 'a rename that is rolled back');
$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE mine RENAME TO a; ALTER DATABASE a RENAME TO b; ALTER DATABASE b RENAME TO yours; COMMIT');
ok(has_consumer('yours'), 'three renames in one transaction');

# --- two commands at once --------------------------------------------------------------------------

my @sessions = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
foreach my $i (0 .. 2)
{
	$sessions[$i]->query_until(qr/sent/, "\\echo sent\nCREATE DATABASE copy$i TEMPLATE yours;\n");
}
$_->quit foreach @sessions;
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname LIKE 'copy_'"), 3, 'three copies at once');
ok(has_consumer('yours'), '... the consumer is back when the last is made');
ok(has_consumer("copy$_"), "... copy$_ has its own") foreach 0 .. 2;

# --- while the launcher is not there -----------------------------------------------------------------

quick("SELECT pg_terminate_backend(pid) FROM kafka_cache.workers WHERE kind = 'launcher';
	DROP DATABASE copy0", 'DROP without a launcher');
ok($node->wait_for('postgres', "SELECT pid IS NOT NULL FROM kafka_cache.workers WHERE kind = 'launcher'"), 'the launcher is back');
$node->safe_psql('postgres', 'CREATE DATABASE late');
$node->safe_psql('late', 'CREATE EXTENSION kafka_cache_fdw');
ok(has_consumer('late'), '... and goes on');

$node->stop;
unlike($node->log_text, qr/PANIC|TRAP|left \d+ bytes behind|have not left database/, 'nothing alarming in the log');

done_testing();
