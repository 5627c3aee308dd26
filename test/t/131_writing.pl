# Statements that write, on Apache Kafka: kcat says what landed, byte for byte: key, value, headers,
# partition, offset and time.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '512MB', work_mem => '1MB', temp_file_limit => '1GB' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# What a session says of SQL that fails.
sub fails
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', $sql, on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return $stderr;
}

# One record, as kcat has it: key, value (undefined: a tombstone), headers, time.
sub record
{
	my ($topic, $partition, $offset) = @_;
	my @command = ('kcat', '-q', '-C', '-e', '-b', $kafka->address, '-t', $topic, '-p', $partition, '-o', $offset, '-c', 1,
		'-X', 'fetch.wait.max.ms=10', '-f', '%p %o %T %K %S\n%h\n%k%s');

	open(my $pipe, '-|', @command) or die "kcat: $!";
	binmode $pipe;
	my $numbers = <$pipe> // '';
	my $headers = <$pipe> // '';
	my $rest = do { local $/ = undef; <$pipe> } // '';
	close($pipe) or die "kcat failed on topic $topic";
	my ($p, $o, $time, $klen, $vlen) = split ' ', $numbers;
	chomp $headers;
	return {
		at => "$p/$o", time => $time, headers => $headers,
		key => substr($rest, 0, $klen), value => $vlen < 0 ? undef : substr($rest, $klen, $vlen)
	};
}

# The newest record of a key in a topic.
sub newest
{
	my ($topic, $key) = @_;
	my ($found) = reverse grep { defined $_->{key} && $_->{key} eq $key } $kafka->read_topic($topic);

	return $found ? record($topic, $found->{partition}, $found->{offset}) : undef;
}

# How many records a topic has.
sub count_of
{
	my ($topic) = @_;
	my $address = $kafka->address;

	return length qx(kcat -q -C -e -b $address -t $topic -o beginning -X fetch.wait.max.ms=10 -f .);
}

# --- RETURNING tells what kcat finds ----------------------------------------------------------------------

$kafka->topic('users', 3);
one(<<'EOS');
CREATE FOREIGN TABLE users (
	id uuid OPTIONS (key 'true') NOT NULL, display_name text OPTIONS (json 'displayName') NOT NULL, balance numeric, photo bytea,
	p int OPTIONS (partition 'true'), o bigint OPTIONS (offset 'true'), at timestamptz OPTIONS (timestamp 'true'), h jsonb OPTIONS (headers 'true')
) SERVER kafka OPTIONS (topic 'users', readonly 'false', delivery 'immediate', keep_value 'true');
EOS
ok($node->wait_ready('postgres', 'users'), 'ready');
my $id = '6f1f0e9c-6a4e-4f4a-9a55-2b1de3c1a001';
my $millis = "floor(extract(epoch FROM at) * 1000)::bigint";
my $before = int(time * 1000);
my ($p, $o, $at) = split /\|/, one(<<"EOS");
INSERT INTO users (id, display_name, balance, photo, h)
VALUES ('$id', U&'\\00C4nn "\\2603"', 1.50, '\\x00ff', '[["trace", "1"], ["none", null], ["raw", "\\\\xfeff"]]') RETURNING p, o, $millis
EOS
my $got = record('users', $p, $o);
is($got->{key}, $id, 'RETURNING says where the record is: its key');
is($got->{value}, qq({"displayName":"\xc3\x84nn \\"\xe2\x98\x83\\"","balance":1.50,"photo":"\\\\x00ff"}), '... its value');
is($got->{headers}, "trace=1,none=NULL,raw=\xfe\xff", '... its headers');
is($got->{time}, $at, '... and its time');
cmp_ok($at, '>=', $before - 1, '... which is the present one');
is(one("SELECT p, o, $millis FROM users WHERE id = '$id'"), "$p|$o|$at", 'and SELECT says the same');

my @rows = split /\n/, one("INSERT INTO users (id, display_name) SELECT md5(i::text)::uuid, 'user ' || i FROM generate_series(1, 20) i RETURNING id, p, o");
is(@rows, 20, 'twenty rows');
my $address = $kafka->address;
my %found = map { ($_ => 1) } split /\n/, qx(kcat -q -C -e -b $address -t users -o beginning -X fetch.wait.max.ms=10 -f '%k|%p|%o\n');
is(join("\n", grep { !$found{$_} } @rows), '', '... each where RETURNING says');

# Where, when: as given.
($p, $o, $at) = split /\|/, one("INSERT INTO users (id, display_name, p, at) VALUES ('$id', 'given', 2, '2026-01-02 03:04:05.678912Z') RETURNING p, o, $millis");
is($p, 2, 'a partition that is given');
$got = record('users', 2, $o);
is($got->{time}, '1767323045678', '... with a time that is given, in milliseconds');
is($at, $got->{time}, '... as RETURNING says');
is($got->{headers}, '', '... and no headers');

# In a topic whose broker gives the time.
$kafka->topic('stamped', 1, 'message.timestamp.type' => 'LogAppendTime');
one("CREATE FOREIGN TABLE stamped (id int OPTIONS (key 'true') NOT NULL, at timestamptz OPTIONS (timestamp 'true')) SERVER kafka
	 OPTIONS (topic 'stamped', readonly 'false', delivery 'immediate')");
$at = one("INSERT INTO stamped VALUES (1, '2020-01-01Z') RETURNING $millis");
is(record('stamped', 0, 0)->{time}, $at, "LogAppendTime: RETURNING has the broker's time");
cmp_ok($at, '>=', $before - 1, '... not the one that was given');

# --- a read-only table has no producer ----------------------------------------------------------------------

one("CREATE DATABASE other");
$node->connect_kafka('other', $kafka);
$node->safe_psql('other', "CREATE FOREIGN TABLE users (id uuid OPTIONS (key 'true') NOT NULL) SERVER kafka OPTIONS (topic 'users')");
ok($node->wait_ready('other', 'users'), 'a read-only table');
foreach my $sql ("INSERT INTO users VALUES ('$id')", 'DELETE FROM users', "COPY users FROM STDIN;\n$id\n\\.\n")
{
	my (undef, undef, $stderr) = $node->psql('other', $sql);
	like($stderr, qr/cached table "users" is read-only/, "... refuses $sql");
}
is($node->safe_psql('other', "SELECT kind FROM kafka_cache.workers WHERE database = 'other'"), 'consumer', '... and starts no producer');
is(one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer' AND datname = 'other'"), '0', '... says PostgreSQL');

# --- UPDATE and DELETE: the old record's key, partition and what else was in it -----------------------------

# somebody else's spelling and partition
$kafka->topic('docs', 4);
my $document = '{ "name":"x" , "n": 1.0e1, "unknown":{"deep":[1,2.500,{"k":null}]},  "list":[{"id":"a","z":[1, 2]},{"id":"b","y":"\u00e4"}],"dup":1,"n": 10 }';
my ($dp, $do) = $kafka->produce('docs', 3, '{"b":"y", "a": 1,"extra":[ ]}', $document, headers => [ origin => 'elsewhere' ], at => 1700000000000);
one(<<'EOS');
CREATE FOREIGN TABLE docs (
	a int OPTIONS (key 'true') NOT NULL, b text OPTIONS (key 'true') NOT NULL, name text, n numeric, ids text[] OPTIONS (json 'list[].id'),
	h jsonb OPTIONS (headers 'true'), p int OPTIONS (partition 'true')
) SERVER kafka OPTIONS (topic 'docs', readonly 'false', keep_value 'true', key_format 'json');
EOS
ok($node->catch_up('postgres', 'docs', $kafka), 'a record of somebody else');
one("UPDATE docs SET name = 'new' WHERE a = 1 AND b = 'y'");
$got = record('docs', 3, 1);
is($got->{key}, '{"b":"y", "a": 1,"extra":[ ]}', "UPDATE keeps the key's spelling and the partition");
(my $expected = $document) =~ s/"x"/"new"/;
is($got->{value}, $expected, '... and the document, byte for byte, but for the member');
is($got->{headers}, 'origin=elsewhere', '... and the headers');
cmp_ok($got->{time}, '>=', $before - 1, '... and takes a new time');
one("UPDATE docs SET n = 20, ids = ARRAY['b', 'c'] WHERE a = 1 RETURNING *");
like(record('docs', 3, 2)->{value}, qr/"unknown":\{"deep":\[1,2\.500,\{"k":null\}\]\}/, 'nested members stay as they are');
like(record('docs', 3, 2)->{value}, qr/"y":"\\u00e4"/, '... also in elements that stay');
is(one("SELECT n, ids FROM docs WHERE a = 1"), '20|{b,c}', '... beside what was set');
one("DELETE FROM docs WHERE b = 'y'");
$got = record('docs', 3, 3);
is($got->{key}, '{"b":"y", "a": 1,"extra":[ ]}', 'DELETE is a record of the same key, in the same partition');
is($got->{value}, undef, '... without a value');
is(one('SELECT count(*) FROM docs'), '0', '... and the row is gone');
is(count_of('docs'), 4, 'a record for each row, no more');

# --- compression -------------------------------------------------------------------------------------------

foreach my $codec (qw(none gzip snappy lz4 zstd))
{
	$kafka->topic("codec_$codec", 1);
	one("CREATE FOREIGN TABLE codec_$codec (id int OPTIONS (key 'true') NOT NULL, t text) SERVER kafka
		 OPTIONS (topic 'codec_$codec', readonly 'false', compression '$codec')");
	one("INSERT INTO codec_$codec SELECT i, repeat('x', 1000) FROM generate_series(1, 100) i");
	my @records = $kafka->read_topic("codec_$codec");
	is(scalar(grep { $_->{payload} eq '{"t":"' . 'x' x 1000 . '"}' } @records), 100, "compression $codec: kcat reads all");
}

# --- many rows ---------------------------------------------------------------------------------------------

$kafka->topic('many', 4);
one("CREATE FOREIGN TABLE many (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')) SERVER kafka
	 OPTIONS (topic 'many', format 'text', readonly 'false')");
ok($node->wait_ready('postgres', 'many'), 'an empty table');
my $rows = join '', map { "key-$_\tvalue $_\n" } 1 .. 100000;
one("COPY many FROM STDIN;\n$rows\\.\n");
is(one('SELECT count(*), count(DISTINCT value) FROM many'), '100000|100000', 'COPY of 100,000 rows');
same_as_kcat($node, $kafka, 'many', 'COPY');
is(count_of('many'), 100000, '... a record for each');
one("INSERT INTO many SELECT key, upper(value) FROM many WHERE key LIKE '%7'");
one("UPDATE many SET value = value || '!' WHERE key LIKE 'key-1%'");
one("DELETE FROM many WHERE key LIKE '%3'");
is(one('SELECT count(*) FROM many'), '90000', 'INSERT … SELECT, UPDATE and DELETE of many rows');
same_as_kcat($node, $kafka, 'many', 'they');

# A transaction that fails at its last row has sent nothing, however far it has come.
my $records = count_of('many');
like(fails("INSERT INTO many SELECT 'x' || i, CASE WHEN i < 50000 THEN 'y' END FROM generate_series(1, 50000) i"), qr/23502/, 'an INSERT that fails at its end');
is(count_of('many'), $records, '... has sent nothing');

# --- partitions of a partitioned table, triggers ------------------------------------------------------------

$kafka->topic('eu', 1);
$kafka->topic('us', 1);
one(<<'EOS');
CREATE TABLE people (id int, name text, region text) PARTITION BY LIST (region);
CREATE FOREIGN TABLE eu (id int OPTIONS (key 'true') NOT NULL, name text, region text) SERVER kafka OPTIONS (topic 'eu', readonly 'false', keep_value 'true');
CREATE FOREIGN TABLE us (region text, id int OPTIONS (key 'true') NOT NULL, name text) SERVER kafka OPTIONS (topic 'us', readonly 'false', keep_value 'true');
CREATE TABLE elsewhere (id int, name text, region text);
ALTER TABLE people ATTACH PARTITION eu FOR VALUES IN ('eu');
ALTER TABLE people ATTACH PARTITION us FOR VALUES IN ('us');
ALTER TABLE people ATTACH PARTITION elsewhere DEFAULT;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON us FOR EACH ROW EXECUTE FUNCTION shout();
INSERT INTO people VALUES (1, 'Ann', 'eu'), (2, 'Bob', 'us'), (3, 'Cid', 'asia');
EOS
is(newest('eu', 1)->{value}, '{"name":"Ann","region":"eu"}', 'a row is routed to its topic');
is(newest('us', 2)->{value}, '{"region":"us","name":"BOB"}', '... with what a trigger makes of it');
one("UPDATE people SET region = 'us' WHERE id = 3");
is(newest('us', 3)->{value}, '{"region":"us","name":"CID"}', 'a row is moved from an ordinary table to a topic');
is(one('SELECT tableoid::regclass, id FROM people ORDER BY id'), "eu|1\nus|2\nus|3", '... and is there only');
one('BEGIN; UPDATE people SET name = \'x\'; DELETE FROM people; ROLLBACK');
is(count_of('us') + count_of('eu'), 3, 'what is rolled back leaves nothing');

# --- 'immediate' with RETURNING: what is refused later has been sent before ----------------------------------

$o = one("SELECT count(*) FROM users");
like(fails("INSERT INTO users (id, display_name) VALUES ('00000000-0000-0000-0000-000000000001', 'a'), ('00000000-0000-0000-0000-000000000002', NULL)"),
	qr/23502/, 'a statement that fails at its second row');
is(one('SELECT count(*) FROM users'), $o, '... has sent nothing');
one("BEGIN; INSERT INTO users (id, display_name) VALUES ('00000000-0000-0000-0000-000000000003', 'stays'); ROLLBACK");
is(one("SELECT display_name FROM users WHERE id = '00000000-0000-0000-0000-000000000003'"), 'stays', 'what was sent at once is not rolled back');

$node->stop;
done_testing();
