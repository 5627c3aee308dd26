# Those who listen are told which keys changed: the payloads, to the byte, and what they are silent about.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Listener;
use KafkaCache::Mock;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Records that are one batch, and so one turn, to the consumer: key => value, ...; undef is a tombstone.
sub batch
{
	my ($topic, @records) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir_short() . '/records';

	while (my ($key, $value) = splice @records, 0, 2)
	{
		PostgreSQL::Test::Utils::append_to_file($file, "$key|" . ($value // '') . "\n");
	}
	system('kcat', '-q', '-P', '-b', $kafka->address, '-t', $topic, '-p', 0, '-K', '|', '-Z', '-X', 'linger.ms=500',
		'-l', $file) == 0 or die 'kcat failed';
	return;
}

sub end_of { return $kafka->position($_[0]) =~ s/\D+0\D+(\d+).*/$1/r; }

sub cache
{
	my ($name, $columns, @options) = @_;
	my $list = join ', ', "notify '$name'", @options;

	one("CREATE FOREIGN TABLE $name ($columns) SERVER kafka OPTIONS ($list)");
	ok($node->wait_ready('postgres', $name), "$name is ready");
	return;
}

# The counters of a table: announced positions and what was suppressed, from the metrics.
sub metric
{
	my ($table, $name, %labels) = @_;
	my $where = join '', map { " AND labels ->> '$_' = '$labels{$_}'" } sort keys %labels;

	return one("SELECT COALESCE(sum(value), -1) FROM kafka_cache.metrics WHERE name = 'kafka_cache_$name' AND labels ->> 'relation' = '$table'$where");
}

# --- a first load is silent; then one payload for one change -----------------------------------------

my $text = "key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')";
$kafka->topic('users', 1);
$kafka->load('users', 0, 0, 1000, 'k%d', 'v%d');
my $users = KafkaCache::Listener->new($node, 'users');
cache('users', $text, "format 'text'");

$kafka->produce('users', 0, 'A', '1');
my $told = $users->next;
is($told->{text}, '{"v":1,"topic":"users","offsets":{"0":1000},"updates":{"A":{}}}',
	'a load of 1000 records is silent, a change is told to the byte');

batch('users', A => 2, A => 3);
is($users->next->{text}, '{"v":1,"topic":"users","offsets":{"0":1002},"updates":{"A":{}}}',
	'a key that changes twice in a batch is told once, with the later offset');

# Records of which nobody is told, each followed by one that is.
sub silent
{
	my ($what, $work, $key) = @_;

	$work->();
	$kafka->produce('users', 0, $key, rand);
	$told = $users->next;
	is(join(' ', keys %{ $told->{updates} }), $key, "$what is silent");
	is($told->{offsets}{0}, end_of('users'), '... but passed');
	return;
}
silent('the same value again', sub { $kafka->produce('users', 0, 'A', '3') }, 'B');
silent('a null key', sub { $kafka->produce('users', 0, undef, 'x') }, 'C');
silent('a tombstone of a key that is not there', sub { $kafka->produce('users', 0, 'nobody', undef) }, 'D');
silent('a value that cannot be read', sub { $kafka->produce('users', 0, 'A', "\xff") }, 'E');
silent('the value before that', sub { $kafka->produce('users', 0, 'A', '3') }, 'F');

# --- deletions -----------------------------------------------------------------------------------------

$kafka->produce('users', 0, 'k1', undef);
is($users->next->{text}, '{"v":1,"topic":"users","offsets":{"0":1013},"updates":{"k1":{"deleted":true}}}', 'a deletion');
batch('users', k2 => undef, k2 => 'v2');
is_deeply($users->next->{updates}, { k2 => {} }, 'deleted and there again: changed');
batch('users', k2 => 'other', k2 => undef);
is_deeply($users->next->{updates}, { k2 => { deleted => JSON::PP::true } }, 'changed and deleted: deleted');
$kafka->produce('users', 0, 'k2', 'v2');
is_deeply($users->next->{updates}, { k2 => {} }, 'a deleted key comes back with the value it had: changed');

# --- keys are escaped as JSON wants it --------------------------------------------------------------------

my @odd = ('"', '\\', "tab\there", "new\nline", "\x01", "\x1f", "\x7f", '</script>', 'Grüße 🙂', '{"a":1}', ' ', '');
utf8::decode($_) foreach @odd;
$users->forget;
$kafka->produce('users', 0, $_, 'x') foreach @odd;
ok($users->hears(sub { $_[0]->{offsets}{0} == end_of('users') }), 'keys of all characters');
is_deeply([ sort keys %{ $users->keys } ], [ sort @odd ], '... are told as they are');

# --- payloads are shorter than 8,000 bytes ------------------------------------------------------------------

$users->forget;
$kafka->load('users', 0, 0, 10000, 'burst-%d', '%d');
my $end = end_of('users');
ok($users->hears(sub { $_[0]->{offsets}{0} == $end }), '10,000 changes at once');
is(scalar(grep { /^burst-\d+$/ } keys %{ $users->keys }), 10000, '... are all told');
is(scalar(grep { length($_->{text}) > 7999 } $users->heard), 0, '... in payloads of at most 7,999 bytes');
cmp_ok(scalar($users->heard), '<', 40, '... that are full');
{
	# Whoever stops after any of them and goes on from its offset misses nothing.
	my ($missed, %named) = 0;
	my @all = $users->heard;
	my %offset = map { ("burst-$_" => $end - 9999 + $_) } 0 .. 9999;
	foreach my $payload (@all)
	{
		$named{$_} = 1 foreach keys %{ $payload->{updates} };
		$missed += grep { $offset{$_} <= $payload->{offsets}{0} && !$named{$_} } keys %offset;
	}
	is($missed, 0, '... and each says how far it goes');
}

my $long = 'x' x 7990;
batch('users', map { $_ => 'x' } 'before', $long, 'after');
my @three = map { $users->next } 1 .. 3;
is($three[1]{text}, sprintf('{"v":1,"topic":"users","offsets":{"0":%d},"updates":null,"more":true}', $end + 2), 'a key that is too long is not named');
is_deeply([ map { keys %{ $three[$_]{updates} } } 0, 2 ], [qw(before after)], '... its neighbors are');
$kafka->produce('users', 0, "\x01" x 2000, 'x');
ok($users->next->{more}, '... escaped it counts');
my $longest = 7999 - length('{"v":1,"topic":"users","offsets":{"0":12345},"updates":{"":{}}}');
$kafka->produce('users', 0, 'y' x ($longest - 60), 'x');
is_deeply([ map { length } keys %{ $users->next->{updates} } ], [ $longest - 60 ], '... and one that fits is');

# --- several partitions ------------------------------------------------------------------------------------------

my $spread = KafkaCache::Listener->new($node, 'spread');
$kafka->topic('spread', 3);
cache('spread', $text, "format 'text'");
$kafka->produce('spread', @$_, '1') foreach [ 0, 'a' ], [ 2, 'c' ], [ 2, 'd' ];
ok($spread->hears(sub { ($_[0]->{offsets}{2} // -1) == 1 }), 'several partitions');
is_deeply({ map { %{ $_->{offsets} } } $spread->heard }, { 0 => 0, 2 => 1 }, '... offsets are those of the partitions that changed');
is_deeply($spread->keys, { map { $_ => 'changed' } qw(a c d) }, '... and all keys are told');
$kafka->produce('spread', 1, 'c', '2', at => 1000);
$kafka->produce('spread', 1, 'e', '1');
$told = $spread->next;
is_deeply([ $told->{offsets}, $told->{updates} ], [ { 1 => 1 }, { e => {} } ], 'an older record of another partition is silent');
$kafka->produce('spread', 1, 'c', '3');
is_deeply($spread->next->{updates}, { c => {} }, '... a newer one is told');
$kafka->produce('spread', 2, 'c', undef);
is_deeply($spread->next->{updates}, { c => { deleted => JSON::PP::true } }, '... and its deletion');

# --- keys of other types -------------------------------------------------------------------------------------------

foreach my $case (
	[ 'ints', 'int', '42', '42' ],
	[ 'uuids', 'uuid', '6F1F0000-0000-0000-0000-000000000001', '6f1f0000-0000-0000-0000-000000000001' ],
	[ 'times', 'timestamptz', '2026-01-02T03:04:05+02:00', '2026-01-02 01:04:05+00' ],
	[ 'bytes', 'bytea', '\x00ff', '\x00ff' ])
{
	my ($name, $type, $key, $expected) = @$case;
	my $listener = KafkaCache::Listener->new($node, $name);

	$kafka->topic($name, 1);
	cache($name, "key $type OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')", "format 'text'");
	$kafka->produce($name, 0, $key, '1');
	is_deeply([ keys %{ $listener->next->{updates} } ], [$expected], "a key of type $type");
}
{
	my $listener = KafkaCache::Listener->new($node, 'pairs');

	$kafka->topic('pairs', 1);
	cache('pairs', "a text OPTIONS (key 'true') NOT NULL, b int OPTIONS (key 'true') NOT NULL, c int", "key_format 'json'");
	$kafka->produce('pairs', 0, '{ "b": 7, "a": "x\"y" }', '{"c": 1}');
	is($listener->next->{text}, '{"v":1,"topic":"pairs","offsets":{"0":0},"updates":{"{\"a\":\"x\\\\\"y\",\"b\":7}":{}}}', 'a key of two columns');
}

# --- the table says how ------------------------------------------------------------------------------------------------

my $quiet = KafkaCache::Listener->new($node, 'Quiet "one"');
one(q{ALTER FOREIGN TABLE users OPTIONS (SET notify 'Quiet "one"', ADD notify_payload 'none')});
batch('users', map { $_ => 'quiet' } qw(k10 k11));
$end = end_of('users');
ok($told = $quiet->next, 'another channel');
is($told->{text}, qq({"v":1,"topic":"users","offsets":{"0":$end},"updates":null}), '... and no names of keys');
# What waits to be told while the names of keys are switched on has none.
sub interval { one("ALTER SYSTEM SET kafka_cache.notify_interval = '$_[0]'"); return one('SELECT pg_reload_conf()'); }
interval('1h');
ok(eventually(sub {
	$kafka->produce('users', 0, 'k11', rand);
	return $node->catch_up('postgres', 'users', $kafka) && !$quiet->next(0.3);
}), 'a change that is not told yet');
one("ALTER FOREIGN TABLE users OPTIONS (SET notify_payload 'keys')");
interval('100ms');
$end = end_of('users');
is($quiet->next->{text}, qq({"v":1,"topic":"users","offsets":{"0":$end},"updates":null,"more":true}), '... is told as "more"');

one('ALTER FOREIGN TABLE users OPTIONS (DROP notify, DROP notify_payload)');
$kafka->produce('users', 0, 'k12', 'unheard');
ok($node->catch_up('postgres', 'users', $kafka), 'a table without a channel');
one("ALTER FOREIGN TABLE users OPTIONS (ADD notify 'users')");
my $marker = sub { $kafka->produce('users', 0, 'k13', rand); return $users->next(0.3) };
ok(eventually(sub { $told = $marker->() }), 'a channel again');
is_deeply([ keys %{ $told->{updates} } ], ['k13'], '... tells what changes since');
$told = $users->next while $told->{offsets}{0} < end_of('users');

# Values that are kept are compared as they are.
my $kept = KafkaCache::Listener->new($node, 'kept');
$kafka->topic('kept', 1);
$kafka->load('kept', 0, 0, 2, 'k%d', '{"n": 1}');
cache('kept', "key text OPTIONS (key 'true') NOT NULL, n int", "keep_value 'true'");
batch('kept', k0 => '{"n": 1}', k1 => '{"n":1}');
is_deeply($kept->next->{updates}, { k1 => {} }, 'keep_value: the same bytes are silent, others are told');

# What a bad record does is up to the table.
my $removing = KafkaCache::Listener->new($node, 'removing');
$kafka->topic('removing', 1);
$kafka->load('removing', 0, 0, 2, 'k%d', '{"n": 1}');
cache('removing', "key text OPTIONS (key 'true') NOT NULL, n int", "on_error 'remove'");
$kafka->produce('removing', 0, 'k0', 'bad');
is_deeply($removing->next->{updates}, { k0 => { deleted => JSON::PP::true } }, "on_error 'remove': a bad record is a deletion");

# --- the consumer ends between two records ----------------------------------------------------------------------------------

one('CREATE TABLE gate (word text)');
one(q{CREATE FUNCTION passes(word text) RETURNS bool LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(600) FROM public.gate g WHERE g.word = passes.word;  -- cancelled
		RETURN true;
	END $$});
one('CREATE DOMAIN gated AS text CHECK (passes(VALUE))');
my $halves = KafkaCache::Listener->new($node, 'halves');
$kafka->topic('halves', 1);
cache('halves', "key text OPTIONS (key 'true') NOT NULL, word gated");
one("INSERT INTO gate VALUES ('w50')");
batch('halves', map { ("k$_" => qq({"word": "w$_"})) } 0 .. 99);
my $asleep = "FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND wait_event = 'PgSleep'";
ok($node->wait_for('postgres', "SELECT count(*) = 1 $asleep"), 'a consumer has applied half of a batch');
one('DELETE FROM gate');
one("SELECT pg_terminate_backend(pid) $asleep");
ok($halves->hears(sub { $_[0]->{offsets}{0} == 99 }), '... and ends; the next one goes on');
is(scalar(keys %{ $halves->keys }), 100, '... and all are told');

# --- other contents --------------------------------------------------------------------------------------------------------

$kafka->produce('kept', 0, 'k0', '{"n": 2}');
$kept->next;
one("SELECT kafka_cache.reload('kept')");
is($kept->next->{text}, '{"v":1,"topic":"kept","offsets":{"0":4},"updates":null,"more":true}', 'a reload: anything may have changed');
one('ALTER FOREIGN TABLE kept ADD COLUMN m int');
is($kept->next->{text}, '{"v":1,"topic":"kept","offsets":{"0":4},"updates":null,"more":true}', '... and so with other columns');
$kafka->produce('kept', 0, 'k0', '{"n": 3}');
is_deeply($kept->next->{updates}, { k0 => {} }, '... and then as before');

$told = $users->next(0);
is($told && $told->{text}, undef, "nothing was told twice");
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal|could not notify/, 'nothing alarming in the log');
$node->stop;
done_testing;
