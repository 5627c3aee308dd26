# Transactions that write: what is rolled back is never sent, what is committed is, in order, and every other
# end is told as what it is. kcat says what is in the topics.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Mock->new;
my $other = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main',
	conf => { max_prepared_transactions => 5, log_min_messages => 'log', log_temp_files => 0 });
$node->start;
$node->connect_kafka('postgres', $kafka);
$node->safe_psql('postgres',
	"CREATE SERVER other FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $other->address . "')");

sub cache
{
	my ($name, $server, @options) = @_;
	my $broker = $server eq 'kafka' ? $kafka : $other;

	$broker->topic($name, 1);
	my $list = join ', ', "topic '$name'", "format 'text'", "readonly 'false'", @options;
	$node->safe_psql('postgres',
		"CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'),
		 _partition int OPTIONS (partition 'true'), _offset bigint OPTIONS (offset 'true')) SERVER $server OPTIONS ($list)");
	ok($node->wait_ready('postgres', $name), "$name is ready");
	return;
}

# Runs SQL; "", or the SQLSTATE and the rest of what went wrong.
sub run
{
	my ($sql, @options) = @_;
	my $stderr;

	$node->psql('postgres', $sql, stderr => \$stderr, on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose', @options ]);
	$stderr =~ s/^(?:LOCATION|CONTEXT):.*\n?//mg;
	return $stderr;
}

# What has come since the last time: keys in order.
my %seen;

sub sent
{
	my ($topic, $broker) = @_;

	open(my $pipe, '-|', 'kcat', '-q', '-C', '-e', '-o', $seen{$topic} // 0, '-b', ($broker // $kafka)->address, '-t', $topic,
		'-f', '%o %k\n', '-X', 'fetch.wait.max.ms=10')
	  or die "kcat: $!";
	my @records = map { chomp; [ split / /, $_, 2 ] } <$pipe>;
	close($pipe) or die "kcat failed on topic $topic";
	$seen{$topic} = 1 + $records[-1][0] if @records;
	return join ' ', map { $_->[1] } @records;
}

# Processes that sleep: they wake up whatever becomes of the test.
my %asleep;

sub put_to_sleep { my ($pid) = @_; $asleep{$pid} = 1; kill 'STOP', $pid; return; }
sub wake { my ($pid) = @_; delete $asleep{$pid}; kill 'CONT', $pid; return; }
END { kill 'CONT', keys %asleep if %asleep; }

sub producer { return $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'producer' AND pid IS NOT NULL"); }

# Sessions that wait for the producer or the brokers.
sub waiting
{
	return $node->wait_for('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' AND state = 'active'", 1);
}

sub is_active
{
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()");
}

sub cancel
{
	return $node->safe_psql('postgres',
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' AND state = 'active'");
}

cache('t', 'kafka');
cache('u', 'kafka');
cache('now', 'kafka', "delivery 'immediate'");
cache('far', 'other');

# --- rolling back ------------------------------------------------------------------------------------

is(run("INSERT INTO t VALUES ('a', '1')"), '', 'a statement by itself');
is(sent('t'), 'a', '... is sent');
is(run("BEGIN; INSERT INTO t VALUES ('b', '1'); ROLLBACK"), '', 'a transaction is rolled back');
is(run("BEGIN; INSERT INTO t VALUES ('b', '1'); SELECT 1 / 0; COMMIT") =~ /22012/, 1, 'one fails');
is(sent('t'), '', 'nothing is sent');
is(run(q{
BEGIN;
INSERT INTO t VALUES ('1', 'x');
SAVEPOINT a; INSERT INTO t VALUES ('2', 'x');
	SAVEPOINT b; INSERT INTO t VALUES ('3', 'x'); RELEASE b;
	SAVEPOINT c; INSERT INTO t VALUES ('4', 'x'); ROLLBACK TO c; INSERT INTO t VALUES ('5', 'x');
ROLLBACK TO a; INSERT INTO t VALUES ('6', 'x');
	SAVEPOINT d; INSERT INTO t VALUES ('7', 'x');
		SAVEPOINT e; INSERT INTO t VALUES ('8', 'x'); ROLLBACK TO d;
	SAVEPOINT f; INSERT INTO t VALUES ('9', 'x'); RELEASE f;
INSERT INTO t VALUES ('10', 'x');
COMMIT;}), '', 'savepoints');
is(sent('t'), '1 6 9 10', 'what was not rolled back is sent, in order');
is(run("BEGIN; SAVEPOINT a; INSERT INTO t VALUES ('b', 'x'); ROLLBACK TO a; COMMIT"), '', 'all of it is rolled back');
is(sent('t'), '', 'nothing is sent');
is(run(q{
DO $$ BEGIN
	FOR i IN 1 .. 10000 LOOP
		BEGIN
			INSERT INTO t VALUES (i, 'x');
			IF i % 1000 <> 0 THEN RAISE 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END $$}), '', '10000 blocks with an exception handler, most of which fail');
is(sent('t'), join(' ', map { 1000 * $_ } 1 .. 10), '... send what the others wrote');

# --- more than memory --------------------------------------------------------------------------------

my $memory = $node->safe_psql('postgres', q{
SET work_mem = '64kB';
BEGIN;
INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, 5000) AS i;
SAVEPOINT a;
INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(5001, 10000) AS i;
SAVEPOINT b;
INSERT INTO t VALUES ('large', repeat('y', 200000));
ROLLBACK TO a;
INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(20001, 25000) AS i;
SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'kafka_cache pending%';
SAVEPOINT c;
INSERT INTO t SELECT 'r' || i, 'x' FROM generate_series(1, 5000) AS i;
INSERT INTO u VALUES ('r', 'x');
RELEASE c;
SAVEPOINT d;
INSERT INTO t SELECT 'r' || i, 'x' FROM generate_series(1, 5000) AS i;
ROLLBACK TO d;
COMMIT;
});
is(sent('t'), join(' ', 1 .. 5000, 20001 .. 25000, map { "r$_" } 1 .. 5000),
	'a transaction with many times work_mem, of which some was rolled back, is sent in order');
is(sent('u'), 'r', '... to both of its tables');
cmp_ok($memory, '<', 300000, '... and took little memory');
like($node->log_text, qr/temporary file: .*size/, '... but a temporary file');

# Any nesting: what is to be sent is counted here, by a list for each level.
sub random_transaction
{
	my @levels = ({ t => [], u => [] });
	my @sql = ("SET work_mem = '64kB'", 'BEGIN');
	my $key = 0;

	for (1 .. 40)
	{
		my $dice = rand;
		if ($dice < 0.5)
		{
			my $table = rand() < 0.7 ? 't' : 'u';
			my ($first, $count) = ($key + 1, 1 + int rand(rand() < 0.1 ? 1000 : 30));
			push @sql, "INSERT INTO $table SELECT 'n' || i, repeat('x', " . int(rand 300) . ") FROM generate_series($first, $first + $count - 1) AS i";
			push @{ $levels[-1]{$table} }, map { "n$_" } $first .. $first + $count - 1;
			$key += $count;
		}
		elsif ($dice < 0.75)
		{
			push @levels, { t => [], u => [] };
			push @sql, 'SAVEPOINT s' . $#levels;
		}
		elsif (@levels > 1)
		{
			my $to = 1 + int rand $#levels;
			if ($dice < 0.9)
			{
				push @sql, "ROLLBACK TO s$to";
				splice @levels, $to + 1;
				$levels[$to] = { t => [], u => [] };
			}
			else
			{
				push @sql, "RELEASE s$to";
				foreach my $gone (splice @levels, $to)
				{
					push @{ $levels[-1]{$_} }, @{ $gone->{$_} } foreach qw(t u);
				}
			}
		}
	}
	my %expected = map { my $table = $_; $table => join ' ', map { @{ $_->{$table} } } @levels } qw(t u);
	my $said = run(join(";\n", @sql, 'COMMIT'));
	my $good = $said eq '' && sent('t') eq $expected{t} && sent('u') eq $expected{u};

	diag(join(";\n", @sql), "\n$said") unless $good;
	return $good;
}
my $seed = srand;
my $good = grep { random_transaction() } 1 .. 25;
is($good, 25, "savepoints at random (seed $seed)");

# A key that was written already cannot be updated: its new value is not there yet. That is known exactly.
is(run("INSERT INTO u VALUES ('up', 'x')"), '', 'a row');
ok($node->catch_up('postgres', 'u', $kafka), '... that every session sees');
is(run("BEGIN; SAVEPOINT a; UPDATE u SET value = '1' WHERE key = 'up'; ROLLBACK TO a; UPDATE u SET value = '2' WHERE key = 'up'; COMMIT"), '',
	'... whose update was rolled back can be updated');
like(run("BEGIN; UPDATE u SET value = '3' WHERE key = 'up'; SAVEPOINT a; UPDATE u SET value = '4' WHERE key = 'up'; COMMIT"), qr/55000/,
	'... but not one that was updated');
like(run("BEGIN; UPDATE u SET value = '3' WHERE key = 'up'; SAVEPOINT a; DELETE FROM u WHERE key = 'up'; ROLLBACK TO a; UPDATE u SET value = '4' WHERE key = 'up'; COMMIT"),
	qr/55000/, '... also when what came later was rolled back');
like(run("SET work_mem = '64kB'; BEGIN; INSERT INTO u VALUES ('up', '5'); INSERT INTO u SELECT i, repeat('x', 100) FROM generate_series(1, 3000) AS i;
	UPDATE u SET value = '6' WHERE key = 'up'; COMMIT"), qr/55000/, '... however long ago that was');
is(run("BEGIN; UPDATE u SET value = '7' WHERE key = 'up'; DELETE FROM u WHERE key = 'up'; COMMIT"), '', '... which can be deleted');
is(sent('u'), 'up up up up', 'each of these is sent that was committed');
is(run("INSERT INTO u VALUES ('up', 'y'); UPDATE u SET value = value || i FROM generate_series(1, 3) AS i WHERE key = 'up'"), '',
	'an update that meets a row several times');
is(sent('u'), 'up up', '... writes it once');

# --- when it is sent ---------------------------------------------------------------------------------

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query("BEGIN; INSERT INTO t VALUES ('late', 'x'); INSERT INTO now VALUES ('at once', 'x')");
is(sent('t'), '', 'delivery commit: not before the commit');
is(sent('now'), 'at once', 'delivery immediate: with the statement');
is($session->query("SELECT count(*) FROM t WHERE key = 'late'"), '0', '... a row is not visible before it was sent');
is($session->query("SELECT count(*) FROM now WHERE key = 'at once'"), '1', '... and one that was sent is');
like($session->query('EXPLAIN SELECT * FROM t'), qr/Unsent Records: 1 \(not visible before commit\)/, '... as EXPLAIN says');
unlike($session->query('EXPLAIN SELECT * FROM u'), qr/Unsent/, '... of the table that was written to');
$session->query('COMMIT');
is(sent('t'), 'late', '... but with it');
is($session->query("SELECT count(*) FROM t WHERE key = 'late'"), '1', '... and then it is visible');
like(run("BEGIN; INSERT INTO now VALUES ('stays', 'x'); SELECT 1 / 0"), qr/22012/, 'a transaction fails behind an immediate statement');
is(sent('now'), 'stays', '... which was sent');
like(run("INSERT INTO now SELECT CASE WHEN i < 3 THEN i END, 'x' FROM generate_series(1, 3) AS i"), qr/23502/, 'an immediate statement fails');
is(sent('now'), '', '... and sends nothing');
is(run(q{
DO $$ BEGIN
	BEGIN
		INSERT INTO now VALUES ('one', 'x');
		INSERT INTO t VALUES ('one', 'x');
		RAISE 'no';
	EXCEPTION WHEN raise_exception THEN NULL;
	END;
	INSERT INTO t VALUES ('two', 'x');
END $$}), '', 'a failed block with both');
is(sent('now') . ', ' . sent('t'), 'one, two', '... leaves what was sent, and nothing else');

# --- what is refused ---------------------------------------------------------------------------------

like(run("BEGIN; INSERT INTO t VALUES ('p', 'x'); PREPARE TRANSACTION 'p'"), qr/0A000.*HINT/s, 'PREPARE TRANSACTION is refused');
is(sent('t'), '', '... and nothing is sent');
is(run("BEGIN; SAVEPOINT a; INSERT INTO t VALUES ('p', 'x'); ROLLBACK TO a; INSERT INTO now VALUES ('p', 'x'); PREPARE TRANSACTION 'p'"), '',
	'... unless there is nothing to be sent');
is(run("COMMIT PREPARED 'p'"), '', '... of a transaction that can be committed');
is(sent('now'), 'p', '... and what was sent is there');

# --- failures before the commit -----------------------------------------------------------------------

$node->safe_psql('postgres', q{
CREATE TABLE ledger (id int PRIMARY KEY, n int);
INSERT INTO ledger VALUES (1, 0), (2, 0);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused at the end'; END $$;
CREATE FUNCTION write_too() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES ('by trigger', 'x'); RETURN NULL; END $$;
CREATE TABLE refusing (id int);
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON refusing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE writing (id int);
CREATE CONSTRAINT TRIGGER write AFTER INSERT ON writing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION write_too();
});
like(run("BEGIN; INSERT INTO t VALUES ('d', 'x'); INSERT INTO refusing VALUES (1); COMMIT"), qr/refused at the end/,
	'a deferred trigger fails');
is(sent('t'), '', '... and nothing is sent');
is(run("BEGIN; INSERT INTO writing VALUES (1); INSERT INTO t VALUES ('by statement', 'x'); COMMIT"), '', 'a deferred trigger writes');
is(sent('t'), 'by statement by trigger', '... and that is sent');

my @pair = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
foreach my $i (0, 1)
{
	my ($mine, $theirs) = (1 + $i, 2 - $i);
	$pair[$i]->query("\\set VERBOSITY sqlstate\nBEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM ledger WHERE id = $theirs");
	$pair[$i]->query("INSERT INTO t VALUES ('serial $mine', 'x')");
}
$pair[$_]->query('UPDATE ledger SET n = n + 1 WHERE id = ' . (1 + $_)) foreach 0, 1;
$pair[0]->query('COMMIT');
$pair[1]->{stderr} = '';
$pair[1]->query('COMMIT');
like($pair[1]->{stderr}, qr/40001/, 'a serialization failure at COMMIT');
is(sent('t'), 'serial 1', '... sends nothing');
$_->quit foreach @pair;

# --- several servers ----------------------------------------------------------------------------------

is(run("BEGIN; INSERT INTO t VALUES ('s1', 'x'); INSERT INTO far VALUES ('s1', 'x'); INSERT INTO t VALUES ('s2', 'x'); COMMIT"), '',
	'two servers in a transaction');
is(sent('t') . ', ' . sent('far', $other), 's1 s2, s1', '... get what is theirs');
$other->down;
my $short = "SET kafka_cache.produce_timeout = '4s'; ";
my $begun = time;
like(run($short . "INSERT INTO far VALUES ('s3', 'x')"), qr/08006.*not written.*HINT/s, 'a server whose brokers are away');
cmp_ok(time - $begun, '<', 20, '... within its time');
like(run($short . "BEGIN; INSERT INTO far VALUES ('s3', 'x'); INSERT INTO t VALUES ('s3', 'x'); COMMIT"), qr/08006.*None of the 2 records/s,
	'... before one that is there');
is(sent('t'), '', '... which then gets nothing');
like(run($short . "BEGIN; INSERT INTO t VALUES ('s4', 'x'); INSERT INTO far VALUES ('s4', 'x'); COMMIT"),
	qr/08007.*1 of 2 records were written, 0 may have been/s, '... behind one that is there');
is(sent('t'), 's4', '... which has got its own');
like(run($short . q{
DO $$ BEGIN
	BEGIN
		INSERT INTO far VALUES ('s5', 'x');
	EXCEPTION WHEN connection_failure THEN RAISE NOTICE 'caught';
	END;
END $$}), qr/08006/, 'at COMMIT there is nobody to catch it');
$other->up;
ok(eventually(sub { return run("INSERT INTO far VALUES ('s6', 'x')") eq '' }), 'they are back, and so is writing');
is(sent('far', $other), 's6', '... and nothing else was written');

# --- waiting ------------------------------------------------------------------------------------------

is(run("INSERT INTO t VALUES ('w0', 'x')"), '', 'a producer is there');
is(sent('t'), 'w0', '... and has written');

# Nobody takes it.
my $producer = producer();
put_to_sleep($producer);
$session->{stderr} = '';
$session->query_until(qr/begun/, "\\set VERBOSITY verbose\n\\echo begun\nINSERT INTO t VALUES ('w1', 'x');\n");
waiting();
cancel();
$session->query('SELECT 1');
like($session->{stderr}, qr/57014/, 'cancelled before the producer has taken a record');
$begun = time;
like(run($short . "INSERT INTO t VALUES ('w2', 'x')"), qr/08006/, 'out of time before that');
cmp_ok(time - $begun, '<', 20, '... within its time');
wake($producer);
is(run("INSERT INTO t VALUES ('w3', 'x')"), '', 'it goes on');
is(sent('t'), 'w3', '... and sends nothing of those');

# The brokers have it, and do not answer: the broker sleeps, the kernel takes what is sent to it. The most bytes of a
# connection that it has not read.
sub received
{
	my ($port) = $kafka->address =~ /:(\d+)\z/;
	my $most = 0;

	open(my $tcp, '<', '/proc/net/tcp') or die;
	while (<$tcp>)
	{
		my (undef, $local, undef, undef, $queues) = split;
		next unless $local =~ /:([0-9A-F]{4})\z/ && hex($1) == $port;
		my $bytes = hex((split /:/, $queues)[1]);
		$most = $bytes if $bytes > $most;
	}
	return $most;
}

# Begins to write a large record while the broker sleeps; returns when it has left. By the same client (so with the
# same time-out) something was written to the topic before, lest it has something to ask first.
sub write_into_the_void
{
	my ($topic, $sql, $settings) = @_;

	# Where the client has just asked something else, the record stays here, behind a question that nobody answers.
	foreach my $try (1 .. 5)
	{
		$session->{stderr} = '';
		$session->query(($settings // '') . "INSERT INTO $topic VALUES ('before', 'x')");
		die $session->{stderr} if $session->{stderr} =~ /ERROR/;
		die 'not sent' unless sent($topic) =~ /before\z/ && eventually(sub { return received() < 1000 });
		put_to_sleep($kafka->{pid});
		$session->query_until(qr/begun/, "\\echo begun\n$sql;\n");
		eventually(sub { return received() > 30000 || !is_active() });
		last if received() > 30000 || $try == 5;
		wake($kafka->{pid});
		$session->query('ROLLBACK');
	}
	ok(received() > 30000, 'a record has left, and there is no answer')
	  or diag(received() . ' bytes received; the session: ' . $session->{stderr});
	return;
}

my $large = "repeat('x', 40000)";

write_into_the_void('t', "INSERT INTO t VALUES ('w4', $large)");
cancel();
$session->query('SELECT 1');
like($session->{stderr}, qr/08007.*cancel.*HINT/s, 'cancelled while a record is on its way: its outcome is unknown');
wake($kafka->{pid});
ok(eventually(sub { return sent('t') =~ /w4/ }), '... and it does arrive');

write_into_the_void('now', "SET statement_timeout = '1s'; INSERT INTO now VALUES ('w5', $large)");
$session->query('RESET statement_timeout');
like($session->{stderr}, qr/08007.*timeout.*HINT/s, 'the same by statement_timeout');
wake($kafka->{pid});
ok(eventually(sub { return sent('now') =~ /w5/ }), '... and it does arrive');

write_into_the_void('t', "INSERT INTO t VALUES ('w6', $large)", $short);
$session->query('RESET kafka_cache.produce_timeout');
like($session->{stderr}, qr/08007.*HINT/s, 'no answer within the time');
wake($kafka->{pid});
ok(eventually(sub { return sent('t') =~ /w6/ }), '... and it does arrive');

write_into_the_void('now',
	"BEGIN; DO \$\$ BEGIN INSERT INTO now VALUES ('w7', $large); EXCEPTION WHEN transaction_resolution_unknown THEN RAISE NOTICE 'caught'; END \$\$",
	$short);
$session->query("INSERT INTO t VALUES ('after w7', 'x')");
like($session->{stderr}, qr/caught/, 'an unknown outcome that is caught');
wake($kafka->{pid});
$session->query('RESET kafka_cache.produce_timeout; COMMIT');
unlike($session->{stderr}, qr/ERROR/, '... lets the transaction go on');
like(sent('t'), qr/after w7/, '... and write');

write_into_the_void('t', "INSERT INTO t VALUES ('w8', $large)");
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' AND state = 'active'");
$node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%w8%' AND pid <> pg_backend_pid()", 0);
wake($kafka->{pid});
ok(eventually(sub { return run("INSERT INTO t VALUES ('w9', 'x')") eq '' }), 'a session that was ended while it waited holds up nobody');

# The producer goes while it has records.
$session = $node->background_psql('postgres', on_error_stop => 0);
$session->query('\set VERBOSITY verbose');
write_into_the_void('t', "INSERT INTO t VALUES ('w10', $large)");
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . producer() . ')');
$session->query('SELECT 1');
like($session->{stderr}, qr/08007.*HINT/s, 'the producer is ended while a record is on its way');
wake($kafka->{pid});
ok(eventually(sub { return run("INSERT INTO t VALUES ('w11', 'x')") eq '' }), '... and comes again');
like(sent('t'), qr/w11\z/, '... and nothing is stuck');

unlike($node->log_text, qr/PANIC|TRAP|terminated by signal|temporary file leak|was not closed/, 'the server has nothing to complain about');
$session->quit;
$node->stop;
done_testing();
