# Data products and the transactions of those who read them: what is not committed is nobody else's, and what a
# function leaves behind is nobody's.
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

sub records { my ($topic, $key) = @_; return join ' ', map { $_->{payload} } grep { $_->{key} eq $key } $kafka->read_topic($topic); }

one(q{
CREATE TABLE source (k int PRIMARY KEY, v int);
INSERT INTO source SELECT i, i FROM generate_series(1, 100) i;
CREATE FUNCTION of_source(k int) RETURNS int LANGUAGE sql STABLE AS 'SELECT v FROM public.source s WHERE s.k = $1';
CREATE TABLE calls (k int);
CREATE FUNCTION of_source_logged(k int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN INSERT INTO public.calls VALUES (k); RETURN (SELECT v FROM public.source s WHERE s.k = $1); END $$;
CREATE FUNCTION of_settings(k int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM set_config('work_mem', '123MB', false), set_config('search_path', 'evil', false); RETURN 1; END $$;
});
product('p', 'of_source');
product('volatile', 'of_source_logged');
product('settings', 'of_settings');

# --- settings ------------------------------------------------------------------------------------------
is(one("SELECT value FROM settings WHERE k = 1; SHOW work_mem; SHOW search_path"), qq{1\n4MB\n"\$user", public}, 'a function changes no settings of who reads');

# --- a statement that writes ---------------------------------------------------------------------------
for my $p ('p', 'volatile')
{
	my $first = $p eq 'p' ? 1 : 11;
	my ($a, $b, $c) = ($first, $first + 1, $first + 2);

	is(one("BEGIN; WITH changed AS (UPDATE source SET v = v + 1000 WHERE k IN ($a, $b) RETURNING k)
		SELECT count(p.value) FROM changed c JOIN $p p ON p.k = c.k; SELECT value FROM $p WHERE k = $c; ROLLBACK"), "2\n$c", "$p: read by a statement that writes");
	is(one("SELECT string_agg(value::text, ' ' ORDER BY k) FROM $p WHERE k IN ($a, $b, $c)"), "$a $b $c", '... what is not committed is shown to nobody');
	is(join(',', map { records($p, $_) } $a, $b, $c), "$a,$b,$c", '... nor kept');
}

# --- a fixed snapshot ----------------------------------------------------------------------------------

is(one(q{
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	SELECT value FROM p WHERE k = 50;
	UPDATE source SET v = -v WHERE k > 49;
	SELECT value FROM p WHERE k = 50;
	SAVEPOINT s;
	UPDATE source SET v = v - 1000 WHERE k = 51;
	SELECT value FROM p WHERE k = 51;
	ROLLBACK TO s;
	SELECT value FROM p WHERE k = 51;
	ROLLBACK;
	SELECT value FROM p WHERE k = 51}), "50\n50\n-1051\n-51\n51", 'what was computed is told again, what was rolled back is not');

# --- a drop that fails -----------------------------------------------------------------------------------

# What it has noted must not be taken up by a command of a later transaction.
one(q{
CREATE FUNCTION keys(old source, new source) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT coalesce((old).k, (new).k)';
SELECT kafka_cache.refresh_on('p', 'source', 'public.keys(source, source)'::regprocedure);
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF tg_tag = 'DROP FOREIGN TABLE' THEN RAISE 'not now'; END IF; END $$;
CREATE EVENT TRIGGER refuse ON sql_drop EXECUTE FUNCTION refuse();
CREATE FUNCTION create_deep(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF n > 0 THEN
		PERFORM create_deep(n - 1);
	ELSE
		CREATE TEMP TABLE deep ();
	END IF;
EXCEPTION WHEN division_by_zero THEN
	RAISE;
END $$;
});
for my $n (1, 10, 100)
{
	my ($code, $out, $err) = $node->psql('postgres', "DROP FOREIGN TABLE p; SELECT create_deep($n)", on_error_stop => 0, timeout => 30);

	like($err, qr/not now/, "a product that is not dropped after all: $n");
	is(one("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'kafka_cache_refresh_%'"), '4', '... is refreshed as before');
}

done_testing();
