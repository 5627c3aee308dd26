# What makes products anew, and who computes at the same moment: nothing stays old.
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

my $gate = $node->background_psql('postgres');
$kafka->topic('p', 2);
one(q{
CREATE TABLE source (k int PRIMARY KEY, v int);
INSERT INTO source SELECT i, i FROM generate_series(1, 100) i;
CREATE TABLE other (k int PRIMARY KEY);
CREATE FUNCTION pass() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7)';
CREATE FUNCTION of_source(k int) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE answer int;
BEGIN
	SELECT s.v INTO answer FROM public.source s WHERE s.k = of_source.k;
	PERFORM public.pass();
	RETURN answer;
END $$;
CREATE FUNCTION keys(old other, new other) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT coalesce((old).k, (new).k)';
CREATE FOREIGN TABLE p (k int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'), _time timestamptz OPTIONS (timestamp 'true'))
	SERVER kafka OPTIONS (topic 'p', compute 'public.of_source');
});
$node->catch_up('postgres', 'p', $kafka) or die 'p is not ready';
one("SELECT kafka_cache.refresh_on('p', 'other', 'public.keys(other, other)'::regprocedure)");
$gate->query_safe('SELECT pg_advisory_lock(7)');
my $reader = $node->background_psql('postgres');
$reader->query_until(qr/begun/, "\\echo begun\nSELECT value FROM p WHERE k = 1;\n");
ok($node->wait_for('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND objsubid = 1 AND NOT granted}, '1'), 'a key is being computed');
one("UPDATE source SET v = 1001 WHERE k = 1");
one("TRUNCATE other");
ok($node->wait_for('postgres', q{SELECT count(*) FROM kafka_cache.refresh_log}, '0'), 'all that is cached was refreshed');
$gate->query_safe('SELECT pg_advisory_unlock(7)');
ok($node->wait_for('postgres', q{SELECT value FROM p WHERE k = 1}, '1001'), 'what was computed meanwhile is, too');

# Another server's clock, or one that was set back.
one("INSERT INTO p (k, value, _time) VALUES (2, '-2', now() + '1 minute')");
is(one("SELECT value FROM p WHERE k = 2"), '-2', 'a row from the future');
one("TRUNCATE other");
ok($node->wait_for('postgres', q{SELECT value FROM p WHERE k = 2}, '2'), '... is refreshed with all that is cached');
$reader->quit;
$gate->quit;
done_testing();
