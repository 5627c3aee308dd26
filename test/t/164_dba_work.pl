# What a DBA does on a day like any other: a password is rotated, a table gets another owner, a server
# is shut down, a database dropped. Nothing is restarted for it, and brokers that do not answer hold up nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Kafka->new(
	listeners => { SASL => 'SASL_PLAINTEXT' },
	set       => {
		'sasl.enabled.mechanisms' => 'SCRAM-SHA-512',
		'listener.name.sasl.scram-sha-512.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.scram.ScramLoginModule required;'
	});
$kafka->topic('users', 2);
$kafka->load('users', '*', 0, 100, 'key-%d', 'value-%d');

# What Kafka takes from a user from now on.
sub password
{
	my ($user, $password) = @_;
	return $kafka->java([], 'kafka.admin.ConfigCommand', '--bootstrap-server', $kafka->address, '--alter', '--entity-type', 'users',
		'--entity-name', $user, '--add-config', "SCRAM-SHA-512=[iterations=4096,password=$password]");
}
password('app', 'canary-first');

my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.produce_timeout' => '5s' });
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE ROLE heir LOGIN; GRANT CREATE ON SCHEMA public TO owner, heir');
$node->safe_psql('postgres', "CREATE EXTENSION kafka_cache_fdw;
	CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw
		OPTIONS (brokers '" . $kafka->address('SASL') . "', security_protocol 'sasl_plaintext', sasl_mechanism 'SCRAM-SHA-512', group_id 'shown');
	GRANT USAGE ON FOREIGN SERVER kafka TO owner, heir;
	CREATE USER MAPPING FOR owner SERVER kafka OPTIONS (username 'app', password 'canary-first')");
my @as_owner = (extra_params => [ '-U', 'owner' ]);
$node->safe_psql('postgres', "CREATE FOREIGN TABLE users (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	SERVER kafka OPTIONS (format 'text', readonly 'false')", @as_owner);
ok($node->wait_ready('postgres', 'users'), 'a table');
is(told($node, "INSERT INTO users VALUES ('mine', '1'); SELECT count(*) FROM users", @as_owner)->{out}, '101', '... that its owner writes to');

# --- a password is rotated ------------------------------------------------------------------------------

my $workers = "SELECT string_agg(kind || ' ' || pid, ', ' ORDER BY kind), (SELECT reloads || ' ' || loaded_at FROM kafka_cache.tables) FROM kafka_cache.workers";
my $before = $node->safe_psql('postgres', $workers);
my $n = 101;
sub goes_on
{
	my ($what) = @_;
	$kafka->produce('users', 0, "theirs-$n", 'x');
	ok($node->catch_up('postgres', 'users', $kafka), "$what: the table goes on");
	my $told = told($node, "INSERT INTO users VALUES ('mine-$n', '1'); SELECT count(*) FROM users", @as_owner);
	$n += 2;
	is("$told->{state} $told->{out}", " $n", '... and is written to');
	is($node->safe_psql('postgres', $workers), $before, '... by the same processes, without a reload');
	return;
}
sub know
{
	my ($password, $user) = @_;
	$user //= 'owner';
	$node->safe_psql('postgres', "ALTER USER MAPPING FOR $user SERVER kafka OPTIONS (SET password '$password')", @as_owner);
	return;
}

password('app', 'canary-second');
goes_on('Kafka has another password, connections stay');
know('canary-second');
goes_on('and so has PostgreSQL');

# This time nobody has told PostgreSQL.
password('app', 'canary-third');
$kafka->broker(1, 'stop');
$kafka->broker(1, 'start');
ok($node->wait_for('postgres', "SELECT state = 'auth_failed' AND ready FROM kafka_cache.tables"), 'a password that is not good any more: the state says so');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'), $n, '... what was ready is served');
my $told = told($node, "INSERT INTO users VALUES ('mine', '1')", @as_owner);
like("$told->{state} $told->{err}", qr/^(42501|08007) /, '... nothing is written, which is said');
know('canary-third');
goes_on('the new password');
my $shown = q{SELECT value FROM kafka_cache.metrics WHERE name = 'kafka_cache_group_commits_total' AND labels ->> 'relation' ~ 'users'};
my $commits = $node->safe_psql('postgres', $shown);

# --- another owner --------------------------------------------------------------------------------------

# Whose mapping nobody has made; then one of its own. The owner's consumes.
$node->safe_psql('postgres', 'ALTER FOREIGN TABLE users OWNER TO heir');
ok($node->wait_for('postgres', "SELECT state IN ('auth_failed', 'failed') AND ready FROM kafka_cache.tables"), 'an owner without a password: the state says so')
  or diag $node->safe_psql('postgres', 'SELECT state, message FROM kafka_cache.tables');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'), $n, '... what was ready is served');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR heir SERVER kafka OPTIONS (username 'app', password 'canary-third')");
$node->safe_psql('postgres', 'GRANT SELECT, INSERT ON users TO owner');
goes_on('an owner with a mapping of its own');
$node->safe_psql('postgres', 'REASSIGN OWNED BY heir TO owner');
goes_on('REASSIGN OWNED gives it back');

# --- nothing is held -------------------------------------------------------------------------------------

# Not while a topic is loaded either: what the workers' transactions hold back, they hold back for a moment.
$kafka->topic('large', 2);
$kafka->load('large', '*', 0, 200000, 'key-%d', 'value-%d');
$node->safe_psql('postgres', "CREATE FOREIGN TABLE large (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	SERVER kafka OPTIONS (format 'text'); ALTER FOREIGN TABLE large OWNER TO owner");
ok($node->wait_for('postgres', "SELECT state = 'loading' AND entries > 0 FROM kafka_cache.tables WHERE relation = 'large'::regclass"), 'a load is under way');
my $xid = $node->safe_psql('postgres', 'SELECT txid_current()');
ok($node->wait_for('postgres', "SELECT txid_current() > $xid AND NOT EXISTS (SELECT FROM pg_stat_activity
	WHERE backend_type LIKE 'kafka_cache %' AND (backend_xmin::text::bigint <= $xid OR backend_xid::text::bigint <= $xid))"),
	'... and keeps nobody from cleaning up');
ok($node->wait_ready('postgres', 'large'), '... it ends');
ok($node->wait_for('postgres', "SELECT ($shown) > $commits"), 'lag tools are shown positions again since the last password');
ok($node->wait_for('postgres', "SELECT count(*) = 3 AND bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL)
	FROM pg_stat_activity WHERE backend_type LIKE 'kafka_cache %'"), 'idle launcher, consumer and producer hold no snapshot and no transaction');

# --- brokers that do not answer --------------------------------------------------------------------------

# One takes connections and says nothing; one does not even take them; one has stopped in the middle.
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64) or die;
my $deaf = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $deaf->sockport, Blocking => 0) } 1 .. 8;
my %holes = (silent => '127.0.0.1:' . $silent->sockport, deaf => '127.0.0.1:' . $deaf->sockport, stopped => $kafka->address);

# A table of each, in a database.
sub make_holes
{
	my ($db) = @_;
	$node->safe_psql($db, 'CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw');
	foreach my $hole (sort keys %holes)
	{
		$node->safe_psql($db, "CREATE SERVER $hole FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '$holes{$hole}', group_id '%{cluster_name}.%{system_identifier}');
			CREATE FOREIGN TABLE $hole (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
			SERVER $hole OPTIONS (topic 'users', format 'text', readonly 'false')");
	}
	return;
}
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(one two);
make_holes($_) foreach qw(postgres one two);
foreach my $db (qw(postgres one two))
{
	ok($node->wait_ready($db, 'stopped'), "$db: a table is followed");
	ok($node->wait_for($db, "SELECT count(*) = 2 FROM kafka_cache.tables WHERE relation IN ('silent'::regclass, 'deaf'::regclass) AND state = 'connecting'"),
		'... others are waited for');
	is(told($node, "INSERT INTO stopped VALUES ('$db', 'x')", database => $db)->{state}, '', '... and there is a producer');
}
$kafka->broker(1, 'pause');
# Each has somebody who writes and is not answered.
my @writers = map {
	my $db = $_;
	map { my $hole = $_; beside([ 'psql', '-Xqc', "INSERT INTO $hole VALUES ('late', 'x')", $node->connstr($db) ]) } sort keys %holes
} qw(postgres one);
ok($node->wait_for('postgres', "SELECT count(*) = 6 FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE 'INSERT%late%' AND wait_event_type IS NOT NULL"),
	'writers wait for brokers that do not answer');

sub quick
{
	my ($sql) = @_;
	my $start = time;
	is(told($node, $sql)->{err}, '', "$sql: no error, no warning");
	my $took = time - $start;
	cmp_ok($took, '<', 3, sprintf '... at once (%.0f ms)', $took * 1000);
	return;
}
quick('ALTER DATABASE two RENAME TO three');
ok($node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = 'three'"), '... its consumer is back');
quick('CREATE DATABASE copy TEMPLATE three');
quick('DROP DATABASE three');
quick('DROP DATABASE one WITH (FORCE)');
quick('DROP OWNED BY owner CASCADE');

my $start = time;
$node->stop('fast');
my $took = time - $start;
cmp_ok($took, '<=', 6, sprintf 'a fast shutdown does not wait for brokers: 5 s at most (%.1f s)', $took);
$kafka->broker(1, 'resume');
$_->stop foreach @writers;

is(scalar(grep { /canary-/ } split /\n/, $node->log_text), 0, 'no password in the log');
unlike($node->log_text, qr/PANIC|TRAP|signal (?:6|7|8|11)\b|left \d+ bytes behind|have not left database/, 'nothing alarming in the log');
done_testing();
