# Data products on a miss: computed once however many ask, also while Kafka is away; what ends a computation, who goes
# on then; and what is not kept, since it would be another's truth.
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
my $node = KafkaCache::Cluster->new('main', conf => { max_connections => 240, deadlock_timeout => '100ms' });
$node->start;
$node->connect_kafka('postgres', $kafka, reconnect_backoff_max_ms => 200);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Each product has a function of its own, which waits at the gate and says in the log that it was called.
my $gate = $node->background_psql('postgres');
sub close_gate { $gate->query_safe('SELECT pg_advisory_lock(7)'); return; }
sub open_gate { $gate->query_safe('SELECT pg_advisory_unlock(7)'); return; }

one(q{
CREATE FUNCTION pass(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE LOG 'computing % end', what;
	PERFORM pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7);
END $$;
CREATE TABLE source (k text PRIMARY KEY, v int);
INSERT INTO source SELECT 'k' || i, i FROM generate_series(1, 100) i;
CREATE FUNCTION of_source(k text) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE answer int;
BEGIN
	SELECT s.v INTO answer FROM public.source s WHERE s.k = of_source.k;
	PERFORM public.pass(k);
	RETURN answer;
END $$;
});

sub product
{
	my ($name, %options) = @_;

	$options{compute} //= 'public.of_source';
	my $more = join ', ', map { "$_ '$options{$_}'" } sort keys %options;
	$kafka->topic($name, 2);
	one("CREATE FOREIGN TABLE $name (k text OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true'),
			_offset bigint OPTIONS (offset 'true'), _time timestamptz OPTIONS (timestamp 'true'))
		 SERVER kafka OPTIONS (topic '$name', $more)");
	$node->catch_up('postgres', $name, $kafka) or die "$name is not ready";
	return;
}

sub calls { my ($key) = @_; my @calls = $node->log_text =~ /LOG:  computing \Q$key\E end/g; return scalar @calls; }
sub records { my ($topic, $key) = @_; return grep { $_->{key} eq $key } $kafka->read_topic($topic); }

sub back
{
	$kafka->up;
	ok($node->wait_for('postgres', "SELECT bool_and(state = 'ready') FROM kafka_cache.tables"), 'Kafka is back');
	return;
}

# Sessions that wait for somebody's computation.
my $waiting = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2 AND NOT granted};
my $leading = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2 AND granted AND mode = 'ExclusiveLock'};
my $at_gate = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND objsubid = 1 AND NOT granted};

product('p', negative_ttl => '1h');

# --- once ------------------------------------------------------------------------------------------------

close_gate();
my $crowd = pgbench_beside($node, "SELECT value FROM p WHERE k = 'k1' AND value = '1';\n", clients => 200, transactions => 1);
ok($node->wait_for('postgres', $waiting, '199'), '199 sessions wait for the 200th');
open_gate();
is($crowd->transactions, 200, 'all of them get an answer');
is(calls('k1'), 1, '... for which the function was called once');
is(records('p', 'k1'), 1, '... and one record written');
is(one("SELECT value FROM p WHERE k = 'k1'"), '1', 'it is there for the next one');
is(calls('k1'), 1, '... who does not compute');

is(one("SELECT count(*) FROM p WHERE k = 'nobody'") . one("SELECT count(*) FROM p WHERE k = 'nobody'"), '00', 'nothing');
is(calls('nobody'), 1, '... is remembered, too');
is((records('p', 'nobody'))[0]{payload}, 'null', '... as a document');
is(one("SELECT count(*) FROM p"), '1', '... that a scan does not show');

# --- those who lead are gone --------------------------------------------------------------------------------

sub leader { return one("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2 AND granted AND mode = 'ExclusiveLock'"); }

close_gate();
my @readers = at_once($node, ("SELECT value FROM p WHERE k = 'k2'") x 6);
ok($node->wait_for('postgres', $waiting, '5'), 'one computes, five wait');
ok($node->wait_for('postgres', $at_gate, '1'), '... at the gate');
my $first = leader();
one("SELECT pg_terminate_backend($first)");
ok($node->wait_for('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2 AND granted AND mode = 'ExclusiveLock' AND pid <> $first", '1'),
	'the leader is terminated: another one leads');
ok($node->wait_for('postgres', $at_gate, '1'), '... and computes');
one('SELECT pg_cancel_backend(' . leader() . ')');
ok($node->wait_for('postgres', $waiting, '3') && $node->wait_for('postgres', $at_gate, '1'), 'that one is cancelled: the next');
open_gate();
my @told = map { told_by($_) } @readers;
is(join(' ', sort map { $_->{state} } @told), '    57014 57P01', 'two have lost, four have not');
is(scalar(grep { $_->{out} eq '2' } @told), 4, '... and get the value');
is(calls('k2'), 3, 'three have tried');
is(records('p', 'k2'), 1, 'one has kept it');

# Who does not want to wait any longer, leaves; the others go on waiting.
close_gate();
@readers = at_once($node, "SELECT value FROM p WHERE k = 'k3'");
ok($node->wait_for('postgres', $at_gate, '1'), 'one computes');
is(told($node, "SET statement_timeout = '50ms'; SELECT value FROM p WHERE k = 'k3'")->{state}, '57014', 'statement_timeout ends the waiting');
is(told($node, "SET lock_timeout = '50ms'; SELECT value FROM p WHERE k = 'k3'")->{state}, '55P03', '... and so does lock_timeout');
open_gate();
is(told_by($readers[0])->{out}, '3', '... without harm to who computes');

# --- what the function raises ----------------------------------------------------------------------------------

one(q{
CREATE FUNCTION failing(k text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	PERFORM public.pass(k);
	RAISE EXCEPTION USING MESSAGE = 'no answer', DETAIL = 'There is none.', HINT = 'Ask another.', ERRCODE = '22012';
END $$});
product('f', compute => 'public.failing');
close_gate();
@readers = at_once($node, ("SELECT value FROM f WHERE k = 'wrong'") x 5);
ok($node->wait_for('postgres', $waiting, '4'), 'four wait for a computation that fails');
open_gate();
@told = map { told_by($_) } @readers;
is(join(' ', map { $_->{state} } @told), join(' ', ('22012') x 5), 'all get the error');
is(scalar(grep { $_->{err} =~ /no answer.*DETAIL:  There is none.*HINT:  Ask another/s } @told), 5, '... whole');
is(calls('wrong'), 1, '... of the one call');
is(told($node, "SELECT value FROM f WHERE k = 'wrong'")->{state}, '22012', 'who asks later calls it again');
is(calls('wrong'), 2, '... itself');
is(one(q{
	BEGIN;
	DO $$
	BEGIN
		FOR i IN 1 .. 200 LOOP
			BEGIN
				PERFORM value FROM public.f WHERE k = 'caught';
			EXCEPTION WHEN division_by_zero THEN
				NULL;
			END;
		END LOOP;
	END $$;
	SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
	COMMIT}), '0', 'errors that are caught leave no locks');

# What the table cannot take is an error of the computation, and not written.
one(q{CREATE FUNCTION row_of(k text, OUT a int, OUT b int) LANGUAGE sql STABLE AS 'SELECT 1, NULL::int'});
$kafka->topic('strict', 1);
one(q{CREATE FOREIGN TABLE strict (k text OPTIONS (key 'true') NOT NULL, a int, b int NOT NULL)
	SERVER kafka OPTIONS (topic 'strict', compute 'public.row_of')});
my $told = told($node, "SELECT * FROM strict WHERE k = 'x'");
is($told->{state}, '23502', 'a result that the table cannot take');
like($told->{err}, qr/what was computed is no row of cached table "strict".*Column "b"/s, '... and why');
is(scalar($kafka->read_topic('strict')), 0, '... is not written');

# What Kafka does not take is an answer nevertheless; and reading is enough to compute.
one(q{CREATE FUNCTION large(k text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT repeat('x', 2000000) $$});
product('l', compute => 'public.large');
$told = told($node, "SELECT length(value::text) FROM l WHERE k = 'x'");
is($told->{out}, '2000002', 'a value that is too large for a record');
like($told->{err}, qr/WARNING:.*computed row of "l" was not kept.*DETAIL:  Writing it has failed: .* The record was not written: .*/s, '... is not kept');
is(one("BEGIN READ ONLY; SELECT value FROM p WHERE k = 'k30'; COMMIT"), '30', 'a transaction that only reads computes');
is(records('p', 'k30'), 1, '... and keeps it');

# --- Kafka is away -------------------------------------------------------------------------------------------------

is(one("SELECT value FROM p WHERE k = 'k4'"), '4', 'before Kafka goes away');
$kafka->down;
close_gate();
@readers = at_once($node, ("SELECT value FROM p WHERE k = 'k5'") x 20);
ok($node->wait_for('postgres', $waiting, '19'), 'one computes without Kafka, 19 wait');
open_gate();
@told = map { told_by($_) } @readers;
is(join(' ', map { $_->{out} } @told), join(' ', ('5') x 20), 'all get the answer');
is(scalar(grep { $_->{err} =~ /WARNING:  \w+: computed row of "p" was not kept/ } @told), 20, '... with a warning');
is(calls('k5'), 1, '... of one call');
is(one("SELECT value FROM p WHERE k = 'k4'"), '4', 'what is cached is served without one');
$told = told($node, "SELECT k, value FROM p WHERE k IN ('k6', 'k7', 'k8') ORDER BY k");
is($told->{out}, "k6|6\nk7|7\nk8|8", 'several keys are computed without Kafka');
is(scalar(() = $told->{err} =~ /was not kept/g), 1, '... with one warning');
back();
ok($node->wait_for('postgres', "SELECT _offset IS NOT NULL FROM p WHERE k = 'k6'"), '... what is computed is kept');

# In a statement the same key has the same answer, kept or not.
one(q{CREATE FUNCTION dice(k text) RETURNS double precision LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.random()'});
product('d', compute => 'public.dice');
$kafka->down;
is(one(q{SELECT count(*), count(DISTINCT value) FROM generate_series(1, 50) i, LATERAL (SELECT value FROM d WHERE k = 'd' || (i % 5)) d}),
	'50|5', 'five keys, asked for ten times each, have five values');
is(one(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT value FROM d WHERE k = 'd1' \gset a_
	SELECT value = :'a_value' FROM d WHERE k = 'd1'; COMMIT}), 't', 'in a transaction with a fixed snapshot all its statements have the same');
back();

# --- what is not everybody's truth -----------------------------------------------------------------------------------

# The transaction's own work.
is(one(q{BEGIN; UPDATE source SET v = -10 WHERE k = 'k10'; SELECT value FROM p WHERE k = 'k10'; ROLLBACK}), '-10', 'a transaction sees its own work in what it computes');
is(records('p', 'k10'), 0, '... and keeps it to itself');
is(one("SELECT value FROM p WHERE k = 'k10'"), '10', '... so that the others do not');
ok($node->wait_for('postgres', "SELECT _offset IS NOT NULL AND value = '10' FROM p WHERE k = 'k10'"), '... nor anybody later');

# The consumer may take a moment to notice that the broker was gone, and is back.
my $settled = 0;
for (my $i = 0; $settled < 5 && $i < 100; $i++)
{
	my ($kept) = told($node, "SELECT value FROM p WHERE k = 'settled $i'")->{err} !~ /WARNING/;
	$settled = $kept ? $settled + 1 : 0;
	select undef, undef, undef, 0.2;
}
is($settled, 5, 'computed rows are kept again');

# Functions that write themselves are no reason.
one(q{
CREATE TABLE calls (k text);
CREATE FUNCTION counting(k text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	INSERT INTO public.calls VALUES (k);
	RETURN 'v' || k;
END $$});
product('c', compute => 'public.counting');
is(one("SELECT count(value) FROM generate_series(1, 10) i, LATERAL (SELECT value FROM c WHERE k = 'c' || i) c"), '10', 'a function that writes');
is(scalar($kafka->read_topic('c')), 10, '... what it computes is kept');
is(one("SELECT count(*) FROM calls"), '10', '... and what it writes');

# A computation that takes long, and a row that is put meanwhile: what is put comes after it, and stays.
close_gate();
@readers = at_once($node, "SELECT value FROM p WHERE k = 'k11'");
ok($node->wait_for('postgres', $at_gate, '1'), 'a slow computation');
push @readers, at_once($node, q{INSERT INTO p (k, value) VALUES ('k11', '"put meanwhile"')});
ok($node->wait_for('postgres', $waiting, '1'), '... for which who puts the key waits');
open_gate();
is(join(' ', map { my $told = told_by($_); "$told->{state}$told->{out}" } @readers), '11 ', '... and is done after it');
is(one("SELECT value FROM p WHERE k = 'k11'"), '"put meanwhile"', 'what was put stays');

# ... or is purged: what was computed before does not come back.
close_gate();
product('s', hard_ttl => '1min');
one(q{INSERT INTO s (k, value, _time) VALUES ('k12', '"old"', now() - interval '1 hour'), ('k13', '"old"', now() - interval '1 hour')});
is(one('SELECT count(*) FROM s'), '2', 'rows that are too old are there at once');
@readers = at_once($node, "SELECT value FROM s WHERE k = 'k13'");
ok($node->wait_for('postgres', $at_gate, '1'), '... and computed anew');
push @readers, at_once($node, "DELETE FROM s WHERE k = 'k13'");
ok($node->wait_for('postgres', $waiting, '1'), '... for which who purges the key waits');
open_gate();
is(join(' ', map { my $told = told_by($_); "$told->{state}$told->{out}" } @readers), '13 ', '... and is done after it');
is(one('SELECT k, value FROM s'), 'k12|"old"', 'what was purged is gone');
is(one("SELECT value FROM s WHERE k = 'k13'"), '13', '... and computed for who asks next');
is(one("SELECT value FROM s WHERE k = 'k12'"), '12', 'as is what is too old');

# --- products of products ------------------------------------------------------------------------------------------

one(q{
CREATE FUNCTION doubled(k text) RETURNS int LANGUAGE sql STABLE AS 'SELECT 2 * (value #>> ''{}'')::int FROM public.p WHERE p.k = doubled.k';
});
product('n', compute => 'public.doubled');
is(one("SELECT value FROM n WHERE k = 'k20'"), '40', 'a product of a product');
is(scalar(records('n', 'k20')) . scalar(records('p', 'k20')), '11', '... both are kept');
close_gate();
@readers = at_once($node, "SELECT value FROM n WHERE k = 'k21'", "SELECT value FROM p WHERE k = 'k21'", "SELECT value FROM n WHERE k = 'k21'");
ok($node->wait_for('postgres', $waiting, '2') && $node->wait_for('postgres', $at_gate, '1'), 'the inner one is computed, the others wait');
open_gate();
is(join(' ', map { told_by($_)->{out} } @readers), '42 21 42', '... for one call');
is(calls('k21'), 1, '... of the inner function');

# --- no computing on a miss ------------------------------------------------------------------------------------------

product('q', prime_on_miss => 'false');
$told = told($node, "SELECT value FROM q WHERE k = 'k1'");
is($told->{state}, 'P0002', 'where nothing is computed on a miss, it is an error');
like($told->{err}, qr/HINT: .*prime_on_miss/, '... that says what to do');
one(q{INSERT INTO q (k, value) VALUES ('k1', '"set"')});
is(one("SELECT value FROM q WHERE k = 'k1'"), '"set"', 'what was set is there at once');

is(one($leading), '0', 'nobody leads any more');
$gate->quit;
done_testing();
