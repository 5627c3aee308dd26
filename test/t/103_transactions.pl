# Records of transactions: what is promised is that only committed ones are seen, in each partition in
# order. That all of one transaction are seen at once is not promised.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths qw($bin);
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '128MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Two accounts, a and b, and their sum, all of one transaction and one partition.
$kafka->topic('accounts', 1);
one("CREATE FOREIGN TABLE accounts (key text OPTIONS (key 'true') NOT NULL, a bigint NOT NULL) SERVER kafka OPTIONS (topic 'accounts')");
$kafka->produce('accounts', 0, $_, '{"a": 0}') foreach map { ("x$_", "y$_") } 1 .. 100;
ok($node->wait_ready('postgres', 'accounts'), 'accounts are loaded');
my $address = $kafka->address;
my $writer = beside(
	sub {
		my $txn = KafkaCache::Broker->spawn("$bin/producer", $address, '--transactional-id', 'pairs');
		my $stop = 0;
		local $SIG{TERM} = sub { $stop = 1 };
		for (my $n = 1; !$stop; $n++)
		{
			my $i = 1 + $n % 100;
			my $aborted = $n % 5 == 0;
			$txn->command('begin');
			$txn->command('produce', 'accounts', 0, "x$i", $aborted ? '{"a": 1000000000}' : qq({"a": $n}));
			$txn->command('produce', 'accounts', 0, "y$i", $aborted ? '{"a": 1000000000}' : '{"a": -' . $n . '}');
			$txn->command($aborted ? 'abort' : 'commit');
		}
		$txn->stop;
	});
# In order: who sees y of a transaction sees x of it, or of a later one.
my $reader = pgbench_beside($node, q{
SELECT 1 / (count(*) = 100 AND bool_and(x.a >= -y.a) AND max(x.a) < 1000000000 AND max(y.a) <= 0)::int
FROM accounts x JOIN accounts y ON x.key LIKE 'x%' AND y.key = 'y' || substr(x.key, 2);
}, seconds => 8, clients => 2);

# Large ones, again and again over the same keys: what is seen is always the work of the transactions before
# one, and a beginning of its own.
$kafka->topic('large', 1);
one("CREATE FOREIGN TABLE large (key int OPTIONS (key 'true') NOT NULL, a bigint NOT NULL) SERVER kafka OPTIONS (topic 'large')");
my $large = $kafka->transaction('large');
my $rounds = 0;
my $work = sub {
	my ($end) = @_;
	$large->begin;
	$large->load('large', 0, 0, 20000, '%d', '{"a": ' . ($end eq 'commit' ? ++$rounds : 1000000000) . '}');
	$large->$end;
};
$work->('commit');
ok($node->catch_up('postgres', 'large', $kafka), 'a large transaction');
my $beginnings = pgbench_beside($node, q{
SELECT 1 / (count(*) = 20000 AND bool_and(a <= before) AND max(a) - min(a) <= 1)::int
FROM (SELECT a, lag(a, 1, a) OVER (ORDER BY key) AS before FROM large) x;
}, seconds => 8, clients => 1);
while ($beginnings->running)
{
	$work->('commit');
	$work->('abort') if $rounds % 3 == 0;
}
cmp_ok($reader->transactions, '>', 0, 'in order, and nothing of what was aborted');
cmp_ok($beginnings->transactions, '>', 0, '... of large ones too');
cmp_ok($rounds, '>', 2, '... of which there were several');
$writer->stop;
ok($node->catch_up('postgres', 'accounts', $kafka), 'to the end');
is(one('SELECT sum(a) FROM accounts'), '0', '... where the sum is zero');
ok($node->catch_up('postgres', 'large', $kafka), '... of both');
is(one('SELECT min(a), max(a), count(*) FROM large'), "$rounds|$rounds|20000", '... where the last one is');
balanced($node, 'transactions');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
