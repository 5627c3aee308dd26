# As test/t/161, for as long as a bad night feels: ten minutes of brokers that come and go, with a table
# that is read and written. The log of it has less than a hundred lines.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(time);

my $minutes = $ENV{KCF_MINUTES} // 10;
my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'warning' });
$node->start;
$node->connect_kafka('postgres', $kafka);
foreach my $table (qw(read written))
{
	$kafka->topic($table, 2);
	$kafka->load($table, '*', 0, 100, 'key-%d', 'value-%d');
	text_table($node, $table, readonly => $table eq 'written' ? 'false' : 'true');
	ok($node->catch_up('postgres', $table, $kafka), "$table is loaded");
}

my $from = -s $node->logfile;
my $end = time + 60 * $minutes;
my ($flaps, $written, $failed) = (0, 0, 0);
while (time < $end)
{
	$kafka->down;
	select undef, undef, undef, rand 1;
	$kafka->up;
	select undef, undef, undef, rand 1;
	next if ++$flaps % 10;
	$kafka->produce('read', '*', "flap-$flaps", 'value');
	my ($status) = $node->psql('postgres', "SET kafka_cache.produce_timeout = '2s'; INSERT INTO written VALUES ('flap-$flaps', 'value')",
		on_error_die => 0);
	if ($status == 0) { $written++ }
	else { $failed++ }
}
note("$flaps flaps, $written writes done, $failed not");

foreach my $table (qw(read written))
{
	ok($node->catch_up('postgres', $table, $kafka), "$table has everything");
	same_as_kcat($node, $kafka, $table, 'after flapping');
	is(accounts($node, $table)->{reloads}, 0, "$table was not loaded again");
}
balanced($node, 'after flapping');
my @lines = grep { /kafka_cache (?:consumer|producer|launcher)/ } split /\n/, $node->log_text($from);
cmp_ok(scalar @lines, '<', 10 * $minutes, 'the log is short: ' . scalar(@lines) . ' lines');
note($_) foreach @lines;
$node->stop;
done_testing();
