# The producer as a process: it comes when somebody writes, leaves when nobody does, and gives way to
# whatever needs its database.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Writing;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.producer_idle_timeout' => '1h', restart_after_crash => 'on' });
$node->start;

sub one { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }

my $process = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer' AND datname = '%s'";
sub producers { my ($db) = @_; return one('postgres', sprintf($process, $db)); }
sub producers_are { my ($db, $n) = @_; return $node->wait_for('postgres', sprintf($process, $db), $n); }
sub pid_of { my ($db) = @_; return one($db, "SELECT pid FROM kafka_cache.workers WHERE kind = 'producer' AND database = '$db' AND pid IS NOT NULL"); }

# A database with a table for each kind of delivery.
sub make_database
{
	my ($db) = @_;

	one('postgres', "CREATE DATABASE $db") if one('postgres', "SELECT count(*) FROM pg_database WHERE datname = '$db'") eq '0';
	$node->connect_kafka($db, $kafka);
	foreach my $table (qw(reads committed immediate))
	{
		$kafka->topic($table, 2) if $db eq 'postgres';
		my $option = $table eq 'reads' ? '' : ", readonly 'false', delivery '" . ($table eq 'immediate' ? 'immediate' : 'commit') . "'";
		one($db, "CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
			SERVER kafka OPTIONS (topic '$table', format 'text'$option)");
	}
	return;
}

my $written = 0;
sub write_to
{
	my ($db, $table) = @_;
	my $key = 'key-' . ++$written;

	# In one session, which reads what it has written.
	return one($db, "INSERT INTO $table (key, value) VALUES ('$key', 'v'); SELECT count(*) FROM $table WHERE key = '$key'") eq '1';
}

# What a failing write says.
sub fails
{
	my ($on, $db, $like, $what, $timeout) = @_;
	my ($status, $out, $err) = $on->psql($db, "\\set VERBOSITY verbose\nSET kafka_cache.produce_timeout = '" . ($timeout // '1s') . "';
		INSERT INTO committed (key, value) VALUES ('never', 'written')");
	return like($err, $like, $what);
}

# --- coming ---------------------------------------------------------------------------------------------

make_database('postgres');
ok($node->wait_ready('postgres', 'reads'), 'tables can be read');
my ($status, $out, $err) = $node->psql('postgres', "INSERT INTO reads (key) VALUES ('a')");
isnt($status, 0, 'a table that is read only is not written to');
is(producers('postgres'), 0, '... and nobody is started for it');
ok(write_to('postgres', 'committed'), 'the first write is in the table');
is(producers('postgres'), 1, '... by a producer');
is(one('postgres', "SELECT count(*) FROM kafka_cache.workers w JOIN pg_stat_activity a USING (pid)
		WHERE w.kind = 'producer' AND w.database = 'postgres' AND a.backend_type = 'kafka_cache producer'"), 1, '... which the view shows');
my $pid = pid_of('postgres');
ok(write_to('postgres', $_), "another session: $_") foreach qw(committed immediate);
is(pid_of('postgres'), $pid, '... has the same one');

# What it keeps, in the context that is never reset.
sub kept
{
	my $from = -s $node->logfile;

	one('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	$node->wait_for_log(qr/Grand total: /, $from);
	my ($bytes) = $node->log_text($from) =~ /TopMemoryContext: .* (\d+) used/;
	return $bytes;
}

sub change { my ($n) = @_; one('postgres', "ALTER FOREIGN TABLE reads OPTIONS (SET max_bytes '${n}MB')"); return write_to('postgres', 'committed'); }

one('postgres', "ALTER FOREIGN TABLE reads OPTIONS (ADD max_bytes '100MB')");
change(101);
my $kept = kept();
change($_) foreach 102 .. 111;
cmp_ok(kept(), '<=', $kept + 2000, 'options that it looked up again and again are not kept');

# --- sent away ----------------------------------------------------------------------------------------------

foreach my $round (1 .. 3)
{
	$pid = pid_of('postgres');
	kill 'TERM', $pid;
	ok(write_to('postgres', 'committed'), "terminated, $round: the next write finds another");
	isnt(pid_of('postgres'), $pid, '... indeed');
}
unlike($node->log_text, qr/FATAL/, 'nobody makes an accident of that');

# --- leaving -----------------------------------------------------------------------------------------------

$node->configure('kafka_cache.producer_idle_timeout' => '1s');
$node->reload;
ok(producers_are('postgres', 0), 'a producer leaves when nobody writes');
is(one('postgres', "SELECT count(*) FROM kafka_cache.workers WHERE kind = 'producer'"), 0, '... and none is missing');
ok(write_to('postgres', 'committed'), '... and comes again');
# A session that keeps its place from one producer to the next.
my $session = $node->background_psql('postgres', on_error_stop => 1);
foreach my $round (1 .. 3)
{
	$session->query("INSERT INTO committed (key, value) VALUES ('round-$round', '$round')");
	ok(producers_are('postgres', 0), "round $round: it has left again");
}
is($session->query("SELECT string_agg(value, ' ' ORDER BY value) FROM committed WHERE key LIKE 'round-%'"), '1 2 3',
	'a session writes to one producer after the other');
$session->quit;
$node->configure('kafka_cache.producer_idle_timeout' => '1h');
$node->reload;

# --- making way ------------------------------------------------------------------------------------------------

make_database('one');
ok(write_to('one', 'committed'), 'another database');
is(producers('one'), 1, '... has its own producer');
is(producers('postgres'), 0, '... and this one still has none');
my $start = time;
($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE one RENAME TO two');
is($err, '', 'RENAME: no error, no warning');
cmp_ok(time - $start, '<', 3, '... at once');
ok(write_to('two', 'committed'), '... and the producer is back when it is needed');
ok(producers_are('two', 1), '... there');
one('two', 'DROP EXTENSION kafka_cache_fdw CASCADE');
ok(producers_are('two', 0), 'DROP EXTENSION sends it away');
ok($node->wait_for('postgres', "SELECT count(*) = 0 FROM kafka_cache.workers WHERE database = 'two'"), '... and the database is forgotten');
make_database('two');
ok(write_to('two', 'committed'), '... until it has the extension again');
$start = time;
($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE two');
is($err, '', 'DROP DATABASE: no error, no warning');
cmp_ok(time - $start, '<', 3, '... at once');

ok(write_to('postgres', 'committed'), 'a producer is there');
$node->configure('kafka_cache.databases' => 'elsewhere');
$node->reload;
ok(producers_are('postgres', 0), 'a database that is taken from the list loses it');
fails($node, 'postgres', qr/ERROR:  08006: .*\nDETAIL:  The database is not in kafka_cache\.databases\./, '... and a write says why it fails');
$node->configure('kafka_cache.databases' => '*');
$node->reload;
ok(write_to('postgres', 'committed'), '... until it is in it again');

# --- kill -9 -----------------------------------------------------------------------------------------------

my $offset = -s $node->logfile;
kill 'KILL', pid_of('postgres');
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
ok($node->wait_for('postgres', 'SELECT true'), 'after kill -9 the server is back');
ok(write_to('postgres', 'committed'), '... and can be written to');

# --- no broker, no room ------------------------------------------------------------------------------------

$kafka->down;
# The library looks for records that are out of time once a second.
fails($node, 'postgres', qr/ERROR:  08006: /, 'no broker: a write fails', '4s');
$kafka->up;
ok(write_to('postgres', 'committed'), '... until there is one');
$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<=', 6, 'fast shutdown takes no longer than 5 s');

# Room for the launcher, the server's own and one more.
$node->configure(max_worker_processes => 3, 'kafka_cache.producer_idle_timeout' => '60s');
$node->start;
ok($node->wait_ready('postgres', 'reads'), 'a server without room for a producer');
fails($node, 'postgres', qr/ERROR:  08006: .*\nDETAIL:  There is no free background worker slot/, 'a write says what is missing', '4s');
like(one('postgres', "SELECT state || ': ' || message FROM kafka_cache.workers WHERE kind = 'producer'"),
	qr/no_slot: no free background worker slot/, '... and so does the view');
$node->stop;

unlike($node->log_text, qr/PANIC|TRAP|signal (?:6|7|8|11)\b/, 'nothing alarming in the log');
done_testing();
