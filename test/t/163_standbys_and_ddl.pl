# Nobody runs DDL on a standby, yet it happens there: what the primary does arrives by replay, and our
# workers neither hold it up nor miss it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;
use Time::HiRes qw(time);

my $kafka = KafkaCache::Mock->new;
my $moved = KafkaCache::Mock->new;
foreach my $topic (qw(users others))
{
	$_->topic($topic, 2) foreach $kafka, $moved;
	$_->load($topic, '*', 1, 50, 'key-%d', $topic) foreach $kafka, $moved;
}
$moved->produce('users', 0, "key-moved-$_", 'users') foreach 1, 2;

my $primary = KafkaCache::Cluster->new('primary', allows_streaming => 1);
# It does not wait for those who read: it would cancel them. So nobody must be in its way for long.
my $standby = do {
	$primary->start;
	KafkaCache::Cluster->new('standby', standby_of => $primary,
		conf => { max_standby_streaming_delay => '20s', hot_standby_feedback => 'on', wal_receiver_status_interval => '1s' });
};
$standby->start;

sub replayed
{
	my ($what) = @_;
	my $start = time;
	$primary->wait_for_catchup($standby, 'replay');
	note sprintf '%s: replayed within %.0f ms', $what, (time - $start) * 1000;
	return;
}

sub contents
{
	my ($db, $table) = @_;
	return $standby->safe_psql($db, "SELECT count(*), min(value), max(value) FROM $table");
}

# --- what comes -----------------------------------------------------------------------------------------

$primary->connect_kafka('postgres', $kafka);
text_table($primary, 'users', readonly => 'false');
replayed('CREATE EXTENSION');
is(contents('postgres', 'users'), '50|users|users', 'an extension and a table that came by replay: the next statement waits for the rows');
text_table($primary, 'others');
replayed('CREATE FOREIGN TABLE');
is(contents('postgres', 'others'), '50|others|others', 'a second table');
$primary->safe_psql('postgres', 'CREATE DATABASE one');
$primary->connect_kafka('one', $kafka);
text_table($primary, 'users', database => 'one');
replayed('CREATE DATABASE');
is($standby->safe_psql('one', "SELECT kafka_cache.wait_ready('users', '30 s')"), 't', 'a database that came by replay');
$primary->safe_psql('postgres', 'CREATE DATABASE two TEMPLATE one');
replayed('CREATE DATABASE ... TEMPLATE');
is(contents('two', 'users'), '50|users|users', '... and a copy of it');

# --- what changes ---------------------------------------------------------------------------------------

my $facts = "SELECT pid, reloads, loaded_at FROM kafka_cache.tables, kafka_cache.workers
	WHERE relation = 'users'::regclass AND kind = 'consumer' AND database = 'postgres'";
my $before = $standby->safe_psql('postgres', $facts);
$primary->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (ADD client_id 'another')");
replayed('ALTER SERVER');
$kafka->produce('users', 0, 'key-x', 'users');
ok($standby->catch_up('postgres', 'users', $kafka), 'another client');
is($standby->safe_psql('postgres', $facts), $before, '... of the same consumer, without a reload');
$primary->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET brokers '" . $moved->address . "')");
replayed('ALTER SERVER');
is(contents('postgres', 'users'), '52|users|users', 'another broker: the next statement waits for its rows');
$primary->safe_psql('postgres', "ALTER FOREIGN TABLE users OPTIONS (SET topic 'others')");
replayed('ALTER FOREIGN TABLE');
is(contents('postgres', 'users'), '50|others|others', 'another topic: the next statement waits for its rows');
$primary->safe_psql('postgres', 'ALTER FOREIGN TABLE users ADD CHECK (length(key) = 5)');
replayed('ADD CHECK');
is(contents('postgres', 'users'), '9|others|others', 'a check: likewise');
$primary->safe_psql('postgres', 'CREATE ROLE somebody; ALTER FOREIGN TABLE users OWNER TO somebody; GRANT USAGE ON FOREIGN SERVER kafka TO somebody');
replayed('ALTER OWNER');
is(contents('postgres', 'users'), '9|others|others', 'another owner');

# A session that was connected all the time has seen the old definition, and sees each new one.
my $session = $standby->background_psql('postgres');
is($session->query_safe('SELECT count(*) FROM others'), 50, 'a session that stays');
$primary->safe_psql('postgres', "ALTER FOREIGN TABLE others ALTER COLUMN value TYPE bytea, OPTIONS (SET format 'bytea')");
replayed('ALTER COLUMN');
is($session->query_safe('SELECT DISTINCT value FROM others'), '\x6f7468657273', '... reads by the definition that has come');
$primary->safe_psql('postgres', 'DROP FOREIGN TABLE others');
replayed('DROP FOREIGN TABLE');
ok($standby->wait_for('postgres', "SELECT count(*) FROM kafka_cache.tables", 1), 'a table that is dropped goes, with its contents');
$session->quit;

# --- what wants a database for itself ----------------------------------------------------------------------

sub consumer_of
{
	my ($db, $n) = @_;
	return $standby->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname = '$db'", $n);
}

$primary->safe_psql('postgres', 'ALTER DATABASE two RENAME TO three');
replayed('RENAME');
is(contents('three', 'users'), '51|users|users', 'a renamed database is served');
$primary->append_conf('postgresql.conf', 'allow_in_place_tablespaces = on');
$primary->reload;
$primary->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$primary->safe_psql('postgres', 'ALTER DATABASE three SET TABLESPACE elsewhere');
replayed('SET TABLESPACE');
ok(consumer_of('three', 1), 'a database that was moved has its consumer again');
is(contents('three', 'users'), '51|users|users', '... and is served');
$primary->safe_psql('postgres', 'DROP DATABASE three');
$primary->safe_psql('postgres', 'DROP TABLESPACE elsewhere');
replayed('DROP DATABASE');
ok(consumer_of('three', 0), 'a dropped database has none');
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', '... replay goes on');
$primary->safe_psql('one', 'DROP EXTENSION kafka_cache_fdw CASCADE');
replayed('DROP EXTENSION');
ok(consumer_of('one', 0), 'where the extension is dropped the consumer leaves');
ok($standby->wait_for('postgres', "SELECT count(*) = 0 FROM kafka_cache.workers WHERE database IN ('one', 'two', 'three')"), '... and nothing is left of them');
ok($standby->wait_for('postgres', "SELECT setting FROM kafka_cache.settings() WHERE name = 'tables'", 1), '... no table either');

# --- nobody is held up --------------------------------------------------------------------------------------

# What a standby reports as its oldest snapshot goes on, so that the primary can clean up.
my $xid = $primary->safe_psql('postgres', 'SELECT txid_current()');
ok($primary->wait_for('postgres', "SELECT txid_current() > $xid AND backend_xmin::text::bigint > $xid FROM pg_stat_replication"),
	'an idle standby holds back no cleaning of the primary');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kafka_cache %' AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)
	AND now() - xact_start > interval '1 second'"), 0, '... none of our workers is in a transaction');
my $pid = $standby->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
$primary->safe_psql('postgres', "VACUUM FULL pg_class; VACUUM FULL pg_attribute; VACUUM FULL pg_foreign_table; REINDEX DATABASE postgres");
$primary->safe_psql('postgres', 'BEGIN; LOCK TABLE pg_foreign_table, pg_foreign_server; CREATE TABLE x (); COMMIT; VACUUM FREEZE');
replayed('VACUUM FULL of catalogs');
is($standby->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'"), $pid, 'locks and cleaning that arrive by replay do not hurt the consumer');
$moved->produce('others', 0, 'key-x', 'others');
ok($standby->catch_up('postgres', 'users', $moved, 'others'), '... which goes on');
is(contents('postgres', 'users'), '10|others|others', '... as before');

# --- the last that came ---------------------------------------------------------------------------------------

# Nobody reads it before the promotion: it is found nevertheless.
$primary->safe_psql('postgres', 'CREATE DATABASE last');
$primary->connect_kafka('last', $kafka);
text_table($primary, 'users', database => 'last');
replayed('the last');
$primary->stop('immediate');
$standby->promote;
ok(consumer_of('last', 1), 'a database that came just before the promotion');
is(contents('last', 'users'), '51|users|users', '... is served');
$standby->safe_psql('postgres', 'DROP DATABASE last');
ok(consumer_of('last', 0), '... and dropped by the promoted one');

# --- one that nobody may read -----------------------------------------------------------------------------------

# Nothing can be connected to before the promotion; our workers come with it.
my $warm = KafkaCache::Cluster->new('warm', standby_of => $standby, conf => { hot_standby => 'off' });
$warm->start;
$standby->wait_for_catchup($warm, 'replay', $standby->lsn('insert'));
$standby->stop('immediate');
$warm->promote;
ok($warm->wait_for('postgres', 'SELECT NOT pg_is_in_recovery()'), 'a standby that was not hot is promoted');
ok($warm->catch_up('postgres', 'users', $moved, 'others'), '... and loads then');
is($warm->safe_psql('postgres', 'SELECT count(*) FROM users'), 10, '... what there is');
is(told($warm, "INSERT INTO users VALUES ('key-y', 'y'); SELECT count(*) FROM users")->{out}, 11, '... and writes');
$warm->stop;
unlike($_->log_text, qr/PANIC|TRAP|terminated by signal|left \d+ bytes behind/, $_->name . ': nothing alarming in the log') foreach $primary, $standby, $warm;
done_testing();
