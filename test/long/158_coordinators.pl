# The group's coordinator goes, another broker is it from then on: positions are shown again, and reading takes no notice.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

my $kafka = KafkaCache::Kafka->new(brokers => 3);
my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->connect_kafka('postgres', $kafka, group_id => 'lag');
$kafka->topic('users', 3, replication => 3, 'min.insync.replicas' => 1);
$node->safe_psql('postgres', "CREATE FOREIGN TABLE users (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true')) SERVER kafka OPTIONS (format 'text')");

sub agree
{
	my $group = eval { $kafka->group('lag') } or return 0;
	my $theirs = $group->{users} || {};
	my $text = join ' ', map { "$_:$theirs->{$_}" } sort keys %$theirs;

	return $text eq $node->safe_psql('postgres', "SELECT string_agg(partition || ':' || position + 1, ' ' ORDER BY partition) FROM kafka_cache.partitions");
}

sub coordinator
{
	my ($line) = grep { /^lag\s/ } split /\n/,
	  $kafka->tool('org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', '--bootstrap-server', $kafka->address, '--describe', '--state', '--group', 'lag');
	return $line =~ /\((\d+)\)/ ? $1 : die "no coordinator in: $line";
}

$kafka->load('users', '*', 0, 300, 'key-%d', 'value-%d');
ok($node->catch_up('postgres', 'users', $kafka), 'the table is read');
ok(eventually(\&agree), 'positions are shown');
foreach my $way ('kill', 'stop')
{
	my $id = coordinator();

	$kafka->broker($id, $way);
	$kafka->load('users', '*', 0, 300, 'key-%d', "$way-%d");
	ok($node->catch_up('postgres', 'users', $kafka), "broker $id, the coordinator, is gone ($way): reading goes on");
	ok(eventually(\&agree), '... and positions are shown by another one');
	isnt(coordinator(), $id, '... indeed');
	$kafka->broker($id, 'start');
	ok(eventually(sub {
			return $node->safe_psql('postgres', "SELECT state FROM kafka_cache.tables") eq 'ready' && agree();
		}), '... and go on when the broker is back');
}
is(scalar(grep { /consumer group/ } split /\n/, $node->log_text), 0, 'there was nothing to tell');
$node->stop;
done_testing();
