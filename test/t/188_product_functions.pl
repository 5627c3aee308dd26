# Data products by function, against Kafka itself: computed once however many ask and whoever dies, stale ones served
# while others compute, set and purged by version, dumped and restored, and read while Kafka is away.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
# Nobody refreshes here, so that what is asked for can be looked at.
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log', 'kafka_cache.refresh_workers' => 0 });
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE app; CREATE DATABASE shop');
$node->connect_kafka('shop', $kafka);
$kafka->topic($_, 4) foreach qw(per_org counters);

sub sql { return $node->safe_psql('shop', $_[0]); }

# What runs shall wait is told by an advisory lock; how often it ran, by a sequence.
sql(q{
	CREATE SCHEMA app;
	CREATE TABLE app.sessions (org int, type text, n int);
	INSERT INTO app.sessions VALUES (1, 'web', 3), (1, 'app', 2), (2, 'web', 7);
	INSERT INTO app.sessions SELECT g, 'x', g FROM generate_series(20, 60) g;
	CREATE SEQUENCE app.calls;
	CREATE FUNCTION app.per_org(org int) RETURNS TABLE (type text, n int) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM nextval('app.calls');
		PERFORM pg_advisory_lock_shared(org);
		PERFORM pg_advisory_unlock_shared(org);
		IF org < 0 THEN
			RAISE 'an organization that is none' USING ERRCODE = 'KC001';
		END IF;
		RETURN QUERY SELECT s.type, s.n FROM app.sessions s WHERE s.org = per_org.org ORDER BY s.n;
	END $$;
	CREATE FOREIGN TABLE app.products (org int OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true'),
		_offset bigint OPTIONS (offset 'true'), _time timestamptz OPTIONS (timestamp 'true'))
	SERVER kafka OPTIONS (topic 'per_org', compute 'app.per_org', soft_ttl '1h', hard_ttl '2h', negative_ttl '1h');
	CREATE FUNCTION app.counter(key text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb '0' $$;
	CREATE FOREIGN TABLE app.counters (key text OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'))
	SERVER kafka OPTIONS (topic 'counters', compute 'app.counter');
	GRANT USAGE ON SCHEMA app TO app;
	GRANT SELECT, INSERT, DELETE ON app.products TO app});
ok($node->wait_ready('shop', "app.$_"), "$_ is ready") foreach qw(products counters);

sub calls { return sql('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM app.calls'); }
sub fetch { my ($key, $what) = @_; $what //= 'value'; return sql("SELECT $what FROM kafka_cache.fetch('app.products', '$key')"); }
# Of an organization from 20 to 60.
sub value_of { my ($org) = @_; return qq([{"n": $org, "type": "x"}]); }
sub in_topic { my %rows = fold($kafka, 'per_org'); return $rows{ $_[0] }; }

# --- a value, by key ------------------------------------------------------------------------------------------

is(fetch(1), '[{"n": 2, "type": "app"}, {"n": 3, "type": "web"}]', 'a value is computed');
is(in_topic(1), '[{"type":"app","n":2},{"type":"web","n":3}]', '... and is in the topic');
is(sql('SELECT rows FROM app.products WHERE org = 1'), fetch(1), '... and is read by SELECT');
is(sql('SELECT _offset FROM app.products WHERE org = 1'), fetch(1, '"offset"'), '... in that version');
is(calls(), 1, '... and was computed once');
is(sql(q{SELECT key, value, sqlstate, message FROM kafka_cache.fetch_many('app.products', '{2,-1,1,77,what}')}),
	join("\n", '2|[{"n": 7, "type": "web"}]||', '-1||KC001|an organization that is none', '1|[{"n": 2, "type": "app"}, {"n": 3, "type": "web"}]||', '77|||',
		'what||22P02|invalid input syntax for type integer: "what"'),
	'many: a value or an error for each');
ok(!defined in_topic(-1), '... errors are not kept');

# --- definitions are dumped and restored ----------------------------------------------------------------------

my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-F', 'c', '-f', $dump, 'shop' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '-e', '-1', '-h', $node->host, '-p', $node->port, '-d', 'restored', $dump ], '... and pg_restore, in one transaction');
ok($node->wait_ready('restored', 'app.products'), '... bring the product');
is($node->safe_psql('restored', q{SELECT value FROM kafka_cache.fetch('app.products', '1')}), fetch(1), '... what was computed');
is($node->safe_psql('restored', q{SELECT option_name, option_value FROM pg_foreign_table, pg_options_to_table(ftoptions) WHERE ftrelid = 'app.products'::regclass ORDER BY 1}),
	sql(q{SELECT option_name, option_value FROM pg_foreign_table, pg_options_to_table(ftoptions) WHERE ftrelid = 'app.products'::regclass ORDER BY 1}),
	'... and its options');
$node->safe_psql('restored', q{SELECT kafka_cache.purge('app.products', '{77}'); DELETE FROM app.sessions; INSERT INTO app.sessions VALUES (77, 'here', 1)});
is($node->safe_psql('restored', q{SELECT value FROM kafka_cache.fetch('app.products', '77')}), '[{"n": 1, "type": "here"}]', '... which is computed there');
# A scan, since a lookup that comes too early computes the key here, and the later record is the one that counts.
ok($node->wait_for('shop', "SELECT rows = '[{\"n\": 1, \"type\": \"here\"}]' FROM app.products WHERE org + 0 = 77"), '... and read here');
$node->safe_psql('postgres', 'DROP DATABASE restored');

# --- once, however many ask -----------------------------------------------------------------------------------

sub at_once_in_shop
{
	my @scripts = @_;
	return map {
		my $script = $_;
		beside(sub { my ($status, $out, $err) = $node->psql('shop', "\\set VERBOSITY verbose\n$script", on_error_stop => 1); print "$status\t$out\t$err" })
	} @scripts;
}

# Until so many sessions wait for the lock of the gate, or for who waits for it.
sub waiting
{
	my ($n) = @_;
	return $node->wait_for('shop', "SELECT count(*) = $n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'shop' AND query ~ 'fetch|products'");
}

my $gate = $node->background_psql('shop');
$gate->query_safe('SELECT pg_advisory_lock(10)');
sql(q{INSERT INTO app.sessions VALUES (10, 'web', 1), (11, 'web', 1), (12, 'web', 1)});
my $before = calls();
my @sessions = at_once_in_shop(
	((q{SELECT "offset", value FROM kafka_cache.fetch('app.products', '10')}) x 10),
	((q{SELECT _offset, rows FROM app.products WHERE org = 10}) x 5),
	((q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM app.sessions WHERE n < 0 \gset
	SELECT p._offset, p.rows FROM app.sessions s JOIN app.products p USING (org) WHERE s.org = 10}) x 3));
ok(waiting(18), 'eighteen sessions ask for a key that is missing');
is(sql(q{SET statement_timeout = '20s'; SELECT value FROM kafka_cache.fetch('app.products', '11')}), '[{"n": 1, "type": "web"}]', '... another key is not held up');
my $told = told($node, q{SET statement_timeout = '100ms'; SELECT * FROM kafka_cache.fetch('app.products', '10')}, database => 'shop');
is($told->{state}, '57014', '... who has no time gives up');
$told = told($node, q{SET lock_timeout = '100ms'; SELECT * FROM kafka_cache.fetch('app.products', '10')}, database => 'shop');
is($told->{state}, '55P03', '... by lock_timeout too');
$gate->query_safe('SELECT pg_advisory_unlock(10)');
ok($_->succeeded, 'an answer') foreach @sessions;
my %answers = map { ($_->output => 1) } @sessions;
is(scalar(keys %answers), 1, 'they have one answer, of one version') or diag(join '', keys %answers);
is(calls() - $before, 2, '... which was computed once');
my @records = grep { $_->{key} eq '10' } $kafka->read_topic('per_org');
is(scalar(@records), 1, '... and put once');

# Who computes is terminated: one of the others does it.
$gate->query_safe('SELECT pg_advisory_lock(12)');
$before = calls();
my ($leader) = at_once_in_shop(q{SET application_name = 'leader'; SELECT value FROM kafka_cache.fetch('app.products', '12')});
ok(waiting(1), 'a session computes');
@sessions = at_once_in_shop((q{SELECT "offset", value FROM kafka_cache.fetch('app.products', '12')}) x 3);
ok(waiting(4), '... others wait for it');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'leader'});
$leader->succeeded;
like($leader->output, qr/57P01/, '... it is terminated');
ok(waiting(3), '... another one takes over');
$gate->query_safe('SELECT pg_advisory_unlock(12)');
ok($_->succeeded, '... an answer') foreach @sessions;
%answers = map { ($_->output => 1) } @sessions;
is(scalar(keys %answers), 1, '... one and the same') or diag(join '', keys %answers);
is(calls() - $before, 2, '... computed a second time, and no more');
# An error is everybody's.
$gate->query_safe('SELECT pg_advisory_lock(-5)');
$before = calls();
@sessions = at_once_in_shop((q{SELECT value FROM kafka_cache.fetch('app.products', '-5')}) x 4);
ok(waiting(4), 'four ask for what fails');
$gate->query_safe('SELECT pg_advisory_unlock(-5)');
$_->succeeded foreach @sessions;
is(scalar(grep { $_->output =~ /KC001/ } @sessions), 4, '... and are told so');
is(calls() - $before, 1, '... after one attempt');

# --- stale, expired, not primed -------------------------------------------------------------------------------

# Records may be given their time: as if they had been computed then.
$kafka->produce('per_org', 0, '20', '["old"]', at => (time - 5400) * 1000);
$kafka->produce('per_org', 0, '21', '["older"]', at => (time - 9000) * 1000);
$kafka->produce('per_org', 0, '22', 'null', at => (time - 1800) * 1000);
$kafka->produce('per_org', 0, '23', 'null', at => (time - 4000) * 1000);
ok($node->catch_up('shop', 'app.products', $kafka, 'per_org'), 'records of other times');
$gate->query_safe('SELECT pg_advisory_lock(20)');
$before = calls();
is(sql(q{SET statement_timeout = '30s'; SELECT value, stale, "offset" IS NOT NULL FROM generate_series(20, 20 + 2) g, kafka_cache.fetch('app.products', least(g, 20)::text)}), join("\n", ('["old"]|t|t') x 3), 'stale ones are served');
is(fetch(20, 'computed_at < now() - interval \'1 hour\''), 't', '... and say how old they are');
is(calls(), $before, '... without computing');
is(sql(q{SELECT relation, key, requests, attempts FROM kafka_cache.refresh_queue}), 'app.products|20|4|0', '... a refresh is asked for, once for a key');
is(sql(q{SELECT rows FROM app.products WHERE org = 20}), '["old"]', '... by SELECT too');
is(sql(q{SELECT requests FROM kafka_cache.refresh_queue}), 5, '... which counts');
$gate->query_safe('SELECT pg_advisory_unlock(20)');
is(fetch(21), value_of(21), 'one that is too old is computed anew');
is(fetch(22, 'value IS NULL AND NOT stale'), 't', 'nothing is remembered');
is(fetch(23), value_of(23), '... as long as it may be');
is(calls() - $before, 2, '... and then computed');
sql(q{ALTER FOREIGN TABLE app.products OPTIONS (ADD prime_on_miss 'false')});
$told = told($node, q{SELECT * FROM kafka_cache.fetch('app.products', '30')}, database => 'shop');
is($told->{state}, 'P0002', 'where nothing is computed on a miss, that is an error');
is(sql(q{SELECT sqlstate FROM kafka_cache.fetch_many('app.products', '{1, 30}')}), "\nP0002", '... of that key only');
is(calls() - $before, 2, '... and nothing is computed');
sql(q{ALTER FOREIGN TABLE app.products OPTIONS (DROP prime_on_miss)});

# --- versions -------------------------------------------------------------------------------------------------

my $version = sql(q{SET ROLE app; SELECT kafka_cache.set('app.products', '{40}', '["by hand"]')});
is(fetch(40, '"offset"'), $version, 'what is set is fetched, in its version');
is(fetch(40), '["by hand"]', '... by others too');
is(in_topic(40), '["by hand"]', '... and is in the topic');
$told = told($node, "SELECT kafka_cache.purge('app.products', '{40}', @{[ $version + 1 ]})", database => 'shop');
is($told->{state}, '40001', 'purge with another version is refused');
like($told->{err}, qr/Its offset is $version\./, '... which is told');
is(fetch(40), '["by hand"]', '... and changes nothing');
is(sql("SELECT kafka_cache.purge('app.products', '{40}', $version)"), 't', '... with the right one it is gone');
ok(!defined in_topic(40), '... from the topic');
is(fetch(40), value_of(40), '... and the next fetch computes it');
sql(q{SELECT kafka_cache.set('app.products', '{41}', to_jsonb(n)) FROM generate_series(1, 100) n});
my @versions = map { $_->{offset} } grep { $_->{key} eq '41' } $kafka->read_topic('per_org');
is(fetch(41), 100, 'a hundred are set');
is($versions[-1], fetch(41, '"offset"'), '... the last is the one that is fetched');
is(join(' ', @versions), join(' ', sort { $a <=> $b } @versions), '... their versions grow');

# INSERT sets and DELETE purges, in versions like those.
is(sql(q{SET ROLE app; INSERT INTO app.products (org, rows) VALUES (42, '["inserted"]'); SELECT value FROM kafka_cache.fetch('app.products', '42')}), '["inserted"]', 'INSERT sets');
$told = told($node, q{SELECT kafka_cache.set('app.products', '{42}', '1', -1)}, database => 'shop');
is($told->{state}, '40001', '... a version');
is(sql(q{SET ROLE app; DELETE FROM app.products WHERE org = 42; SELECT value FROM kafka_cache.fetch('app.products', '42')}), value_of(42), 'DELETE purges');

# Many sessions count by comparing: none is lost, none counted twice. The consumer is slow at times, slower than
# anybody waits for who has put.
sql(q{CREATE PROCEDURE app.count(key text, times int) LANGUAGE plpgsql AS $$
DECLARE
	now record;
	done int := 0;
BEGIN
	WHILE done < times LOOP
		SELECT value, "offset" INTO now FROM kafka_cache.fetch('app.counters', key);
		BEGIN
			PERFORM kafka_cache.set('app.counters', ARRAY[key], to_jsonb(now.value::int + 1), now."offset");
			done := done + 1;
		EXCEPTION WHEN serialization_failure THEN
		END;
		COMMIT;
	END LOOP;
END $$});
my $consumer = sql(q{SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'shop'});
my $slow = beside(
	sub {
		while (1)
		{
			kill 'STOP', $consumer;
			select undef, undef, undef, 1.2;
			kill 'CONT', $consumer;
			select undef, undef, undef, 0.5;
		}
	});
@sessions = at_once_in_shop((q{CALL app.count('many', 4)}) x 4);
ok($_->succeeded && $_->output =~ /\A0\t/, 'a session has counted') or diag($_->output) foreach @sessions;
$slow->stop;
kill 'CONT', $consumer;
is(sql(q{SELECT value FROM kafka_cache.fetch('app.counters', 'many')}), 16, 'four sessions count to sixteen by versions');

# --- Kafka is away --------------------------------------------------------------------------------------------

$kafka->broker(1, 'kill');
$before = calls();
my ($status, $out, $err) = $node->psql('shop', q{SELECT value, "offset", stale FROM kafka_cache.fetch('app.products', '2')});
is($out, '[{"n": 7, "type": "web"}]|' . fetch(2, '"offset"') . '|f', 'Kafka is away: what is in memory is read');
($status, $out, $err) = $node->psql('shop', q{SELECT value, "offset", stale FROM kafka_cache.fetch('app.products', '50')});
is($out, value_of(50) . '||f', '... what is missing is computed, and has no version');
like($err, qr/WARNING:  computed row of "(?:app\.)?products" was not kept/, '... with a warning');
is(sql(q{SET client_min_messages = error; SELECT string_agg(value::text, ' ') FROM kafka_cache.fetch_many('app.products', '{51, 52, 1}')}), join(' ', value_of(51), value_of(52), '[{"n": 2, "type": "app"}, {"n": 3, "type": "web"}]'), '... many likewise');
$told = told($node, q{SET kafka_cache.produce_timeout = '1s'; SELECT kafka_cache.set('app.products', '{2}', '1')}, database => 'shop');
like($told->{state}, qr/^0800[67]$/, '... set says that it is not done');
$told = told($node, q{SET kafka_cache.produce_timeout = '1s'; SELECT kafka_cache.purge('app.products', '{1}')}, database => 'shop');
like($told->{state}, qr/^0800[67]$/, '... nor is purge');
$kafka->broker(1, 'start');
ok(eventually(sub { my ($s, $o, $e) = $node->psql('shop', q{SELECT "offset" IS NOT NULL FROM kafka_cache.fetch('app.products', '50')}); return $o eq 't' }), 'it is back: what is computed is kept');
ok($node->wait_for('shop', q{SELECT kafka_cache.set('app.products', '{60}', '6') IS NOT NULL}), '... and set');
is(fetch(60), 6, '... and fetched');

$gate->quit;
balanced($node, 'at the end', 'shop');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
