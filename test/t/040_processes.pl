# The launcher and the consumers: where they are, how they come, go and come back.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = '%s'";

sub consumers
{
	my ($node, $db, $expected) = @_;
	return $node->wait_for('postgres', sprintf($workers, $db), $expected);
}

# --- not in shared_preload_libraries -------------------------------------------------------------

my $bare = KafkaCache::Cluster->new('bare', conf => { shared_preload_libraries => '' });
$bare->start;
my ($status, $out, $err) = $bare->psql('postgres', 'CREATE EXTENSION kafka_cache_fdw');
isnt($status, 0, 'not preloaded: CREATE EXTENSION fails');
like($err, qr/kafka_cache_fdw must be loaded via shared_preload_libraries/, '... and says why');
like($err, qr/HINT: .*shared_preload_libraries = 'kafka_cache_fdw'/, '... and what to write where');
($status, $out, $err) = $bare->psql('postgres', '\set VERBOSITY sqlstate
LOAD \'kafka_cache_fdw\'');
like($err, qr/55000/, '... with SQLSTATE 55000');
($status, $out, $err) = $bare->psql('postgres',
	"CREATE FUNCTION h() RETURNS fdw_handler LANGUAGE c AS 'kafka_cache_fdw', 'kafka_cache_fdw_handler'");
like($err, qr/must be loaded via shared_preload_libraries/, '... and so does every other entry');
is($bare->safe_psql('postgres', 'SELECT 1'), '1', 'the session and the server are fine');

# A server that had the extension and lost the line.
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'kafka_cache_fdw'");
$bare->restart;
$bare->safe_psql('postgres', "CREATE EXTENSION kafka_cache_fdw;
	CREATE SERVER k FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1');
	CREATE FOREIGN TABLE t (id int OPTIONS (key 'true')) SERVER k");
$bare->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$bare->restart;
foreach my $statement ('SELECT * FROM t', 'SELECT * FROM kafka_cache.tables', "SELECT kafka_cache.wait_ready('t')",
	'CREATE FOREIGN TABLE u (id int) SERVER k', "ALTER SERVER k OPTIONS (SET brokers 'b:1')",
	'SELECT * FROM kafka_cache.settings()')
{
	($status, $out, $err) = $bare->psql('postgres', $statement);
	like($err, qr/must be loaded via shared_preload_libraries/, "lost line: $statement");
}
$bare->stop;

# --- coming ---------------------------------------------------------------------------------------

my $node = KafkaCache::Cluster->new('main', conf => { 'max_prepared_transactions' => 2, 'restart_after_crash' => 'on' });
$node->start;

ok($node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache launcher' AND datname IS NULL", 1),
	'a launcher, connected to no database');
is($node->safe_psql('postgres', sprintf($workers, 'postgres')), 0, 'no consumer where the extension is not');

sub create_extension
{
	my ($db) = @_;
	$node->safe_psql($db, "CREATE EXTENSION kafka_cache_fdw;
		CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1');
		CREATE FOREIGN TABLE first (id int OPTIONS (key 'true')) SERVER kafka");
	return;
}

create_extension('postgres');
ok(consumers($node, 'postgres', 1), 'CREATE EXTENSION brings a consumer');
ok($node->wait_for('postgres', "SELECT topic IS NOT NULL FROM kafka_cache.tables WHERE relation = 'first'::regclass"),
	'... which knows the table');
is($node->safe_psql('postgres', 'SELECT string_agg(kind, \' \' ORDER BY kind) FROM kafka_cache.workers'), 'consumer launcher',
	'the view names both');
is($node->safe_psql('postgres',
		"SELECT count(*) FROM kafka_cache.workers w JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'kafka_cache ' || w.kind"),
	2, '... with their pids');

$node->safe_psql('postgres', 'CREATE DATABASE second');
create_extension('second');
ok(consumers($node, 'second', 1), 'a second database gets its own');

# In one transaction, rolled back, prepared.
$node->safe_psql('postgres', 'CREATE DATABASE third');
$node->safe_psql('third', 'BEGIN; CREATE EXTENSION kafka_cache_fdw; ROLLBACK');
$node->safe_psql('third', "BEGIN; CREATE EXTENSION kafka_cache_fdw; PREPARE TRANSACTION 'x'");
$node->safe_psql('third', "COMMIT PREPARED 'x'");
ok(consumers($node, 'third', 1), 'CREATE EXTENSION in a prepared transaction');

# --- nothing is held while nothing is done ---------------------------------------------------------

ok($node->wait_for('postgres', "SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL)
	FROM pg_stat_activity WHERE backend_type LIKE 'kafka_cache %'"), 'idle workers hold no snapshot and no transaction');

# --- DDL that is rolled back, and such that is not ---------------------------------------------------

sub ddl_is_seen
{
	my ($sql, $query, $expected, $what) = @_;
	$node->safe_psql('postgres', $sql);
	ok($node->wait_for('postgres', $query, $expected), $what);
	return;
}
my $known = "SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM kafka_cache.tables WHERE topic IS NOT NULL";

$node->safe_psql('postgres', "BEGIN;
	CREATE FOREIGN TABLE rolled (id int OPTIONS (key 'true')) SERVER kafka;
	SAVEPOINT a; DROP FOREIGN TABLE first; ROLLBACK TO a;
	ROLLBACK");
ddl_is_seen("BEGIN; SAVEPOINT a; CREATE FOREIGN TABLE inner_rolled (id int OPTIONS (key 'true')) SERVER kafka; ROLLBACK TO a;
	CREATE FOREIGN TABLE kept (id int OPTIONS (key 'true')) SERVER kafka; COMMIT", $known, 'first kept',
	'what was rolled back is not there, what was committed is');
ddl_is_seen("BEGIN; CREATE FOREIGN TABLE prepared (id int OPTIONS (key 'true')) SERVER kafka; PREPARE TRANSACTION 'y'; COMMIT PREPARED 'y'",
	$known, 'first kept prepared', 'a table of a prepared transaction');
ddl_is_seen("DO \$\$ BEGIN EXECUTE 'CREATE FOREIGN TABLE dynamic (id int OPTIONS (key ''true'')) SERVER kafka'; END \$\$",
	$known, 'dynamic first kept prepared', 'DDL inside a function');
ddl_is_seen("ALTER FOREIGN TABLE first OPTIONS (ADD topic 'another')",
	"SELECT topic FROM kafka_cache.tables WHERE relation = 'first'::regclass", 'another', 'an altered table');
ddl_is_seen('DROP FOREIGN TABLE kept, prepared, dynamic', "SELECT setting FROM kafka_cache.settings() WHERE name = 'tables'", 2,
	'dropped ones are forgotten');

# --- definitions that cannot work are refused at once ------------------------------------------------

foreach my $bad (
	'CREATE FOREIGN TABLE bad (a text) SERVER kafka',
	'ALTER FOREIGN TABLE first ALTER COLUMN id OPTIONS (DROP key)',
	'ALTER FOREIGN TABLE first DROP COLUMN id',
	"CREATE FOREIGN TABLE bad (id point OPTIONS (key 'true')) SERVER kafka",
	'ALTER FOREIGN TABLE first ALTER COLUMN id TYPE point',
	'ALTER TABLE first DROP COLUMN id')
{
	($status, $out, $err) = $node->psql('postgres', $bad);
	isnt($status, 0, "refused: $bad");
}
$node->safe_psql('postgres', "CREATE TABLE parent (id int, region text) PARTITION BY LIST (region);
	CREATE FOREIGN TABLE child (id int OPTIONS (key 'true'), region text) SERVER kafka;
	ALTER TABLE parent ATTACH PARTITION child FOR VALUES IN ('a')");
($status, $out, $err) = $node->psql('postgres',
	"CREATE FOREIGN TABLE bad PARTITION OF parent FOR VALUES IN ('b') SERVER kafka");
isnt($status, 0, 'refused: a foreign partition without a key');
($status, $out, $err) = $node->psql('postgres', 'ALTER TABLE parent ALTER COLUMN id TYPE point USING point(id, id)');
isnt($status, 0, 'refused: the parent of a foreign partition gets a type that cannot be its key');
$node->safe_psql('postgres', 'DROP TABLE parent');

# --- settings of ours that come from a role or a database do not stop a worker ------------------------

$node->safe_psql('postgres', "ALTER ROLE postgres IN DATABASE second SET statement_timeout = '1ms'; ALTER DATABASE second SET lock_timeout = '1ms'");

# --- going and coming back ---------------------------------------------------------------------------

sub pid_of
{
	my ($type, $db) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'kafka_cache $type' AND datname IS NOT DISTINCT FROM "
			. (defined $db ? "'$db'" : 'NULL'));
}


my $consumer = pid_of('consumer', 'postgres');
kill 'TERM', $consumer;
ok($node->wait_for('postgres', "SELECT pid <> $consumer FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres' AND pid IS NOT NULL"),
	'a consumer that was terminated is started again');
is($node->safe_psql('postgres', "SELECT restarts FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'"), 1,
	'... and that is counted');

my $launcher = pid_of('launcher', undef);
$consumer = pid_of('consumer', 'postgres');
kill 'TERM', $launcher;
ok($node->wait_for('postgres', "SELECT pid <> $launcher FROM kafka_cache.workers WHERE kind = 'launcher' AND pid IS NOT NULL"),
	'a launcher that was terminated is started again');
is(pid_of('consumer', 'postgres'), $consumer, '... and its consumers live on');
kill 'TERM', $consumer;
ok($node->wait_for('postgres', "SELECT pid <> $consumer FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres' AND pid IS NOT NULL"),
	'... and are minded by the new one');

# --- DROP EXTENSION ----------------------------------------------------------------------------------

$node->safe_psql('third', 'DROP EXTENSION kafka_cache_fdw');
ok(consumers($node, 'third', 0), 'DROP EXTENSION sends the consumer away');
$node->safe_psql('third', 'CREATE EXTENSION kafka_cache_fdw');
ok(consumers($node, 'third', 1), '... and CREATE EXTENSION brings it back');
$node->safe_psql('third', 'DROP EXTENSION kafka_cache_fdw; CREATE EXTENSION kafka_cache_fdw');
$node->safe_psql('third', "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1');
	CREATE FOREIGN TABLE again (id int OPTIONS (key 'true')) SERVER kafka");
ok($node->wait_for('third', "SELECT topic IS NOT NULL FROM kafka_cache.tables WHERE relation = 'again'::regclass"),
	'both at once');
$node->safe_psql('third', 'DROP SERVER kafka CASCADE; DROP EXTENSION kafka_cache_fdw');
ok(consumers($node, 'third', 0), 'and away again');
ok($node->wait_for('postgres', "SELECT setting FROM kafka_cache.settings() WHERE name = 'tables'", 2), 'its tables are forgotten');

# --- kafka_cache.databases ---------------------------------------------------------------------------

$node->configure('kafka_cache.databases' => 'second, nobody');
$node->reload;
ok(consumers($node, 'postgres', 0), 'a database that is taken from the list loses its consumer');
ok(consumers($node, 'second', 1), '... one that is in it keeps its own');
($status, $out, $err) = $node->psql('postgres', "SELECT kafka_cache.wait_ready('first')");
like($err, qr/not kept/, '... and waiting for its tables is refused');
ok($node->wait_for('postgres', "SELECT state || ': ' || message FROM kafka_cache.tables WHERE relation = 'first'::regclass",
	'starting: the database is not in kafka_cache.databases'), '... and the view says why');
$node->configure('kafka_cache.databases' => '*');
$node->reload;
ok(consumers($node, 'postgres', 1), '... and gets it back');

# --- crash and shutdown --------------------------------------------------------------------------------

kill 'KILL', pid_of('consumer', 'second');
ok($node->wait_for('postgres', "SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer'"),
	'after a kill -9 the server comes back with its consumers');
like($node->log_text, qr/all server processes terminated; reinitializing/, '... having restarted as PostgreSQL does');
ok($node->wait_for('postgres', "SELECT topic FROM kafka_cache.tables WHERE relation = 'first'::regclass", 'another'),
	'... and they know their tables');

my $before = -s $node->logfile;
my $start = time;
$node->stop('fast');
cmp_ok(time - $start, '<=', 6, 'fast shutdown takes no longer than 5 s');
unlike($node->log_text($before), qr/received immediate shutdown|PANIC|terminated by signal/, '... in good order');

$node->start;
ok(consumers($node, 'postgres', 1), 'after a restart all is back');
$node->stop('smart');
pass('smart shutdown ends too');

unlike($node->log_text, qr/PANIC|TRAP|left \d+ bytes behind/, 'nothing alarming in the log');

done_testing();
