# What the log of a topic does to those who read it: markers and holes at its end, open transactions,
# records that are deleted under a reader, topics that are created again, partitions that are added, and
# any order of puts and deletions.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(stat time);

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '128MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub of { return one("SELECT $_[1] FROM kafka_cache.tables WHERE relation = '$_[0]'::regclass"); }
sub becomes
{
	my ($table, $condition, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->wait_for('postgres', "SELECT $condition FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $what)
	  || diag(one("SELECT t FROM kafka_cache.tables t WHERE relation = '$table'::regclass"));
}

# The segments of a partition: files in the broker's folder, the newest last.
sub segments
{
	my @files = sort glob "$kafka->{folder}/1/data/$_[0]-0/*.log";
	return @files;
}

# --- slow things are begun first --------------------------------------------------------------------------------

# A topic whose last records, of a transaction that was aborted, are cleaned away: what lies before the end
# is a hole, and the end is the transaction's marker, alone in its segment.
my $txn = $kafka->transaction('txn');
$kafka->topic('hole', 1);
$kafka->load('hole', 0, 0, 10, 'key-%d', 'value-%d');
for (my $high = 10, my $alone = 0; !$alone;)
{
	$txn->begin;
	$txn->load('hole', 0, 100, 1000, 'gone-%d', 'aborted');
	my $before = segments('hole');
	eventually(sub { time > 1.1 + (stat((segments('hole'))[-1]))[9] });    # as old as segment.ms has it
	$txn->abort;
	$high += 1001;
	$kafka->wait_high('hole', 0, $high);
	$alone = segments('hole') > $before;
}

# --- any order of puts and deletions -------------------------------------------------------------------------------

my @batches = (
	[ put_del_put => [ 'one', undef, 'three' ], 'three' ], [ del_put_del => [ undef, 'two', undef ], undef ], [ put_put => [ 'one', 'two' ], 'two' ],
	[ empty_is_not_deleted => [ 'one', '' ], '' ], [ null_is_not_deleted => [ 'one', 'null' ], 'null' ], [ del_of_nothing => [undef], undef ],
	[ put_del_del => [ 'one', undef, undef ], undef ]);
$kafka->topic('orders', 2);
text_table($node, 'orders');
ok($node->wait_ready('postgres', 'orders'), 'a table that is there before the records');
foreach my $codec (qw(none gzip lz4))
{
	foreach my $batch (@batches)
	{
		my ($name, $values) = @$batch;
		# One request of kcat, all in one batch; NULL values by -Z, which takes empty ones for NULL.
		my $nulls = grep { !defined } @$values;
		my $input = join '', map { "$codec-$name\t" . ($_ // '') . "\n" } @$values;
		kcat($kafka, 'orders', $input, '-K', "\t", '-z', $codec, '-X', 'linger.ms=200', $nulls ? '-Z' : ());
	}
}
ok($node->catch_up('postgres', 'orders', $kafka), 'puts and deletions in one batch');
is_deeply({ map { split /\|/, $_, 2 } split /\n/, one('SELECT key, value FROM orders') },
	{ map { my $b = $_; map { defined $b->[2] ? ("$_-$b->[0]" => $b->[2]) : () } qw(none gzip lz4) } @batches }, '... the last one wins');
same_as_kcat($node, $kafka, 'orders', 'in one batch');

# Random logs, read by a table that follows and by one that loads them afterwards, with reloads between.
srand 4711;
$kafka->topic('random', 3);
text_table($node, 'random');
foreach my $round (1 .. 6)
{
	my $input = join '', map { my $n = int rand 200; "key-$n\t" . (rand() < 0.4 ? '' : "$round-" . int rand 1000) . "\n" } 1 .. 2000;
	kcat($kafka, 'random', $input, '-K', "\t", '-Z', '-z', (qw(none gzip snappy lz4 zstd))[ rand 5 ], '-X', 'batch.num.messages=' . int(1 + rand 500));
	one("SELECT kafka_cache.reload('random')") if $round % 2;
}
ok($node->catch_up('postgres', 'random', $kafka), 'a random log');
same_as_kcat($node, $kafka, 'random', 'followed');
text_table($node, 'random_later', topic => 'random');
ok($node->wait_ready('postgres', 'random_later'), '... read afterwards');
same_as_kcat($node, $kafka, 'random_later', 'loaded', topic => 'random');

# --- one key in several partitions ------------------------------------------------------------------------------------

# The newest by time wins, a deletion too, in whatever order they are read.
my %winner;
$kafka->topic('crossing', 3);
text_table($node, 'crossing');
ok($node->wait_ready('postgres', 'crossing'), 'a table of three partitions');
my @orders = ([ 0, 1, 2 ], [ 0, 2, 1 ], [ 1, 0, 2 ], [ 1, 2, 0 ], [ 2, 0, 1 ], [ 2, 1, 0 ]);
my @base = (1700000000000) x 3;
foreach my $arrival (@orders)
{
	foreach my $times (@orders)
	{
		foreach my $deleted (-1 .. 2)
		{
			my $key = join '', 'key-', @$arrival, '-', @$times, $deleted;
			foreach my $p (@$arrival)
			{
				$kafka->produce('crossing', $p, $key, $p == $deleted ? undef : "of $p", at => 1700000000000 + 1000 * $times->[$p]);
			}
			my ($newest) = grep { $times->[$_] == 2 } 0 .. 2;
			$winner{$key} = "of $newest" unless $newest == $deleted;
		}
	}
}
# At the same time: the higher partition.
$kafka->produce('crossing', $_, 'same', "of $_", at => 1700000000000) foreach 1, 2, 0;
$winner{same} = 'of 2';
# Within a partition the later record wins, whatever its time.
$kafka->produce('crossing', 1, 'back', 'new', at => 1700000005000);
$kafka->produce('crossing', 1, 'back', 'later', at => 1700000000000);
$winner{back} = 'later';
# The winner is deleted; an older one in another partition does not come back.
$kafka->produce('crossing', 0, 'gone', 'old', at => 1700000000000);
$kafka->produce('crossing', 1, 'gone', 'new', at => 1700000001000);
$kafka->produce('crossing', 1, 'gone', undef, at => 1700000002000);
ok($node->catch_up('postgres', 'crossing', $kafka), 'one key in several partitions');
my $rows = 'SELECT key, value FROM crossing';
is_deeply({ map { split /\|/, $_, 2 } split /\n/, one($rows) }, \%winner, '... the newest wins, a deletion too');
cmp_ok(of('crossing', 'cross_partition_keys'), '>=', 100, '... and that is counted');
one("SELECT kafka_cache.reload('crossing')");
becomes('crossing', "reloads = 1 AND state = 'ready'", 'loaded again');
is_deeply({ map { split /\|/, $_, 2 } split /\n/, one($rows) }, \%winner, '... the same win');

# --- partitions that are added ------------------------------------------------------------------------------------------

$kafka->topic('growing', 2);
$kafka->load('growing', '*', 0, 500, 'key-%d', 'old-%d');
text_table($node, 'growing');
ok($node->wait_ready('postgres', 'growing'), 'a topic of two partitions');
$kafka->partitions('growing', 4);
my $grown = KafkaCache::Broker->spawn("$KafkaCache::Paths::bin/producer", $kafka->address);
$grown->command('load', 'growing', $_, $_ * 100, 100, 'key-%d', "new-$_-%d") foreach 0 .. 3;
$grown->command('produce', 'growing', 3, 'key-1', undef);
$grown->stop;

# --- records deleted under a reader ---------------------------------------------------------------------------------------

$kafka->topic($_, 1, 'cleanup.policy' => 'compact,delete') foreach qw(overtaken trimmed);
$kafka->load($_, 0, 0, 100, 'key-%d', 'value-%d') foreach qw(overtaken trimmed);
text_table($node, $_) foreach qw(overtaken trimmed);
ok($node->wait_ready('postgres', $_), "$_ is ready") foreach qw(overtaken trimmed);
$kafka->delete_records('trimmed', 0, 50);
$kafka->load('trimmed', 0, 100, 10, 'key-%d', 'value-%d');
ok($node->catch_up('postgres', 'trimmed', $kafka), 'records are deleted that were read');
is(of('trimmed', 'entries || reloads::text'), '1100', '... their rows stay until a reload');
one("SELECT kafka_cache.reload('trimmed')");
becomes('trimmed', 'reloads = 1', '... which is asked for');
same_as_kcat($node, $kafka, 'trimmed', 'records deleted');

# The consumer sleeps while what it has not read is deleted. A request that the broker had from it may be
# answered with all of that before; then once more.
my $consumer = one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
foreach my $round (1 .. 20)
{
	kill 'STOP', $consumer;
	$kafka->produce('overtaken', 0, 'key-0', undef);
	$kafka->load('overtaken', 0, 50, 200, 'key-%d', "newer-$round-%d");
	my $end = { $kafka->watermarks('overtaken') }->{0}[1];
	$kafka->delete_records('overtaken', 0, $end - 51);
	kill 'CONT', $consumer;
	$node->wait_for('postgres', "SELECT reloads > 0 OR (SELECT position >= $end - 1 FROM kafka_cache.partitions p WHERE p.relation = t.relation)
		FROM kafka_cache.tables t WHERE relation = 'overtaken'::regclass");
	last if of('overtaken', 'reloads') > 0;
}
becomes('overtaken', "reloads = 1 AND state = 'ready'", 'records are deleted that were not read: the topic is read again');
same_as_kcat($node, $kafka, 'overtaken', 'overtaken');

# --- open transactions ------------------------------------------------------------------------------------------------------

$kafka->topic('held', 2);
$kafka->load('held', 0, 0, 5, 'key-%d', 'value-%d');
my $hanging = $kafka->transaction('hanging');
$hanging->begin;
$hanging->produce('held', 0, 'key-1', 'uncommitted');
$kafka->produce('held', 0, 'key-2', 'behind it');
$kafka->produce('held', 1, 'key-9', 'elsewhere');
text_table($node, 'held');
becomes('held', "state = 'waiting_for_transaction' AND NOT ready", 'a table that is loaded up to an open transaction');
like(of('held', 'message'), qr/partition 0 is read up to offset 5\b.*the load ends at offset 7/, '... which says where');
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET kafka_cache.wait_timeout = '200ms'; SELECT * FROM held");
like($err, qr/ERROR:\s+55000.*waiting_for_transaction/s, '... and is not read before its end');
is(one("SET kafka_cache.when_not_ready = 'partial'; SELECT count(*) FROM held"), '6', '... but by who wants what there is');
$hanging->commit;
ok($node->wait_ready('postgres', 'held'), 'the transaction is committed');
is(one('SELECT key, value FROM held WHERE key IN (\'key-1\', \'key-2\', \'key-9\') ORDER BY 1'), "key-1|uncommitted\nkey-2|behind it\nkey-9|elsewhere", '... all is there');
$hanging->begin;
$hanging->produce('held', 0, 'key-1', 'second');
$kafka->produce('held', 0, 'key-3', 'behind it');
$kafka->produce('held', 1, 'key-9', 'goes on');
ok($node->wait_for('postgres', "SELECT value = 'goes on' FROM held WHERE key = 'key-9'"), 'a table that follows: another partition goes on');
is(one("SELECT string_agg(value, ' ' ORDER BY key) FROM held WHERE key IN ('key-1', 'key-3')"), 'uncommitted value-3', '... nothing of what is open, nor behind it');
$hanging->abort;
ok($node->wait_for('postgres', "SELECT value = 'behind it' FROM held WHERE key = 'key-3'"), '... until it is aborted');
is(one("SELECT value FROM held WHERE key = 'key-1'"), 'uncommitted', '... of which nothing is seen');
$hanging->stop;

# --- queries that wait ------------------------------------------------------------------------------------------------------

text_table($node, 'nowhere');
($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET statement_timeout = '100ms'; SELECT count(*) FROM nowhere");
like($err, qr/57014/, 'statement_timeout ends a query that waits');
($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET kafka_cache.wait_timeout = '200ms'; SELECT count(*) FROM orders JOIN nowhere USING (key)");
like($err, qr/55000.*nowhere/s, 'a join waits for all of its tables');
my $cancelled = beside([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', "SET kafka_cache.wait_timeout = '60s'; SELECT count(*) AS waits FROM nowhere" ]);
$node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'AS waits' AND state = 'active' AND pid <> pg_backend_pid()");
one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'AS waits' AND pid <> pg_backend_pid()");
$node->wait_for('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE query ~ 'AS waits' AND pid <> pg_backend_pid()");
like($cancelled->output, qr/canceling statement due to user request/, 'a query that waits can be cancelled');
my $finds = beside([ 'psql', '-XAt', '-d', $node->connstr('postgres'), '-c', "SET kafka_cache.wait_timeout = '60s'; SELECT value AS finds FROM nowhere" ]);
$node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'AS finds' AND state = 'active' AND pid <> pg_backend_pid()");
$kafka->topic('nowhere', 1);
$kafka->produce('nowhere', 0, 'a', 'found');
ok($finds->succeeded, 'a query waits for a topic that is not there yet');
is($finds->output =~ s/^SET\n//r, "found\n", '... and finds it');

# --- topics that are created again --------------------------------------------------------------------------------------------

foreach my $story ([ fewer => 4, 2, 50 ], [ more => 2, 3, 50 ], [ shorter => 1, 1, 10 ], [ as_long => 1, 1, 100 ])
{
	my ($name, $old, $new, $count) = @$story;
	my $topic = "again_$name";

	$kafka->topic($topic, $old);
	$kafka->load($topic, '*', 0, 100, 'key-%d', 'old-%d');
	text_table($node, $topic);
	ok($node->wait_ready('postgres', $topic), "$topic is ready");
}
my $offset = -s $node->logfile;
foreach my $story ([ fewer => 4, 2, 50 ], [ more => 2, 3, 50 ], [ shorter => 1, 1, 10 ], [ as_long => 1, 1, 100 ])
{
	my ($name, $old, $new, $count) = @$story;
	my $topic = "again_$name";

	$kafka->delete_topic($topic);
	becomes($topic, "state = 'topic_missing' AND ready", "$topic: it is deleted, and served on");
	is(one("SELECT count(*) FROM $topic"), 100, '... with all rows');
	$kafka->topic($topic, $new);
	my $producer = KafkaCache::Broker->spawn("$KafkaCache::Paths::bin/producer", $kafka->address);
	$producer->command('load', $topic, '*', 0, $count, 'key-%d', 'new-%d');
	$producer->stop;
	becomes($topic, "reloads > 0 AND state = 'ready'", "$topic: it is created again, and read again");
	ok($node->catch_up('postgres', $topic, $kafka), '... to its end');
	same_as_kcat($node, $kafka, $topic, $topic);
}

# --- what was begun first ---------------------------------------------------------------------------------------------------------

ok($node->catch_up('postgres', 'growing', $kafka), 'partitions that were added are found');
is(one("SELECT count(*) FROM kafka_cache.partitions WHERE relation = 'growing'::regclass"), 4, '... all of them');
is(one("SELECT value FROM growing WHERE key = 'key-350'"), 'new-3-350', '... with their rows');
is(one("SELECT count(*) FROM growing WHERE key = 'key-1'"), '0', '... and deletions');

ok(eventually(sub { !grep { $_->{key} =~ /^gone/ } $kafka->read_topic('hole', '-X', 'isolation.level=read_uncommitted') }),
	'aborted records are cleaned away');
my $high = { $kafka->watermarks('hole') }->{0}[1];
text_table($node, 'hole');
ok($node->wait_ready('postgres', 'hole'), '... and leave a hole and a marker at the end: ready');
same_as_kcat($node, $kafka, 'hole', 'hole');
is(of('hole', 'lag'), 0, '... nothing is left to read');
is(one("SELECT kafka_cache.position('hole')"), '{"0": ' . ($high - 1) . '}', '... and the position is the end');

balanced($node, 'in the end');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
