# Code that decoding runs: as whom, and what names it finds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'search_path' => 'public' });
$node->start;
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET search_path = public; ALTER ROLE postgres SET search_path = public');
$node->connect_kafka('postgres', $kafka);

# Functions in checks call another by its bare name.
$node->safe_psql('postgres', q{
	CREATE FUNCTION public.positive(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0';
	CREATE FUNCTION bare(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN positive($1); END';
	CREATE FUNCTION itself(int) RETURNS boolean LANGUAGE plpgsql SET search_path = public AS 'BEGIN RETURN positive($1); END';
	CREATE FUNCTION path(text) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN RETURN $1 = current_setting('search_path') || ' ' || current_user; END$$;
	CREATE FUNCTION changes(int) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN PERFORM set_config('search_path', 'public', false); RETURN true; END$$;
	CREATE DOMAIN by_bare_name AS int CHECK (bare(VALUE));
	CREATE DOMAIN by_itself AS int CHECK (itself(VALUE));
	CREATE ROLE owner;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner});
my %columns = (
	in_domain => 'a by_bare_name',
	in_table  => 'a int CHECK (bare(a))',
	itself    => 'a by_itself',
	sees      => 'a text CHECK (path(a))',
	changes   => 'a int CHECK (changes(a))');
foreach my $name (sort keys %columns)
{
	$kafka->topic($name, 1);
	$kafka->produce($name, 0, 'k', $name eq 'sees' ? '{"a": "pg_catalog, pg_temp owner"}' : '{"a": 1}');
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE $name (k text OPTIONS (key 'true'), $columns{$name}) SERVER kafka;
		ALTER FOREIGN TABLE $name OWNER TO owner");
}

sub outcome
{
	my ($name) = @_;

	return $node->catch_up('postgres', $name, $kafka)
	  ? $node->safe_psql('postgres', "SELECT count(*) FROM $name UNION ALL SELECT count(*) FROM kafka_cache.errors WHERE relation = '$name'::regclass AND reason IN ('check', 'convert')")
	  : 'not ready';
}

is(outcome('in_domain'), "0\n1", 'a bare name is not found by the check of a domain');
is(outcome('in_table'), "0\n1", '... nor by that of a table');
is(outcome('itself'), "1\n0", '... but by a function that sets its own search_path');
is(outcome('sees'), "1\n0", 'what it is, and whose the rights are');
is(outcome('changes'), "1\n0", 'one that sets it for its session');
$kafka->produce($_, 0, 'k2', $_ eq 'sees' ? '{"a": "pg_catalog, pg_temp owner"}' : '{"a": 2}') foreach sort keys %columns;
is(outcome('changes'), "2\n0", '... sets it for itself');
is(outcome('in_domain'), "0\n2", '... and for no other table');
is(outcome('sees'), "2\n0", '... whatever that looks at');

# Neither reads nor writes other cached tables: the consumer would wait for itself.
$kafka->topic('apart', 1);
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE public.apart (k text OPTIONS (key 'true') NOT NULL, a int) SERVER kafka OPTIONS (readonly 'false');
	CREATE FOREIGN TABLE public.apart_now (k text OPTIONS (key 'true') NOT NULL, a int) SERVER kafka OPTIONS (topic 'apart', readonly 'false', delivery 'immediate');
	GRANT ALL ON apart, apart_now TO owner;
	CREATE FUNCTION reading(int) RETURNS boolean LANGUAGE sql AS 'SELECT count(*) >= 0 FROM public.apart';
	CREATE FUNCTION writing(int) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO public.apart VALUES ($1, $1); RETURN true; END$$;
	CREATE FUNCTION writing_now(int) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO public.apart_now VALUES ($1, $1); RETURN true; END$$;
	CREATE FUNCTION waiting(int) RETURNS boolean LANGUAGE sql AS $$SELECT kafka_cache.wait_ready('public.apart')$$});
my $consumer = $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
foreach my $name (qw(reading writing writing_now waiting))
{
	$kafka->topic($name, 1);
	$kafka->produce($name, 0, 'k', '{"a": 1}');
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE $name (k text OPTIONS (key 'true'), a int CHECK ($name(a))) SERVER kafka;
		ALTER FOREIGN TABLE $name OWNER TO owner");
	is(outcome($name), "0\n1", "a check that is $name: the record is a bad one");
	like($node->safe_psql('postgres', "SELECT message FROM kafka_cache.errors WHERE relation = '$name'::regclass"), qr/0A000/, '... and says why');
}
is($node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'"), $consumer, 'the consumer goes on');
is($node->catch_up('postgres', 'apart', $kafka) ? $node->safe_psql('postgres', 'SELECT count(*) FROM apart') : 'not ready', '0', 'and has written nothing');
$node->stop;
done_testing();
