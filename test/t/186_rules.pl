# Products that are made anew when something else changes, on a real Kafka whose records come from kcat: topics, moves,
# bursts, intervals, and what a server that was away has missed.
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
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log', 'kafka_cache.refresh_load' => 100 });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub comes { my ($sql, $wanted, $name) = @_; return ok($node->wait_for('postgres', $sql, $wanted), $name) || diag(one($sql)); }
sub send_records { my ($topic, @records) = @_; return kcat($kafka, $topic, join('', map { "$_\n" } @records), '-K', "\t"); }
sub user { my ($id, $org, $name) = @_; return qq($id\t{"org":"$org","name":"$name"}); }
sub session { my ($id, $user, $n) = @_; return qq($id\t{"user_id":"$user","n":$n}); }

# How often a key was put.
sub puts
{
	my ($topic, $key) = @_;
	return scalar grep { $_->{key} eq $key } committed($kafka, $topic);
}

$kafka->topic($_, 3, 'min.compaction.lag.ms' => 3600000) foreach qw(users sessions per_org overview often known tallies);
one(q{
	CREATE FOREIGN TABLE users (id text OPTIONS (key 'true') NOT NULL, org text, name text) SERVER kafka OPTIONS (topic 'users');
	CREATE FOREIGN TABLE sessions (id text OPTIONS (key 'true') NOT NULL, user_id text, n int) SERVER kafka OPTIONS (topic 'sessions');
	CREATE FUNCTION per_org(org text, OUT users bigint, OUT n bigint) LANGUAGE sql STABLE AS
		'SELECT count(DISTINCT u.id), sum(s.n) FROM public.users u LEFT JOIN public.sessions s ON s.user_id = u.id WHERE u.org = per_org.org HAVING count(*) > 0';
	CREATE FOREIGN TABLE per_org (org text OPTIONS (key 'true') NOT NULL, users bigint, n bigint, _offset bigint OPTIONS (offset 'true'))
		SERVER kafka OPTIONS (topic 'per_org', compute 'public.per_org');
	CREATE FUNCTION overview(what text) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT sum(n) FROM public.per_org';
	CREATE FOREIGN TABLE overview (what text OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'overview', compute 'public.overview');
	CREATE FUNCTION org_of_user(old users, new users) RETURNS SETOF text LANGUAGE sql STABLE AS 'VALUES (old.org), (new.org)';
	CREATE FUNCTION org_of_session(old sessions, new sessions) RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT org FROM public.users WHERE id IN (old.user_id, new.user_id)';
	CREATE FUNCTION everything(old per_org, new per_org) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'sessions'$$;
});
ok($node->wait_ready('postgres', $_), "$_ is there") foreach qw(users sessions per_org overview);
one(q{
	SELECT kafka_cache.refresh_on('per_org', 'users', 'org_of_user');
	SELECT kafka_cache.refresh_on('per_org', 'sessions', 'org_of_session');
	SELECT kafka_cache.refresh_on('overview', 'per_org', 'everything');
});
my $rows = q{SELECT string_agg(format('%s:%s,%s', org, users, n), ' ' ORDER BY org) FROM per_org};

# --- from topic to product ------------------------------------------------------------------------------

send_records('users', user('ann', 'a', 'Ann'), user('bob', 'b', 'Bob'), user('cleo', 'a', 'Cleo'));
comes($rows, 'a:2, b:1,', 'new users reach the product, and nobody has asked for it');
send_records('sessions', session('s1', 'ann', 1), session('s2', 'bob', 2));
comes($rows, 'a:2,1 b:1,2', 'a new session does');
comes('SELECT n FROM overview', 3, 'so it does the product that is made of the product');
send_records('users', user('ann', 'b', 'Ann'));
comes($rows, 'a:1, b:2,3', 'a user who moves is of both organizations');
send_records('users', "bob\t");
kcat($kafka, 'users', "bob\t\n", '-K', "\t", '-Z');
comes($rows, 'a:1, b:1,1', 'and one who leaves is of the one that was left');
comes('SELECT n FROM overview', 1, 'the sum follows');
is(one('SELECT count(*) FROM kafka_cache.errors WHERE relation = \'users\'::regclass'), 0, 'the record that was no user is forgotten by now');

# --- a burst --------------------------------------------------------------------------------------------

comes('SELECT count(*) FROM kafka_cache.refresh_queue', 0, 'nothing is waiting');
my $before = puts('per_org', 'b');
send_records('sessions', map { session('s1', 'ann', $_) } 1 .. 10_000);
comes("SELECT n FROM per_org WHERE org || '' = 'b'", 10_000, 'ten thousand changes of a key arrive');
comes('SELECT count(*) FROM kafka_cache.refresh_queue', 0, 'all is done');
my $times = puts('per_org', 'b') - $before;
cmp_ok($times, '<=', 100, "... and are computed a few times ($times)");
send_records('sessions', map { session("many$_", 'ann', 1) } 1 .. 10_000);
comes("SELECT n FROM per_org WHERE org || '' = 'b'", 20_000, 'so do ten thousand keys');
cmp_ok(puts('per_org', 'b') - $before, '<=', 200, '... of one key of the product');

# --- what a server that was away has missed -------------------------------------------------------------

my $noted = q{SELECT count(*) FROM kafka_cache.refresh_positions p WHERE p.position = kafka_cache.position(p.source)};
comes($noted, 3, 'how far was looked is written down');
my $offset = one("SELECT _offset FROM per_org WHERE org || '' = 'a'");
my $followed = q{SELECT message FROM kafka_cache.workers WHERE kind = 'refresher' AND database = 'postgres' AND pid IS NOT NULL};
$node->restart;
comes($followed, '3 rules', 'after a restart rules are followed when their sources are there');
send_records('users', user('dora', 'd', 'Dora'));
comes($rows, 'a:1, b:1,20000 d:1,', '... and go on');
is(one("SELECT _offset FROM per_org WHERE org || '' = 'a'"), $offset, 'what had not changed meanwhile was not computed again');
comes($noted, 3, 'that is written down, too');
$node->stop;
send_records('users', user('cleo', 'd', 'Cleo'));
$node->start;
comes($rows, 'b:1,20000 d:2,', 'what has changed while the server was down is found when it is there again');
comes($noted, 3, 'and written down');
$node->stop('immediate');
send_records('sessions', session('s3', 'cleo', 3));
$node->start;
comes($rows, 'b:1,20000 d:2,3', 'so is what has changed while it was down after a crash');
one("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'kafka_cache refresher'");
send_records('sessions', session('s4', 'cleo', 4));
comes($rows, 'b:1,20000 d:2,7', '... and while the process that looks was not');

# --- hints ----------------------------------------------------------------------------------------------

one(q{
	CREATE FUNCTION tally(org text) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		n bigint;
	BEGIN
		PERFORM pg_advisory_lock_shared(7);
		n := (SELECT sum(s.n) FROM public.sessions s JOIN public.users u ON u.id = s.user_id WHERE u.org = tally.org);
		PERFORM pg_advisory_unlock_shared(7);
		RETURN n;
	END$$;
	CREATE FUNCTION add_up(org text, old jsonb, hints jsonb) RETURNS jsonb LANGUAGE sql AS
		$$SELECT to_jsonb(old::bigint + sum(coalesce((h->'new'->>'n')::int, 0) - coalesce((h->'old'->>'n')::int, 0))) FROM jsonb_array_elements(hints) h$$;
	-- twice the same where nobody has moved
	CREATE FUNCTION orgs_of_session(old sessions, new sessions) RETURNS SETOF text LANGUAGE sql STABLE AS
		'SELECT org FROM public.users WHERE id = old.user_id UNION ALL SELECT org FROM public.users WHERE id = new.user_id';
	CREATE FOREIGN TABLE tallies (org text OPTIONS (key 'true') NOT NULL, n jsonb OPTIONS (value 'true'), _time timestamptz OPTIONS (timestamp 'true'))
		SERVER kafka OPTIONS (topic 'tallies', compute 'public.tally', augment 'public.add_up')});
ok($node->wait_ready('postgres', 'tallies'), 'a product with hints');
one("SELECT kafka_cache.refresh_on('tallies', 'sessions', 'orgs_of_session')");
is(one("SELECT n FROM tallies WHERE org = 'd'"), 7, 'is computed');
comes($followed, '4 rules', 'its rule is followed');
comes('SELECT count(*) FROM kafka_cache.refresh_queue', 0, 'nothing is waiting');
my $computed = puts('tallies', 'd');
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('SELECT pg_advisory_lock(7)');
# one record: who computes, and waits, is who looks
send_records('sessions', session('s4', 'cleo', 105));
comes("SELECT n FROM tallies WHERE org || '' = 'd'", 108, 'while it cannot be computed what has changed is added');
is(one("SELECT count(*) FROM kafka_cache.refresh_queue WHERE relation = 'tallies'::regclass"), 1, 'and it is to be computed still');
$blocker->query_safe('SELECT pg_advisory_unlock(7)');
$blocker->quit;
comes('SELECT count(*) FROM kafka_cache.refresh_queue', 0, 'which is done then');
cmp_ok(puts('tallies', 'd'), '>=', $computed + 2, 'with a record of its own');
is(one("SELECT n FROM tallies WHERE org || '' = 'd'"), 108, 'and the same result');
send_records('sessions', session('s4', 'cleo', 4));
comes($rows, 'b:1,20000 d:2,7', 'what was is again');

# --- a domain, an interval ------------------------------------------------------------------------------

one(q{
	CREATE TABLE wanted (id text);
	INSERT INTO wanted VALUES ('ann'), ('cleo');
	CREATE FUNCTION known(id text) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM public.users u WHERE u.id = known.id';
	CREATE FOREIGN TABLE known (id text OPTIONS (key 'true') NOT NULL, name jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (topic 'known', compute 'public.known', domain 'SELECT w.id FROM public.wanted w JOIN public.users u USING (id)')});
my $names = q{SELECT string_agg(name #>> '{}', ' ' ORDER BY id) FROM known};
comes($names, 'Ann Cleo', 'the keys of a domain are computed before anybody asks');
$node->stop;
send_records('users', user('emil', 'e', 'Emil'));
$node->start;
one("INSERT INTO wanted VALUES ('emil')");
$node->restart;
comes($names, 'Ann Cleo Emil', 'after a start as well, when what the domain reads is there');

one(q{
	CREATE FUNCTION often(id int) RETURNS text LANGUAGE sql AS $$SELECT 'the same'$$;
	CREATE FOREIGN TABLE often (id int OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'), _time timestamptz OPTIONS (timestamp 'true'))
		SERVER kafka OPTIONS (topic 'often', compute 'public.often', refresh_every '1s', domain 'SELECT 1')});
ok(eventually(sub { puts('often', '1') >= 5 }), 'a row is computed every so often');
my @at = map { $_->{ts} } grep { $_->{key} eq '1' } committed($kafka, 'often');
my @early = grep { $at[$_] - $at[ $_ - 1 ] < 900 } 1 .. $#at;
is("@early", '', 'and not sooner');

# --- rights ---------------------------------------------------------------------------------------------

one(q{
	CREATE ROLE owner;
	GRANT CREATE ON SCHEMA public TO owner;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner;
	GRANT SELECT ON sessions, users TO owner;
	CREATE TABLE who (name text);
	GRANT INSERT ON who TO owner;
	ALTER FOREIGN TABLE per_org OWNER TO owner});
one(q{CREATE OR REPLACE FUNCTION org_of_session(old sessions, new sessions) RETURNS SETOF text LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.who VALUES (current_user); RETURN QUERY SELECT org FROM public.users WHERE id IN (old.user_id, new.user_id); END'});
send_records('sessions', session('s5', 'cleo', 5));
comes("SELECT n FROM per_org WHERE org || '' = 'd'", 12, 'a product changes hands');
is(one('SELECT DISTINCT name FROM who'), 'owner', 'its rules run as its owner');
one('REVOKE SELECT ON sessions FROM owner; TRUNCATE who');
send_records('sessions', session('s6', 'cleo', 6));
ok(eventually(sub { $node->log_text =~ /could not tell which keys of the data product public\.per_org to refresh when the table public\.sessions changes: SQLSTATE 42501/ }),
	'an owner who may not read the source is not shown its rows');
is(one('SELECT count(*) FROM who'), 0, 'nor is its function called');

$node->stop;
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal(?! 3)/, 'nothing crashed');
done_testing();
