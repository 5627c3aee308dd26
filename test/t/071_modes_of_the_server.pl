# Servers without background processes: a single user's, and pg_upgrade's.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use Test::More;

my $node = KafkaCache::Cluster->new('main');
my $data = $node->data_dir;

# What it says, and how it ends.
sub alone
{
	my ($sql, @options) = @_;
	my ($out, $err) = ('', '');
	my $good = IPC::Run::run([ 'postgres', '--single', '-j', '-D', $data, @options, 'postgres' ],
		'<', \$sql, '>', \$out, '2>', \$err);

	return $good ? "$out$err" : "ended early: $out$err";
}

my $said = alone("CREATE EXTENSION kafka_cache_fdw;\n\n"
	  . "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'nowhere:9092');\n\n"
	  . "CREATE FOREIGN TABLE t (k text OPTIONS (key 'true') NOT NULL) SERVER kafka;\n\n");
unlike($said, qr/ERROR|FATAL|PANIC|ended early/, 'a single user creates things');
like(alone("SET kafka_cache.when_not_ready = error;\n\nSELECT * FROM t;\n\n"),
	qr/^(?!ended).*ERROR:  cached table "t" is not ready/s, '... and is told that nobody loads them');
unlike(alone("SELECT * FROM kafka_cache.tables, kafka_cache.workers;\n\nCREATE DATABASE x;\n\nDROP DATABASE x;\n\n"),
	qr/ERROR|FATAL|PANIC|ended early/, '... sees the views, and databases come and go');

my $declare = "LOAD 'kafka_cache_fdw';\n\n"
  . "CREATE FUNCTION v(text[], oid) RETURNS void LANGUAGE c AS 'kafka_cache_fdw', 'kafka_cache_fdw_validator';\n\n"
  . "ALTER SERVER kafka OPTIONS (ADD client_id 'x');\n\nALTER SERVER kafka OPTIONS (DROP client_id);\n\n"
  . "DROP FUNCTION v;\n\n";
unlike(alone($declare, '-b'), qr/ERROR|FATAL|PANIC|ended early/, 'pg_upgrade with the library preloaded');
foreach my $sql ('SELECT * FROM t', map({ "SELECT * FROM kafka_cache.$_" } qw(tables partitions errors workers)),
	map { "SELECT kafka_cache.$_" } "wait_ready('t')", "position('t')", "wait_for('t', '{}')", "reload('t')")
{
	like(alone("$sql;\n\n", '-b'), qr/^(?!ended).*ERROR:  this server keeps no cached tables/s, "... where $sql finds nothing");
}
unlike(alone("EXPLAIN VERBOSE SELECT * FROM t;\n\nANALYZE pg_class;\n\n", '-b'),
	qr/ERROR|FATAL|PANIC|ended early/, '... and nothing else is hindered');
unlike(alone($declare, '-b', '-c', 'shared_preload_libraries='),
	qr/ERROR|FATAL|PANIC|ended early/, '... and without');
like(alone("LOAD 'kafka_cache_fdw';\n\n", '-c', 'shared_preload_libraries='),
	qr/^(?!ended).*ERROR:  kafka_cache_fdw must be loaded via shared_preload_libraries/s,
	'any other server is told that it needs it');

done_testing();
