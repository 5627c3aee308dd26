# A thousand commands that want the database of a busy consumer, in two sessions.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{KCF_ROUNDS} || 125;
my $kafka = KafkaCache::Mock->new;
$kafka->topic('users', 4);
$kafka->load('users', '*', 1, 20000, 'key-%d', '{"a": "%d"}');

my $node = KafkaCache::Cluster->new('main', conf => { 'log_min_messages' => 'info' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->connect_kafka('busy', $kafka);
$node->safe_psql('busy', "CREATE FOREIGN TABLE users (id text OPTIONS (key 'true'), a text) SERVER kafka");
ok($node->wait_ready('busy', 'users'), 'a busy database');

my %longest;
my $failed = 0;
my $other = $node->background_psql('postgres', on_error_stop => 0);
foreach my $round (1 .. $rounds)
{
	$kafka->load('users', '*', $round * 10, 1000, 'key-%d', '{"a": "again %d"}');
	$other->query_until(qr/sent/, "\\echo sent\nCREATE DATABASE other TEMPLATE busy; DROP DATABASE other;\n");
	foreach my $sql ('CREATE DATABASE copy TEMPLATE busy', 'ALTER DATABASE copy RENAME TO copied', 'DROP DATABASE copied',
		'ALTER DATABASE busy RENAME TO lazy', 'ALTER DATABASE lazy RENAME TO busy')
	{
		my $start = time;
		my ($status, $out, $err) = $node->psql('postgres', $sql);
		my $ms = (time - $start) * 1000;
		my ($kind) = $sql =~ /(CREATE|RENAME|DROP)/;

		# Two sessions may be in each other's way, as without us.
		next if $err =~ /does not exist|source database|already exists/;
		$failed++, diag("$sql: $err") if $err ne '';
		$longest{$kind} = $ms if $ms > ($longest{$kind} // 0);
	}
	$node->safe_psql('postgres', "SELECT 1 FROM pg_database WHERE datname = 'lazy'") eq '' or $node->safe_psql('postgres', 'ALTER DATABASE lazy RENAME TO busy');
}
$other->quit;
is($failed, 0, 'no command failed or warned');
diag(sprintf('longest %s: %.0f ms', $_, $longest{$_})) foreach sort keys %longest;
ok($node->catch_up('busy', 'users', $kafka), 'the consumer has everything');
is($node->safe_psql('busy', 'SELECT reloads FROM kafka_cache.tables'), 0, '... and read nothing twice');
$node->stop;
unlike($node->log_text, qr/PANIC|TRAP|left \d+ bytes behind|have not left database/, 'nothing alarming in the log');

done_testing();
