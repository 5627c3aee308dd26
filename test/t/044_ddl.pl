# DDL takes effect when it commits, without a restart; what is rolled back leaves no trace.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = KafkaCache::Mock->new;
my $two = KafkaCache::Mock->new;
foreach my $kafka ($one, $two)
{
	my $name = $kafka == $one ? 'one' : 'two';
	$kafka->topic($_, 2) foreach 'users', 'others';
	$kafka->load('users', '*', 1, 50, '%d', qq({"a": "$name"}));
	$kafka->load('others', '*', 1, 60, '%d', qq({"a": "$name others"}));
}

my $node = KafkaCache::Cluster->new('main', conf => { 'max_prepared_transactions' => 2 });
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE first SUPERUSER; CREATE ROLE second; CREATE SCHEMA s');
$node->connect_kafka('postgres', $one);
$node->safe_psql('postgres', "CREATE DOMAIN word AS text;
	CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), a word) SERVER kafka");
ok($node->wait_ready('postgres', 'users'), 'a table');

sub contents { return $node->safe_psql('postgres', 'SELECT count(*), min(a), max(a) FROM ' . ($_[0] // 'users')); }
my $facts = "SELECT pid, reloads, loaded_at, records FROM kafka_cache.tables, kafka_cache.workers WHERE kind = 'consumer'";
is(contents(), '50|one|one', '... and its rows');

# --- rolled back -------------------------------------------------------------------------------------

my $before = $node->safe_psql('postgres', $facts);
foreach my $ddl ("ALTER FOREIGN TABLE users OPTIONS (ADD topic 'others')", "ALTER SERVER kafka OPTIONS (SET brokers '" . $two->address . "')",
	'ALTER FOREIGN TABLE users DROP COLUMN a', 'DROP FOREIGN TABLE users', 'DROP SERVER kafka CASCADE', 'DROP EXTENSION kafka_cache_fdw CASCADE',
	'ALTER DOMAIN word ADD CHECK (VALUE <> \'one\') NOT VALID', 'DROP SCHEMA public CASCADE', 'ALTER FOREIGN TABLE users OWNER TO first',
	"CREATE USER MAPPING FOR CURRENT_USER SERVER kafka OPTIONS (username 'x', password 'y')")
{
	$node->safe_psql('postgres', "BEGIN; $ddl; ROLLBACK");
	$node->safe_psql('postgres', "BEGIN; SAVEPOINT s; $ddl; ROLLBACK TO s; CREATE TABLE x (id int); DROP TABLE x; COMMIT");
	$node->safe_psql('postgres', "BEGIN; $ddl; PREPARE TRANSACTION 'p'");
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
}
# One that is committed is noticed after all of these.
$node->safe_psql('postgres', "CREATE FOREIGN TABLE marker (id int OPTIONS (key 'true')) SERVER kafka OPTIONS (topic 'users')");
ok($node->wait_ready('postgres', 'marker'), 'after a lot of DDL that was rolled back');
$node->safe_psql('postgres', 'DROP FOREIGN TABLE marker');
is($node->safe_psql('postgres', $facts), $before, 'the consumer is the same, and the table was not loaded again');
is(contents(), '50|one|one', '... and has its rows');

# --- what changes no row ------------------------------------------------------------------------------

$node->safe_psql('postgres', "ALTER FOREIGN TABLE users OPTIONS (ADD notify 'users_changed', ADD max_bytes '100MB');
	ALTER FOREIGN TABLE users OWNER TO first; ALTER FOREIGN TABLE users SET SCHEMA s; ALTER SCHEMA s RENAME TO t; COMMENT ON FOREIGN TABLE t.users IS 'x';
	GRANT SELECT ON t.users TO second; ALTER FOREIGN TABLE t.users SET SCHEMA public");
$node->safe_psql('postgres', "CREATE FOREIGN TABLE marker (id int OPTIONS (key 'true')) SERVER kafka OPTIONS (topic 'users')");
ok($node->wait_ready('postgres', 'marker'), 'after DDL that changes no row');
$node->safe_psql('postgres', 'DROP FOREIGN TABLE marker');
is($node->safe_psql('postgres', $facts), $before, '... nothing was loaded again');
$one->produce('users', 0, '1000', '{"a": "later"}');
ok($node->catch_up('postgres', 'users', $one), '... and the topic is followed');
is(contents(), '51|later|one', '... as its row shows');

# --- what changes rows -----------------------------------------------------------------------------------

sub becomes
{
	my ($ddl, $expected, $what, $kafka, $topic) = @_;
	$node->safe_psql('postgres', $ddl);
	is(contents(), $expected, "$what: the next statement waits for the new rows");
	return;
}
becomes("ALTER FOREIGN TABLE users OPTIONS (ADD topic 'others')", '60|one others|one others', 'another topic');
becomes("ALTER SERVER kafka OPTIONS (SET brokers '" . $two->address . "')", '60|two others|two others', 'another broker');
becomes('ALTER FOREIGN TABLE users OPTIONS (DROP topic)', '50|two|two', 'the topic of its own name');
becomes("ALTER FOREIGN TABLE users ALTER COLUMN a OPTIONS (ADD json 'b')", '50||', 'another field');
becomes('ALTER FOREIGN TABLE users ALTER COLUMN a OPTIONS (DROP json)', '50|two|two', 'the field of its own name');
becomes('ALTER FOREIGN TABLE users ADD COLUMN b text', '50|two|two', 'a column more');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users WHERE b IS NULL'), 50, '... which is there');
becomes('ALTER FOREIGN TABLE users DROP COLUMN b', '50|two|two', 'a column less');
becomes("ALTER FOREIGN TABLE users ADD CHECK (id > 25)", '25|two|two', 'a check');
becomes('ALTER FOREIGN TABLE users DROP CONSTRAINT users_id_check', '50|two|two', 'no check');
becomes("ALTER DOMAIN word ADD CHECK (VALUE <> 'two') NOT VALID", '0||', 'a check of a domain');
becomes('ALTER DOMAIN word DROP CONSTRAINT word_check', '50|two|two', 'no check of the domain');
becomes('ALTER FOREIGN TABLE users RENAME COLUMN a TO z; ALTER FOREIGN TABLE users RENAME COLUMN z TO a', '50|two|two', 'a name there and back');
becomes('ALTER FOREIGN TABLE users ALTER COLUMN id TYPE bigint', '50|two|two', 'another type of key');
becomes("BEGIN; ALTER FOREIGN TABLE users OPTIONS (ADD topic 'others'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'", '60|two others|two others', 'in a prepared transaction');
becomes("DROP FOREIGN TABLE users; CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), a text) SERVER kafka", '50|two|two', 'dropped and created');
becomes("BEGIN; DROP SERVER kafka CASCADE; CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $one->address . "');
	CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), a text) SERVER kafka; COMMIT", '51|later|one', 'the server too');

# An application that makes temporary tables all day is not our business.
$before = $node->safe_psql('postgres', "SELECT reloads, loaded_at FROM kafka_cache.tables");
$node->safe_psql('postgres', "DO \$\$ BEGIN FOR i IN 1 .. 200 LOOP CREATE TEMPORARY TABLE tmp (id int); DROP TABLE tmp; COMMIT; END LOOP; END \$\$");
is($node->safe_psql('postgres', "SELECT reloads, loaded_at FROM kafka_cache.tables"), $before, '200 temporary tables later');

# --- gone -------------------------------------------------------------------------------------------------

foreach my $ddl ('DROP OWNED BY first', 'DROP SCHEMA public CASCADE; CREATE SCHEMA public', 'DROP SERVER kafka CASCADE', 'DROP EXTENSION kafka_cache_fdw CASCADE')
{
	$node->safe_psql('postgres', 'DROP SERVER IF EXISTS kafka CASCADE');
	$node->connect_kafka('postgres', $one);
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), a text) SERVER kafka; ALTER FOREIGN TABLE users OWNER TO first");
	ok($node->wait_ready('postgres', 'users'), 'there');
	$node->safe_psql('postgres', $ddl);
	$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw');
	ok($node->wait_for('postgres', "SELECT string_agg(setting, ' ' ORDER BY name) FROM kafka_cache.settings() WHERE name IN ('tables', 'memory_used')", '0 0'),
		"$ddl: gone with all its memory");
}

# --- in the middle of a load --------------------------------------------------------------------------------

$one->topic('large', 4);
$one->load('large', '*', 1, 200000, 'key-%d', '{"a": "a value of some length that makes it slower %d"}');
$node->safe_psql('postgres', 'CREATE DATABASE loading');
sub start_load
{
	my ($db) = @_;
	$node->connect_kafka($db, $one);
	$node->safe_psql($db, "CREATE FOREIGN TABLE large (id text OPTIONS (key 'true'), a text) SERVER kafka");
	ok($node->wait_for($db, "SELECT entries > 0 FROM kafka_cache.tables"), 'a load is under way') or diag $node->safe_psql($db, 'SELECT t FROM kafka_cache.tables t');
	return;
}
start_load('loading');
$node->safe_psql('loading', 'DROP EXTENSION kafka_cache_fdw CASCADE');
ok($node->wait_for('postgres', "SELECT string_agg(setting, ' ' ORDER BY name) FROM kafka_cache.settings() WHERE name IN ('tables', 'memory_used')", '0 0'),
	'DROP EXTENSION in the middle of it');
start_load('loading');
foreach my $round (1 .. 5)
{
	my ($status, $out, $err) = $node->psql('postgres', "CREATE DATABASE copy TEMPLATE loading");
	is($err, '', "round $round: a copy in the middle of a load");
	($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE copy');
	is($err, '', "round $round: dropped in the middle of its load");
}
ok($node->catch_up('loading', 'large', $one), 'the load goes on where it was');
is($node->safe_psql('loading', 'SELECT records, reloads FROM kafka_cache.tables'), '200000|0', '... and nothing was read twice');
my ($status, $out, $err) = $node->psql('postgres', 'DROP DATABASE loading');
is($err, '', 'dropped');
ok($node->wait_for('postgres', "SELECT string_agg(setting, ' ' ORDER BY name) FROM kafka_cache.settings() WHERE name IN ('tables', 'memory_used')", '0 0'),
	'all memory is back');

$node->stop;
unlike($node->log_text, qr/PANIC|TRAP|left \d+ bytes behind|have not left database/, 'nothing alarming in the log');

done_testing();
