# Data products on a standby: what is missing is computed and put there, and the primary has it from Kafka. Nothing else is
# written from a standby.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
$kafka->topic($_, 2) foreach qw(products written aging);
my $primary = KafkaCache::Cluster->new('primary', allows_streaming => 1, conf => { log_min_messages => 'log' });
$primary->start;
$primary->connect_kafka('postgres', $kafka);
# The function says where it ran.
$primary->safe_psql('postgres', q{
	CREATE TABLE sessions (org int, n int);
	INSERT INTO sessions SELECT g % 50, g FROM generate_series(1, 500) g;
	CREATE FUNCTION per_org(org int) RETURNS TABLE (standby bool, n bigint) LANGUAGE sql STABLE AS
		$$ SELECT pg_is_in_recovery(), sum(s.n) FROM public.sessions s WHERE s.org = per_org.org HAVING count(*) > 0 $$;
	CREATE FOREIGN TABLE products (org int OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (topic 'products', compute 'public.per_org', negative_ttl '1h');
	CREATE FOREIGN TABLE aging (org int OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true'), _offset bigint OPTIONS (offset 'true'))
	SERVER kafka OPTIONS (topic 'aging', compute 'public.per_org', soft_ttl '1min', hard_ttl '1h');
	CREATE TABLE traces (org int);
	CREATE FUNCTION writing(org int) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.traces VALUES (org); RETURN to_jsonb(org); END $$;
	CREATE FOREIGN TABLE written (org int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'written', compute 'public.writing')});
my $standby = KafkaCache::Cluster->new('standby', standby_of => $primary);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
my @tables = qw(products written aging);
foreach my $node ($primary, $standby)
{
	ok($node->wait_ready('postgres', $_), $node->name . ": $_ is ready") foreach @tables;
}

sub computed
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT value FROM kafka_cache.metrics WHERE name = 'kafka_cache_product_computed_total' AND labels ->> 'relation' ~ 'products'");
}

# --- a miss ----------------------------------------------------------------------------------------------------

my $row = 'SELECT rows, _offset FROM products WHERE org = 1';
my ($rows, $offset) = split /\|/, $standby->safe_psql('postgres', $row);
is($rows, '[{"n": 2260, "standby": true}]', 'what is missing is computed on the standby') or diag($standby->log_text);
is($standby->safe_psql('postgres', q{SELECT value, "offset" IS NOT NULL FROM kafka_cache.fetch('products', '2')}), '[{"n": 2270, "standby": true}]|t', '... and kept, by fetch too');
like($standby->safe_psql('postgres', $row), qr/^\Q$rows\E\|\d+$/, '... and then in its memory');
my %topic = fold($kafka, 'products');
is($topic{1}, '[{"standby":true,"n":2260}]', '... and is in the topic');
ok($primary->catch_up('postgres', 'products', $kafka), '... which the primary reads');
is($primary->safe_psql('postgres', $row), $standby->safe_psql('postgres', $row), '... so it has the same');
is(computed($primary), 0, '... without computing');
is($standby->safe_psql('postgres', 'SELECT o, p.rows->0->>$$standby$$ FROM generate_series(3, 5) o JOIN products p ON p.org = o ORDER BY 1'), "3|true\n4|true\n5|true", 'a join computes there');
is($standby->safe_psql('postgres', q{SELECT key, value IS NULL, sqlstate FROM kafka_cache.fetch_many('products', '{6, 99, x}')}), "6|f|\n99|t|\nx|t|22P02", 'many are fetched there, what fails apart')
  or diag($standby->log_text);
is(computed($standby), 7, '... as its figures say');
is(producers($standby), 1, 'a producer runs on the standby');
is($standby->safe_psql('postgres', "SELECT state FROM kafka_cache.workers WHERE kind = 'producer'"), 'running', '... and is shown');
is($primary->safe_psql('postgres', q{SELECT rows FROM products WHERE org = 7}), '[{"n": 2320, "standby": false}]', 'the primary computes what is missing there');
ok($standby->catch_up('postgres', 'products', $kafka), '... which the standby reads');
is($standby->safe_psql('postgres', q{SELECT rows FROM products WHERE org = 7}), '[{"n": 2320, "standby": false}]', '... as it was computed there');

# --- what is stale ---------------------------------------------------------------------------------------------

$kafka->produce('aging', 0, '1', '[{"n": 0}]', at => (time - 600) * 1000);
ok($_->catch_up('postgres', 'aging', $kafka), $_->name . ' has an old row') foreach $primary, $standby;
is($standby->safe_psql('postgres', q{SELECT value, stale FROM kafka_cache.fetch('aging', '1')}), '[{"n": 0}]|t', 'a stale row is served on the standby');
ok($standby->wait_for('postgres', q{SELECT rows = '[{"n": 2260, "standby": true}]' FROM aging WHERE org = 1}), '... and refreshed by a refresher of its own');
ok($primary->wait_for('postgres', q{SELECT rows = '[{"n": 2260, "standby": true}]' FROM aging WHERE org = 1}), '... which the primary sees');

# --- what is not done there --------------------------------------------------------------------------------------

foreach my $sql (
	q{INSERT INTO products (org, rows) VALUES (1, '[]')},
	q{DELETE FROM products WHERE org = 1},
	q{SELECT kafka_cache.set('products', '{1}', '[]')},
	q{SELECT kafka_cache.purge('products', '{1}')})
{
	is(told($standby, $sql)->{state}, '25006', "refused: $sql");
}
isnt(told($standby, 'SELECT value FROM written WHERE org = 1')->{state}, '', 'a function that may write is not run there');
is($primary->safe_psql('postgres', 'SELECT value FROM written WHERE org = 1'), '1', '... it is on the primary');
ok($standby->wait_for('postgres', q{SELECT count(*) = 1 FROM written}), '... and then read on the standby');

# --- Kafka is away -----------------------------------------------------------------------------------------------

$kafka->broker(1, 'kill');
my ($status, $out, $err) = $standby->psql('postgres', q{SELECT value, "offset" FROM kafka_cache.fetch('products', '20')});
is($out, '[{"n": 2450, "standby": true}]|', 'without Kafka it computes and has no version');
like($err, qr/WARNING:  computed row of ".*" was not kept/, '... with a warning');
$kafka->broker(1, 'start');
ok(eventually(sub { my ($s, $o) = $standby->psql('postgres', q{SELECT "offset" IS NOT NULL FROM kafka_cache.fetch('products', '20')}); return $o eq 't' }), '... until it is back');
ok($primary->wait_for('postgres', q{SELECT count(*) = 1 FROM kafka_cache.fetch('products', '20') WHERE value->0->>'standby' = 'true'}), '... then the primary has it too');

# --- promotion ---------------------------------------------------------------------------------------------------

$primary->stop('immediate');
$standby->promote;
ok($standby->wait_for('postgres', 'SELECT NOT pg_is_in_recovery()'), 'it is promoted');
like($standby->safe_psql('postgres', $row), qr/^\Q$rows\E\|\d+$/, '... and has what it had');
is($standby->safe_psql('postgres', q{SELECT rows FROM products WHERE org = 30}), '[{"n": 2550, "standby": false}]', '... computes');
is($standby->safe_psql('postgres', q{SELECT kafka_cache.set('products', '{30}', '[1]') > 0; SELECT value FROM kafka_cache.fetch('products', '30')}), "t\n[1]", '... and sets');
is($standby->safe_psql('postgres', q{SELECT kafka_cache.purge('products', '{30}')}), 't', '... and purges');

$standby->stop;
unlike($_->log_text, qr/PANIC|TRAP|terminated by signal|left \d+ bytes behind/, $_->name . ': nothing alarming in the log') foreach $primary, $standby;
done_testing();
