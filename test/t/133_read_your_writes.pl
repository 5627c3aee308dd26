# A session sees what it has written, however far behind the consumer is; or it is told that it cannot.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log', 'kafka_cache.wait_timeout' => '60s' });
$node->start;
$node->connect_kafka('postgres', $kafka);

my %columns = (
	text => "value text OPTIONS (value 'true')",
	json => 'n int NOT NULL');

sub cache
{
	my ($name, $topic, $format, @options) = @_;
	my $list = join ', ', "topic '$topic'", "format '$format'", "readonly 'false'", @options;

	$node->safe_psql('postgres',
		"CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, $columns{$format}, _partition int OPTIONS (partition 'true'),
		 _offset bigint OPTIONS (offset 'true')) SERVER kafka OPTIONS ($list)");
	ok($node->wait_ready('postgres', $name), "$name is ready");
	return;
}

$kafka->topic($_, 4) foreach qw(t u raw);
cache('t', 't', 'text');
cache('now', 't', 'text', "delivery 'immediate'");
cache('u', 'u', 'text');
cache('raw', 'raw', 'text');
cache('typed', 'raw', 'json');

sub consumer { return $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL"); }

sub run
{
	my ($sql) = @_;
	my ($stdout, $stderr);

	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $stdout . ($stderr =~ s/^(?:LOCATION|CONTEXT):.*\n?//mgr);
}

# While the consumer sleeps, whatever happens.
sub asleep
{
	my ($work) = @_;
	my $pid = consumer();

	kill 'STOP', $pid;
	my $ok = eval { $work->(); 1 };
	kill 'CONT', $pid;
	die $@ unless $ok;
	return;
}

# --- many sessions, a slow consumer --------------------------------------------------------------------

my $round = q{
\set v random(1, 1000000000)
INSERT INTO %s VALUES ('key ' || :client_id, :v);
SELECT 1 / count(*) FROM t WHERE key = 'key ' || :client_id AND value = :v::text;
};
my $rounds = pgbench_beside($node, sprintf($round, 't'), clients => 8, transactions => 125);
is($rounds->transactions, 1000, '1000 rounds of writing and reading in 8 sessions: each reads what it wrote');
$rounds = pgbench_beside($node, sprintf($round, 'now'), clients => 8, transactions => 125);
is($rounds->transactions, 1000, '... also through another table with the same topic');

my $consumer = consumer();
my $slow = beside(
	sub {
		my $stop = 0;
		local $SIG{TERM} = sub { $stop = 1 };
		while (!$stop)
		{
			kill 'STOP', $consumer;
			select undef, undef, undef, 0.2;
			kill 'CONT', $consumer;
			select undef, undef, undef, 0.02;
		}
	});
$rounds = pgbench_beside($node, sprintf($round, 't'), clients => 8, transactions => 125);
is($rounds->transactions, 1000, '... and of a consumer that sleeps 200 ms at a time');
$slow->stop;
kill 'CONT', $consumer;

# --- one session ---------------------------------------------------------------------------------------

asleep(
	sub {
		like(run("SET kafka_cache.read_your_writes = off; INSERT INTO t VALUES ('off', '1'); SELECT count(*) FROM t WHERE key = 'off'"), qr/\A0\Z/,
			'turned off it reads what is there');
		like(run("SET kafka_cache.wait_timeout = '200ms'; INSERT INTO t VALUES ('late', '1'); SELECT count(*) FROM t WHERE key = 'late'"),
			qr/55000.*has not caught up.*DETAIL.*offset.*HINT.*wait_timeout/s, 'out of time it is an error');
		like(run("SET kafka_cache.wait_timeout = '200ms'; SET kafka_cache.when_not_ready = 'error'; INSERT INTO t VALUES ('late', '1'); SELECT count(*) FROM t"),
			qr/55000.*has not caught up/s, '... also where tables that are not ready are not waited for');
		is(run("SET kafka_cache.wait_timeout = '200ms'; INSERT INTO t VALUES ('late', '1'); SELECT count(*) FROM u"), '0',
			'... but a statement that reads another table does not wait');
		is(run("SELECT count(*) FROM t WHERE key = 'late'"), '0', '... nor does another session');
		is(run("BEGIN; INSERT INTO t VALUES ('gone', '1'); ROLLBACK; SELECT count(*) FROM t WHERE key = 'gone'"), '0', '... nor one that has rolled back');
		like(run("SET kafka_cache.wait_timeout = '200ms'; BEGIN; INSERT INTO now VALUES ('stays', '1'); ROLLBACK; SELECT count(*) FROM t"),
			qr/55000.*has not caught up/s, '... but one that has sent already does');
	});
is(run("SELECT count(*) FROM t WHERE key IN ('off', 'late', 'stays')"), '3', 'later it is all there');

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query('\set VERBOSITY sqlstate');

sub ask
{
	my ($sql) = @_;

	$session->{stderr} = '';
	my $answer = $session->query($sql);
	return $answer . ($session->{stderr} =~ /ERROR:\s+(\w+)/ ? $1 : '');
}
$session->query('SET kafka_cache.wait_timeout = 300');
asleep(sub {
	is(ask("INSERT INTO t VALUES ('again', '1'); SELECT count(*) FROM t WHERE key = 'again'"), '55000', 'a session that was out of time');
});
$session->query('RESET kafka_cache.wait_timeout');
is(ask("SELECT count(*) FROM t WHERE key = 'again'"), '1', '... waits again the next time');
is(ask("DELETE FROM t WHERE key = 'again'; SELECT count(*) FROM t WHERE key = 'again'"), '0', 'a deletion is seen too');

# A record that the consumer rejects has been passed like any other.
is(ask("INSERT INTO raw VALUES ('bad', 'no document'); SELECT count(*) FROM typed"), '0', 'a record that is rejected is waited for');
is(run("SELECT errors FROM kafka_cache.tables WHERE relation = 'typed'::regclass"), '1', '... and was');
is(ask(q{INSERT INTO raw VALUES ('good', '{"n": 5}'); SELECT n FROM typed}), '5', '... as is one that is not');

# A topic that is deleted and created again: what the table has of the first is not taken for what is written to the second.
$kafka->topic('remade', 1);
cache('remade', 'remade', 'text');
is(ask("INSERT INTO remade SELECT 'k' || i, 'first' FROM generate_series(1, 9) i; SELECT count(*) FROM remade"), '9', 'a topic');
asleep(sub {
	$kafka->delete_topic('remade');
	$kafka->topic('remade', 1);
	is(ask("SET kafka_cache.wait_timeout = 300; INSERT INTO remade VALUES ('k1', 'second'); SELECT value FROM remade WHERE key = 'k1'"), '55000',
		'... that is made anew: its first contents are not shown to who has written to it');
});
is(ask("RESET kafka_cache.wait_timeout; SELECT key, value, _offset FROM remade"), 'k1|second|0', '... who waits until the table has the second');
is(ask("INSERT INTO remade VALUES ('k2', 'second'); SELECT count(*) FROM remade"), '2', '... and then no longer than for any');

# --- other sessions ------------------------------------------------------------------------------------

my $position;
asleep(sub {
	$position = ask("INSERT INTO now VALUES ('told', '1') RETURNING jsonb_build_object(_partition, _offset)");
	like($position, qr/\A\{"[0-3]": \d+\}\z/, 'RETURNING gives a position');
	is(run("SELECT kafka_cache.wait_for('t', '$position', '100 ms')"), 'f', '... that another session waits for');
});
is(run("SELECT kafka_cache.wait_for('t', '$position', '60 s'); SELECT count(*) FROM t WHERE key = 'told'"), "t\n1", '... until it sees the record');

# --- states that stand ---------------------------------------------------------------------------------

ask("INSERT INTO t VALUES ('before', '1')");
is(ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t WHERE key = 'before'"), '1', 'REPEATABLE READ begins with what was written before');
ask("INSERT INTO now VALUES ('inside', '1')");
is(ask("SELECT count(*) FROM t WHERE key = 'inside'"), '55000', '... and does not show what is written in it');
ask('ROLLBACK');
is(ask("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO now VALUES ('first', '1'); SELECT count(*) FROM t WHERE key = 'first'"), '1',
	'... unless nothing was read before');
ask('COMMIT');
ask("INSERT INTO t VALUES ('other', '1')");
is(ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM u"), '0', '... or something else was');
is(ask("SELECT count(*) FROM t WHERE key = 'other'"), '1', '... which has waited for that too');
ask('COMMIT');
is(ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL kafka_cache.read_your_writes = off; SELECT count(*) FROM t WHERE key = 'x'; INSERT INTO now VALUES ('x', '1'); SELECT count(*) FROM t WHERE key = 'x'"),
	"0\n0", '... turned off it shows what it has');
ask('ROLLBACK');

$node->safe_psql('postgres', q{
CREATE FUNCTION there(text) RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM t WHERE t.key = $1); END $$;
CREATE FUNCTION put(text) RETURNS text VOLATILE LANGUAGE plpgsql AS $$ BEGIN INSERT INTO now VALUES ($1, '1'); RETURN $1; END $$;
});
is(ask("INSERT INTO u VALUES ('one', '1'); SELECT count(*) FROM u"), '1', 'another table has a row');
is(ask("INSERT INTO t VALUES ('f', '1'); SELECT there('f') FROM u"), '1', 'a function that reads another table than its statement sees it');
is(ask("SELECT there(put('g')) FROM u"), '0', '... but not what the statement itself has written, as with any table');
is(ask("SELECT there('g') FROM u"), '1', '... which the next one sees');
is(ask("BEGIN; DECLARE c CURSOR FOR SELECT count(*) FROM t WHERE key = 'c'; INSERT INTO now VALUES ('c', '1'); FETCH c"), '0', 'a cursor shows the state of its opening');
is(ask("SELECT count(*) FROM t WHERE key = 'c'"), '1', '... beside it there is a newer one');
ask('COMMIT');

# --- a table that is loaded again, dropped, made anew -----------------------------------------------------

asleep(sub { ask("INSERT INTO t VALUES ('reloaded', '1'); SELECT kafka_cache.reload('t')") });
is(ask("SELECT count(*) FROM t WHERE key = 'reloaded'"), '1', 'a table that is loaded again is waited for');
is(ask("INSERT INTO t VALUES ('dropped', '1'); DROP FOREIGN TABLE t; SELECT count(*) FROM now WHERE key = 'dropped'"), '1', 'one that is dropped holds up nobody');
$kafka->topic('elsewhere', 4);
like(ask("INSERT INTO now SELECT 'many ' || i, '1' FROM generate_series(1, 100) i; ALTER FOREIGN TABLE now OPTIONS (SET topic 'elsewhere');
		SELECT count(*) FROM now"), qr/\A0\z/, 'one that is given another topic does not wait for what is in the old one');
is(ask("INSERT INTO now VALUES ('there', '1'); SELECT count(*) FROM now"), '1', '... but for what is written to the new one');
is(ask("ALTER FOREIGN TABLE now OPTIONS (SET topic 't'); SELECT count(*) FROM now WHERE key LIKE 'many %'"), '100', '... and back, all is there');

$session->quit;
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'the server has nothing to complain about');
$node->stop;
done_testing();
