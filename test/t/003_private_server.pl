# The tests' own tools: a private server has the extension loaded, and a killed test leaves nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Paths qw($top);
use Test::More;

my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '33MB' });
$node->start;
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'), 'kafka_cache_fdw', 'preloaded');
is($node->safe_psql('postgres', 'SHOW kafka_cache.memory'), '33MB', 'a setting of the test');
is($node->safe_psql('postgres', 'SELECT current_user'), 'postgres', 'the superuser, whoever runs it');
$node->safe_psql('postgres', 'CREATE EXTENSION kafka_cache_fdw');
is($node->safe_psql('postgres', 'SELECT extversion FROM pg_extension WHERE extname = \'kafka_cache_fdw\''),
	'0.2', 'the extension is installed');

# A server belongs to its owner: when that is killed, the server goes, and its folder.
my $owner = open(my $unused, '|-', 'cat');
chomp(my $folder = `$top/test/pg start --owner $owner killed`);
ok(-S "$folder/.s.PGSQL.5432", 'a server with an owner');
chomp(my $postmaster = PostgreSQL::Test::Utils::slurp_file("$folder/guarded.pid"));
kill 'KILL', $owner;
ok(eventually(sub { !-e $folder && !kill 0, $postmaster }), 'it is gone when its owner was killed');

done_testing();
