# What a product's rules have asked for is not lost: by a crash, by a transaction that is prepared, by a queue that is
# full; and rules and their triggers survive a dump.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log', 'kafka_cache.memory' => '32MB', 'kafka_cache.refresh_load' => 100,
	max_prepared_transactions => 2 });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub comes { my ($sql, $wanted, $name, $db) = @_; return ok($node->wait_for($db // 'postgres', $sql, $wanted), $name) || diag(one($sql)); }

sub workers
{
	my ($n) = @_;
	one("ALTER SYSTEM SET kafka_cache.refresh_workers = '$n'; SELECT pg_reload_conf()");
	return $node->wait_for('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher' AND datname = 'postgres'", $n);
}

$kafka->topic($_, 2) foreach qw(sums source copies);
one(q{
	CREATE TABLE orders (id int PRIMARY KEY, customer text, amount int);
	CREATE FUNCTION spent(customer text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(amount) FROM public.orders o WHERE o.customer = spent.customer';
	CREATE FOREIGN TABLE spending (customer text OPTIONS (key 'true') NOT NULL, amount jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'sums', compute 'public.spent');
	CREATE FUNCTION customer_of(old orders, new orders) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS 'VALUES (old.customer), (new.customer)'});
ok($node->wait_ready('postgres', 'spending'), 'a product');
one("SELECT kafka_cache.refresh_on('spending', 'orders', 'customer_of')");
my $sums = q{SELECT string_agg(customer || amount, ' ' ORDER BY customer) FROM spending};

# --- transactions ---------------------------------------------------------------------------------------

one("INSERT INTO orders VALUES (1, 'ann', 1), (2, 'bob', 2)");
comes($sums, 'ann1 bob2', 'a product of an ordinary table');
one("BEGIN; INSERT INTO orders VALUES (3, 'ann', 10); PREPARE TRANSACTION 'p'");
one("INSERT INTO orders VALUES (4, 'bob', 10)");
comes($sums, 'ann1 bob12', 'what is prepared asks for nothing yet');
is(one('SELECT count(*) FROM kafka_cache.refresh_log'), 0, 'the log has nothing for others to see');
one("COMMIT PREPARED 'p'");
comes($sums, 'ann11 bob12', '... but when it is committed');

# one that began before others and ends after them
my $slow = $node->background_psql('postgres');
$slow->query_safe("BEGIN; INSERT INTO orders VALUES (5, 'ann', 100)");
one("INSERT INTO orders VALUES (6, 'ann', 1000)");
comes($sums, 'ann1011 bob12', 'a transaction does not wait for one that began before');
$slow->query_safe('COMMIT');
comes($sums, 'ann1111 bob12', '... nor is that one forgotten');
$slow->quit;

# --- a crash --------------------------------------------------------------------------------------------

ok(workers(0), 'nobody refreshes');
one("INSERT INTO orders VALUES (7, 'cleo', 7); UPDATE orders SET amount = 0 WHERE customer = 'bob'");
is(one('SELECT count(*) > 0 FROM kafka_cache.refresh_log'), 't', 'what was asked for is written down');
$node->stop('immediate');
$node->start;
is(one('SELECT count(*) > 0 FROM kafka_cache.refresh_log'), 't', '... and still is after a crash');
ok(workers(1), 'somebody refreshes again');
comes($sums, 'ann1111 bob0 cleo7', 'it is done');
comes('SELECT count(*) FROM kafka_cache.refresh_log', 0, '... and no longer written down');

# --- a full queue ---------------------------------------------------------------------------------------

one(q{
	CREATE FOREIGN TABLE source (id int OPTIONS (key 'true') NOT NULL, n int) SERVER kafka OPTIONS (topic 'source', readonly 'false');
	CREATE FUNCTION copy(id int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n FROM public.source s WHERE s.id = copy.id';
	CREATE FOREIGN TABLE copies (id int OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'copies', compute 'public.copy');
	CREATE FUNCTION itself(old source, new source) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce(old.id, new.id)'});
ok($node->wait_ready('postgres', $_), "$_ is there") foreach qw(source copies);
my $keys = 3000;
$kafka->load('source', '0', 1, $keys, '%d', '{"n": 1}');
$kafka->load('copies', '0', 1, $keys, '%d', '0');
ok($node->catch_up('postgres', $_, $kafka), "$_ has rows") foreach qw(source copies);
ok(workers(0), 'nobody refreshes');
one("SELECT kafka_cache.refresh_on('copies', 'source', 'itself')");
ok(workers(1), 'somebody does');
comes("SELECT count(*) FROM copies WHERE n = '1'", $keys, 'more keys than the queue has room for are refreshed');
$kafka->load('source', '0', 1, $keys, '%d', '{"n": 2}');
comes("SELECT count(*) FROM copies WHERE n = '2'", $keys, 'so are they all when all have changed');
comes('SELECT count(*) FROM kafka_cache.refresh_queue', 0, 'nothing is left in the queue');

# --- a dump ---------------------------------------------------------------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-F', 'custom', '-f', $dump, 'postgres' ], 'pg_dump');
one('CREATE DATABASE restored');
command_ok([ 'pg_restore', '-e', '-1', '-h', $node->host, '-p', $node->port, '-d', 'restored', $dump ], 'pg_restore');
is($node->safe_psql('restored', 'SELECT product, source, keys FROM kafka_cache.refresh_rules ORDER BY 1::text'),
	one('SELECT product, source, keys FROM kafka_cache.refresh_rules ORDER BY 1::text'), 'the rules are there');
is($node->safe_psql('restored', q{SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal}),
	'kafka_cache_refresh_delete kafka_cache_refresh_insert kafka_cache_refresh_truncate kafka_cache_refresh_update', 'the triggers are there');
ok($node->wait_ready('restored', $_), "$_ is there") foreach qw(spending source copies);
comes($sums, 'ann1111 bob0 cleo7', 'what is cached is the same', 'restored');
$node->safe_psql('restored', "UPDATE orders SET amount = 1 WHERE customer = 'bob' AND id = 2");
comes($sums, 'ann1111 bob1 cleo7', 'the rules of an ordinary table work', 'restored');
$kafka->produce('source', '0', '1', '{"n": 3}');
comes("SELECT n FROM copies WHERE id || '' = '1'", 3, 'and those of a cached one', 'restored');

# the extension takes its triggers along
like($node->psql('restored', 'DROP EXTENSION kafka_cache_fdw'), qr/3/, 'the triggers hold the extension');
$node->safe_psql('restored', 'DROP EXTENSION kafka_cache_fdw CASCADE; INSERT INTO orders VALUES (100, NULL, 1)');
is($node->safe_psql('restored', q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal}), 0, '... and go with it');

$node->stop;
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal(?! 3)/, 'nothing crashed');
done_testing();
