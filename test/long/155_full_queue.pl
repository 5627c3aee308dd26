# PostgreSQL's queue of notifications is full, because a listener stays in a transaction: the tables go on, and when
# there is room again listeners are told of everything. Before PostgreSQL 17 the queue holds 8 GB, which are filled.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Listener;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log' });
$node->configure(max_notify_queue_pages => 64) if $node->pg_version >= 17;
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub failures
{
	return one("SELECT sum(value) FROM kafka_cache.metrics WHERE name = 'kafka_cache_notification_failures_total'");
}

$kafka->topic('users', 2);
$kafka->load('users', '*', 0, 100, 'k%d', 'v%d');
one("CREATE FOREIGN TABLE users (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	 SERVER kafka OPTIONS (format 'text', notify 'users')");
ok($node->wait_ready('postgres', 'users'), 'a table');
my $listener = KafkaCache::Listener->new($node, 'users');
is($listener->run('BEGIN'), '00000', 'a listener stays in a transaction');

# A page of the queue for each.
my $full = 0;
until ($full)
{
	my ($stdout, $stderr);
	$node->psql('postgres', "SELECT count(pg_notify('filler', repeat('x', 7900) || i)) FROM generate_series(1, 10000) i",
		stdout => \$stdout, stderr => \$stderr);
	$full = $stderr =~ /too many notifications/;
	last if $stderr =~ /ERROR/ && !$full;
}
while ($full && one('SELECT pg_notification_queue_usage() < 0.9999'))
{
	my ($stdout, $stderr);
	$node->psql('postgres', "SELECT pg_notify('filler', repeat('x', 7900))", stdout => \$stdout, stderr => \$stderr);
	last if $stderr =~ /too many/;
}
ok($full, 'the queue is full');

foreach my $n (1 .. 10)
{
	$kafka->load('users', '*', $n * 100, 100, 'k%d', 'v%d');
	ok($node->catch_up('postgres', 'users', $kafka), "the table goes on ($n)");
}
ok($node->wait_for('postgres', "SELECT sum(value) > 0 FROM kafka_cache.metrics WHERE name = 'kafka_cache_notification_failures_total'"),
	'failures are counted: ' . failures());
like($node->log_text, qr/could not notify listeners of cached tables: too many notifications in the NOTIFY queue/, '... and the log says why');
is(one('SELECT count(*) FROM users'), '1100', '... all rows are there');

is($listener->run('COMMIT'), '00000', 'the transaction is over');
my %keys;
ok( $listener->hears(
		sub {
			$keys{$_} = 1 foreach keys %{ $_[0]->{updates} || {} };
			return keys %keys == 1000;
		}),
	'all that changed meanwhile is told');
$kafka->produce('users', 0, 'after', 'x');
ok($listener->hears(sub { exists $_[0]->{updates}{after} }), '... and what comes then');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing;
