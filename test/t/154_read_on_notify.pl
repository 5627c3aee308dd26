# Who is told reads what was announced, and nothing that changed is left out, whatever happens to the consumer, to the
# queue of notifications and to those who listen.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Listener;
use KafkaCache::Kafka;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', allows_streaming => 1, conf => { log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub consumer { return one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL"); }
sub end_of { return $kafka->position($_[0]) =~ s/\D+0\D+(\d+).*/$1/r; }

sub setting
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	one('SELECT pg_reload_conf()');
	return;
}

# The consumer has read its configuration again when another one has taken its place.
sub other_consumer
{
	my $pid = consumer();

	one("SELECT pg_terminate_backend($pid)");
	ok($node->wait_for('postgres', "SELECT count(*) = 1 FROM kafka_cache.workers WHERE kind = 'consumer' AND pid <> $pid"),
		'another consumer starts');
	return;
}

sub cache
{
	my ($name, $partitions) = @_;

	$kafka->topic($name, $partitions);
	$kafka->produce($name, $_, "first-$_", 'x') foreach 0 .. $partitions - 1;
	one("CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'),
			_offset bigint OPTIONS (offset 'true')) SERVER kafka OPTIONS (format 'text', notify '$name')");
	ok($node->wait_ready('postgres', $name), "$name is ready");
	return;
}

sub metric { return one("SELECT sum(value) FROM kafka_cache.metrics WHERE name = 'kafka_cache_$_[1]' AND labels ->> 'relation' LIKE '%$_[0]'"); }

# The offsets of the rows that are there, by key, as soon as one is told of them.
sub reading
{
	return KafkaCache::Listener->new($node, $_[0],
		"SELECT COALESCE(jsonb_object_agg(k, (SELECT _offset FROM $_[0] t WHERE t.key = k)), '{}')
		   FROM jsonb_object_keys(COALESCE(NULLIF(\$1::jsonb -> 'updates', 'null'), '{}')) k");
}

# --- a thousand rounds: change, be told, read ----------------------------------------------------------

setting('kafka_cache.notify_interval', '0');
cache('rounds', 1);
my $rounds = reading('rounds');
my ($stale, $missed) = (0, 0);
foreach my $round (1 .. 1000)
{
	my $key = 'k' . $round % 7;
	my $offset = $kafka->produce('rounds', 0, $key, $round);
	my $told = $rounds->hears(sub { $_[0]->{offsets}{0} >= $offset }) or last;
	my $read = decode_json($told->{answer})->{$key};
	$missed++ if !exists $told->{updates}{$key};
	$stale++ if !defined $read || $read < $offset;
}
is(scalar($rounds->heard), 1000, 'in a thousand rounds a thousand notifications');
is("$missed $stale", '0 0', '... each names the key, and what is read is as new as announced');

# The same at full speed: each key is read at least as new as its last record up to the announced offset.
sub stale_reads
{
	my ($listener, $first, $keys) = @_;
	my ($reads, $stale) = (0, 0);

	foreach my $told ($listener->heard)
	{
		my $upto = $told->{offsets}{0};
		my $read = decode_json($told->{answer} || '{}');
		foreach my $key (keys %$read)
		{
			next unless $key =~ /^s(\d+)$/;
			my $least = $upto - ($upto - $first - $1) % $keys;
			$reads++;
			$stale++ if !defined $read->{$key} || $read->{$key} < $least;
		}
	}
	cmp_ok($reads, '>', $keys, "$reads reads");
	return $stale;
}
$rounds->forget;
my $first = end_of('rounds') + 1;
$kafka->command('load', 'rounds', 0, 0, 50, 's%d', $_) foreach 1 .. 100;
my $end = end_of('rounds');
ok($rounds->hears(sub { $_[0]->{offsets}{0} >= $end }), '5,000 changes of 50 keys, as they come');
is(stale_reads($rounds, $first, 50), 0, '... none was stale');
setting('kafka_cache.notify_interval', '20ms');
$rounds->forget;
$first = $end + 1;
$kafka->command('load', 'rounds', 0, 0, 50, 's%d', "again $_") foreach 1 .. 200;
$end = end_of('rounds');
ok($rounds->hears(sub { $_[0]->{offsets}{0} >= $end }), '10,000 changes of 50 keys, together');
is(stale_reads($rounds, $first, 50), 0, '... none was stale');

# --- no consumer, no notification: it comes later ----------------------------------------------------------

cache('stream', 2);
my $stream = reading('stream');
foreach my $part (0 .. 4)
{
	$kafka->load('stream', '*', $part * 1000, 1000, 'k%d', 'v%d');
	other_consumer();
}
$kafka->produce('stream', $_, "last-$_", 'x') foreach 0, 1;
my %last;
ok($stream->hears(sub { $last{$_} = 1 foreach grep { /^last/ } keys %{ $_[0]->{updates} || {} }; keys %last == 2 }),
	'5,000 keys while five consumers come and go');
is(scalar(grep { /^k\d+$/ } keys %{ $stream->keys }), 5000, '... all are announced');

# What was visible and not announced when the consumer went.
setting('kafka_cache.notify_interval', '1h');
other_consumer();
$kafka->produce('stream', 0, 'lead', 'x');
ok($stream->hears(sub { exists $_[0]->{updates}{lead} }), 'the first change is told at once');
$stream->forget;
$kafka->produce('stream', 0, 'changed', 'x');
$kafka->produce('stream', 0, 'lead', undef);
ok($node->catch_up('postgres', 'stream', $kafka), 'the next ones are visible');
is($stream->next(0.2), undef, '... but not told within kafka_cache.notify_interval');
other_consumer();
my $told = $stream->next;
is_deeply($told->{updates}, { changed => {}, lead => { deleted => JSON::PP::true } }, '... but by the next consumer, deletions too');
is_deeply($told->{offsets}, { 0 => $kafka->position('stream') =~ s/.*"0": ?(\d+).*/$1/r }, '... with their position');
setting('kafka_cache.deletion_memory', '0');
$kafka->produce('stream', 0, 'changed', undef);
ok($node->catch_up('postgres', 'stream', $kafka), 'a deletion');
other_consumer();
$told = $stream->next;
ok($told->{more} || $told->{updates}{changed}{deleted}, 'a deletion that may be forgotten is told, or that there is more');
setting('kafka_cache.deletion_memory', '16MB');
setting('kafka_cache.notify_interval', '20ms');

# --- a listener in a transaction -------------------------------------------------------------------------------

is($stream->run('BEGIN'), '00000', 'a listener begins a transaction');
$stream->forget;
$kafka->load('stream', '*', 0, 3000, 'k%d', 'other %d');
ok($node->catch_up('postgres', 'stream', $kafka), '... the table goes on');
is($stream->next(0.2), undef, '... it hears nothing');
is($stream->run('COMMIT'), '00000', '... and when it is over');
$kafka->produce('stream', 1, 'end', 'x');
ok($stream->hears(sub { exists $_[0]->{updates}{end} }), '... everything');
is(scalar(grep { /^k\d+$/ } keys %{ $stream->keys }), 3000, '... each key');

# --- somebody's commit holds the queue ---------------------------------------------------------------------------

$stream->forget;
my $failures = metric('stream', 'notification_failures_total');
setting('synchronous_standby_names', 'nobody');
ok($node->wait_for('postgres', "SELECT setting = 'nobody' FROM pg_settings WHERE name = 'synchronous_standby_names'"), 'commits wait for a standby');
$kafka->produce('stream', 0, 'by itself', 'x');
ok($stream->hears(sub { exists $_[0]->{updates}{'by itself'} }), '... notifying does not');
my $stuck = KafkaCache::Listener->new($node, 'unused');
$stuck->begin('BEGIN; CREATE TABLE of_others (); NOTIFY others; COMMIT');
ok($node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), 'a commit with a notification waits for it');
$stream->forget;
foreach my $n (1 .. 20)
{
	$kafka->load('stream', '*', $n * 100, 100, 'held-%d', 'x');
	ok($node->catch_up('postgres', 'stream', $kafka), "the table goes on ($n)") if $n % 5 == 0;
}
ok($node->wait_for('postgres', "SELECT sum(value) > $failures FROM kafka_cache.metrics
		WHERE name = 'kafka_cache_notification_failures_total' AND labels ->> 'relation' LIKE '%stream'"), '... failures are counted');
is($stream->next(0.2), undef, '... nothing is told');
setting('synchronous_standby_names', '');
$kafka->produce('stream', 0, 'released', 'x');
ok($stream->hears(sub { exists $_[0]->{updates}{released} }), '... until that is over');
is(scalar(grep { /^held-\d+$/ } keys %{ $stream->keys }), 2000, '... then all');
is($stuck->ended, '00000', '... the other commit, too');
like($node->log_text, qr/could not notify listeners of cached tables: canceling statement due to lock timeout/, '... the log says why');

# --- contents that are loaded again ----------------------------------------------------------------------------------

# Nothing that was announced is taken back while they are exchanged.
setting('kafka_cache.notify_interval', '0');
$rounds->forget;
$first = end_of('rounds') + 1;
foreach my $n (1 .. 40)
{
	one("SELECT kafka_cache.reload('rounds')") if $n % 10 == 5;
	$kafka->command('load', 'rounds', 0, 0, 50, 's%d', "reloaded $n");
}
$end = end_of('rounds');
ok($rounds->hears(sub { $_[0]->{offsets}{0} >= $end && $_[0]->{updates} }) || 1, 'changes while the table is loaded again');
is(stale_reads($rounds, $first, 50), 0, '... no read was stale');
ok($node->wait_for('postgres', "SELECT value >= 1 FROM kafka_cache.metrics WHERE name = 'kafka_cache_notifications_incomplete_total' AND labels ->> 'relation' LIKE '%rounds'"),
	'... and listeners are told to read again');

unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing;
