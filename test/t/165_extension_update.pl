# ALTER EXTENSION UPDATE: from every version that a database may have it leads to what a new installation has; before
# it, the objects of the old version go on with the library of today; and it disturbs nobody.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;

# Everything that makes an object what it is: its text, its comments and those of its columns, and rights, also those
# that pg_dump takes for given.
my $catalog = q{
	WITH objects AS (
		SELECT classid, objid, pg_describe_object(classid, objid, objsubid) AS name
		FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kafka_cache_fdw'))
	SELECT o.name, c.objsubid, c.description, i.initprivs,
		CASE WHEN o.classid = 'pg_proc'::regclass THEN pg_get_functiondef(o.objid) END AS function,
		(SELECT proacl FROM pg_proc p WHERE p.oid = o.objid) AS function_rights,
		CASE WHEN o.classid = 'pg_class'::regclass THEN pg_get_viewdef(o.objid) END AS view,
		(SELECT relacl FROM pg_class r WHERE o.classid = 'pg_class'::regclass AND r.oid = o.objid) AS view_rights,
		(SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE o.classid = 'pg_class'::regclass AND attrelid = o.objid AND attnum > 0) AS columns,
		(SELECT nspacl FROM pg_namespace n WHERE n.oid = o.objid) AS schema_rights,
		(SELECT format('%s %s', fdwhandler::regprocedure, fdwvalidator::regprocedure) FROM pg_foreign_data_wrapper w WHERE w.oid = o.objid) AS wrapper
	FROM objects o LEFT JOIN pg_description c USING (classoid, objoid)
		LEFT JOIN pg_init_privs i USING (classoid, objoid)
	ORDER BY 1, 2;
	SELECT extversion, extrelocatable, extconfig::regclass[], obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'kafka_cache_fdw'};
$catalog =~ s/SELECT classid, objid, pg_describe/SELECT classid, objid, classid AS classoid, objid AS objoid, pg_describe/;

my $kafka = KafkaCache::Mock->new;
$kafka->topic('users', 2);
$kafka->load('users', '*', 1, 500, '%d', '{"name": "n%d"}');

my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION kafka_cache_fdw');
my $wanted = $node->safe_psql('fresh', $catalog);
like($wanted, qr/view kafka_cache\.tables/, 'a new installation');
my ($now) = PostgreSQL::Test::Utils::slurp_file("$top/kafka_cache_fdw.control") =~ /^default_version = '(.*)'/m;

# A version from which no script leads on is one that nobody can leave.
my @old = split /\n/, $node->safe_psql('fresh', "SELECT version FROM pg_available_extension_versions WHERE name = 'kafka_cache_fdw' AND version <> '$now' ORDER BY 1");
ok(scalar(grep { $_ eq '0.1' } @old), 'the first version is among the old ones');
is($node->safe_psql('fresh', "SELECT source FROM pg_extension_update_paths('kafka_cache_fdw') WHERE target = '$now' AND path IS NULL"), '',
	'from each there is a way');

foreach my $version (@old)
{
	my $db = "v_$version" =~ s/\./_/r;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, "CREATE EXTENSION kafka_cache_fdw VERSION '$version'");
	$node->connect_kafka($db, $kafka);
	$node->safe_psql($db, "CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), name text) SERVER kafka OPTIONS (topic 'users', readonly 'false')");
	ok($node->catch_up($db, 'users', $kafka), "$version with the library of today: a table loads");
	is($node->safe_psql($db, 'SELECT count(*), max(name) FROM users WHERE id < 501'), '500|n99', '... is read');
	is($node->safe_psql($db, "INSERT INTO users VALUES (1000, 'x'); SELECT name FROM users WHERE id = 1000"), 'x', '... is written');
	foreach my $view (split /\n/, $node->safe_psql($db, "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'kafka_cache'::regnamespace AND relkind = 'v' ORDER BY 1"))
	{
		is($node->psql($db, "SELECT * FROM $view"), 0, "... $view");
	}
	foreach my $call ("wait_ready('users')", "\"position\"('users')", "wait_for('users', kafka_cache.\"position\"('users'))", "settings()")
	{
		is($node->psql($db, "SELECT kafka_cache.$call"), 0, "... $call");
	}

	# What users have built on it stays, and who is connected goes on.
	$node->safe_psql($db, 'CREATE VIEW health AS SELECT t.*, p.lag AS partition_lag FROM kafka_cache.tables t JOIN kafka_cache.partitions p USING (relation)');
	my $session = $node->background_psql($db);
	is($session->query_safe('PREPARE q AS SELECT name FROM users WHERE id = 7; EXECUTE q'), 'n7', '... a session with a prepared statement');
	my $before = $node->safe_psql($db, 'SELECT loaded_at, reloads FROM kafka_cache.tables');
	my $workers = $node->safe_psql($db, 'SELECT pid FROM kafka_cache.workers WHERE database = current_database() AND kind = \'consumer\'');
	$node->safe_psql($db, 'ALTER EXTENSION kafka_cache_fdw UPDATE');
	is($session->query_safe('EXECUTE q'), 'n7', '... which goes on after the update');
	$session->quit;
	is($node->safe_psql($db, 'SELECT loaded_at, reloads FROM kafka_cache.tables'), $before, '... nothing is loaded again');
	is($node->safe_psql($db, 'SELECT pid FROM kafka_cache.workers WHERE database = current_database() AND kind = \'consumer\''), $workers, '... by the same consumer');
	is($node->safe_psql($db, 'SELECT count(*) FROM health'), 2, '... a view on its views is there');
	is($node->safe_psql($db, $catalog), $wanted, "$version updated is what a new installation is");
}
unlike($node->log_text, qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;

done_testing();
