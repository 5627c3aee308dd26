# The tests' own tools: a real Kafka compacts, has transaction markers, grows and forgets.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Kafka;
use Test::More;

foreach my $version ('3.9.1', '4.1.1')
{
	my $kafka = KafkaCache::Kafka->new(version => $version);

	# Compaction: the first of two values goes, and its offset stays a hole.
	$kafka->topic('users', 1);
	$kafka->load('users', 0, 0, 10, 'key-%d', 'old-%d');
	$kafka->load('users', 0, 0, 10, 'key-%d', 'new-%d');
	$kafka->wait_compacted('users');
	my @records = grep { $_->{key} ne 'roll' } $kafka->read_topic('users');
	is_deeply([ map { $_->{offset} } @records ], [ 10 .. 19 ], "$version: older values are gone");
	is_deeply([ map { $_->{payload} } @records ], [ map { "new-$_" } 0 .. 9 ], '... the newer are there');

	# A tombstone takes the value away, and goes itself.
	$kafka->produce('users', 0, 'key-3', undef);
	$kafka->wait_gone('users', 'key-3');
	is_deeply([ grep { $_->{key} eq 'key-3' } $kafka->read_topic('users') ], [],
		"$version: a tombstone is forgotten");

	# Markers: they take an offset, and nobody reads them.
	$kafka->topic('orders', 1);
	my $txn = $kafka->transaction('writer');
	$txn->begin;
	$txn->produce('orders', 0, 'a', '1');
	$txn->commit;
	$kafka->wait_high('orders', 0, 2);
	is_deeply({ $kafka->watermarks('orders') }, { 0 => [ 0, 2 ] }, "$version: a commit marker");
	$txn->begin;
	$txn->produce('orders', 0, 'b', '2');
	$txn->abort;
	$kafka->wait_high('orders', 0, 4);
	is_deeply({ $kafka->watermarks('orders') }, { 0 => [ 0, 4 ] }, "$version: an abort marker");
	my @committed = $kafka->read_topic('orders', '-X', 'isolation.level=read_committed');
	is_deeply([ map { $_->{key} } @committed ], ['a'], '... only what was committed is read');
	$txn->begin;
	$txn->produce('orders', 0, 'c', '3');
	$txn->leave;
	$kafka->produce('orders', 0, 'd', '4');
	@committed = $kafka->read_topic('orders', '-X', 'isolation.level=read_committed');
	is_deeply([ map { $_->{key} } @committed ], ['a'], "$version: an open transaction holds readers back");
	$kafka->transaction('writer')->stop;
	@committed = $kafka->read_topic('orders', '-X', 'isolation.level=read_committed');
	is_deeply([ map { $_->{key} } @committed ], [ 'a', 'd' ], '... until its id is used again');

	# Growing and forgetting.
	$kafka->partitions('orders', 3);
	is(scalar keys %{ { $kafka->watermarks('orders') } }, 3, "$version: a topic grows");
	$kafka->topic('events', 1, 'cleanup.policy' => 'compact,delete');
	$kafka->load('events', 0, 0, 10, 'k%d', 'v');
	$kafka->delete_records('events', 0, 7);
	is_deeply({ $kafka->watermarks('events') }, { 0 => [ 7, 10 ] }, "$version: records are deleted");
	$kafka->delete_topic('events');
	ok(!eval { $kafka->watermarks('events'); 1 }, "$version: a topic is deleted");

	$kafka->stop;
}

done_testing();
