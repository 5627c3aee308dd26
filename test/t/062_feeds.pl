# What a feed does under pressure: memory that runs out, workers that are terminated while they load, logs that lose
# their beginning, reloads beside what is served. On a real Kafka.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '256MB', 'kafka_cache.load_queue' => '8MB' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { my ($query) = @_; return $node->safe_psql('postgres', $query); }

sub state_of
{
	my ($table) = @_;
	return one("SELECT state, ready, entries, records, reloads FROM kafka_cache.tables WHERE relation = '$table'::regclass");
}

# A cached table of text keys and values; more options, and a check perhaps.
sub cache
{
	my ($table, %options) = @_;
	my $check = delete $options{check};
	my $list = join '', map { ", $_ '$options{$_}'" } sort keys %options;

	one("CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true')"
		  . ($check ? ", CHECK ($check)" : '') . ")
		 SERVER kafka OPTIONS (topic '$table', format 'text'$list)");
	return;
}

sub in_state
{
	my ($table, $state, $name) = @_;
	return ok($node->wait_for('postgres',
			"SELECT state = '$state' FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $name);
}

# The last value of every key, tombstones taken out, as kcat reads them.
sub contents
{
	my ($topic) = @_;
	my %rows;

	foreach my $record ($kafka->read_topic($topic, '-X', 'isolation.level=read_committed'))
	{
		if (defined $record->{payload}) { $rows{ $record->{key} } = $record->{payload}; }
		else { delete $rows{ $record->{key} }; }
	}
	return join ',', map { "$_=$rows{$_}" } sort keys %rows;
}

sub same_as_kcat
{
	my ($table, $name) = @_;
	return is(one("SELECT string_agg(key || '=' || value, ',' ORDER BY key COLLATE \"C\") FROM $table"), contents($table), $name);
}

sub consumer { return one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'"); }

# --- memory that runs out ------------------------------------------------------------------------

my $value = 'x' x 150;
$kafka->topic('big', 2);
$kafka->load('big', '*', 0, 20000, 'key-%d', "$value-%d");
$kafka->topic('small', 1);
$kafka->load('small', 0, 0, 10, 'key-%d', 'value-%d');
cache('big', max_bytes => '1MB');
in_state('big', 'full', 'a table over its limit is full');
my ($status, undef, $error) = $node->psql('postgres', "SET kafka_cache.wait_timeout = '100ms'; SELECT count(*) FROM big");
isnt($status, 0, '... and is not read');
cache('small');
ok($node->catch_up('postgres', 'small', $kafka), '... while another table loads');
$kafka->produce('small', 0, 'key-new', 'later');
ok($node->catch_up('postgres', 'small', $kafka), '... and follows');
cmp_ok(one("SELECT bytes FROM kafka_cache.tables WHERE relation = 'big'::regclass"), '<=', 1024 * 1024, '... and the limit holds');

one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '20MB')");
ok($node->wait_ready('postgres', 'big'), 'with a higher limit it goes on by itself');
is(state_of('big'), 'ready|t|20000|20000|0', '... where it had stopped');
same_as_kcat('big', '... with every row');

# Ready, and full later: what is there is served, the position stays before what does not fit.
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '6MB')");
$kafka->load('big', '*', 20000, 20000, 'key-%d', "$value-%d");
in_state('big', 'full', 'a table that was ready is full');
cmp_ok(one('SELECT count(*) FROM big'), '>=', 20000, '... and its rows are served');
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '40MB')");
ok($node->catch_up('postgres', 'big', $kafka), 'with a higher limit it goes on by itself');
is(state_of('big'), 'ready|t|40000|40000|0', '... and nothing was lost or read twice');

# A reload that finds no room is given up; the old contents stay.
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '14MB')");
one("SELECT kafka_cache.reload('big')");
ok($node->wait_for('postgres', "SELECT message LIKE '%no memory%' AND ready FROM kafka_cache.tables WHERE relation = 'big'::regclass"),
	'a reload without room: the message says so');
is(one('SELECT count(*) FROM big'), '40000', '... and the rows are served');
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '100MB')");
ok($node->wait_for('postgres', "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'big'::regclass"),
	'it is done when there is room');
is(one('SELECT count(*) FROM big'), '40000', '... and has every row');

# --- terminated workers --------------------------------------------------------------------------

# Every record passes through a function of the user's that takes its time, and is cancelled in it.
one("CREATE FUNCTION slowly(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN true; END'"); # cancelled
$kafka->topic('slow', 3);
$kafka->load('slow', '*', 0, 3000, 'key-%d', 'value-%d');
cache('slow', check => 'slowly(value)');
my $terminated = 0;
my $records = 0;
while (one("SELECT ready FROM kafka_cache.tables WHERE relation = 'slow'::regclass") ne 't' && $terminated < 3)
{
	my $pid = consumer();
	my $goal = $records + 200;
	$node->wait_for('postgres', "SELECT records > $goal OR ready FROM kafka_cache.tables WHERE relation = 'slow'::regclass");
	one("SELECT pg_terminate_backend($pid)") if $pid ne '';
	$terminated++;
	$node->wait_for('postgres', "SELECT pid IS NOT NULL AND pid <> " . ($pid eq '' ? 0 : $pid) . " FROM kafka_cache.workers WHERE kind = 'consumer'");
	my $now = one("SELECT records FROM kafka_cache.tables WHERE relation = 'slow'::regclass");
	cmp_ok($now, '>=', $records, "terminated while loading: what was applied stays ($now)");
	$records = $now;
}
ok($node->wait_ready('postgres', 'slow'), 'the load is finished by the last worker');
is(state_of('slow'), 'ready|t|3000|3000|0', '... and each record was applied once');
same_as_kcat('slow', '... and every row is there');

# --- a batch that the library cannot read --------------------------------------------------------

# 90 MB in less than 3 kB, which librdkafka 2.0 never decompresses: what is behind it must come all the same. (Newer ones
# hand it over: then it is larger than max_record_bytes.)
$kafka->topic('bomb', 1);
$kafka->produce('bomb', 0, 'before', '1');
my $file = PostgreSQL::Test::Utils::tempdir() . '/bomb';
PostgreSQL::Test::Utils::append_to_file($file, 'a' x 90_000_000);
PostgreSQL::Test::Utils::system_or_bail('kcat', '-P', '-b', $kafka->address, '-t', 'bomb', '-p', '0', '-k', 'bomb', '-z', 'zstd',
	'-X', 'message.max.bytes=200000000', '-X', 'queue.buffering.max.kbytes=1000000', $file);
unlink $file;
$kafka->produce('bomb', 0, 'after', '2');
cache('bomb');
ok($node->catch_up('postgres', 'bomb', $kafka), 'a batch that decompresses to too much does not stop its partition');
is(one("SELECT string_agg(key, ',' ORDER BY _offset) FROM bomb"), 'before,after', '... everything else is there');
is(one("SELECT records, errors FROM kafka_cache.tables WHERE relation = 'bomb'::regclass"), '3|1', '... it is counted');
is(one("SELECT reason, partition, \"offset\" FROM kafka_cache.errors WHERE relation = 'bomb'::regclass"), 'too_large|0|1', '... and listed');

# --- a log that loses its beginning --------------------------------------------------------------

$kafka->topic('trimmed', 1, 'cleanup.policy' => 'compact,delete');
$kafka->load('trimmed', 0, 0, 100, 'key-%d', 'value-%d');
cache('trimmed');
ok($node->catch_up('postgres', 'trimmed', $kafka), 'a table follows its topic');
my $pid = consumer();
kill 'STOP', $pid;
# The first of these may still reach it, as the answer to what it had asked; the second cannot.
$kafka->load('trimmed', 0, 100, 100, 'key-%d', 'value-%d');
$kafka->load('trimmed', 0, 200, 100, 'key-%d', 'value-%d');
$kafka->delete_records('trimmed', 0, 250);
kill 'CONT', $pid;
ok($node->wait_for('postgres', "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'trimmed'::regclass"),
	'records are deleted beyond its position: it is loaded anew');
same_as_kcat('trimmed', '... and has what the topic has');

# --- reload under load ---------------------------------------------------------------------------

$kafka->topic('busy', 2);
$kafka->load('busy', '*', 0, 5000, 'key-%d', 'first-%d');
cache('busy');
ok($node->catch_up('postgres', 'busy', $kafka), 'a table is loaded');
my $fewest = 5000;
foreach my $round (1 .. 5)
{
	one("SELECT kafka_cache.reload('busy')");
	$kafka->load('busy', '*', 0, 5000, 'key-%d', "round-$round-%d");
	my $count = one('SELECT count(*) FROM busy');
	$fewest = $count if $count < $fewest;
}
is($fewest, 5000, 'reloads: the contents are complete at every moment');
ok($node->wait_for('postgres', "SELECT reloads > 0 AND state = 'ready' AND message IS NULL FROM kafka_cache.tables WHERE relation = 'busy'::regclass"),
	'... and they end');
ok($node->catch_up('postgres', 'busy', $kafka), '... at the end of the topic');
same_as_kcat('busy', '... with what the topic has');

# --- a frozen broker -----------------------------------------------------------------------------

$kafka->broker(1, 'pause');
in_state('busy', 'stalled', 'a frozen broker is noticed');
is(one('SELECT count(*) FROM busy'), '5000', '... the rows are served');
ok($node->wait_for('postgres', "SELECT staleness > '5 s' FROM kafka_cache.tables WHERE relation = 'busy'::regclass"), '... and are known to be stale');
$kafka->broker(1, 'resume');
in_state('busy', 'ready', 'it is noticed when it goes on');
ok($node->wait_for('postgres', "SELECT staleness < '5 s' FROM kafka_cache.tables WHERE relation = 'busy'::regclass"), '... and the rows are fresh again');

# --- memory comes back ---------------------------------------------------------------------------

one("DROP FOREIGN TABLE big, small, slow, bomb, trimmed, busy");
ok($node->wait_for('postgres', 'SELECT count(*) = 0 FROM kafka_cache.tables'), 'dropped tables are forgotten');
unlike($node->log_text, qr/bytes behind/, '... and all their memory comes back');
is(one("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kafka_cache%' AND backend_xmin IS NOT NULL"), '0', 'idle workers hold nothing back');

$node->stop;
done_testing();
