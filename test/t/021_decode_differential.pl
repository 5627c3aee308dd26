# The decoder and the server's own functions, on 25,000 generated documents.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Decoder;
use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;

my $count = 25000;
my $seed = 20251;

my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.databases' => 'none', 'fsync' => 'off' });
$node->start;
my $d = KafkaCache::Decoder->new($node, 'postgres');

my $docs = PostgreSQL::Test::Utils::tempdir() . '/docs';
system("perl $top/test/kcf_test/generate.pl $count $seed > $docs") == 0 or BAIL_OUT('no documents');
$d->sql("CREATE TABLE docs (id int, doc bytea); COPY docs FROM '$docs'");
is($d->sql('SELECT count(*) FROM docs'), $count, 'documents');
$d->sql(PostgreSQL::Test::Utils::slurp_file("$top/test/kcf_test/differential.sql"));

# that there was something to compare
my %counts = map { split /\|/ } split /\n/, $d->sql('SELECT what, sum(n) FROM counts GROUP BY what');
note("$_: $counts{$_}") foreach sort keys %counts;
cmp_ok($counts{'documents ok'}, '>', $count / 2, 'most documents are good');
cmp_ok($counts{'documents json'}, '>', $count / 10, 'many are not JSON');
cmp_ok($counts{'documents encoding'}, '>', $count / 50, 'some are not UTF-8');
cmp_ok($counts{'values taken'}, '>', $count, 'values that the server takes');
cmp_ok($counts{'values refused'}, '>', $count, 'values that it refuses');

foreach my $what (qw(verdict shape fault value))
{
	my $found = $d->sql("SELECT id, tab, expected, got, encode(doc, 'escape') FROM mismatches JOIN docs USING (id) WHERE what = '$what' ORDER BY id, tab LIMIT 5");
	is($found, '', "no difference: $what");
}

$node->stop;
done_testing();
