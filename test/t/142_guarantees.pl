# The table of guarantees in docs/writing.md, row by row: what the client is told, and what is in the
# topic then, as kcat reads it. Answers get lost where the test wants it, commits fail when they are all
# but done, processes die while they wait.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths qw($top);
use KafkaCache::Proxy;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $proxy = KafkaCache::Proxy->new;
my $kafka = KafkaCache::Kafka->new(
	set => {
		%{ $proxy->advertised },
		'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'allow.everyone.if.no.acl.found' => 'true'
	});
$proxy->before($kafka);

# kcf_commit comes first, so that it is called after everything else at a commit.
my $node = KafkaCache::Cluster->new('main',
	conf => {
		shared_preload_libraries => "$top/test/writer/kcf_commit,kafka_cache_fdw",
		'kafka_cache.memory'     => '64MB',
		restart_after_crash      => 'on',
		log_min_messages         => 'log'
	});
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Keys of a topic that begin so, as often and in the order in which kcat finds them.
sub found
{
	my ($prefix, $topic) = @_;

	return join ' ', grep { /\A\Q$prefix\E/ } map { $_->{key} // '' } committed($kafka, $topic // 'records');
}

# The same, once it is so: a transaction that Kafka has acknowledged as committed is seen a moment later.
sub comes
{
	my ($expected, $prefix, $topic) = @_;

	eventually(sub { found($prefix, $topic) eq $expected });
	return found($prefix, $topic);
}

# The one process of a kind.
sub pid_of
{
	my ($type) = @_;

	return one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'kafka_cache $type' AND datname = 'postgres'");
}

# A session that is cancelled as soon as it is seen to be somewhere.
sub told_when_cancelled
{
	my ($sql, $where) = @_;
	my ($session) = at_once($node, "SET application_name = 'cancel me'; $sql");

	$node->wait_for('postgres', "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE $where");
	return told_by($session);
}

sub goes_on
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	our $n //= 0;
	$n++;

	my $told = told($node, "INSERT INTO records VALUES ('next-$n', '1'); SELECT value FROM records WHERE key = 'next-$n'");
	is("$told->{state} $told->{out}", ' 1', "$what: the next write succeeds, and is read");
	return;
}

$kafka->topic('records', 1, 'cleanup.policy' => 'delete', 'max.message.bytes' => 20000);
$kafka->topic($_, 1, 'cleanup.policy' => 'delete', 'max.message.bytes' => 20000) foreach qw(atomic more forbidden);
$kafka->topic('parts', 2, 'cleanup.policy' => 'delete', 'max.message.bytes' => 20000);
my $columns = "key text OPTIONS (key 'true') NOT NULL, value text CHECK (value <> 'bad')";
one(qq{
CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1');
CREATE FOREIGN TABLE records ($columns) SERVER kafka OPTIONS (topic 'records', readonly 'false', compression 'none');
CREATE FOREIGN TABLE immediate ($columns, _offset bigint OPTIONS (offset 'true')) SERVER kafka OPTIONS (topic 'records', readonly 'false', delivery 'immediate');
CREATE FOREIGN TABLE parts ($columns, _partition int OPTIONS (partition 'true')) SERVER kafka OPTIONS (topic 'parts', readonly 'false', compression 'none');
CREATE FOREIGN TABLE atomic ($columns) SERVER kafka OPTIONS (topic 'atomic', readonly 'false', atomic 'true', compression 'none');
CREATE FOREIGN TABLE more ($columns) SERVER kafka OPTIONS (topic 'more', readonly 'false', compression 'none');
CREATE FOREIGN TABLE forbidden ($columns) SERVER kafka OPTIONS (topic 'forbidden', readonly 'false');
CREATE FOREIGN TABLE missing ($columns) SERVER kafka OPTIONS (topic 'missing', readonly 'false');
CREATE FOREIGN TABLE nowhere ($columns) SERVER nowhere OPTIONS (topic 'nowhere', readonly 'false');
CREATE TABLE beside (what text);
});
my $session;
my $soon = "SET kafka_cache.produce_timeout = '3s';";

# --- COMMIT succeeds ------------------------------------------------------------------------------------

my $told = told($node, "INSERT INTO records SELECT 'ok-' || i, '1' FROM generate_series(1, 300) i");
is($told->{state}, '', 'COMMIT succeeds');
is(found('ok-'), join(' ', map { "ok-$_" } 1 .. 300), '... every record once, in order');

# The answers to the first attempts get lost; what is sent again is not there twice.
$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "BEGIN; INSERT INTO beside VALUES ('again'); INSERT INTO records VALUES ('again-1', '1'), ('again-2', '2'); COMMIT");
$proxy->command('met', $proxy->PRODUCE, 1);
$proxy->command('pass');
is(told_by($session)->{state}, '', 'COMMIT succeeds, though the first answer was lost');
is(comes('again-1 again-2', 'again-'), 'again-1 again-2', '... every record once');

# Two are lost on their way, and of what is sent again the first comes to a broker that does not lead the
# partition any more: the second must not arrive before it.
$proxy->command('lose', $proxy->PRODUCE);
my @sessions = at_once($node, "INSERT INTO records VALUES ('moved-1', '1')");
$proxy->command('met', $proxy->PRODUCE, 1);
push @sessions, at_once($node, "SET application_name = 'second'; INSERT INTO records VALUES ('moved-2', '1')");
$node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'second' AND query LIKE 'INSERT%' AND wait_event = 'Extension'");
$proxy->command('refuse', 6);
$proxy->command('pass');
is(join('', map { told_by($_)->{state} } @sessions), '', 'COMMITs succeed, though the leader moved while they were on their way');
is(comes('moved-1 moved-2', 'moved-'), 'moved-1 moved-2', '... every record once');

# --- ROLLBACK, and errors of the statement ----------------------------------------------------------------

$told = told($node, "
BEGIN; INSERT INTO records VALUES ('back-1', '1'); ROLLBACK;
BEGIN; INSERT INTO records VALUES ('kept-1', '1'); SAVEPOINT a; INSERT INTO records VALUES ('back-2', '1'); SAVEPOINT b;
INSERT INTO records VALUES ('back-3', '1'); RELEASE b; ROLLBACK TO a; INSERT INTO records VALUES ('kept-2', '1'); COMMIT;
DO \$\$BEGIN INSERT INTO records VALUES ('kept-3', '1'); BEGIN INSERT INTO records VALUES ('back-4', '1'); RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN INSERT INTO records VALUES ('kept-4', '1'); END; END\$\$");
is($told->{state}, '', 'rolling back');
is(found('back-'), '', '... nothing of it is sent');
is(comes('kept-1 kept-2 kept-3 kept-4', 'kept-'), 'kept-1 kept-2 kept-3 kept-4', '... and all of the rest');
is(told($node, "BEGIN; INSERT INTO records VALUES ('back-5', '1'); SELECT 1 / 0; COMMIT")->{state}, '22012', 'an error before COMMIT');
is(told($node, "INSERT INTO records VALUES ('back-6', '1'), ('back-7', 'bad')")->{state}, '23514', 'a constraint');
is(told($node, "INSERT INTO records VALUES ('back-8', '1'), (NULL, '2')")->{state}, '23502', 'a NULL key');
is(told($node, "INSERT INTO records VALUES ('back-9', '1'), ('back-9', repeat('x', 2000000))")->{state}, '54000', 'a row that is too large');
is(told($node, "INSERT INTO immediate VALUES ('back-a', '1'), ('back-b', 'bad')")->{state}, '23514', 'a constraint, immediate');
is(found('back-'), '', '... nothing is sent');

# --- what brokers refuse, or cannot be asked -----------------------------------------------------------------

$told = told($node, "$soon BEGIN; INSERT INTO beside VALUES ('nowhere'); INSERT INTO nowhere VALUES ('x', '1'); COMMIT");
is($told->{state}, '08006', 'no broker can be reached');
like($told->{err}, qr/HINT: /, '... and a hint');
$told = told($node, "$soon INSERT INTO missing VALUES ('x', '1')");
is($told->{state}, '08006', 'no such topic');
is((grep { $_->{topic} eq 'missing' } $kafka->metadata) + 0, 0, '... which is not created');
is(told($node, "INSERT INTO records VALUES ('refused-1', repeat('x', 100000))")->{state}, '54000', 'too large for the topic');
is(told($node, "INSERT INTO parts (key, value, _partition) VALUES ('refused-2', '1', 2)")->{state}, '22023', 'no such partition');
$kafka->java([], 'kafka.admin.AclCommand', '--bootstrap-server', $kafka->address, '--add', '--allow-principal', 'User:*',
	'--operation', 'Read', '--operation', 'Describe', '--topic', 'forbidden');
$told = told($node, "$soon INSERT INTO forbidden VALUES ('refused-3', '1')");
is($told->{state}, '42501', 'no right');
is(found('refused-') . found('refused-', 'parts') . found('refused-', 'forbidden'), '', '... nothing of any');
goes_on('refused');

$told = told($node, "BEGIN; INSERT INTO beside VALUES ('some'); INSERT INTO parts VALUES ('some-1', '1', 0), ('some-3', '1', 0), ('some-2', repeat('x', 100000), 1); COMMIT");
is($told->{state}, '08007', 'some are refused and others taken: 08007');
like($told->{err}, qr/DETAIL: .*\b2 of 3\b/, '... with their number');
is(comes('some-1 some-3', 'some-', 'parts'), 'some-1 some-3', '... which are in the topic');

# Two servers in one transaction: the first is told before the second can fail.
$told = told($node, "$soon BEGIN; INSERT INTO beside VALUES ('servers'); INSERT INTO records VALUES ('servers-1', '1'); INSERT INTO nowhere VALUES ('x', '1'); COMMIT");
is($told->{state}, '08007', 'two servers, one of which cannot be reached: 08007');
like($told->{err}, qr/DETAIL: .*\b1 of 2\b/, '... with what was written');
is(comes('servers-1', 'servers-'), 'servers-1', '... which is in the topic');
is(one('SELECT string_agg(what, $$ $$) FROM beside'), 'again', 'ordinary tables have nothing of those that failed');
goes_on('servers');

# --- no answer in time ------------------------------------------------------------------------------------------

# The library's client fails for good, which it cannot get over: what it had is unknown, and it is replaced.
foreach my $delivery (qw(records immediate))
{
	$proxy->command('refuse', 45);
	$told = told($node, "INSERT INTO $delivery VALUES ('order-$delivery', '1')");
	is($told->{state}, '08007', "the broker has lost count of the records ($delivery): 08007");
	is(found("order-$delivery"), '', '... and it is not there');
	goes_on('order');
}

foreach my $delivery (qw(records immediate))
{
	$proxy->command('mute', $proxy->PRODUCE);
	$told = told($node, "$soon INSERT INTO $delivery VALUES ('mute-$delivery', '1')");
	is($told->{state}, '08007', "taken, and no answer in time ($delivery): 08007");
	$proxy->command('pass');
	is(comes("mute-$delivery", "mute-$delivery"), "mute-$delivery", '... and it is there');
	goes_on('mute');

	$proxy->command('lose', $proxy->PRODUCE);
	$told = told($node, "$soon INSERT INTO $delivery VALUES ('lost-$delivery', '1')");
	is($told->{state}, '08007', "lost on the way ($delivery): nobody can know, 08007");
	$proxy->command('pass');
	is(found("lost-$delivery"), '', '... and it is not there');
	goes_on('lost');

	# A broker that has written a record and loses its place as leader before it has answered says only that it
	# does not lead: "not the leader" does not mean "not written".
	$proxy->command('depose', 6);
	$told = told($node, "$soon INSERT INTO $delivery VALUES ('deposed-$delivery', '1')");
	is($told->{state}, '08007', "written by a leader that was deposed ($delivery): 08007");
	$proxy->command('pass');
	is(comes("deposed-$delivery", "deposed-$delivery"), "deposed-$delivery", '... and it is there');
	goes_on('deposed');

	# The acknowledgement is lost, and all that is heard of the record afterwards is that it is there already (46): a
	# reader could not wait for it.
	$proxy->command('mute', $proxy->PRODUCE);
	my ($lost) = at_once($node, "INSERT INTO $delivery VALUES ('twice-$delivery', '1')");
	$proxy->command('met', $proxy->PRODUCE, 1);
	$proxy->command('refuse', 46);
	$proxy->command('pass');
	$told = told_by($lost);
	is($told->{state}, '08007', "written, and nobody says where ($delivery): 08007");
	like($told->{err}, qr/where it was written was lost/, '... with the reason');
	is(comes("twice-$delivery", "twice-$delivery"), "twice-$delivery", '... and it is there, once');
	goes_on('twice');
}

# --- cancelled ------------------------------------------------------------------------------------------------------

# A producer that stands still has taken nothing.
my $producer = pid_of('producer');
kill 'STOP', $producer;
foreach my $table (qw(records immediate atomic))
{
	my $told = told_when_cancelled("INSERT INTO $table VALUES ('early-$table', '1')",
		"application_name = 'cancel me' AND state = 'active' AND wait_event = 'Extension'");
	is($told->{state}, '57014', "cancelled before the producer takes it ($table)");
}
is(told($node, "SET statement_timeout = '300ms'; INSERT INTO immediate VALUES ('early-2', '1')")->{state}, '57014', '... likewise a statement that is out of time');
kill 'CONT', $producer;
# ... nor from a session that it serves already.
my $known = "INSERT INTO records VALUES ('known-%s', '1');\n\\! kill -STOP $producer\nSET application_name = 'cancel me'; %s";
$told = told_when_cancelled(sprintf($known, 1, "INSERT INTO records VALUES ('early-4', '1')"),
	"application_name = 'cancel me' AND state = 'active' AND wait_event = 'Extension' AND query LIKE '%early-4%'");
is($told->{state}, '57014', '... nor from a session that it serves already');
kill 'CONT', $producer;
$told = told($node, sprintf $known, 2, "SET kafka_cache.produce_timeout = '1s'; INSERT INTO records VALUES ('early-3', '1')");
is($told->{state}, '08006', '... or a commit is out of time: 08006');
kill 'CONT', $producer;
goes_on('early');
is(found('early-') . found('early-', 'atomic'), '', '... it is never sent');

$proxy->command('mute', $proxy->PRODUCE);
foreach my $table (qw(records immediate))
{
	$proxy->command('mute', $proxy->PRODUCE);
	($session) = at_once($node, "SET application_name = 'late'; BEGIN; INSERT INTO beside VALUES ('late'); INSERT INTO $table VALUES ('late-$table', '1'); COMMIT");
	$proxy->command('met', $proxy->PRODUCE, 1);
	one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'late'");
	$told = told_by($session);
	is($told->{state}, '08007', "cancelled while it is on its way ($table): 08007");
	$proxy->command('pass');
	is(comes("late-$table", "late-$table"), "late-$table", '... and it is there');
	is(one("SELECT count(*) FROM beside WHERE what = 'late'"), '0', '... while ordinary tables are rolled back');
	goes_on('late');
}

# A transaction that has not been committed by Kafka is certainly not there.
$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "SET application_name = 'late'; BEGIN; INSERT INTO atomic VALUES ('late-atomic', '1'); COMMIT");
$proxy->command('met', $proxy->PRODUCE, 1);
one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'late'");
is(told_by($session)->{state}, '57014', "cancelled while it is on its way, before Kafka's commit (atomic): nothing");
$proxy->command('pass');
is(told($node, "INSERT INTO atomic VALUES ('then-late', '1')")->{state}, '', '... the next one succeeds');
is(found('late-', 'atomic'), '', '... nothing is seen of the first');

# And one that ends without having taken anything.
($session) = at_once($node, sprintf $known, 3, "INSERT INTO records VALUES ('early-5', '1')");
$node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'INSERT%early-5%' AND wait_event = 'Extension'");
one("SELECT pg_terminate_backend($producer)");
kill 'CONT', $producer;
is(told_by($session)->{state}, '08006', 'the producer ends before it takes a record: 08006');
is(found('early-'), '', '... it is never sent');
goes_on('early');

# --- processes die ------------------------------------------------------------------------------------------------------

$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "SET kafka_cache.produce_timeout = '10min'; INSERT INTO records VALUES ('widow-1', '1')");
$proxy->command('met', $proxy->PRODUCE, 1);
one('SELECT pg_terminate_backend(' . pid_of('producer') . ')');
is(told_by($session)->{state}, '08007', 'the producer ends while records are on their way: 08007, at once');
$proxy->command('pass');
is(comes('widow-1', 'widow-1'), 'widow-1', '... and it is there');
goes_on('widow');

$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "SET application_name = 'ended'; SET kafka_cache.produce_timeout = '10min'; INSERT INTO records VALUES ('ended-1', '1')");
$proxy->command('met', $proxy->PRODUCE, 1);
one("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ended'");
like(told_by($session)->{state}, qr/^(57P01|gone)$/, 'the session ends while records are on their way: the connection is lost');
$proxy->command('pass');
is(comes('ended-1', 'ended-1'), 'ended-1', '... and it is there');
goes_on('ended');

# As does the whole server, by kill -9 of any of its processes.
foreach my $who (qw(producer backend))
{
	$proxy->command('mute', $proxy->PRODUCE);
	($session) = at_once($node, "SET application_name = 'crash'; SET kafka_cache.produce_timeout = '10min';
		BEGIN; INSERT INTO beside VALUES ('crash'); INSERT INTO records VALUES ('crash-$who', '1'); COMMIT");
	$proxy->command('met', $proxy->PRODUCE, 1);
	kill 'KILL', $who eq 'producer' ? pid_of('producer') : one("SELECT pid FROM pg_stat_activity WHERE application_name = 'crash'");
	is(told_by($session)->{state}, 'gone', "kill -9 of the $who: the connection is lost");
	$proxy->command('pass');
	ok($node->wait_for('postgres', 'SELECT true'), '... the server comes back');
	is(comes("crash-$who", "crash-$who"), "crash-$who", '... and it is there');
	is(one("SELECT count(*) FROM beside WHERE what = 'crash'"), '0', '... while ordinary tables are rolled back');
	goes_on('crash');
}

# --- acknowledged, and then PostgreSQL's commit fails --------------------------------------------------------------------

foreach my $table (qw(records atomic))
{
	my $late = "BEGIN; INSERT INTO beside VALUES ('after'); INSERT INTO $table VALUES ('after-%s', '1'); SET LOCAL kcf_commit.fault = %s; COMMIT";
	$told = told($node, sprintf $late, 'raise', 'raise');
	is($told->{state}, 'P0001', "acknowledged, and then the commit fails ($table): its error");
	like($told->{err}, qr/WARNING:  01000: what the transaction wrote to Kafka stays.*\n.*1 record had been acknowledged/, '... and a warning');
	is(comes('after-raise', 'after-raise', $table), 'after-raise', '... but the record is there');
	goes_on('after');

	$told = told_when_cancelled(sprintf($late, 'wait', 'wait'), "application_name = 'the end of the commit'");
	is($told->{state}, '57014', '... or it is cancelled then');
	is(comes('after-wait', 'after-wait', $table), 'after-wait', '... the record is there');

	$told = told($node, sprintf $late, 'crash', 'crash');
	is($told->{state}, 'gone', '... or the server crashes: the connection is lost');
	ok($node->wait_for('postgres', 'SELECT true'), '... it comes back');
	is(comes('after-crash', 'after-crash', $table), 'after-crash', '... the record is there');
	is(one("SELECT count(*) FROM beside WHERE what = 'after'"), '0', '... while ordinary tables are rolled back');
	ok($node->catch_up('postgres', $table, $kafka), '... and the table');
	is(one("SELECT string_agg(key, ' ' ORDER BY key) FROM $table WHERE key LIKE 'after-%'"), 'after-crash after-raise after-wait', '... has what the topic has');
}

# --- immediate ---------------------------------------------------------------------------------------------------------------

$told = told($node, "BEGIN; INSERT INTO beside VALUES ('immediate'); INSERT INTO immediate VALUES ('sent-1', '1'), ('sent-2', '2'); ROLLBACK; SELECT count(*) FROM immediate WHERE key LIKE 'sent-%'");
is("$told->{state} $told->{out}", ' 2', 'immediate: ROLLBACK after the statement, whose rows are there');
is(comes('sent-1 sent-2', 'sent-'), 'sent-1 sent-2', '... in the topic');
is(one("SELECT count(*) FROM beside WHERE what = 'immediate'"), '0', '... while ordinary tables are rolled back');
is(told($node, "INSERT INTO immediate VALUES ('row-1', '1'), ('row-2', 'bad')")->{state}, '23514', 'immediate: a statement fails at a row');
is(found('row-'), '', '... nothing is sent');
is(told($node, "INSERT INTO immediate VALUES ('each-1', '1'), ('each-2', 'bad') RETURNING _offset")->{state}, '23514', '... with RETURNING');
is(comes('each-1', 'each-'), 'each-1', '... the rows before it are');

# --- atomic -------------------------------------------------------------------------------------------------------------------

$told = told($node, "BEGIN; INSERT INTO atomic VALUES ('no-1', '1'); INSERT INTO more VALUES ('no-2', repeat('x', 100000)); INSERT INTO atomic VALUES ('no-3', '1'); COMMIT");
is($told->{state}, '54000', 'atomic: one record of another table is refused: why, and not 08007');
is(found('no-', 'atomic') . found('no-', 'more'), '', '... nothing is seen');
$told = told($node, "$soon BEGIN; INSERT INTO atomic VALUES ('acl-1', '1'); INSERT INTO forbidden VALUES ('acl-2', '1'); COMMIT");
is($told->{state}, '42501', 'atomic: no right on the topic of one of them');
is(found('acl-', 'atomic'), '', '... nothing is seen');

foreach my $how (qw(mute lose))
{
	$proxy->command($how, $proxy->PRODUCE);
	$told = told($node, "$soon BEGIN; INSERT INTO atomic VALUES ('$how-1', '1'); INSERT INTO more VALUES ('$how-2', '2'); COMMIT");
	is($told->{state}, '08006', "atomic: no answer to the records ($how): it is not committed, so 08006");
	$proxy->command('pass');
	is(told($node, "INSERT INTO atomic VALUES ('then-$how', '1')")->{state}, '', '... the next one succeeds');
	is(found("$how-", 'atomic') . found("$how-", 'more'), '', '... nothing is seen of the first');
	is(comes("then-$how", "then-$how", 'atomic'), "then-$how", '... and all of the next, once the first has been ended');
	is(found("$how-", 'atomic') . found("$how-", 'more'), '', '... of which nothing is seen then');
}

# Kafka has committed, or has not; the client cannot know.
foreach my $how (qw(mute lose))
{
	$proxy->command($how, $proxy->END_TXN);
	$told = told($node, "$soon BEGIN; INSERT INTO beside VALUES ('unknown'); INSERT INTO atomic VALUES ('end-$how-1', '1'); INSERT INTO more VALUES ('end-$how-2', '2'); COMMIT");
	is($told->{state}, '08007', "atomic: no answer to Kafka's commit ($how): 08007");
	$proxy->command('pass');
	is(told($node, "BEGIN; INSERT INTO atomic VALUES ('later-$how', '1'); INSERT INTO more VALUES ('later-$how', '1'); COMMIT")->{state}, '', '... the next one succeeds');
	is(comes("later-$how", "later-$how", $_), "later-$how", "... and is seen in $_") foreach qw(atomic more);
	my $expected = $how eq 'mute' ? "end-$how-1 end-$how-2" : ' ';
	is(found("end-$how", 'atomic') . ' ' . found("end-$how", 'more'), $expected, $how eq 'mute' ? '... all of it is there' : '... nothing of it is there');
	is(one("SELECT count(*) FROM beside WHERE what = 'unknown'"), '0', '... while ordinary tables are rolled back');
	is(told($node, "SELECT count(*) FROM atomic WHERE key LIKE 'later-$how'")->{out}, '1', '... readers are not held up by it');
}

# Before Kafka's commit the producer ends, or the server: nothing, and nobody waits for it for long.
$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "SET kafka_cache.produce_timeout = '10min'; BEGIN; INSERT INTO atomic VALUES ('orphan-1', '1'); COMMIT");
$proxy->command('met', $proxy->PRODUCE, 1);
one('SELECT pg_terminate_backend(' . pid_of('producer') . ')');
is(told_by($session)->{state}, '08006', "atomic: the producer ends before Kafka's commit: certainly nothing, so 08006");
$proxy->command('pass');
is(told($node, "INSERT INTO atomic VALUES ('heir-1', '1'); SELECT key FROM atomic WHERE key = 'heir-1'")->{out}, 'heir-1', '... the next one ends it, and is read');
is(found('orphan-1', 'atomic'), '', '... nothing of the first');

$proxy->command('mute', $proxy->PRODUCE);
($session) = at_once($node, "SET kafka_cache.produce_timeout = '10min'; BEGIN; INSERT INTO atomic VALUES ('orphan-2', '1'); COMMIT");
$proxy->command('met', $proxy->PRODUCE, 1);
kill 'KILL', pid_of('producer');
is(told_by($session)->{state}, 'gone', 'atomic: the server crashes before Kafka commits');
$proxy->command('pass');
ok($node->wait_for('postgres', 'SELECT true'), '... it comes back');
is(told($node, "INSERT INTO atomic VALUES ('heir-2', '1'); SELECT key FROM atomic WHERE key = 'heir-2'")->{out}, 'heir-2', '... the next one ends it, and is read');
is(found('orphan-2', 'atomic'), '', '... nothing of the first');

# More at once than there are transactional ids: they wait in line.
@sessions = at_once(
	$node,
	map {
		my $n = $_;
		join '', map { "BEGIN; INSERT INTO atomic VALUES ('line-$n-$_-a', '1'), ('line-$n-$_-b', '2'); INSERT INTO more VALUES ('line-$n-$_-c', '3'); COMMIT;" } 1 .. 5
	} 1 .. 12);
is(join('', map { told_by($_)->{state} } @sessions), '', 'twelve sessions, five atomic transactions each, at once');
foreach my $expected ([ 'atomic', 120 ], [ 'more', 60 ])
{
	my ($topic, $n) = @$expected;
	ok(eventually(sub { split(/ /, found('line-', $topic)) == $n }), "... all $n records of $topic are there");
}
is(one('SELECT count(*) FROM (SELECT key FROM atomic UNION ALL SELECT key FROM more) x WHERE key LIKE $$line-%$$'), '180', '... and read by whoever comes then')
  if $node->catch_up('postgres', 'atomic', $kafka) && $node->catch_up('postgres', 'more', $kafka);

# --- reading what was written -------------------------------------------------------------------------------------------------

my $consumer = pid_of('consumer');
kill 'STOP', $consumer;
$told = told($node, "SET kafka_cache.wait_timeout = '300ms'; INSERT INTO records VALUES ('slow-1', 'new'); SELECT value FROM records WHERE key = 'slow-1'");
is($told->{state}, '55000', 'the table has not caught up with what the session has written: 55000');
kill 'CONT', $consumer;
is(comes('slow-1', 'slow-1'), 'slow-1', '... it is there');
ok($node->catch_up('postgres', 'records', $kafka), '... and read');
is(one("SELECT value FROM records WHERE key = 'slow-1'"), 'new', '... later');

# --- in the end ---------------------------------------------------------------------------------------------------------------

is(one('SELECT string_agg(what, $$ $$) FROM beside'), 'again', 'ordinary tables have what was told to be done, no more');
foreach my $table (qw(records atomic more parts))
{
	ok($node->catch_up('postgres', $table, $kafka), "$table is at the end");
	my %keys = map { $_->{key} => 1 } committed($kafka, $table);
	is(one("SELECT string_agg(key, ' ' ORDER BY key COLLATE \"C\") FROM $table"), join(' ', sort keys %keys), '... and has what is there');
}
balanced($node, 'after all that');
unlike($node->log_text, qr/PANIC|TRAP/, 'nothing alarming in the log');
$node->stop;
done_testing();
