# Ready means: read to the end of every partition, by position, whatever lies there. On a real Kafka.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->connect_kafka('postgres', $kafka);

# A cached table of the topic's keys and values, named like it.
sub cache
{
	my ($topic, $name) = @_;
	$name //= $topic;
	$node->safe_psql('postgres',
		"CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		 SERVER kafka OPTIONS (topic '$topic', format 'text')");
	return;
}

sub state_of
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT state, ready, entries, lag FROM kafka_cache.tables WHERE relation = '$name'::regclass");
}

# What the cache shows, against what kcat reads: the last value of every key, tombstones taken out.
sub same_as_kcat
{
	my ($topic, $name, @options) = @_;
	my %expected;

	foreach my $rec ($kafka->read_topic($topic, '-X', 'isolation.level=read_committed', @options))
	{
		$expected{ $rec->{key} } = $rec->{payload};
	}
	delete @expected{ grep { !defined $expected{$_} } keys %expected };
	my %got = map { split /\|/, $_, 2 }
	  split /\n/, $node->safe_psql('postgres', "SELECT key, value FROM $name");
	is_deeply(\%got, \%expected, "$name: what kcat reads is what SELECT shows");
	return;
}

sub ready_with
{
	my ($topic, $entries, $what) = @_;

	ok($node->wait_ready('postgres', $topic, 30), "$what: ready");
	is(state_of($topic), "ready|t|$entries|0", "$what: all of it");
	same_as_kcat($topic, $topic);
	return;
}

# --- what a partition can end with ---------------------------------------------------------------

$kafka->topic('empty', 3);
cache('empty');
ready_with('empty', 0, 'an empty topic');

$kafka->topic('one_sided', 3);
$kafka->load('one_sided', 1, 0, 100, 'key-%d', 'value-%d');
cache('one_sided');
ready_with('one_sided', 100, 'partitions never written');

$kafka->topic('emptied', 2, 'cleanup.policy' => 'compact,delete');
$kafka->load('emptied', 0, 0, 50, 'key-%d', 'value-%d');
$kafka->load('emptied', 1, 50, 50, 'key-%d', 'value-%d');
$kafka->delete_records('emptied', 0, -1);
cache('emptied');
ready_with('emptied', 50, 'a partition emptied by retention');

my $txn = $kafka->transaction('writer');
$kafka->topic('committed', 1);
$txn->begin;
$txn->load('committed', 0, 0, 10, 'key-%d', 'value-%d');
$txn->commit;
$kafka->wait_high('committed', 0, 11);
cache('committed');
ready_with('committed', 10, 'a commit marker at the end');

$kafka->topic('aborted', 1);
$kafka->load('aborted', 0, 0, 10, 'key-%d', 'value-%d');
$txn->begin;
$txn->load('aborted', 0, 0, 20, 'key-%d', 'never-%d');
$txn->abort;
$kafka->wait_high('aborted', 0, 31);
cache('aborted');
ready_with('aborted', 10, 'aborted records and their marker at the end');

$kafka->topic('only_aborted', 1);
$txn->begin;
$txn->load('only_aborted', 0, 0, 20, 'key-%d', 'never-%d');
$txn->abort;
$kafka->wait_high('only_aborted', 0, 21);
cache('only_aborted');
ready_with('only_aborted', 0, 'nothing but an aborted transaction');

$kafka->topic('holes', 2);
foreach my $round (1 .. 3)
{
	$kafka->load('holes', '*', 0, 200, 'key-%d', "round-$round-%d");
}
$kafka->wait_compacted('holes');
cache('holes');
ready_with('holes', 200, 'a compacted topic');

$kafka->topic('many', 50);
$kafka->load('many', '*', 0, 5000, 'key-%d', 'value-%d');
cache('many');
ready_with('many', 5000, 'fifty partitions');

# --- an open transaction -------------------------------------------------------------------------

$kafka->topic('open', 2);
$kafka->load('open', 0, 0, 5, 'key-%d', 'value-%d');
$kafka->load('open', 1, 5, 5, 'key-%d', 'value-%d');
my $hanging = $kafka->transaction('hanging');
$hanging->begin;
$hanging->produce('open', 0, 'key-9', 'uncommitted');
$kafka->produce('open', 0, 'key-10', 'behind it');
cache('open');
ok( $node->wait_for('postgres',
		"SELECT state = 'waiting_for_transaction' AND NOT ready FROM kafka_cache.tables WHERE relation = 'open'::regclass"),
	'an open transaction: the state says so');
$hanging->leave;
$kafka->transaction('hanging')->stop;
ready_with('open', 11, 'the open transaction is aborted');

# --- after it was ready --------------------------------------------------------------------------

$kafka->load('one_sided', 2, 100, 10, 'key-%d', 'later-%d');
$kafka->produce('one_sided', 1, 'key-3', undef);
ok($node->catch_up('postgres', 'one_sided', $kafka), 'records that come later arrive');
ready_with('one_sided', 109, 'later records and a tombstone');

$kafka->partitions('one_sided', 5);
$kafka->load('one_sided', 4, 200, 10, 'key-%d', 'grown-%d');
ok( $node->wait_for('postgres',
		"SELECT entries = 119 FROM kafka_cache.tables WHERE relation = 'one_sided'::regclass"),
	'partitions added later are found and loaded');
same_as_kcat('one_sided', 'one_sided');

# The counters add up for everybody, at every moment.
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM kafka_cache.tables WHERE records <> upserts + tombstones + errors + ignored'),
	'0', 'records = upserts + tombstones + errors + ignored');

$node->stop;
done_testing();
