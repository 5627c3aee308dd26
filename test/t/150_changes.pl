# Who was away asks what has changed: nothing is missing from an answer, or there is none. And who waits for one table is
# woken by that table.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Handle;
use IPC::Run qw(start);
use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main',
	conf => { log_min_messages => 'log', max_connections => 130, 'kafka_cache.deletion_memory' => '64kB' });
my $db = 'postgres';

sub position { return $node->safe_psql($db, "SELECT kafka_cache.position('$_[0]')"); }

# Key by key: is it deleted? Of a position.
sub changes
{
	my ($table, $since) = @_;

	return map { split /\|/, $_, 2 }
	  split /\n/, $node->safe_psql($db, "SELECT key, deleted FROM kafka_cache.changes('$table', '$since')");
}

sub sqlstate
{
	my ($query) = @_;
	my ($stdout, $stderr);

	$node->psql($db, $query, stdout => \$stdout, stderr => \$stderr, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : 'none';
}

sub consumer { return $node->safe_psql($db, "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'"); }

$node->start;
$node->connect_kafka($db, $kafka);
$kafka->topic($_, 3) foreach qw(t other);
foreach my $partition (0 .. 2)
{
	$kafka->load('t', $partition, $partition * 1000, 1000, 'key-%d', 'first %d');
	$kafka->load('other', $partition, 0, 10, "key-$partition-%d", 'first %d');
}
text_table($node, $_) foreach qw(t other);
ok($node->catch_up($db, $_, $kafka), "$_ is loaded") foreach qw(t other);

# --- away, and back ---------------------------------------------------------------------------------

my $away = position('t');
$kafka->load('t', 0, 0, 60, 'key-%d', 'second %d');
$kafka->load('t', 1, 1000, 40, 'key-%d', 'second %d');
$kafka->produce('t', 2, "key-$_", undef) foreach 2000 .. 2009;
ok($node->catch_up($db, 't', $kafka), 'a hundred were changed and ten deleted meanwhile');
my %got = changes('t', $away);
is(scalar(keys %got), 110, 'these are what changes() tells of');
is_deeply([ sort grep { $got{$_} eq 't' } keys %got ], [ map { "key-$_" } 2000 .. 2009 ], 'with the ten as deleted');
is(scalar(grep { /^key-(?:[1-5]?\d|10[0-3]\d)$/ } keys %got), 100, 'and the hundred by name');

# --- the consumer ends ------------------------------------------------------------------------------

my $before = consumer();
$node->safe_psql($db, "SELECT pg_terminate_backend($before)");
$kafka->produce('t', 0, 'key-500', undef);
ok($node->wait_for($db, "SELECT pid <> $before FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL"), 'another consumer');
ok($node->catch_up($db, 't', $kafka), 'it has caught up');
%got = changes('t', $away);
is(scalar(keys %got), 111, 'what the one before it had done is remembered');
is($got{'key-500'}, 't', 'and what it has done itself');

# --- what is forgotten ------------------------------------------------------------------------------

# Each deletion takes about 60 bytes, so most of these are too many. Another partition's are remembered.
$kafka->load('t', 1, 1000, 1000, 'key-%d', 'third %d');
ok($node->catch_up($db, 't', $kafka), 'all of partition 1 once more');
my $remembered = position('t');
$kafka->load('t', 0, 10000, 5000, 'gone-%d', 'x');
ok($node->catch_up($db, 't', $kafka), 'five thousand come');
$kafka->load('t', 0, 10000, 5000, 'gone-%d', undef);
ok($node->catch_up($db, 't', $kafka), 'and go');
ok(eventually(sub { sqlstate("SELECT * FROM kafka_cache.changes('t', '$remembered')") eq '72000' }),
	'a position from before what is forgotten: 72000');
is(sqlstate("SELECT * FROM kafka_cache.changes('t', '$away')"), '72000', 'and any older one');
my ($next) = $remembered =~ /"1": (\d+)/;
is(sqlstate(qq{SELECT * FROM kafka_cache.changes('t', '{"1": $next}')}), 'none', 'not of a partition whose deletions are remembered');

# Who asks again and again loses nothing, while deletions come and are forgotten all the time.
my (%mirror, $since);
my ($answers, $refused) = (0, 0);

# By the changes since the position that is known, else by the table.
sub update_mirror
{
	my $new = position('t');
	my ($code, $stdout) = defined $since ? $node->psql($db, "SELECT key, deleted FROM kafka_cache.changes('t', '$since')") : (1, '');

	if ($code == 0)
	{
		$answers++;
		foreach my $line (split /\n/, $stdout)
		{
			my ($key, $gone) = split /\|/, $line;
			if ($gone eq 't') { delete $mirror{$key} }
			else { $mirror{$key} = 1 }
		}
	}
	else
	{
		$refused++;
		%mirror = map { $_ => 1 } split /\n/, $node->safe_psql($db, 'SELECT key FROM t');
	}
	$since = $new;
	return;
}

update_mirror();
my $first = $since;
my $deleting = load_beside($kafka, 1000,
	sub {
		my ($round) = @_;
		my $n = $round % 3000;
		return [ 'produce', 't', 0, "mirrored-$n", $round % 3 == 0 ? 'back' : undef ];
	});
foreach my $round (1 .. 500)
{
	last if $round > 20 && sqlstate("SELECT * FROM kafka_cache.changes('t', '$first')") eq '72000';
	isnt($node->safe_psql($db, "SELECT kafka_cache.wait_for_change('t', '$since', '20 s')"), '', 'something has changed') or last if $round == 1;
	update_mirror();
}
$deleting->stop;
ok($node->catch_up($db, 't', $kafka), 'the last of them');
update_mirror();
cmp_ok($answers, '>', 15, "a mirror of the keys was kept by changes ($answers answers, $refused refused)");
is(sqlstate("SELECT * FROM kafka_cache.changes('t', '$first')"), '72000', 'while deletions were forgotten');
is_deeply([ sort keys %mirror ], [ sort split /\n/, $node->safe_psql($db, 'SELECT key FROM t') ], 'and has the keys that the table has');

# --- waiting ----------------------------------------------------------------------------------------

# A hundred wait for one table, while another one moves.
my $here = position('t');
my @waiting = map {
	beside([ 'psql', '-X', '-A', '-t', '-d', $node->connstr($db), '-c', "SELECT kafka_cache.wait_for_change('t', '$here', '120 s') IS NOT NULL" ])
} 1 .. 100;
ok($node->wait_for($db, "SELECT count(*) = 100 FROM pg_stat_activity WHERE query LIKE '%wait_for_change%120%' AND wait_event_type = 'Extension'
	AND pid <> pg_backend_pid()"), 'a hundred wait');

# How often these processes have left a sleep.
sub woken
{
	my $times = 0;

	foreach my $pid (split /\n/, $node->safe_psql($db,
			"SELECT pid FROM pg_stat_activity WHERE query LIKE '%wait_for_change%120%' AND pid <> pg_backend_pid()"))
	{
		open(my $fh, '<', "/proc/$pid/status") or next;
		while (<$fh>) { $times += $1 if /^voluntary_ctxt_switches:\s+(\d+)/ }
	}
	return $times;
}

my $slept = woken();
my $there = position('other');
$kafka->load('other', 0, 0, 2000, 'busy-%d', 'x');
$kafka->produce('other', 1, "busy-$_", 'x') foreach 1 .. 20;
ok($node->catch_up($db, 'other', $kafka), 'another table moves');
isnt($node->safe_psql($db, "SELECT kafka_cache.wait_for_change('other', '$there', '10 s')"), '', 'who waits for that one is told');
is(woken(), $slept, 'none of the hundred was woken');
$kafka->produce('t', 1, 'news', 'x');
is(scalar(grep { $_->succeeded && $_->output eq "t\n" } @waiting), 100, 'a record of their own table wakes them all');
ok($node->wait_for($db, "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%wait_for_change%120%' AND pid <> pg_backend_pid()
	AND state = 'active'"), 'and they are gone');

# Cancelled, killed, in time.
$here = position('t');
my $waiter = beside([ 'psql', '-X', '-d', $node->connstr($db), '-c', "SELECT kafka_cache.wait_for_change('t', '$here', '1 h')" ]);
my $found = "FROM pg_stat_activity WHERE query LIKE '%1 h%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()";
ok($node->wait_for($db, "SELECT count(*) = 1 $found"), 'one waits for an hour');
my $start = time;
$node->safe_psql($db, "SELECT pg_cancel_backend(pid) $found");
ok(eventually(sub { !$waiter->running }), 'it can be cancelled');
cmp_ok(time - $start, '<', 5, 'at once');
like($waiter->output, qr/canceling statement due to user request/, 'and says so');
is(sqlstate("SET statement_timeout = '20ms'; SELECT kafka_cache.wait_for_change('t', '$here', '1 h')"), '57014', 'statement_timeout ends it');
$waiter = beside([ 'psql', '-X', '-d', $node->connstr($db), '-c', "SELECT kafka_cache.wait_for_change('t', '$here', '1 h')" ]);
ok($node->wait_for($db, "SELECT count(*) = 1 $found"), 'another one waits');
$node->safe_psql($db, "SELECT pg_terminate_backend(pid) $found");
ok(eventually(sub { !$waiter->running }), 'it can be terminated');
is($node->safe_psql($db, "SELECT kafka_cache.wait_for_change('t', '$here', '20 ms') IS NULL"), 't', 'NULL when the time is over');

# A table that goes, and one that comes.
$waiter = beside([ 'psql', '-X', '-d', $node->connstr($db), '-c', "SELECT kafka_cache.wait_for_change('other', kafka_cache.position('other'), '1 h')" ]);
ok($node->wait_for($db, "SELECT count(*) = 1 $found"), 'one waits for a table');
$node->safe_psql($db, 'DROP FOREIGN TABLE other');
ok(eventually(sub { !$waiter->running }), 'that is dropped');
like($waiter->output, qr/does not exist/, 'which ends it with an error');
$kafka->topic('late', 1);
$kafka->load('late', 0, 0, 5, 'key-%d', 'x');
text_table($node, 'late');
is($node->safe_psql($db, "SELECT kafka_cache.wait_for_change('late', '{\"0\": -1}', '60 s')"), '{"0": 4}', 'a table is waited for while it is loaded');

# A reload never takes a position back, however fast records come: who was told of a record finds it.
my $busy = load_beside($kafka, 2000, sub { my ($round) = @_; return [ 'load', 'late', 0, $round % 50, 20, 'key-%d', "$round %d" ] });
ok(eventually(sub { ($busy->so_far)[1] > 100 }), 'records come fast');
is( $node->safe_psql($db,
		'DO $$
		DECLARE
			last bigint := -1;
			now bigint;
			back int := 0;
			done bigint;
		BEGIN
			FOR i IN 1..8 LOOP
				SELECT t.reloads INTO done FROM kafka_cache.tables t WHERE relation = \'late\'::regclass;
				PERFORM kafka_cache.reload(\'late\');
				LOOP
					now := (kafka_cache.position(\'late\') ->> \'0\')::bigint;
					IF now < last THEN
						back := back + 1;
					END IF;
					last := now;
					EXIT WHEN (SELECT t.reloads > done FROM kafka_cache.tables t WHERE relation = \'late\'::regclass);
				END LOOP;
			END LOOP;
			PERFORM set_config(\'test.back\', back::text, false);
		END
		$$;
		SELECT current_setting(\'test.back\')'),
	'0', 'positions never go back while the table is loaded again, eight times');
$busy->stop;

# --- the state of a statement -----------------------------------------------------------------------

# A transaction with one snapshot sees the changes up to its state. A reload takes what was known of deletions with it, so
# that from then on it is told nothing.
my $session = $node->background_psql($db, on_error_stop => 0);
$here = position('t');
$session->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t;');
$kafka->produce('t', 2, 'key-2500', undef);
ok($node->catch_up($db, 't', $kafka), 'a deletion after a snapshot');
is($session->query("SELECT count(*) FROM kafka_cache.changes('t', '$here');"), '0', 'is not among the changes in it');
is($node->safe_psql($db, "SELECT key, deleted FROM kafka_cache.changes('t', '$here')"), 'key-2500|t', 'it is in others');
is( $session->query("SELECT count(*) FILTER (WHERE t.key IS NULL) FROM kafka_cache.changes('t', '{\"2\": 1010}') c LEFT JOIN t ON t.key = c.key WHERE NOT c.deleted;"),
	'0', 'changes and rows of one statement are of one state');
$node->safe_psql($db, "SELECT kafka_cache.reload('t')");
ok($node->wait_for($db, "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 't'::regclass"), 'a reload');
$session->query("SELECT count(*) FROM kafka_cache.changes('t', '$here');");
like($session->{stderr}, qr/position of cached table "t" is too old/, 'no answer from contents of before');
$session->quit;

done_testing();
