# What sessions were told of their writes is true, whoever is killed meanwhile.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Campaign;
use KafkaCache::Cluster;
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my ($node, $kafka) = battlefield();

# --- the producer is terminated while sessions wait for it -------------------------------------------

# The first write needs a producer, and tells that all is well.
$node->safe_psql('postgres', "INSERT INTO $_ (key, value) VALUES ('first', 'first')") foreach qw(committed immediate atomic);
my $producer = $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'producer'");
$kafka->broker(1, 'pause');
my $begin = time;
my %waiting = map {
	$_ => beside([ 'psql', '-X', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres') . " application_name=waits", '-c',
			"SET kafka_cache.produce_timeout = '150s'", '-c', "INSERT INTO $_ (key, value) VALUES ('waits', 'waits')" ])
} qw(committed immediate atomic);
ok($node->wait_for('postgres', "SELECT count(*) = 3 FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event = 'Extension'"),
	'three sessions wait for a broker that does not answer');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($producer)"), 't', 'the producer is terminated');
foreach my $table (sort keys %waiting)
{
	eventually(sub { return !$waiting{$table}->running });
	like($waiting{$table}->output, qr/ERROR:  0800[67]: /, "$table: the session is told at once");
}
cmp_ok(time - $begin, '<', 100, '... long before its time is over');
$kafka->broker(1, 'resume');
$node->safe_psql('postgres', "INSERT INTO $_ (key, value) VALUES ('later', 'later')") foreach qw(committed immediate atomic);
is($node->safe_psql('postgres', "SELECT pid <> $producer FROM kafka_cache.workers WHERE kind = 'producer'"), 't', 'another one serves the next write');

# --- random moments ------------------------------------------------------------------------------------

campaign($node, $kafka, moments => 30);
$node->stop;
done_testing();
