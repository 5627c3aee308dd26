# Definitions survive pg_dump and pg_restore, and pg_upgrade's way of moving them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
$kafka->topic('users', 2);
$kafka->load('users', '*', 1, 100, '%d', '{"name": "n%d", "groups": [{"id": %d}]}');

my $node = KafkaCache::Cluster->new('main');
$node->start;
my $dir = $node->basedir;
$node->safe_psql('postgres', 'CREATE ROLE owner; CREATE DATABASE source');
$node->connect_kafka('source', $kafka);
$node->safe_psql('source', "CREATE USER MAPPING FOR owner SERVER kafka OPTIONS (username 'u', password 'p''w');
	GRANT USAGE ON FOREIGN SERVER kafka TO owner; GRANT CREATE ON SCHEMA public TO owner;
	CREATE DOMAIN short AS text CHECK (length(VALUE) < 10);
	CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, \"Name\" short OPTIONS (json 'name') NOT NULL CHECK (\"Name\" <> ''),
		groups int[] OPTIONS (json 'groups[].id'), _offset bigint OPTIONS (\"offset\" 'true')) SERVER kafka OPTIONS (topic 'users', on_error 'remove');
	GRANT SELECT ON users TO owner;
	CREATE TABLE parent (id int, region text) PARTITION BY LIST (region);
	CREATE FOREIGN TABLE child (id int OPTIONS (key 'true'), region text) SERVER kafka OPTIONS (topic 'users');
	ALTER TABLE parent ATTACH PARTITION child FOR VALUES IN ('a')");
ok($node->catch_up('source', 'users', $kafka), 'a database with a loaded table');
my $rows = 'SELECT count(*), sum(id), max("Name"), sum(groups[1]) FROM users';
my $expected = $node->safe_psql('source', $rows);

my $options = 'SELECT c.oid::regclass, a.attname, a.attfdwoptions FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	WHERE relkind = \'f\' AND attnum > 0 ORDER BY relname, attname';
my $column_options = $node->safe_psql('source', $options);

foreach my $format ('plain', 'custom')
{
	my $target = "target_$format";
	command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-F', $format, '-f', "$dir/$format", 'source' ], "pg_dump, $format");
	$node->safe_psql('postgres', "CREATE DATABASE $target");
	if ($format eq 'plain')
	{
		command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-f', "$dir/$format", $target ], '... read by psql');
	}
	else
	{
		command_ok([ 'pg_restore', '-e', '-1', '-h', $node->host, '-p', $node->port, '-d', $target, "$dir/$format" ], '... read by pg_restore, in one transaction');
	}
	is($node->safe_psql($target, $options), $column_options, '... brings all options of columns');
	ok($node->catch_up($target, 'users', $kafka), '... and a cache that loads');
	is($node->safe_psql($target, $rows), $expected, '... the same rows');
	is($node->safe_psql($target, "SELECT has_table_privilege('owner', 'users', 'SELECT'), count(*) FROM pg_user_mappings WHERE usename = 'owner'"),
		't|1', '... rights and mappings');
	$node->safe_psql('postgres', "DROP DATABASE $target");
}

# pg_upgrade's dump names OIDs and is read by a server that moves definitions only.
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-s', '--binary-upgrade', '-f', "$dir/upgrade", 'source' ], 'pg_dump for pg_upgrade');

# A restore that stays incomplete: the table says so when it is used, and by its state.
$node->safe_psql('source', "SET check_function_bodies = off; CREATE FOREIGN TABLE keyless (a text) SERVER kafka");
ok($node->wait_for('source', "SELECT state FROM kafka_cache.tables WHERE relation = 'keyless'::regclass", 'failed'),
	'a table that stays without a key fails');
like($node->safe_psql('source', "SELECT message FROM kafka_cache.tables WHERE relation = 'keyless'::regclass"), qr/key/, '... and says why');
is($node->safe_psql('source', 'SELECT count(*) FROM users'), 100, '... and the others go on');
$node->safe_psql('source', "ALTER FOREIGN TABLE keyless ALTER COLUMN a OPTIONS (key 'true'), OPTIONS (ADD topic 'users')");
ok($node->wait_ready('source', 'keyless'), '... until it has one');
$node->stop;

done_testing();
