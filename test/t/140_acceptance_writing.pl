# What is written is what kcat finds in Kafka: where RETURNING says, byte for byte; in the partition
# that a Java client takes; all or nothing where a table is atomic. And a table that is read-only has no
# producer.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '128MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# --- a table that is read-only ------------------------------------------------------------------------

text_table($node, 'readers');
$kafka->topic('readers', 1);
$kafka->produce('readers', 0, 'a', '1');
ok($node->catch_up('postgres', 'readers', $kafka), 'a table that is read-only, as all are unless told otherwise');
foreach my $sql (
	"INSERT INTO readers VALUES ('b', '2')",
	"UPDATE readers SET value = '2'",
	"DELETE FROM readers",
	"COPY readers FROM STDIN;\nb\t2\n\\.\n")
{
	my ($command) = $sql =~ /^(\w+)/;
	my $told = told($node, $sql);
	is($told->{state}, '42809', "$command is refused");
	like($told->{err}, qr/HINT: .*readonly/, '... and told what to do');
}
is(producers($node), 0, 'no producer has been started');
cmp_ok(connected_to($node, $kafka->address, 'consumer'), '>', 0, 'the broker has a connection of the consumer');
is(connected_to($node, $kafka->address, 'producer') + connected_to($node, $kafka->address, ''), 0, '... and none of anybody else');
unlike($node->log_text, qr/kafka_cache producer/, '... nor was there ever one');

# --- RETURNING is what kcat shows -----------------------------------------------------------------------

$kafka->topic('users', 4);
one(q{
CREATE FOREIGN TABLE users (
	id uuid OPTIONS (key 'true') NOT NULL,
	display_name text OPTIONS (json 'displayName') NOT NULL,
	email text,
	groups uuid[] OPTIONS (json 'groups[].id'),
	balance numeric,
	_headers jsonb OPTIONS (headers 'true'),
	_partition int OPTIONS (partition 'true'),
	_offset bigint OPTIONS (offset 'true'),
	_time timestamptz OPTIONS (timestamp 'true')
) SERVER kafka OPTIONS (topic 'users', readonly 'false', delivery 'immediate')});

my @users = (
	[
		q{(id, display_name, groups) VALUES ('6f1f0d5e-0000-4000-8000-000000000001', 'Ann', '{}')},
		'6f1f0d5e-0000-4000-8000-000000000001', '{"displayName":"Ann","groups":[]}', undef
	],
	[
		q{(id, display_name, email, groups, balance, _headers) VALUES ('6F1F0D5E-0000-4000-8000-000000000002', E'B\u00f6b "q" \\\\ \n', 'b@x',
		   ARRAY['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b']::uuid[], 12345678901234567890.120,
		   '[["source", "crm"], ["trace", null], ["source", "söcond"]]')},
		'6f1f0d5e-0000-4000-8000-000000000002',
		'{"displayName":"Böb \"q\" \\\\ \n","email":"b@x","groups":[{"id":"00000000-0000-4000-8000-00000000000a"},{"id":"00000000-0000-4000-8000-00000000000b"}],"balance":12345678901234567890.120}',
		[ 'source', 'crm', 'trace', undef, 'source', 'söcond' ]
	],
	[
		q{(id, display_name, _partition, _time) VALUES ('6f1f0d5e-0000-4000-8000-000000000003', 'Cid', 3, '2001-02-03 04:05:06.789012+00')},
		'6f1f0d5e-0000-4000-8000-000000000003', '{"displayName":"Cid"}', undef
	]);
foreach my $user (@users)
{
	my ($values, $key, $payload, $headers) = @$user;
	my ($partition, $offset, $ms) =
	  split /\|/, one("INSERT INTO users $values RETURNING _partition, _offset, (extract(epoch FROM _time) * 1000)::bigint");
	my $record = record_at($kafka, 'users', $partition, $offset);
	my $who = substr $key, -2;

	is($record->{offset}, $offset, "$who: kcat finds it at $partition/$offset");
	is($record->{key}, $key, '... its key');
	is($record->{payload}, $payload, '... its value, byte for byte');
	is_deeply($record->{headers}, $headers, '... its headers');
	is($record->{ts}, $ms, '... its time');
}
is(one("SELECT _partition, _time FROM users WHERE display_name = 'Cid'"), '3|2001-02-03 04:05:06.789+00', 'what was given is what it is');
is(one('SELECT count(*) FROM users'), '3', 'and it is read in the same session');
cmp_ok(connected_to($node, $kafka->address, 'producer'), '>', 0, 'the producer has a connection now');
is(connected_to($node, $kafka->address, ''), 0, '... and no backend has');

# Several rows, each with its own place.
my @places = split /\n/,
  one(q{INSERT INTO users (id, display_name) SELECT ('6f1f0d5e-0000-4000-8000-0000000001' || i)::uuid, 'n' || i FROM generate_series(10, 29) i
	RETURNING _partition, _offset, id, display_name});
is(@places, 20, 'twenty rows of one statement');
is(
	join("\n",
		map { my ($p, $o) = split /\|/; my $r = record_at($kafka, 'users', $p, $o);
			join '|', $p, $o, $r->{key}, decode_json($r->{payload})->{displayName} } @places),
	join("\n", @places),
	'... each where it says');

# Bytes that are no text.
$kafka->topic('raw', 1);
one("CREATE FOREIGN TABLE raw (key bytea OPTIONS (key 'true') NOT NULL, value bytea OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'raw', format 'bytea', key_format 'bytea', readonly 'false')");
one(q{INSERT INTO raw VALUES ('\x00ff', '\x80000a0dfe'), ('\x01', '')});
is(unpack('H*', qx(kcat -q -C -e -o beginning -b $kafka->{address} -t raw -f '[%k|%S|%s]')),
	unpack('H*', "[\x00\xff|5|\x80\x00\x0a\x0d\xfe][\x01|0|]"), 'bytes as they are');

# A tombstone.
one("DELETE FROM users WHERE display_name = 'Ann'");
my %last = map { ($_->{key} => $_) } $kafka->read_topic('users');
is($last{'6f1f0d5e-0000-4000-8000-000000000001'}{payload}, undef, 'DELETE is a tombstone');
is(one('SELECT count(*) FROM users WHERE display_name = $$Ann$$'), '0', '... and read so');

# --- too large -------------------------------------------------------------------------------------------

$kafka->topic('large', 1, 'max.message.bytes' => 10000000);
foreach my $delivery (qw(commit immediate))
{
	one("CREATE FOREIGN TABLE large_$delivery (key text OPTIONS (key 'true') NOT NULL, value text)
		SERVER kafka OPTIONS (topic 'large', readonly 'false', delivery '$delivery')");
}
foreach my $delivery (qw(commit immediate))
{
	my $told = told($node, "BEGIN; INSERT INTO large_$delivery VALUES ('k', repeat('x', 2 * 1024 * 1024)); SELECT 'not reached'");
	is($told->{state}, '54000', "2 MiB, delivery $delivery: too large, at the statement");
	like($told->{err}, qr/HINT: /, '... and what to do about it');
	unlike($told->{err}, qr/xxxx/, '... without the data');
	unlike($told->{out}, qr/not reached/, '... before the commit');
}
is(scalar($kafka->read_topic('large')), 0, 'nothing of it was sent');
one("ALTER SERVER kafka OPTIONS (ADD message_max_bytes '8000000')");
is(told($node, "INSERT INTO large_immediate VALUES ('k', repeat('x', 2 * 1024 * 1024))")->{state}, '', 'with a higher limit it goes');
is(($kafka->read_topic('large'))[0]{payload}, '{"value":"' . 'x' x (2 * 1024 * 1024) . '"}', '... whole');
one('ALTER SERVER kafka OPTIONS (DROP message_max_bytes)');

# --- all or nothing ----------------------------------------------------------------------------------------

# The broker, not we, refuses the second of three.
$kafka->topic('atomic', 1, 'max.message.bytes' => 20000);
one(q{
CREATE FOREIGN TABLE atomic (key text OPTIONS (key 'true') NOT NULL, value text)
	SERVER kafka OPTIONS (topic 'atomic', readonly 'false', atomic 'true', compression 'none');
CREATE TABLE beside (n int)});
my $three = "BEGIN; INSERT INTO beside VALUES (%d); INSERT INTO atomic VALUES ('%s1', 'small'); INSERT INTO atomic VALUES ('%s2', %s);
	INSERT INTO atomic VALUES ('%s3', 'small'); COMMIT";
my $told = told($node, sprintf $three, 1, 'a', 'a', "repeat('x', 100000)", 'a');
is($told->{state}, '54000', 'three records, the second refused by the broker: an error that says why');
is(join(' ', map { $_->{key} } committed($kafka, 'atomic')), '', '... and who reads committed records sees none of them');
is(one('SELECT count(*) FROM beside'), '0', '... nor is anything else of the transaction there');
$told = told($node, sprintf $three, 2, 'b', 'b', "'fits'", 'b');
is($told->{state}, '', 'three good ones');
ok(eventually(sub { join(' ', map { $_->{key} } committed($kafka, 'atomic')) eq 'b1 b2 b3' }), '... and all three are there, a moment after');
is(one('SELECT n FROM beside'), '2', '... beside the rest of the transaction');
is(one('SELECT string_agg(key, $$ $$ ORDER BY key) FROM atomic'), 'b1 b2 b3', '... and in the table');

# Never a part, however often one looks while they are written.
my $writer = pgbench_beside(
	$node, q{
\set n random(1, 1000000000)
BEGIN; INSERT INTO atomic VALUES (:n || 'x', '1'); INSERT INTO atomic VALUES (:n || 'y', '2'); INSERT INTO atomic VALUES (:n || 'z', '3'); COMMIT;
}, clients => 3, transactions => 60, protocol => 'simple');
my $looks = 0;
my $parts = 0;
my %sizes;
while ($writer->running)
{
	my @seen = grep { ($_->{key} // '') =~ /\d[xyz]\z/ } committed($kafka, 'atomic');
	$parts++ if @seen % 3 != 0;
	$sizes{ scalar @seen }++;
	$looks++;
}
is($writer->transactions, 180, '180 transactions of three');
cmp_ok($looks, '>', 3, "looked at $looks times, with " . keys(%sizes) . ' different states');
is($parts, 0, '... and never in part');
ok(eventually(sub { 540 == grep { ($_->{key} // '') =~ /\d[xyz]\z/ } committed($kafka, 'atomic') }), '... to the end');

sub count_of
{
	my ($topic) = @_;

	open(my $kcat, '-|', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $kafka->address, '-t', $topic, '-f', '%k\n',
		'-X', 'isolation.level=read_committed', '-X', 'fetch.wait.max.ms=10')
	  or die;
	my $n = () = <$kcat>;
	close $kcat;
	return $n;
}

# A large one takes long enough to be looked at in the middle.
$kafka->topic('bulk', 1);
one("CREATE FOREIGN TABLE bulk (key int OPTIONS (key 'true') NOT NULL, value text) SERVER kafka OPTIONS (topic 'bulk', readonly 'false', atomic 'true')");
my ($bulk) = at_once($node, "INSERT INTO bulk SELECT i, repeat('x', 200) FROM generate_series(1, 100000) i");
my ($before, $between) = (0, 0);
while ($bulk->running)
{
	my $n = count_of('bulk');
	$before++ if $n == 0;
	$between++ if $n != 0 && $n != 100000;
}
is(told_by($bulk)->{state}, '', 'a transaction of 100,000');
is($between, 0, "... seen as nothing ($before times) or as a whole");
ok(eventually(sub { count_of('bulk') == 100000 }), '... which it is');

# --- the partition that a Java client takes -----------------------------------------------------------------

$kafka->topic('fifty', 50);
text_table($node, 'fifty', readonly => 'false');
my @keys = (
	'', 'x', ' ',
	(map { sprintf '%08x-0000-4000-8000-%012x', $_ * 2654435761 % 2**32, $_ } 1 .. 250),
	(map { "key-$_" } 1 .. 250),
	(map { "kľúč→$_" } 1 .. 250),
	(map { substr('The quick brown fox jumps over the lazy dog, twice', 0, $_ % 47 + 1) . ".$_" } 1 .. 247));
is(scalar(@keys), 1000, 'a thousand keys');
$kafka->java([ map { "$_\tjava" } @keys ],
	'kafka.tools.ConsoleProducer', '--bootstrap-server', $kafka->address, '--topic', 'fifty',
	'--property', 'parse.key=true', '--property', "key.separator=\t");
one('CREATE TABLE keys (key text)');
one("COPY keys FROM STDIN;\n" . join("\n", @keys) . "\n\\.\n");
one("INSERT INTO fifty SELECT key, 'sql' FROM keys");
my %partitions;
my %by;
foreach my $record (map { in_bytes($_) } $kafka->read_topic('fifty'))
{
	$partitions{ $record->{key} }{ $record->{partition} }++;
	$by{ $record->{payload} }++;
}
is_deeply(\%by, { java => 1000, sql => 1000 }, 'each written by Java and by INSERT');
is(join('|', grep { keys %{ $partitions{$_} } != 1 } sort keys %partitions), '', '... into the same partition');
cmp_ok(keys %{ { map { (%$_) } values %partitions } }, '>', 45, '... of which there are many');
ok($node->catch_up('postgres', 'fifty', $kafka), 'all of them are in the table');
is(one('SELECT count(*), count(*) FILTER (WHERE value = $$sql$$) FROM fifty'), '1000|1000', '... once each, as INSERT has them');
is(one("SELECT cross_partition_keys FROM kafka_cache.tables WHERE relation = 'fifty'::regclass"), '0', '... no key in two partitions');

my ($home) = keys %{ $partitions{x} };
one('ALTER FOREIGN TABLE fifty ADD COLUMN _partition int OPTIONS (partition $$true$$)');
one("INSERT INTO fifty (key, value, _partition) VALUES ('x', 'elsewhere', " . ($home + 1) % 50 . ')');
ok($node->catch_up('postgres', 'fifty', $kafka), 'one is put elsewhere');
is(one("SELECT cross_partition_keys FROM kafka_cache.tables WHERE relation = 'fifty'::regclass"), '1', '... which is counted');
is(one("SELECT value FROM fifty WHERE key = 'x'"), 'elsewhere', '... and the newest of both is the row');

balanced($node, 'writing');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
