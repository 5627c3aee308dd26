# Data products of two servers on one topic: what one has computed the other has, the newer computation stays, and
# neither the broker's nor the producer's end fails a read.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my @nodes = map { KafkaCache::Cluster->new($_) } qw(one two);
my ($one, $two) = @nodes;

$kafka->topic('squares', 3);
$kafka->topic('late', 1, 'message.timestamp.type' => 'LogAppendTime');
foreach my $node (@nodes)
{
	$node->start;
	$node->connect_kafka('postgres', $kafka);
	$node->safe_psql('postgres', q{
		CREATE FUNCTION square(n int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
		BEGIN
			RAISE LOG 'computing % end', n;
			PERFORM pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7);
			RETURN n::bigint * n;
		END $$;
		CREATE FOREIGN TABLE squares (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'),
			_offset bigint OPTIONS (offset 'true'), _time timestamptz OPTIONS (timestamp 'true'))
		SERVER kafka OPTIONS (topic 'squares', compute 'public.square');
		CREATE FOREIGN TABLE late (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'),
			_time timestamptz OPTIONS (timestamp 'true'))
		SERVER kafka OPTIONS (topic 'late', compute 'public.square', hard_ttl '1h')});
	$node->catch_up('postgres', $_, $kafka) or die "$_ is not ready" foreach qw(squares late);
}

sub calls { my ($node, $n) = @_; my @calls = $node->log_text =~ /LOG:  computing $n end/g; return scalar @calls; }
sub records { my ($n) = @_; return grep { $_->{key} eq $n } $kafka->read_topic('squares'); }
sub square { my ($node, $n) = @_; return $node->safe_psql('postgres', "SELECT value FROM squares WHERE n = $n"); }
sub caught_up { my ($node) = @_; return $node->catch_up('postgres', 'squares', $kafka); }

# --- one cache for both ------------------------------------------------------------------------------------

is(square($one, 2), '4', 'one server computes');
ok(caught_up($two), 'the other one hears of it');
is(square($two, 2), '4', '... and has it');
is(calls($two, 2), 0, '... without computing');
is((records(2))[0]{payload}, '4', 'as the topic has it');
is($one->safe_psql('postgres', 'SELECT value FROM late WHERE n = 3') . $one->safe_psql('postgres', 'SELECT value FROM late WHERE n = 3'),
	'99', 'a topic whose times are the broker\'s');
is(calls($one, 3), 1, '... serves as well');

# The later computation is the newer one, whoever is done first.
my $gate = $one->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(7)');
my ($slow) = at_once($one, 'SELECT value, _offset FROM squares WHERE n = 4');
ok($one->wait_for('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted", '1'),
	'one server computes for long');
is(square($two, 4), '16', 'meanwhile the other one does');
ok(caught_up($one), '... which the first one hears');
$gate->query_safe('SELECT pg_advisory_unlock(7)');
is(told_by($slow)->{out}, '16|' . (records(4))[0]{offset}, 'the first one gives what it has heard');
is(scalar(records(4)), 1, '... and does not put what it has computed');

# --- the producer's end ------------------------------------------------------------------------------------------

my $readers = pgbench_beside($one, "\\set n random(100, 400)\nSELECT value FROM squares WHERE n = :n AND 1 / (value = to_jsonb(:n::bigint * :n))::int = 1;\n",
	clients => 4, transactions => 150);
for my $round (1 .. 4)
{
	last unless $one->wait_for('postgres', "SELECT count(*) > 0 FROM kafka_cache.workers WHERE kind = 'producer' AND pid IS NOT NULL");
	$one->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM kafka_cache.workers WHERE kind = 'producer' AND pid IS NOT NULL");
}
is($readers->transactions, 600, 'the producer is ended again and again: every read has its answer');

# --- the broker's end ---------------------------------------------------------------------------------------------

is(square($one, 5), '25', 'before the broker is gone');
$kafka->broker(1, 'kill');
my $told = told($one, 'SELECT value FROM squares WHERE n = 5');
is("$told->{out} $told->{err}", '25 ', 'the broker is gone: what is cached is served');
$told = told($one, 'SELECT value FROM squares WHERE n = 6');
is($told->{out}, '36', '... what is missing is computed');
like($told->{err}, qr/WARNING:.*computed row of "squares" was not kept/, '... and not kept, with a warning');
$kafka->broker(1, 'start');
ok($one->wait_for('postgres', "SELECT _offset IS NOT NULL FROM squares WHERE n = 6"), 'the broker is back: it is kept');
ok($one->catch_up('postgres', 'squares', $kafka) && caught_up($two), 'both servers read on');
is($two->safe_psql('postgres', 'SELECT count(*) FROM squares WHERE value <> to_jsonb(n::bigint * n)'), '0', 'nothing wrong was kept');
is($one->safe_psql('postgres', 'SELECT count(*) FROM squares'), $two->safe_psql('postgres', 'SELECT count(*) FROM squares'),
	'both have the same keys');

$gate->quit;
done_testing();
