# A data product as a table among others: when its definition changes, when its consumer ends, in a dump, and to those who
# listen.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Listener;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log' });
my $db = 'postgres';

sub one { return $node->safe_psql($db, $_[0]); }

sub error_of
{
	my ($stdout, $stderr);

	$node->psql($db, $_[0], stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

$node->start;
$node->connect_kafka($db, $kafka);
$kafka->topic('p', 2);
$kafka->produce('p', 0, '1', '[{"n": 1}]');
$kafka->produce('p', 0, '2', 'null');
$kafka->produce('p', 1, '3', '[{"n": 3}]');
one(q{
	CREATE SCHEMA app;
	CREATE TABLE app.zebras (id int PRIMARY KEY, n bigint);
	INSERT INTO app.zebras VALUES (1, 10), (2, 20);
	CREATE FUNCTION app.rows_of(id int) RETURNS TABLE (n bigint) LANGUAGE sql STABLE
		BEGIN ATOMIC SELECT z.n FROM app.zebras z WHERE z.id = rows_of.id; END;
	CREATE FUNCTION app.add_up(id int, old jsonb, hints jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT old || hints';
	CREATE FUNCTION app.compute(relation regclass, VARIADIC key text[]) RETURNS text
		AS '$libdir/kafka_cache_fdw', 'kafka_cache_compute' LANGUAGE C STRICT;
	CREATE FOREIGN TABLE p (id int OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'p', notify 'p_changed')});
ok($node->catch_up($db, 'p', $kafka), 'a table');
is(one('SELECT string_agg(id || v::text, $$ $$ ORDER BY id) FROM p'), '1[{"n": 1}] 2null 3[{"n": 3}]', 'null is a document to it');

# --- its definition changes -----------------------------------------------------------------------------

sub loaded_at { return one("SELECT loaded_at FROM kafka_cache.tables WHERE relation = 'p'::regclass"); }

my $loaded = loaded_at();
one(q{ALTER FOREIGN TABLE p OPTIONS (ADD compute 'app.rows_of', ADD domain 'SELECT id FROM app.zebras')});
ok($node->wait_for($db, "SELECT loaded_at > '$loaded' AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'p'::regclass"),
	'as a product it is loaded anew');
ok($node->catch_up($db, 'p', $kafka), '... to its end');
my $rows = 'SELECT string_agg(id || v::text, $$ $$ ORDER BY id) FROM p';
is(one($rows), '1[{"n": 1}] 3[{"n": 3}]', '... and null is nothing');
is(one("SELECT app.compute('p', '2')"), '[{"n":20}]', '... which would be computed');

$loaded = loaded_at();
my $reloads = one("SELECT reloads FROM kafka_cache.tables WHERE relation = 'p'::regclass");
one(q{ALTER FOREIGN TABLE p OPTIONS (ADD soft_ttl '1s', ADD hard_ttl '1min', ADD negative_ttl '1min', ADD refresh_every '1h', ADD augment 'app.add_up',
	ADD prime_on_miss 'false', SET domain 'SELECT id FROM app.zebras WHERE n > 0')});
one(q{ALTER FOREIGN TABLE p OPTIONS (SET soft_ttl '2s', SET hard_ttl '2min', DROP negative_ttl, DROP refresh_every)});
$kafka->produce('p', 0, '4', '[{"n": 4}]');
ok($node->catch_up($db, 'p', $kafka), 'how old its rows may be is changed, and a record comes');
is(loaded_at(), $loaded, '... nothing was loaded for that');
is(one("SELECT reloads FROM kafka_cache.tables WHERE relation = 'p'::regclass"), $reloads, '... nor counted');

# --- who listens ----------------------------------------------------------------------------------------

my $listener = KafkaCache::Listener->new($node, 'p_changed');
$kafka->produce('p', 0, '1', ' null');
ok($listener->hears(sub { exists(($_[0]->{updates} // {})->{1}) }), 'a row becomes nothing, which is told');
is($listener->keys->{1}, 'deleted', '... as a deletion');
$kafka->produce('p', 0, '2', 'null');
$kafka->produce('p', 0, '1', '[{"n": 11}]');
ok($listener->hears(sub { exists(($_[0]->{updates} // {})->{1}) }), 'and a row again');
is_deeply($listener->keys, { 1 => 'changed' }, '... nothing is told of what was nothing before');

# --- the consumer ends ----------------------------------------------------------------------------------

my $position = one("SELECT kafka_cache.position('p')");
$kafka->produce('p', 1, '3', 'null');
ok($node->catch_up($db, 'p', $kafka), 'a row becomes nothing');
my $before = one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
one("SELECT pg_terminate_backend($before)");
ok($node->wait_for($db, "SELECT pid <> $before FROM kafka_cache.workers WHERE kind = 'consumer' AND pid IS NOT NULL"), 'another consumer');
$kafka->produce('p', 1, '5', '[{"n": 5}]');
ok($node->catch_up($db, 'p', $kafka), '... goes on');
is(one($rows), '1[{"n": 11}] 4[{"n": 4}] 5[{"n": 5}]', '... with what was there');
is(one("SELECT string_agg(key || deleted::text, ' ' ORDER BY key) FROM kafka_cache.changes('p', '$position')"), '3true 5false', '... and what became of it');
one("SELECT kafka_cache.reload('p')");
ok($node->wait_for($db, "SELECT reloads > $reloads AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'p'::regclass"), 'loaded again');
is(one($rows), '1[{"n": 11}] 4[{"n": 4}] 5[{"n": 5}]', '... it is the same');

# --- what goes away under it ----------------------------------------------------------------------------

one('ALTER SCHEMA app RENAME TO moved');
like(error_of("SELECT moved.compute('p', '1')"), qr/schema "app" does not exist/, 'its function is not where it was');
like(error_of("ALTER FOREIGN TABLE p OPTIONS (SET soft_ttl '3s')"), qr/schema "app" does not exist/, '... which every change of it says');
is(one('SELECT count(*) FROM p'), 3, '... but what is cached can be read');
one('ALTER SCHEMA moved RENAME TO app');
is(one("SELECT app.compute('p', '2')"), '[{"n":20}]', 'and it is back');

# --- a dump ---------------------------------------------------------------------------------------------

my $dir = $node->basedir;
my $options = q{SELECT string_agg(option_name || '=' || option_value, E'\n' ORDER BY option_name)
	FROM pg_foreign_table f, pg_options_to_table(f.ftoptions) WHERE f.ftrelid = 'p'::regclass};
my $expected = one($options);
one("ALTER DATABASE $db SET search_path = 'app', 'public'");
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-f', "$dir/dump", $db ], 'a dump');
$node->safe_psql($db, 'CREATE DATABASE restored');
command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-f', "$dir/dump", 'restored' ],
	'... is restored, whatever comes before its function and its domain');
$db = 'restored';
is(one($options), $expected, '... with all options');
ok($node->catch_up($db, 'p', $kafka), '... and loads');
is(one($rows), '1[{"n": 11}] 4[{"n": 4}] 5[{"n": 5}]', '... the same rows');
is(one("SELECT app.compute('p', '2')"), '[{"n":20}]', '... and computes');
one("ALTER FOREIGN TABLE p OPTIONS (SET soft_ttl '3s')");

# --- a server that speaks another encoding --------------------------------------------------------------

$node->safe_psql($db, q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$db = 'latin';
$node->connect_kafka($db, $kafka);
one(q{
	SET client_encoding = 'UTF8';
	CREATE FUNCTION public.latin(id text, OUT "é" text, OUT n int) LANGUAGE sql STABLE AS $$SELECT 'ü' || id, 1$$;
	CREATE FUNCTION public.compute(relation regclass, VARIADIC key text[]) RETURNS text
		AS '$libdir/kafka_cache_fdw', 'kafka_cache_compute' LANGUAGE C STRICT;
	CREATE FOREIGN TABLE whole (id text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'p', compute 'public.latin');
	CREATE FOREIGN TABLE members (id text OPTIONS (key 'true') NOT NULL, "é" text, n int) SERVER kafka OPTIONS (topic 'p', compute 'public.latin')});
is(one(qq{SET client_encoding = 'UTF8'; SELECT compute('$_', 'ß')}), '{"é":"üß","n":1}', "what is computed there, $_") foreach qw(whole members);

$node->stop;
done_testing();
