# A primary and two standbys, each with a cache of its own, under 10,000 updates a second: at equal
# positions they have equal contents, and what was at a position of one is found on the others.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Listener;
use KafkaCache::Story;
use KafkaCache::Writing;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
# Nothing is compacted: the log tells what the contents are at every position.
$kafka->topic('users', 3, 'cleanup.policy' => 'delete');

my $primary = KafkaCache::Cluster->new('primary', allows_streaming => 1);
$primary->start;
$primary->connect_kafka('postgres', $kafka);
$primary->safe_psql('postgres', "CREATE FOREIGN TABLE users (
	key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'),
	_partition int OPTIONS (partition 'true'), _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (format 'text', readonly 'false', delivery 'immediate', notify 'users_changed');
	CREATE TABLE ordinary (n int);
	CREATE EXTENSION dblink;
	CREATE SERVER upstream FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host '" . $primary->host . "', port '" . $primary->port . "', dbname 'postgres');
	CREATE USER MAPPING FOR postgres SERVER upstream OPTIONS (user 'postgres')");
my @standbys = map { KafkaCache::Cluster->new($_, standby_of => $primary) } qw(standby1 standby2);
my @nodes = ($primary, @standbys);
foreach my $standby (@standbys)
{
	$standby->start;
	$primary->wait_for_catchup($standby, 'replay');
}
ok($_->wait_ready('postgres', 'users'), $_->name . ' is ready') foreach @nodes;

# --- equal contents at equal positions -----------------------------------------------------------------

# What a state is, by partition, as one number that is easily told from the log: the sum over its rows.
my $hash = q{hashtextextended(key || ' ' || _offset || ' ' || value, 0)::numeric};
my $sample = qq{SELECT kafka_cache.position('users') AS before \\gset
SELECT :'before' || chr(9) || coalesce(jsonb_object_agg(_partition, digest), '{}')
	FROM (SELECT _partition, sum($hash) AS digest FROM users GROUP BY _partition) AS s;
SELECT kafka_cache.wait_for('users', (SELECT jsonb_object_agg(key, value::bigint + 500) FROM jsonb_each_text(:'before')), '2 s') \\gset
};
my $nsamples = 40;
my $folder = PostgreSQL::Test::Utils::tempdir;
PostgreSQL::Test::Utils::append_to_file("$folder/sample.sql", $sample x $nsamples);

my $load = load_beside($kafka, 10000, sub {
	my ($round) = @_;
	return ([ 'load', 'users', '*', $round % 5 * 1000, 1000, 'key-%d', "value %d of round $round" ],
		map({ [ 'produce', 'users', '*', "gone-$_", "of round $round" ] } $round % 3),
		map({ [ 'produce', 'users', '*', "gone-$_", undef ] } ($round + 1) % 3));
});
ok($_->wait_for('postgres', 'SELECT count(*) >= 5000 FROM users'), $_->name . ' is following') foreach @nodes;

# Who cannot listen there asks for what has changed: key => offset, as it follows from all the answers.
my @followers = map {
	my $node = $_;
	beside(
		sub {
			my ($since, $end) = ('{}', '{}');
			my %rows;
			# The first time: the table itself, and what comes after a position that was read before.
			$since = $node->safe_psql('postgres', "SELECT kafka_cache.position('users')");
			%rows = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT key, _offset FROM users');
			my $asked = 0;
			until (-e "$folder/end" && $node->safe_psql('postgres', "SELECT '" . slurp_file("$folder/end") . "'::jsonb = '$since'") eq 't')
			{
				my $next = $node->safe_psql('postgres', "SELECT kafka_cache.wait_for_change('users', '$since', '1 s')");
				next if $next eq '';
				foreach my $change (split /\n/, $node->safe_psql('postgres', qq{SELECT key, deleted, "offset" FROM kafka_cache.changes('users', '$since')}))
				{
					my ($key, $deleted, $offset) = split /\|/, $change;
					if ($deleted eq 't') { delete $rows{$key} }
					else { $rows{$key} = $offset }
				}
				$since = $next;
				$asked++;
			}
			print "asked $asked\n", map { "$_|$rows{$_}\n" } sort keys %rows;
		})
} @standbys;

my @samplers = map { beside([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $_->connstr('postgres'), '-f', "$folder/sample.sql" ]) } @nodes;

# Meanwhile: what the primary has at its position, a standby has when it has passed that.
my $asked = $primary->background_psql('postgres');
my @asking = map { $_->background_psql('postgres') } @standbys;
my ($rounds, $missed, $late) = (50, 0, 0);
foreach my $round (1 .. $rounds)
{
	my $standby = $asking[ $round % 2 ];
	my ($position, $n) = split /\|/, $asked->query_safe(
		q{SELECT kafka_cache.position('users'), (random() * 4999)::int});
	my $there = $asked->query_safe("SELECT _offset FROM users WHERE key = 'key-$n'");
	# The row was read after the position: it is passed with its own, which a scan on the standby may ask for.
	my $own = $asked->query_safe("SELECT jsonb_build_object(_partition, _offset) FROM users WHERE key = 'key-$n'");
	$late++ if $standby->query_safe("SELECT kafka_cache.wait_for('users', '$position') AND kafka_cache.wait_for('users', '$own')") ne 't';
	$missed++ if $standby->query_safe("SELECT _offset >= $there FROM users WHERE key = 'key-$n'") ne 't';
}
is("$late $missed", '0 0', "$rounds positions of the primary are honoured on the standbys");

# What was written through the primary is found on a standby by the position that it returned.
my $each = 125;
my @finders = map {
	pgbench_beside($_, q{
\set n :n + 1
SELECT position FROM dblink('upstream', 'INSERT INTO users (key, value) VALUES (''mine-:standby-:client_id-:n'', ''written'')
	RETURNING jsonb_build_object(_partition, _offset)') AS d(position jsonb) \gset
SELECT 1 / kafka_cache.wait_for('users', ':position')::int;
SELECT 1 / count(*) FROM users WHERE key = 'mine-:standby-:client_id-:n' AND value = 'written';
}, clients => 4, transactions => $each, variables => { n => 0, standby => $_ == $standbys[0] ? 1 : 2 }, protocol => 'simple')
} @standbys;
is(join(' ', map { $_->transactions } @finders), join(' ', (4 * $each) x 2), 'writes of the primary are found on the standbys, every time, in eight sessions');
$_->quit foreach $asked, @asking;

ok($samplers[$_]->succeeded, $nodes[$_]->name . ' has been read all the time') foreach 0 .. 2;
my (undef, $records, $seconds) = $load->so_far;
$load->stop;
note sprintf '%d records in %.1f s: %.0f a second', $records, $seconds, $records / $seconds;

# The log, by kcat: what the digest of each partition is after each record.
open(my $kcat, '-|', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $kafka->address, '-t', 'users', '-f', '%p\t%o\t%S\t%k\t%s\n') or die;
open(my $log, '>', "$folder/log") or die;
while (my $line = <$kcat>)
{
	chomp $line;
	my ($partition, $offset, $size, $key, $value) = split /\t/, $line, 5;
	print $log join("\t", $partition, $offset, $key, $size < 0 ? '\N' : $value) . "\n";
}
close $kcat or die 'kcat failed';
close $log;
$primary->safe_psql('postgres', "CREATE TABLE log (_partition int, _offset bigint, key text, value text);
	CREATE TABLE digests (_partition int, _offset bigint, digest numeric)");
$primary->safe_psql('postgres', "\\copy log FROM '$folder/log'");
$primary->safe_psql('postgres', "INSERT INTO digests
	SELECT _partition, _offset, sum(now - coalesce(before, 0)) OVER (PARTITION BY _partition ORDER BY _offset)
	FROM (SELECT _partition, _offset, now, lag(now) OVER (PARTITION BY _partition, key ORDER BY _offset) AS before
		FROM (SELECT *, coalesce($hash, 0) AS now FROM log) AS l) AS d;
	CREATE INDEX ON digests (_partition, digest)");

# Where in the log each sample is: somewhere, and not before the position that was read first.
open(my $samples, '>', "$folder/samples") or die;
foreach my $i (0 .. 2)
{
	print $samples map { $nodes[$i]->name . "\t$_\n" } grep { /\t/ } split /\n/, $samplers[$i]->output;
}
close $samples;
$primary->safe_psql('postgres', 'CREATE TABLE samples (server text, before jsonb, digests jsonb)');
$primary->safe_psql('postgres', "\\copy samples FROM '$folder/samples'");
is($primary->safe_psql('postgres', 'SELECT server, count(*), count(DISTINCT digests) > 20 FROM samples GROUP BY 1 ORDER BY 1'),
	join("\n", map { $_->name . "|$nsamples|t" } @nodes), 'all servers have been looked at');
is($primary->safe_psql('postgres', "SELECT s.server, s.before, d.key
		FROM samples AS s, jsonb_each_text(s.digests) AS d
		WHERE NOT EXISTS (SELECT FROM digests AS l WHERE l._partition = d.key::int AND l.digest = d.value::numeric
			AND l._offset >= (s.before ->> d.key)::bigint)"),
	'', 'whatever was read anywhere is what the log says at one position, not before the one that was told');

# At the end all have the same.
ok($_->catch_up('postgres', 'users', $kafka), $_->name . ' is at the end') foreach @nodes;
same_as_kcat($_, $kafka, 'users', $_->name) foreach @nodes;
my @ends = map { $_->safe_psql('postgres', "SELECT kafka_cache.position('users'), sum($hash) FROM users") } @nodes;
is_deeply([ @ends[ 1, 2 ] ], [ @ends[ 0, 0 ] ], 'equal positions, equal contents');
balanced($_, $_->name) foreach @nodes;

# --- what a standby does not do ----------------------------------------------------------------------------

my ($standby, $other) = @standbys;
foreach my $sql ("INSERT INTO users VALUES ('x', 'y')", "UPDATE users SET value = 'y' WHERE key = 'key-1'",
	"DELETE FROM users WHERE key = 'key-1'", "COPY users (key, value) FROM STDIN;\nx\ty\n\\.\n")
{
	my $told = told($standby, $sql);
	is($told->{state}, '25006', "refused: $sql");
	like($told->{err}, qr/ERROR:.* cannot execute (INSERT|UPDATE|DELETE) in a read-only transaction|cannot execute COPY during recovery/, '... and told why');
}
is(producers($standby), 0, '... without a producer');
like(told($standby, 'LISTEN users_changed')->{err}, qr/cannot execute LISTEN during recovery/, '... nor can anybody listen');
sub metric
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres', "SELECT sum(value) FROM kafka_cache.metrics WHERE name = 'kafka_cache_$name' AND labels ->> 'relation' ~ 'users'");
}
cmp_ok(metric($primary, 'notifications_total'), '>', 0, 'the primary has notified');
is(metric($_, 'notifications_total'), 0, '... ' . $_->name . ' has not') foreach @standbys;
is($standby->safe_psql('postgres', "SELECT state, ready, lag, message FROM kafka_cache.tables"), 'ready|t|0|', 'its views tell of its own cache');
is($standby->safe_psql('postgres', "SELECT count(*) FROM kafka_cache.partitions WHERE lag = 0"), 3, '... of every partition');
$other->safe_psql('postgres', "SELECT kafka_cache.reload('users')");
ok($other->wait_for('postgres', "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables"), 'it can be told to read its topic again');
is($primary->safe_psql('postgres', 'SELECT reloads FROM kafka_cache.tables'), 0, '... by itself');
same_as_kcat($other, $kafka, 'users', $other->name);

# --- promotion ----------------------------------------------------------------------------------------------

# Somebody reads on while it is promoted, and others produce.
$load = load_beside($kafka, 2000, sub { my ($round) = @_; [ 'load', 'users', '*', 0, 200, 'key-%d', "value %d of late round $round" ] });
my $readers = pgbench_beside($standby, q{
\set n random(0, 4999)
SELECT 1 / count(*) FROM users WHERE key = 'key-' || :n;
}, transactions => 5000);
my $consumer = "SELECT pid, reloads, loaded_at FROM kafka_cache.workers, kafka_cache.tables WHERE kind = 'consumer'";
my $before = $standby->safe_psql('postgres', $consumer);
my $session = $standby->background_psql('postgres');
is($session->query_safe("SELECT value FROM users WHERE key = 'mine-1-0-1'"), 'written', 'a session that stays');
my $position = $standby->safe_psql('postgres', "SELECT kafka_cache.position('users')");
$primary->stop('immediate');
$standby->promote;
ok($standby->wait_for('postgres', 'SELECT NOT pg_is_in_recovery()'), 'the primary is lost, a standby promoted');
is($standby->safe_psql('postgres', $consumer), $before, '... its consumer and its cache are the same');
is($standby->safe_psql('postgres', "SELECT kafka_cache.wait_for('users', '$position')"), 't', '... where they were, or later');
is(told($standby, "INSERT INTO users (key, value) VALUES ('after', 'promotion'); SELECT value FROM users WHERE key = 'after'")->{out}, 'promotion', 'it writes, and reads what it has written');
is($session->query_safe("INSERT INTO users (key, value) VALUES ('before', 'promotion') RETURNING value"), 'promotion', '... in a session that was there before as well');
$session->quit;
my $listener = KafkaCache::Listener->new($standby, 'users_changed');
$standby->safe_psql('postgres', "INSERT INTO users (key, value) VALUES ('told', '1')");
ok($listener->hears(sub { $_[0]->{updates}{told} }), 'it notifies');
ok($standby->wait_for('postgres', q{SELECT value > 0 FROM kafka_cache.metrics WHERE name = 'kafka_cache_notifications_incomplete_total' AND labels ->> 'relation' ~ 'users'}),
	'... has begun by saying that something changed, since the one before need not have said all');
is($standby->safe_psql('postgres', 'INSERT INTO ordinary VALUES (1) RETURNING n'), 1, '... ordinary tables as well');
cmp_ok($readers->transactions, '>', 0, 'readers went on meanwhile');
$load->stop;
ok($_->catch_up('postgres', 'users', $kafka), $_->name . ' is at the end') foreach @standbys;
same_as_kcat($_, $kafka, 'users', $_->name) foreach @standbys;
PostgreSQL::Test::Utils::append_to_file("$folder/end.new", $standby->safe_psql('postgres', "SELECT kafka_cache.position('users')"));
rename "$folder/end.new", "$folder/end" or die;
foreach my $i (0, 1)
{
	ok($followers[$i]->succeeded, $standbys[$i]->name . ': who asked for changes all the time, also while one was promoted');
	my ($asked, $got) = split /\n/, $followers[$i]->output, 2;
	note "$asked times";
	ok($got eq $standbys[$i]->safe_psql('postgres', 'SELECT key, _offset FROM users ORDER BY key COLLATE "C"') . "\n", '... knows every row');
}
$kafka->produce('users', 0, 'last', 'x');
ok($listener->hears(sub { $_[0]->{updates}{last} }), 'a listener of the promoted one has heard of the last record');
$listener->stop;
is($other->safe_psql('postgres', "SELECT value FROM users WHERE key = 'after'"), 'promotion', 'the other standby, without a primary, has it from the topic');
$standby->safe_psql('postgres', "CREATE FOREIGN TABLE more (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'users', format 'text')");
ok($standby->catch_up('postgres', 'more', $kafka, 'users'), 'DDL is heard of');

$_->stop foreach @standbys;
unlike($_->log_text, qr/PANIC|TRAP|terminated by signal|left \d+ bytes behind/, $_->name . ': nothing alarming in the log') foreach @nodes;
done_testing();
