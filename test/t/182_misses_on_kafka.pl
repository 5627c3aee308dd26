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
	$node->connect_kafka('postgres', $kafka, reconnect_backoff_max_ms => 200);
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

# --- setting and purging under load ---------------------------------------------------------------------------

# What is set stays, and after a purge nobody reads what was computed before it, however much is being computed.
$kafka->topic($_, 2) foreach qw(counts kept);
$one->safe_psql('postgres', q{
CREATE TABLE source AS SELECT i AS n, 0 AS v FROM generate_series(1, 8) i;
CREATE TABLE wrong (what text);
CREATE FUNCTION count_of(k int) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
	answer int;
BEGIN
	SELECT v INTO answer FROM public.source WHERE n = k;
	PERFORM count(*) FROM generate_series(1, (random() * 30000)::int);
	RETURN answer;
END $$;
CREATE FOREIGN TABLE counts (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
SERVER kafka OPTIONS (topic 'counts', compute 'public.count_of', soft_ttl '20ms');
CREATE FOREIGN TABLE kept (n int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
SERVER kafka OPTIONS (topic 'kept', compute 'public.count_of');
CREATE PROCEDURE purge(k int, by_function boolean) LANGUAGE plpgsql AS $$
DECLARE
	written int;
	purged boolean;
	shown int;
BEGIN
	UPDATE source SET v = v + 1 WHERE n = k RETURNING v INTO written;
	COMMIT;
	IF by_function THEN
		PERFORM kafka_cache.purge('counts', ARRAY[k::text]);
		purged := true;
	ELSE
		DELETE FROM counts WHERE n = k;
		purged := FOUND;
	END IF;
	COMMIT;
	SELECT value::int INTO shown FROM counts WHERE n = k;
	IF purged AND shown < written THEN
		INSERT INTO wrong VALUES (format('key %s: %s after %s', k, shown, written));
	END IF;
	COMMIT;
END $$;
CREATE PROCEDURE put(k int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO kept VALUES (k, to_jsonb(-k));
	COMMIT;
	IF (SELECT value FROM kept WHERE n = k) IS DISTINCT FROM to_jsonb(-k) THEN
		INSERT INTO wrong VALUES (format('key %s is not what was put', k));
	END IF;
	COMMIT;
END $$});
$one->catch_up('postgres', $_, $kafka) or die "$_ is not ready" foreach qw(counts kept);
my @busy = (
	pgbench_beside($one, "\\set n random(1, 8)\nSELECT value FROM counts WHERE n = :n;\n", clients => 3, transactions => 1500),
	pgbench_beside($one, "\\set n random(1000, 2000)\nSELECT value FROM kept WHERE n = :n;\n", clients => 3, transactions => 150),
	pgbench_beside($one, "\\set n random(1, 8)\nCALL purge(:n, true);\n", clients => 2, transactions => 30, protocol => 'simple'),
	pgbench_beside($one, "\\set n random(1, 8)\nCALL purge(:n, false);\n", clients => 2, transactions => 30, protocol => 'simple'),
	pgbench_beside($one, "\\set n random(1000, 2000)\nCALL put(:n);\n", clients => 2, transactions => 100, protocol => 'simple'));
is(join(' ', map { $_->transactions } @busy), '4500 450 60 60 200', 'reads, purges and sets of the same keys');
is($one->safe_psql('postgres', 'SELECT * FROM wrong'), '', '... each as if alone');

# --- the producer's end ------------------------------------------------------------------------------------------

my $readers = pgbench_beside($one, "\\set n random(100, 400)\nSELECT value FROM squares WHERE n = :n AND 1 / (value = to_jsonb(:n::bigint * :n))::int = 1;\n",
	clients => 4, transactions => 150);
for my $round (1 .. 2)
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
