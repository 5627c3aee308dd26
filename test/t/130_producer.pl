# The producer process: it comes with the first write and leaves when nobody writes, sessions share it, changes of
# options take effect, and whoever waits for it hears at once when it goes. Kafka transactions. kcat says what landed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Mock;
use KafkaCache::Story;
use Test::More;

# A second way in, with a name and a password; the first is for the test's own clients.
my $kafka = KafkaCache::Kafka->new(
	listeners => { SASL => 'SASL_PLAINTEXT' },
	set       => {
		'sasl.enabled.mechanisms' => 'PLAIN',
		'listener.name.sasl.plain.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="app-password";',
		'authorizer.class.name'          => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'allow.everyone.if.no.acl.found' => 'true',
		'super.users'                    => 'User:ANONYMOUS'
	});
my $port = $kafka->address('SASL') =~ s/.*://r;

my $node = KafkaCache::Cluster->new('main',
	conf => { 'kafka_cache.producer_idle_timeout' => '1h', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Runs SQL; "", or the SQLSTATE and the rest of what went wrong.
sub run
{
	my ($sql) = @_;
	my $stderr;

	$node->psql('postgres', $sql, stderr => \$stderr, on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $stderr;
}

# The same beside the test: ->output has the error.
sub run_beside
{
	my ($sql) = @_;

	return beside(
		[
			'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port,
			'-c', $sql, 'postgres'
		]);
}

sub cache
{
	my ($name, %options) = @_;
	my $server = delete $options{server} // 'kafka';
	my $topic = delete $options{topic} // $name;
	my $list = join '', map { ", $_ '$options{$_}'" } sort keys %options;

	return one("CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		SERVER $server OPTIONS (topic '$topic', format 'text'$list)");
}

sub producer { return one("SELECT pid FROM kafka_cache.workers WHERE kind = 'producer' AND pid IS NOT NULL"); }

# How many of the server's processes of this kind have a connection to the brokers? Asked of the kernel.
sub connected
{
	my ($kind) = @_;
	my %ports = map { sprintf('%04X', $_) => 1 } ($kafka->address =~ /:(\d+)/)[0], $port;
	my %sockets;
	my $n = 0;

	foreach my $line (split /\n/, PostgreSQL::Test::Utils::slurp_file('/proc/net/tcp'))
	{
		my @words = split ' ', $line;
		next unless defined $words[9] && $words[2] =~ /:(\w+)$/ && $ports{$1} && $words[3] eq '01';
		$sockets{"socket:[$words[9]]"} = 1;
	}
	foreach my $pid (split /\n/, one("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$kind'"))
	{
		$n++ if grep { $sockets{ readlink($_) // '' } } glob("/proc/$pid/fd/*");
	}
	return $n;
}

# --- comes and goes ----------------------------------------------------------------------------------

$kafka->topic($_, 2) foreach qw(users orders);
$kafka->produce('users', 0, 'k', 'v');
cache('users');
ok($node->wait_ready('postgres', 'users'), 'a table that cannot be written to is ready');
like(run("INSERT INTO users VALUES ('a', 'b')"), qr/42809/, 'writing to it is refused');
is(one('SELECT count(*) FROM users'), '1', '... and it can be read');
is(producer(), '', 'there is no producer');
is(connected('kafka_cache consumer'), 1, '... the consumer is connected to the broker');
is(connected('%'), 1, '... and nobody else is');

cache('orders', readonly => 'false');
ok($node->wait_ready('postgres', 'orders'), 'a table that can be written to is ready');
is(producer(), '', 'there is still no producer');
is(run("INSERT INTO orders VALUES ('a', '1'), ('b', '2')"), '', 'the first write');
is_deeply({ fold($kafka, 'orders') }, { a => '1', b => '2' }, '... is in the topic');
my $pid = one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer'");
like($pid, qr/^\d+$/, 'there is a producer');
is(producer(), $pid, '... kafka_cache.workers says so');
is(one("SELECT state || ': ' || message FROM kafka_cache.workers WHERE kind = 'producer'"), 'running: 1 connected client', '... and what it has');
is(connected('kafka_cache producer'), 1, '... it is connected to the broker');
is(connected('client backend'), 0, '... and no session is');
$node->configure('kafka_cache.producer_idle_timeout' => '1s');
$node->reload;
ok($node->wait_for('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer'"), 'it leaves when nobody writes');
is(connected('%'), 1, '... and with it its connection');
is(one("SELECT restarts FROM kafka_cache.workers WHERE kind = 'producer'") || '0', '0', '... which is no failure');
is(run("INSERT INTO orders VALUES ('c', '3')"), '', 'it comes again');
unlike($node->log_text, qr/exited with exit code 1|terminated by signal/, 'no process has failed');

$node->configure('kafka_cache.producer_idle_timeout' => '1h');
$node->reload;

# --- shared ------------------------------------------------------------------------------------------

is(run("INSERT INTO orders VALUES ('d', '4')"), '', 'a write');
$pid = producer();
my $load = pgbench_beside($node, "INSERT INTO orders VALUES ('s' || :client_id || '-' || :i, 'x');\n" =~ s/^/\\set i random(1, 1000000000)\n/r,
	clients => 8, transactions => 50);
is($load->transactions, 400, 'eight sessions write 50 times each');
my %rows = fold($kafka, 'orders');
is(scalar(grep { /^s/ } keys %rows), 400, '... all is in the topic');
is(producer(), $pid, '... by one producer');
is(one("SELECT message FROM kafka_cache.workers WHERE kind = 'producer'"), '1 connected client', '... with one connection');
ok($node->catch_up('postgres', 'orders', $kafka), 'the cache has it all');
same_as_kcat($node, $kafka, 'orders', 'after that');

# --- options -----------------------------------------------------------------------------------------

one("CREATE SERVER sasl FOREIGN DATA WRAPPER kafka_cache_fdw
	OPTIONS (brokers '127.0.0.1:$port', security_protocol 'sasl_plaintext', sasl_mechanism 'PLAIN');
	CREATE USER MAPPING FOR postgres SERVER sasl OPTIONS (username 'app', password 'not-the-password');
	CREATE ROLE other LOGIN; GRANT USAGE ON SCHEMA public TO other");
$kafka->topic('guarded', 1);
cache('guarded', server => 'sasl', readonly => 'false');
one("GRANT INSERT ON guarded TO other");
my $error = run("INSERT INTO guarded VALUES ('a', '1')");
like($error, qr/42501/, 'a wrong password is told as that');
like($error, qr/Invalid username or password/, '... in the words of the broker');
unlike($error, qr/not-the-password/, '... and without it');
like(run("SET ROLE other; INSERT INTO guarded VALUES ('a', '1')"), qr/08006.*no username and password/s, 'it is the mapping of who writes');
one("ALTER USER MAPPING FOR postgres SERVER sasl OPTIONS (SET password 'app-password')");
is(run("INSERT INTO guarded VALUES ('b', '2')"), '', 'the right password takes effect at once');
one("DROP USER MAPPING FOR postgres SERVER sasl");
like(run("INSERT INTO guarded VALUES ('c', '3')"), qr/08006.*no username and password/s, 'and so does it when it is gone');
one("CREATE USER MAPPING FOR PUBLIC SERVER sasl OPTIONS (username 'app', password 'app-password')");
is(run("INSERT INTO guarded VALUES ('d', '4')"), '', 'PUBLIC has one');
is(run("SET ROLE other; INSERT INTO guarded VALUES ('e', '5')"), '', '... which serves others too');
one("ALTER SERVER sasl OPTIONS (SET brokers '127.0.0.1:1')");
like(run("SET kafka_cache.produce_timeout = '4s'; INSERT INTO guarded VALUES ('f', '6')"), qr/08006.*127\.0\.0\.1:1/s, 'brokers that are not there');
one("ALTER SERVER sasl OPTIONS (SET brokers '127.0.0.1:$port')");
is(run("INSERT INTO guarded VALUES ('g', '7')"), '', '... and are again');
is_deeply({ fold($kafka, 'guarded') }, { b => 2, d => 4, e => 5, g => 7 }, 'the topic has what was acknowledged');
is(producer(), $pid, 'the producer has survived that');

$kafka->acl('add', 'deny', 'User:app', 'write', 'topic', 'guarded');
like(run("INSERT INTO guarded VALUES ('h', '8')"), qr/42501/, 'a right that is taken away');
$kafka->acl('remove', 'deny', 'User:app', 'write', 'topic', 'guarded');
ok(eventually(sub { run("INSERT INTO guarded VALUES ('i', '9')") eq '' }), '... and given back');

cache('missing', readonly => 'false', topic => 'not_there');
like(run("INSERT INTO missing VALUES ('a', '1')"), qr/08006.*topic/si, 'a topic that does not exist');
ok(!grep({ $_->{topic} eq 'not_there' } $kafka->metadata), '... is not created by that');

# Of two tables of one topic each has its own; so has each of a table's past.
$kafka->topic('packed', 1);
cache('lz4', readonly => 'false', topic => 'packed', compression => 'lz4');
cache('plain', readonly => 'false', topic => 'packed');
foreach my $sql ('', "ALTER FOREIGN TABLE lz4 OPTIONS (SET compression 'zstd')")
{
	one($sql) if $sql;
	is(run("INSERT INTO $_ VALUES ('k', repeat('x', 10000))"), '', "what $_ writes is compressed") foreach qw(lz4 plain);
}
my ($segment) = glob("$kafka->{folder}/1/data/packed-0/*.log");
my $batches = do
{
	local $ENV{KCF_KAFKA} = $kafka->{folder};
	qx($KafkaCache::Paths::top/test/kafka java kafka.tools.DumpLogSegments --files $segment);
};
is(join(' ', $batches =~ /compresscodec: (\w+)/g), 'lz4 none zstd none', '... as the table says');

# --- transactions ------------------------------------------------------------------------------------

$kafka->topic('pairs', 4);
$kafka->topic('limited', 4, 'max.message.bytes' => 2000);
cache($_, readonly => 'false', atomic => 'true') foreach qw(pairs limited);
ok($node->wait_ready('postgres', 'pairs'), 'a table with Kafka transactions is ready');

sub committed
{
	my ($topic) = @_;
	return map { $_->{key} => $_->{payload} } $kafka->read_topic($topic, '-X' => 'isolation.level=read_committed');
}

# A commit is acknowledged before the partitions have its markers: so many keys are there soon.
sub soon
{
	my ($topic, $pattern, $n, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(eventually(sub { $n == grep { /$pattern/ } keys %{ { committed($topic) } } }), $what);
}

sub clients { return (one("SELECT message FROM kafka_cache.workers WHERE kind = 'producer'") =~ /(\d+) connected/)[0]; }
my $clients = clients();
is(run("INSERT INTO pairs SELECT 'a' || i, 'x' FROM generate_series(1, 20) i"), '', 'a transaction over all partitions');
soon('pairs', qr/^a/, 20, '... is there as a whole');
like(run("BEGIN; INSERT INTO pairs VALUES ('b', 'x');
	INSERT INTO limited SELECT 'b' || i, repeat('x', CASE i WHEN 15 THEN 5000 ELSE 1 END) FROM generate_series(1, 20) i; COMMIT"),
	qr/54000/, 'one of whose records its topic refuses');
is(run("BEGIN; INSERT INTO pairs VALUES ('bb', 'x'); INSERT INTO limited VALUES ('bb', 'x'); COMMIT"), '', 'the same with less');
soon($_, qr/^b/, 1, "... is in $_, and nothing of the other") foreach qw(pairs limited);
one("ALTER SERVER kafka OPTIONS (ADD batch_size '1500')");
is(run("INSERT INTO limited SELECT 'l' || i, repeat('x', 100) FROM generate_series(1, 2000) i"), '',
	'the limit is one for batches: with smaller ones much is written');
soon('limited', qr/^l/, 2000, '... all of it');
is(scalar(grep { /^b/ } keys %{ { committed('limited') } }), 1, '... and now, too, nothing else has come');
one("ALTER SERVER kafka OPTIONS (DROP batch_size)");
is(run("INSERT INTO pairs VALUES ('c', '1')"), '', 'the next one');
soon('pairs', qr/^c$/, 1, '... is there');
is(run("BEGIN; INSERT INTO pairs VALUES ('d', '1'); ROLLBACK"), '', 'one that is rolled back');

$load = pgbench_beside($node,
	"\\set i random(1, 1000000000)\nINSERT INTO pairs SELECT :client_id || '-' || :i || '-' || n, 't' FROM generate_series(1, 3) n;\n",
	clients => 12, transactions => 15);
is($load->transactions, 180, 'twelve sessions commit at the same time');
soon('pairs', qr/^\d/, 540, '... and all is there');
my %of;
foreach my $key (keys %{ { committed('pairs') } }) { $of{$1}++ if $key =~ /^(\d+-\d+)-\d$/; }
is(scalar(grep { $_ != 3 } values %of), 0, '... of every transaction all is there');
is(scalar(keys %of), 180, '... of each');
cmp_ok(clients(), '<=', $clients + 8, 'by eight clients at most');
ok($node->catch_up('postgres', 'pairs', $kafka), 'the cache has it all');
is(producer(), $pid, '... and the producer is the same');

# One that is cancelled on its way.
my $long = run_beside("INSERT INTO pairs SELECT 'e' || i, 'x' FROM generate_series(1, 300000) i");
ok($node->wait_for('postgres', "WITH c AS (SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' AND state = 'active') SELECT count(*) = 1 FROM c"),
	'a long transaction is cancelled while it is being sent');
ok(!$long->succeeded, '... which it notices');
like($long->output, qr/57014/, '... and nothing else, for nothing can have been committed');
is(run("INSERT INTO pairs VALUES ('f', '1')"), '', 'the next one');
soon('pairs', qr/^f$/, 1, '... is there');

# Somebody else takes over the transactional ids, as a server that was copied would.
my @fences = map { $kafka->transaction($_) } split /\n/,
  one("SELECT 'kafka_cache_fdw.' || system_identifier || '.' || d.oid || '.' || s.oid || '.' || r.oid || '.' || n
	FROM pg_control_system(), pg_database d, pg_foreign_server s, pg_roles r, generate_series(0, 7) n
	WHERE datname = current_database() AND srvname = 'kafka' AND rolname = current_user");
foreach my $fence (@fences) { $fence->begin; $fence->abort; }
my $errors = 0;
for my $n (1 .. 9)
{
	$error = run("INSERT INTO pairs VALUES ('f$n', 'x')");
	last if $error eq '';
	$errors++ if $error =~ /08006/;
}
cmp_ok($errors, '>', 0, 'who was fenced says so');
is($error, '', '... and goes on with another client');
undef @fences;

# Brokers that do not answer: it is not committed, and does not stand in the way of others afterwards.
is(run("SET kafka_cache.produce_timeout = '2s'; INSERT INTO pairs VALUES ('g', 'x')"), '', 'a transaction');
$kafka->broker(1, 'pause');
like(run("SET kafka_cache.produce_timeout = '2s'; INSERT INTO pairs VALUES ('h', 'x')"), qr/08006/, 'the broker is frozen');
$kafka->broker(1, 'resume');
is(run("INSERT INTO pairs SELECT 'i' || i, 'x' FROM generate_series(1, 20) i"), '', '... and is back');
soon('pairs', qr/^i/, 20, 'what came after that is there, in every partition');
is(join(' ', grep { /^([de]|b\d|h)/ } keys %{ { committed('pairs') } }), '', '... and nothing of what was told as failed, cancelled or rolled back');
ok($node->catch_up('postgres', 'pairs', $kafka), '... and the cache has it');

# A commit that is not answered with success: nobody knows.
my $mock = KafkaCache::Mock->new;
$mock->topic('pairs', 1);
one("CREATE SERVER mock FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $mock->address . "')");
cache('mocked', server => 'mock', topic => 'pairs', readonly => 'false', atomic => 'true');
is(run("INSERT INTO mocked VALUES ('a', '1')"), '', 'a transaction on the other server');
$mock->command('error', 'txn-end', ('COORDINATOR_LOAD_IN_PROGRESS') x 20);
like(run("SET kafka_cache.produce_timeout = '2s'; INSERT INTO mocked VALUES ('b', '2')"), qr/08007/, 'a commit that does not come to its end is told as unknown');
$mock->command('no-error', 'txn-end');
is(run("INSERT INTO mocked VALUES ('c', '3')"), '', 'the next one has another client');
is(producer(), $pid, 'the producer has survived that');
undef $mock;

# --- sent away ---------------------------------------------------------------------------------------

sub waiting { return $node->wait_for('postgres',
	"SELECT count(*) = $_[0] FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' AND state = 'active'"); }

one("CREATE SERVER nobody FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '127.0.0.1:1')");
cache('nowhere', server => 'nobody', topic => 'orders', readonly => 'false');
is(run("INSERT INTO orders VALUES ('y', '1')"), '', 'a write');
$kafka->broker(1, 'pause');
my $sent = run_beside("INSERT INTO orders VALUES ('z', '1')");
my $unsent = run_beside("INSERT INTO nowhere VALUES ('z', '1')");
ok(waiting(2), 'two sessions wait for the brokers');
# what was sent has left the library a moment after that
ok(eventually(sub { one("SELECT pg_terminate_backend(pid, 10000) FROM kafka_cache.workers WHERE kind = 'producer'") eq 't' }),
	'the producer is sent away');
ok(!$_->succeeded, 'a session hears of it') foreach $sent, $unsent;
like($sent->output, qr/08007|08006/, 'what may have left is told as unknown');
like($unsent->output, qr/08006/, 'what has not is told as not written');
$kafka->broker(1, 'resume');
is(run("INSERT INTO orders VALUES ('last', '1')"), '', 'another one has come');
isnt(producer(), $pid, '... indeed');
%rows = fold($kafka, 'orders');
is($rows{z}, undef, 'what was told as not written is not there') if $sent->output =~ /08006/;
unlike($node->log_text, qr/terminated by signal|Assertion/, 'no process has crashed');
foreach my $secret (qw(app-password not-the-password)) { unlike($node->log_text, qr/\Q$secret\E/, 'no log line has a secret'); }

$node->stop;
done_testing();
