# Three brokers, of which one dies while sessions insert, then a second: what was reported as done is
# there, once. Run briefly by test/t, longer by test/long.
package KafkaCache::Brokers;

use strict;
use warnings;

use Exporter qw(import);
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(lose_brokers);

# How many records of a topic's partitions there are, to the high watermark.
sub _records
{
	my ($kafka, $topic) = @_;
	my %ends = $kafka->watermarks($topic);
	my $n = 0;

	$n += $_->[1] - $_->[0] foreach values %ends;
	return $n;
}

# What kcat finds: key => how often.
sub _times
{
	my ($kafka, $topic) = @_;
	my %times;

	$times{ $_->{key} }++ foreach committed($kafka, $topic);
	return %times;
}

# Options: inserts, sessions.
sub lose_brokers
{
	my (%options) = @_;
	my ($inserts, $sessions) = @options{qw(inserts sessions)};
	my $kafka = KafkaCache::Kafka->new(brokers => 3, set => { 'transaction.state.log.min.isr' => 2 });
	my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '128MB', log_min_messages => 'log' });

	$node->start;
	$node->connect_kafka('postgres', $kafka);
	# Nothing is compacted, so that what is there twice is seen.
	my %topic = (replication => 3, 'min.insync.replicas' => 2, 'cleanup.policy' => 'delete');
	$kafka->topic($_, 6, %topic) foreach qw(users pairs);
	text_table($node, 'users', readonly => 'false');
	text_table($node, 'pairs', readonly => 'false', atomic => 'true');
	$node->safe_psql('postgres', 'CREATE TABLE ordinary (n int)');
	ok($node->wait_ready('postgres', $_), "$_ is ready") foreach qw(users pairs);

	# One broker dies while they insert, each row a transaction of its own.
	my $each = int($inserts / $sessions);
	my $users = pgbench_beside($node, q{
\set n :n + 1
INSERT INTO users VALUES ('u' || :client_id || '-' || :n, 'x');
}, clients => $sessions, transactions => $each, variables => { n => 0 });
	my $pairs = pgbench_beside($node, q{
\set n :n + 1
BEGIN;
INSERT INTO pairs VALUES ('p' || :client_id || '-' || :n || 'a', 'x');
INSERT INTO pairs VALUES ('p' || :client_id || '-' || :n || 'b', 'x');
COMMIT;
}, clients => 2, transactions => int($each / 5), variables => { n => 0 });
	ok(eventually(sub { select undef, undef, undef, 0.1; _records($kafka, 'users') >= 300 }), 'sessions insert');
	cmp_ok(_records($kafka, 'users'), '<', $inserts, '... and have not finished');
	$kafka->broker(2, 'kill');
	is($users->transactions, $each * $sessions, "one broker dies: all of $inserts inserts succeed");
	is($pairs->transactions, 2 * int($each / 5), '... and all atomic transactions');
	my %times = _times($kafka, 'users');
	is(scalar(keys %times), $each * $sessions, '... all are there');
	is(scalar(grep { $_ != 1 } values %times), 0, '... each once');
	eventually(sub { %times = _times($kafka, 'pairs'); keys(%times) == 4 * int($each / 5) });
	is(scalar(keys %times), 4 * int($each / 5), '... and those of transactions');
	is(scalar(grep { $_ != 1 } values %times), 0, '... each once');
	ok($node->catch_up('postgres', 'users', $kafka), 'and the table has them');
	my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM users');
	is($rows, $each * $sessions, '... all');

	# With a second one gone nothing can be written, which is told in time.
	my $timeout = 4;
	$kafka->broker(3, 'kill');
	my $start = time;
	my @sessions = at_once(
		$node,
		map {
			my $n = $_;
			map { "SET kafka_cache.produce_timeout = '${timeout}s'; BEGIN; INSERT INTO ordinary VALUES (1); INSERT INTO $_ VALUES ('none-$_-$n', 'x'); COMMIT" } qw(users pairs)
		} 1 .. 4);
	my @told = map { told_by($_) } @sessions;
	my $took = time - $start;
	is(scalar(grep { $_->{state} !~ /^0800[67]$/ } @told), 0, 'two are gone: every INSERT fails: ' . join(' ', map { $_->{state} } @told));
	cmp_ok($took, '<', 3 * $timeout, sprintf '... within the time that is given (%.1f s for %d s)', $took, $timeout);
	is($node->safe_psql('postgres', "SET kafka_cache.when_not_ready = 'error'; SELECT count(*) FROM users"), $rows, 'the table is read as before');
	$node->safe_psql('postgres', 'INSERT INTO ordinary VALUES (2)');
	is($node->safe_psql('postgres', 'SELECT string_agg(n::text, $$ $$) FROM ordinary'), '2', '... and ordinary ones are written');
	is(told($node, "SET kafka_cache.produce_timeout = '1s'; INSERT INTO users VALUES ('none-later', 'x')")->{state} =~ /^0800[67]$/ ? 1 : 0, 1,
		'... while cached ones still are not');

	# They come back.
	$kafka->broker($_, 'start') foreach (2, 3);
	my $told = told($node, "INSERT INTO users VALUES ('back', 'x'); SELECT value FROM users WHERE key = 'back'");
	is("$told->{state} $told->{out}", ' x', 'with the brokers, writing is back');
	is(told($node, "INSERT INTO pairs VALUES ('back-a', 'x'), ('back-b', 'x')")->{state}, '', '... atomic too');
	%times = (_times($kafka, 'users'), _times($kafka, 'pairs'));
	my %state = map { my $n = int($_ / 2) + 1; ("none-users-$n" => $told[$_]{state}, "none-pairs-$n" => $told[ $_ + 1 ]{state}) } grep { $_ % 2 == 0 } 0 .. $#told;
	is(join(' ', grep { $times{$_} && $state{$_} eq '08006' } sort keys %state), '', 'none that was told to have failed is there');
	is(join(' ', grep { $times{$_} > 1 } sort keys %times), '', '... and nothing is there twice');
	note('told as unknown: ' . join(' ', map { $times{$_} ? "$_ is there" : "$_ is not" } grep { $state{$_} eq '08007' } sort keys %state));
	foreach my $table (qw(users pairs))
	{
		ok($node->catch_up('postgres', $table, $kafka), "$table is at the end");
		same_as_kcat($node, $kafka, $table, $table);
	}
	balanced($node, 'three brokers');
	unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
	$node->stop;
	return;
}

1;
