use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { max_connections => 40 });
$node->start;
$node->connect_kafka('postgres', $kafka, reconnect_backoff_max_ms => 200);
sub one { return $node->safe_psql('postgres', $_[0]); }
sub product
{
	my ($name, $function) = @_;
	$kafka->topic($name, 2);
	one("CREATE FOREIGN TABLE $name (k int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'),
			_offset bigint OPTIONS (offset 'true'), _time timestamptz OPTIONS (timestamp 'true'))
		 SERVER kafka OPTIONS (topic '$name', compute 'public.$function', negative_ttl '1h')");
	$node->catch_up('postgres', $name, $kafka) or die "$name is not ready";
	return;
}
one(q{
CREATE TABLE source (k int PRIMARY KEY, v int);
INSERT INTO source SELECT i, i FROM generate_series(1, 100) i;
CREATE FUNCTION of_source(k int) RETURNS int LANGUAGE sql STABLE AS 'SELECT v FROM public.source s WHERE s.k = $1';
CREATE FUNCTION keys(old source, new source) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT coalesce((old).k, (new).k)';
});
product('p', 'of_source');
product('q', 'of_source');
one("SELECT kafka_cache.refresh_on('p', 'source', 'public.keys(source, source)'::regprocedure)");
one(q{CREATE FUNCTION boom() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''boom''; END';
CREATE EVENT TRIGGER boom ON sql_drop EXECUTE FUNCTION boom();});
my $s = $node->background_psql('postgres', on_error_stop => 0);
diag $s->query("DROP FOREIGN TABLE p");
diag $s->query("SELECT count(*) FROM generate_series(1, 100000)");
diag $s->query("ALTER EVENT TRIGGER boom DISABLE") if 0;
diag $s->query(q{DO $$ BEGIN PERFORM repeat('x', 1000000); END $$}) if 0;
diag $s->query(q{CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE x(); END $$}) if 0;
one(q{CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE x' || 1 || '()'; END $$});

one(q{CREATE FUNCTION g(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF n > 0 THEN PERFORM g(n - 1); ELSE EXECUTE 'CREATE TEMP TABLE x' || (random()*1e6)::int || '()'; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END $$});
for my $n (1, 2, 5, 10, 30, 100)
{
	diag $s->query("DROP FOREIGN TABLE p");
	diag $s->query("SELECT g($n)");
}
diag $s->{stderr};
is(one("SELECT 1"), 1, 'alive');
unlike($node->log_text, qr/terminated by signal/, 'no crash');
diag join '', grep { /signal|TRAP|boom/ } map { "$_\n" } split /\n/, $node->log_text;
# broken table and the view
one("DROP EVENT TRIGGER boom");
one("ALTER FOREIGN TABLE q OPTIONS (ADD soft_ttl '1s')");
one("SELECT kafka_cache.refresh('q', '1')");
diag one("SELECT * FROM kafka_cache.refresh_queue");
done_testing();
