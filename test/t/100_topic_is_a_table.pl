# A topic is a table: kcat produces, SELECT shows. Updates, tombstones, compressed batches, keys and
# values of many kinds; and what is read before a table is ready.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '512MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# --- latest value per key ---------------------------------------------------------------------------------

my @keyed = ('-K', "\t");
$kafka->topic('colors', 50);
kcat($kafka, 'colors', qq(A\t{"id":"1","color":"red"}\nB\t{"id":"2","color":"blue"}\n), @keyed);
one("CREATE FOREIGN TABLE colors (key text OPTIONS (key 'true') NOT NULL, id text, color text) SERVER kafka OPTIONS (topic 'colors')");
ok($node->wait_ready('postgres', 'colors'), 'a topic of fifty partitions');
is(one('SELECT key, color FROM colors ORDER BY 1'), "A|red\nB|blue", 'two records of kcat are two rows');
kcat($kafka, 'colors', qq(A\t{"id":"1","color":"green"}\n), @keyed);
ok($node->catch_up('postgres', 'colors', $kafka), 'an update arrives');
is(one('SELECT key, color FROM colors ORDER BY 1'), "A|green\nB|blue", '... as one row');
is(one("SELECT color FROM colors WHERE key = 'A'"), 'green', '... by key');
is(one("SELECT count(*) FROM colors WHERE key = 'C'"), '0', 'a key that is not there is no row');
like(one("EXPLAIN SELECT color FROM colors WHERE key = 'A'"), qr/Key Lookup/, 'a key is looked up');
like(one('EXPLAIN SELECT color FROM colors'), qr/Full Scan/, '... all rows are scanned');

# A tombstone is a record without value, not one with an empty value.
kcat($kafka, 'colors', "A\t\n", '-Z', @keyed);
ok($node->catch_up('postgres', 'colors', $kafka), 'a tombstone arrives');
is(one("SELECT entries FROM kafka_cache.tables WHERE relation = 'colors'::regclass"), '1', '... and there is a row less');
is(one("SELECT count(*) FROM colors WHERE key = 'A'"), '0', '... by key');
is(one('SELECT key FROM colors'), 'B', '... and by scan');
kcat($kafka, 'colors', "B\t\n", @keyed);
ok($node->catch_up('postgres', 'colors', $kafka), 'an empty value arrives');
is(one('SELECT key, color FROM colors'), 'B|blue', '... and removes nothing');
is(one("SELECT reason FROM kafka_cache.errors WHERE relation = 'colors'::regclass"), 'json', '... but is no JSON');
kcat($kafka, 'colors', "never\t\n", '-Z', @keyed);
ok($node->catch_up('postgres', 'colors', $kafka), 'a tombstone of a key that never was');
is(one("SELECT tombstones, errors, entries FROM kafka_cache.tables WHERE relation = 'colors'::regclass"), '2|1|1', '... is a tombstone');

# --- compressed by the producer ------------------------------------------------------------------------------

$kafka->topic('compressed', 3);
text_table($node, 'compressed');
foreach my $codec (qw(gzip snappy lz4 zstd))
{
	# Put, deleted and put again, over the borders of batches; and kept.
	foreach my $round (1 .. 3)
	{
		kcat($kafka, 'compressed', join('', map { "$codec-$_\t$codec says $round-$_ " . 'abc' x 100 . "\n" } 1 .. 500), '-z', $codec, @keyed);
		kcat($kafka, 'compressed', join('', map { "$codec-" . $_ * 7 . "\t\n" } 1 .. 60), '-Z', '-z', $codec, @keyed);
	}
}
ok($node->catch_up('postgres', 'compressed', $kafka), 'batches compressed with gzip, snappy, lz4 and zstd');
same_as_kcat($node, $kafka, 'compressed', 'compressed');
is(one('SELECT count(*) FROM compressed'), 4 * 440, '... as many as there should be');

# --- any value ------------------------------------------------------------------------------------------------

$kafka->topic('values', 1, 'max.message.bytes' => 8000000);
one("CREATE FOREIGN TABLE \"values\" (key bytea OPTIONS (key 'true') NOT NULL, value bytea OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'values', format 'bytea', key_format 'bytea')");
my %bytes = ("" => 'of the empty key', "\0" => 'of a zero', "line\nend" => "line\nend\t", "any\xff" => join('', map { chr } 0 .. 255), 'nothing' => '');
$kafka->produce('values', 0, $_, $bytes{$_}) foreach sort keys %bytes;
$kafka->produce('values', 0, 'large', 'x' x 900000);
ok($node->catch_up('postgres', '"values"', $kafka, 'values'), 'keys and values of any bytes');
is_deeply({ map { split /\|/, $_, 2 } split /\n/, one(q{SELECT key, value FROM "values" WHERE key <> 'large'}) },
	{ map { '\x' . unpack('H*', $_) => '\x' . unpack('H*', $bytes{$_}) } keys %bytes }, '... are as they were');
is(one(q{SELECT length(value), md5(value) = md5(repeat('x', 900000)) FROM "values" WHERE key = 'large'}), '900000|t', '... a large one too');

# --- before it is ready ------------------------------------------------------------------------------------------

my $rows = 1_000_000;
$kafka->topic('million', 50);
kcat($kafka, 'million', join('', map { "key-$_\t$_\n" } 0 .. $rows - 1), @keyed, '-X', 'linger.ms=100');
my $started = beside(
	sub {
		# What somebody sees who does not want to wait; then what she sees who waits.
		my %seen;
		for (;;)
		{
			my ($status, $out, $err) =
			  $node->psql('postgres', "\\set VERBOSITY verbose\nSET kafka_cache.when_not_ready = 'error'; SELECT count(*) FROM million");
			if ($status == 0) { print "count $out\n"; last }
			elsif ($err =~ /ERROR:\s+42P01/) { next }
			elsif ($err =~ /ERROR:\s+(\w+): (cached table .* is not ready).*?DETAIL:\s+(.*?)\n/s) { $seen{"$1 $2"}++; print "$1 $2 $3\n" }
			else { die $err }
		}
	});
text_table($node, 'million');
my $waiting = one("SET kafka_cache.wait_timeout = '60s'; SELECT count(*) FROM million");
is($waiting, $rows, 'who waits for a million records gets all of them');
ok($started->succeeded, 'who does not wait gets 55000 until the table is ready');
my @told = split /\n/, $started->output;
is(pop @told, "count $rows", '... and then all of them');
cmp_ok(scalar @told, '>', 0, '... and was told before');
is(scalar(grep { !/^55000 cached table "million" is not ready Its state is "(starting|connecting|loading)"/ } @told), 0, '... in which state it is')
  or diag(join "\n", @told);
is(scalar(grep { /"loading"/ && !/\d+ of 50 partitions loaded, \d+ of \d+ offsets|\d+% of its records are loaded/ } @told), 0, '... and how far');
is(one("SELECT records, upserts, progress, lag FROM kafka_cache.tables WHERE relation = 'million'::regclass"), "$rows|$rows|1|0", 'all is counted');
my $plan = one("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, COSTS OFF) SELECT value FROM million WHERE key = 'key-4711'");
like($plan, qr/Key Lookup/, 'a key of a million is looked up');
like($plan, qr/actual rows=1 /, '... and is one row');

# --- a restart loads the same -----------------------------------------------------------------------------------

my $digest = q{SELECT md5(string_agg(x, '' ORDER BY x)) FROM (SELECT c::text x FROM colors c UNION ALL SELECT c::text FROM compressed c
	UNION ALL SELECT v::text FROM "values" v UNION ALL SELECT count(*) || '/' || sum(value::int) FROM million) y};
my $before = one($digest);
$node->restart;
ok($node->wait_ready('postgres', $_), "after a restart: $_ is ready") foreach 'colors', 'compressed', 'million', '"values"';
is(one($digest), $before, '... with the same contents');
balanced($node, 'in the end');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
