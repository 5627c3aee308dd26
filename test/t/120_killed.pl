# Killing what can be killed, under load: nothing is lost, nothing counted twice, and what comes back is
# what kcat reads.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new(set => { 'broker.session.timeout.ms' => 2000, 'broker.heartbeat.interval.ms' => 500 });
my $node = KafkaCache::Cluster->new('main',
	conf => { 'kafka_cache.memory' => '256MB', restart_after_crash => 'on', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
my $consumer = "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL";

sub end_of
{
	my ($topic) = @_;
	my %ends = $kafka->watermarks($topic);
	my $sum = 0;
	$sum += $_->[1] foreach values %ends;
	return $sum;
}

# --- SIGTERM while loading ---------------------------------------------------------------------------

# Nothing is compacted before it is read, so that every record can be counted.
my %whole = ('min.compaction.lag.ms' => 3600000);

$kafka->topic('big', 4, %whole);
$kafka->load('big', '*', 0, 150000, 'key-%d', 'value-%d') foreach 1, 2;
text_table($node, 'big');
my $terminated = 0;

# A consumer that is terminated is no failure, however often that happens and whatever it was doing: it is
# started again at once, or, where it had not lived for a second, after one; so is one that makes way for a
# command on its database. Both end by SIGTERM.
sub end_consumer
{
	my $pid = one($consumer);

	if ($terminated++ % 2 == 0) { kill 'TERM', $pid }
	else { $node->psql('template1', 'ALTER DATABASE postgres RENAME TO template0', on_error_die => 0) }
	$node->wait_for('postgres', "SELECT count(*) = 1 FROM kafka_cache.workers WHERE kind = 'consumer' AND pid <> $pid");
	return;
}

while (one("SELECT ready FROM kafka_cache.tables WHERE relation = 'big'::regclass") ne 't')
{
	# Each consumer gets as far as some more records before it ends.
	my $records = one("SELECT records FROM kafka_cache.tables WHERE relation = 'big'::regclass");
	my $more = int rand 20000;
	$node->wait_for('postgres',
		"SELECT ready OR records > $records + $more FROM kafka_cache.tables WHERE relation = 'big'::regclass");
	end_consumer();
}
cmp_ok($terminated, '>', 0, 'consumers were terminated while they loaded');
note("$terminated of them");
ok($node->wait_ready('postgres', 'big'), 'the load ends');
is(one("SELECT records, entries, reloads FROM kafka_cache.tables WHERE relation = 'big'::regclass"),
	'300000|150000|0', '... each record counted once');
balanced($node, 'terminated while loading');

# --- SIGTERM while following, with bad records and tombstones, and readers --------------------------------

$kafka->topic('followed', 4, %whole);
one("CREATE FOREIGN TABLE followed (key text OPTIONS (key 'true') NOT NULL, n int NOT NULL) SERVER kafka OPTIONS (topic 'followed')");
$kafka->load('followed', '*', 0, 3000, 'key-%d', '{"n": %d}');
ok($node->wait_ready('postgres', 'followed'), 'a table that is followed');
my $load = load_beside(
	$kafka, 20000,
	sub {
		my ($round) = @_;
		my $first = ($round * 1000) % 3000;
		return ([ 'load', 'followed', '*', $first, 1000, 'key-%d', qq({"n": $round}) ],
			[ 'load', 'followed', '*', $first + 500, 50, 'key-%d', '{"n": "bad"}' ],
			[ 'load', 'followed', '*', $first + 300, 50, 'key-%d', undef ]);
	});
my $readers = pgbench_beside($node, "SELECT 1 / (count(*) = count(DISTINCT key))::int FROM followed;\n", seconds => 8);
$terminated = 0;
while ($readers->running)
{
	my $records = one("SELECT records FROM kafka_cache.tables WHERE relation = 'followed'::regclass");
	my $more = int rand 15000;
	$node->wait_for('postgres', "SELECT records > $records + $more FROM kafka_cache.tables WHERE relation = 'followed'::regclass");
	end_consumer();
	balanced($node, "consumer $terminated was terminated");
}
cmp_ok($readers->transactions, '>', 0, 'readers are not disturbed');
$load->stop;
cmp_ok($terminated, '>', 3, 'consumers were terminated while they followed');
note("$terminated of them");
ok($node->catch_up('postgres', 'followed', $kafka), 'the last of them catches up');
is(accounts($node, 'followed')->{records}, end_of('followed'), '... each record counted once');
is(accounts($node, 'followed')->{reloads}, 0, '... without a reload');
is(accounts($node, 'followed')->{ignored}, 0, '... and none met twice');

# The truth: the last good value of each key since its last tombstone; and bad ones behind it.
sub truth
{
	my %rows;
	my %bad;
	open(my $pipe, '-|', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $kafka->address, '-t', 'followed', '-f', '%S\t%k\t%s\n') or die;
	while (<$pipe>)
	{
		chomp;
		my ($size, $key, $value) = split /\t/, $_, 3;
		delete $bad{$key};
		if ($size < 0) { delete $rows{$key} }
		elsif ($value =~ /bad/) { $bad{$key} = 1 }
		else { ($rows{$key}) = $value =~ /(\d+)/ }
	}
	close $pipe or die;
	return (\%rows, \%bad);
}
my ($rows, $bad) = truth();
is_deeply({ map { split /\|/ } split /\n/, one('SELECT key, n FROM followed') }, $rows, '... the rows are what kcat reads');
is(one("SELECT count(*) FROM kafka_cache.errors WHERE relation = 'followed'::regclass"), scalar keys %$bad, '... and so are the errors');

# --- kill -9 -----------------------------------------------------------------------------------------------

sub crash
{
	my ($pid, $what) = @_;
	my $offset = -s $node->logfile;

	kill 'KILL', $pid;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	ok($node->wait_for('postgres', 'SELECT true'), "$what: the server is back");
	return;
}

$load = load_beside($kafka, 10000, sub { [ 'load', 'followed', '*', 0, 1000, 'key-%d', qq({"n": $_[0]}) ] });
crash(one($consumer), 'kill -9 of the consumer');
ok($node->wait_ready('postgres', 'followed'), '... loaded again, under load');

# A backend in the middle of its scan, and one that holds a cursor.
$readers = beside([ 'psql', '-X', $node->connstr('postgres'), '-c',
		"SET application_name = 'victim'; SELECT count(*) FROM big a, big b WHERE a.value || b.value = 'x'" ]);
$node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend' AND state = 'active' AND query ~ 'big a'");
crash(one("SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend'"), 'kill -9 of a backend that scans');
$load->stop;
ok($node->catch_up('postgres', 'followed', $kafka), '... loaded again');
ok($node->wait_ready('postgres', 'big'), '... the other too');
same_as_kcat($node, $kafka, 'big', 'after crashes');
($rows, $bad) = truth();
is_deeply({ map { split /\|/ } split /\n/, one('SELECT key, n FROM followed') }, $rows, '... the rows are what kcat reads');
is(accounts($node, 'followed')->{records}, end_of('followed'), '... each record counted once');

# Termination and cancellation of scans leave nothing pinned: the consumer can go on freeing.
foreach my $how ('pg_terminate_backend', 'pg_cancel_backend')
{
	my @victims = map {
		beside([ 'psql', '-X', $node->connstr('postgres'), '-c', "SET application_name = 'victim'",
			'-c', "SELECT count(*) FROM big a, big b WHERE a.value || b.value = 'x'" ])
	} 1 .. 4;
	$node->wait_for('postgres', "SELECT count(*) = 4 FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend' AND query ~ 'big a'");
	one("SELECT $how(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend'");
	ok($node->wait_for('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend'"), "$how ends scans");
}

# --- the broker ------------------------------------------------------------------------------------------------

$kafka->broker(1, 'pause');
is(one('SELECT count(*) FROM big'), '150000', 'a broker that is frozen: the rows are there');
ok($node->wait_for('postgres', "SELECT staleness > '2 s' FROM kafka_cache.tables WHERE relation = 'big'::regclass"), '... staleness grows');
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET kafka_cache.max_staleness = '1s'; SELECT count(*) FROM big");
like($err, qr/40001/, '... and max_staleness refuses');
$kafka->broker(1, 'resume');
ok($node->wait_for('postgres', "SELECT staleness < '1 s' FROM kafka_cache.tables WHERE relation = 'big'::regclass"), '... it thaws');

$load = load_beside($kafka, 5000, sub { [ 'load', 'big', '*', 0, 500, 'key-%d', "again-$_[0]-%d" ] });
$kafka->broker(1, 'kill');
$kafka->broker(1, 'start');
ok($node->wait_for('postgres', "SELECT state = 'ready' AND staleness < '2 s' FROM kafka_cache.tables WHERE relation = 'big'::regclass"),
	'a broker is killed under load and comes back');
$load->stop;
ok($node->catch_up('postgres', 'big', $kafka), '... and everything arrives');
same_as_kcat($node, $kafka, 'big', 'after the kill of the broker');
is(accounts($node, 'big')->{records}, end_of('big'), '... each record counted once');
balanced($node, 'in the end');

unlike($node->log_text, qr/PANIC|TRAP|signal (?:6|7|8|11)\b/, 'nobody crashed of itself');
$node->stop;
done_testing();
