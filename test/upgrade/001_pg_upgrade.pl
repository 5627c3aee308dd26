# pg_upgrade from PostgreSQL 15: definitions come along, contents come from Kafka, and so does the extension's own
# update. The server of the old version lies in build/pg15 (see test/matrix).
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;

my $old_path = "$top/build/pg15/usr/lib/postgresql/15";
BAIL_OUT('no server of PostgreSQL 15: test/matrix makes one') unless -x "$old_path/bin/postgres";

my $kafka = KafkaCache::Mock->new;
$kafka->topic('users', 2);
$kafka->load('users', '*', 1, 1000, '%d', '{"name": "n%d", "groups": [{"id": %d}]}');

my $old = KafkaCache::Cluster->new('old', install_path => $old_path);
$old->start;
like($old->safe_psql('postgres', 'SHOW server_version'), qr/^15/, 'a server of the old version');
$old->safe_psql('postgres', 'CREATE ROLE owner; CREATE DATABASE first; CREATE DATABASE app');
# One database has what the first version had, the other one what is there now.
$old->safe_psql('first', "CREATE EXTENSION kafka_cache_fdw VERSION '0.1'");
foreach my $db ('first', 'app')
{
	my $brokers = $kafka->address;

	$old->safe_psql($db, "CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
		CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '$brokers');
		CREATE USER MAPPING FOR owner SERVER kafka OPTIONS (username 'u', password 'p''w');
		CREATE DOMAIN short AS text CHECK (length(VALUE) < 10);
		CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, \"Name\" short OPTIONS (json 'name') NOT NULL CHECK (\"Name\" <> ''),
			dropped int, groups int[] OPTIONS (json 'groups[].id'), _offset bigint OPTIONS (\"offset\" 'true'))
			SERVER kafka OPTIONS (topic 'users', on_error 'remove', readonly 'false', keep_value 'true');
		ALTER FOREIGN TABLE users DROP COLUMN dropped;
		GRANT SELECT ON users TO owner;
		CREATE TABLE orders (id int, user_id int); INSERT INTO orders SELECT i, i * 2 FROM generate_series(1, 100) i;
		CREATE VIEW names AS SELECT o.id, u.\"Name\" FROM orders o JOIN users u ON u.id = o.user_id;
		CREATE VIEW health AS SELECT relation, state, staleness FROM kafka_cache.tables;
		CREATE FUNCTION wait(r regclass) RETURNS bool BEGIN ATOMIC SELECT kafka_cache.wait_ready(r); END");
	ok($old->catch_up($db, 'users', $kafka), "$db: a loaded table");
}
my $rows = 'SELECT count(*), sum(id), max("Name"), sum(groups[1]) FROM users';
my $options = "SELECT attname, attfdwoptions FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 ORDER BY attname";
my %expected = map { $_ => $old->safe_psql('app', $_) } $rows, $options;

# What the old server wrote is known to the new one by the topic alone.
$expected{$rows} = $old->safe_psql('app', "INSERT INTO users (id, \"Name\") VALUES (2000, 'late'); $rows");
$old->stop;

# 18 has checksums unless told otherwise; the old cluster has none.
chomp(my $major = `\$PG_CONFIG --version`);
($major) = $major =~ /(\d+)/;
my $new = KafkaCache::Cluster->new('new', extra => $major >= 18 ? ['--no-data-checksums'] : []);
my @upgrade = ('pg_upgrade', '--no-sync', '-U', 'postgres', '-b', "$old_path/bin", '-B', $new->config_data('--bindir'), '-d', $old->data_dir,
	'-D', $new->data_dir, '-s', $new->host, '-p', $old->port, '-P', $new->port);
chdir $new->basedir or die;
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check');
my ($out, $err) = ('', '');
ok(IPC::Run::run(\@upgrade, '>', \$out, '2>', \$err), 'pg_upgrade') or diag("$out\n$err");

$new->start;
like($new->safe_psql('postgres', 'SHOW server_version'), qr/^$major/, 'a server of the new version');
foreach my $db ('first', 'app')
{
	ok($new->catch_up($db, 'users', $kafka), "$db: loads by itself");
	is($new->safe_psql($db, $rows), $expected{$rows}, '... the same rows');
	is($new->safe_psql($db, $options), $expected{$options}, '... options of columns');
	is($new->safe_psql($db, "SELECT has_table_privilege('owner', 'users', 'SELECT'), array(SELECT unnest(umoptions) ORDER BY 1) FROM pg_user_mappings WHERE usename = 'owner'"),
		"t|{password=p'w,username=u}", '... rights and mappings');
	is($new->safe_psql($db, "SELECT count(*), max(\"Name\") FROM names; SELECT state FROM health; SELECT wait('users')"),
		"100|n98\nready\nt", '... views and functions of users');
}
is($new->safe_psql('first', "SELECT extversion FROM pg_extension WHERE extname = 'kafka_cache_fdw'"), '0.1', 'a database with the first version keeps it');
$new->safe_psql('first', 'ALTER EXTENSION kafka_cache_fdw UPDATE');
is($new->safe_psql('first', "SELECT count(*), sum(reloads) FROM kafka_cache.tables"), '1|0', '... until it is updated, which loads nothing again');
is($new->safe_psql('app', "UPDATE users SET \"Name\" = 'new' WHERE id = 2000; SELECT \"Name\" FROM users WHERE id = 2000"), 'new', 'and is written to');
$new->stop;

done_testing();
