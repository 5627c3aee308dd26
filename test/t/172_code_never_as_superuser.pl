# A worker never runs somebody's code with rights of its own: functions in domains, checks, casts, defaults,
# generated columns and triggers say as whom they run, and try to become more. And what comes from outside,
# in records or in names, neither forges lines of the log nor gets into it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }

# Tells the log as whom it runs, by whichever process (%b of its prefix).
one(q{
	CREATE ROLE owner; CREATE ROLE heir; CREATE ROLE writer;
	CREATE SCHEMA app; GRANT USAGE, CREATE ON SCHEMA app TO PUBLIC;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner, heir;
	SET ROLE owner;
	CREATE FUNCTION app.spy(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE LOG 'spy: % as % of %', place, current_user, session_user; RETURN true; END$$;
	CREATE FUNCTION app.spy(place text, given anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN app.spy(place); END';
	CREATE FUNCTION app.spied(place text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM app.spy(place); RETURN place; END';
	CREATE FUNCTION app.spied(given text, place text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM app.spy(place); RETURN given; END';

	CREATE DOMAIN app.constant AS text CHECK (app.spy('constant of a domain'));
	CREATE DOMAIN app.inner_domain AS text CHECK (app.spy('domain', VALUE));
	CREATE DOMAIN app.outer_domain AS app.inner_domain DEFAULT app.spied('default of a domain') CHECK (app.spy('domain of a domain', VALUE));
	CREATE DOMAIN app.key AS text CHECK (app.spy('domain of a key', VALUE));
	CREATE DOMAIN app.nothing AS text CHECK (app.spy('domain of nothing', VALUE));
	CREATE DOMAIN app.element AS int CHECK (app.spy('domain of an element', VALUE));
	CREATE DOMAIN app.member AS int CHECK (app.spy('domain of a member', VALUE));
	CREATE TYPE app.pair AS (a app.member, b text);
	CREATE TYPE app.mood AS ENUM ('fine', 'sad');
	CREATE FUNCTION app.to_mood(text) RETURNS app.mood LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM app.spy('cast to an enum'); RETURN 'fine'; END$$;
	CREATE CAST (text AS app.mood) WITH FUNCTION app.to_mood(text) AS IMPLICIT;
	CREATE FUNCTION app.of_mood(app.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM app.spy('cast to json'); RETURN '"fine"'; END$$;
	CREATE CAST (app.mood AS json) WITH FUNCTION app.of_mood(app.mood);
	CREATE FUNCTION app.to_pair(json) RETURNS app.pair LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM app.spy('cast from json'); RETURN ROW(1, 'b'); END$$;
	CREATE CAST (json AS app.pair) WITH FUNCTION app.to_pair(json) AS IMPLICIT;

	CREATE FOREIGN TABLE app.spies (
		id app.key OPTIONS (key 'true') NOT NULL,
		mood app.mood OPTIONS (key 'true') NOT NULL,
		constant app.constant,
		domain app.outer_domain,
		nothing app.nothing,
		elements app.element[],
		pair app.pair,
		pairs app.pair[],
		absent text DEFAULT app.spied('default'),
		made text GENERATED ALWAYS AS (app.spied(domain, 'generated')) STORED,
		CHECK (app.spy('constant of a check')),
		CHECK (app.spy('check', domain))
	) SERVER kafka OPTIONS (topic 'spies', key_format 'json', readonly 'false', notify 'spies');
	GRANT INSERT, SELECT ON app.spies TO writer;
	CREATE FUNCTION app.trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM app.spy('trigger'); RETURN NEW; END$$;
	CREATE TRIGGER before_row BEFORE INSERT ON app.spies FOR EACH ROW EXECUTE FUNCTION app.trigger();
	CREATE TRIGGER after_row AFTER INSERT ON app.spies FOR EACH ROW EXECUTE FUNCTION app.trigger()});

# What was said since a place in the log: process => { place => { as whom => times } }.
my $from = 0;

sub said
{
	my %said;

	foreach my $line (split /\n/, $node->log_text($from))
	{
		$said{$1}{$2}{$3}++ if $line =~ /\[\d+\] (kafka_cache \w+|client backend|\S+).* LOG:  spy: (.*) as (\w+) of \w+/;
	}
	$from = -s $node->logfile;
	return \%said;
}

# Of those that a kind of process has said, those by another one than this role.
sub others
{
	my ($said, $role) = @_;

	return [ map { my $place = $_; map { "$place as $_" } grep { $_ ne $role } sort keys %{ $said->{$place} } } sort keys %$said ];
}

my $value = '{"constant": "c", "domain": "d", "elements": [1, 2], "pair": {"a": 1, "b": "b"}, "pairs": [{"a": 2}], "mood": "fine"}';
my @run = ('check', 'domain', 'domain of a domain', 'domain of a key', 'domain of a member', 'domain of an element', 'domain of nothing');
my @constants = ('constant of a check', 'constant of a domain');    # run when a plan is made, and no more

sub as_owner
{
	my ($role, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($node->catch_up('postgres', 'app.spies', $kafka, 'spies'), "$what: the table has every record");
	my $said = said();
	my $consumer = $said->{'kafka_cache consumer'};
	is_deeply([ grep { $consumer->{$_} } @run ], \@run, '... the consumer has run the code of its types and checks');
	is_deeply(others($consumer, $role), [], "... as $role");
	is_deeply([ grep { /kafka_cache/ && $_ ne 'kafka_cache consumer' } keys %$said ], [], '... and no other process of ours any');
	return $consumer;
}

# --- as whom --------------------------------------------------------------------------------------------

$kafka->topic('spies', 1);
$kafka->produce('spies', 0, '{"id": "1", "mood": "fine"}', $value);
my $consumer = as_owner('owner', 'a load');
is_deeply([ grep { $consumer->{$_} } @constants ], \@constants, '... also what is run before there is any record');
is_deeply([ grep { /cast|default|generated/ } keys %$consumer ], [], '... casts, defaults and expressions of columns are not run');
is(one('SELECT count(*) FROM app.spies'), '1', '... the row is there');
$kafka->produce('spies', 0, '{"id": "2", "mood": "sad"}', $value);
as_owner('owner', 'a record');
one("SELECT kafka_cache.reload('app.spies')");
$node->wait_for('postgres', "SELECT reloads = 1 FROM kafka_cache.tables WHERE relation = 'app.spies'::regclass");
as_owner('owner', 'a reload');
one("GRANT owner TO heir; ALTER FOREIGN TABLE app.spies OWNER TO heir");
$node->wait_for('postgres', "SELECT 1 FROM pg_class WHERE oid = 'app.spies'::regclass AND relowner = 'heir'::regrole", '1');
one("ALTER FOREIGN TABLE app.spies ADD COLUMN later text, ADD CHECK (app.spy('another constant'))");
$kafka->produce('spies', 0, '{"id": "3", "mood": "sad"}', $value);
$consumer = as_owner('heir', 'another owner and another definition');
ok($consumer->{'another constant'}, '... a check that was added');
$from = 0;
my $all = said()->{'kafka_cache consumer'};
is_deeply([ sort grep { !/ as (owner|heir)$/ } map { my $place = $_; map { "$place as $_" } keys %{ $all->{$place} } } keys %$all ], [],
	'nothing else was run in all that time, nor for those who listen');
one("ALTER FOREIGN TABLE app.spies OWNER TO postgres");
$kafka->produce('spies', 0, '{"id": "4", "mood": "sad"}', $value);
ok($node->catch_up('postgres', 'app.spies', $kafka, 'spies'), 'a superuser who owns it');
one("ALTER FOREIGN TABLE app.spies OWNER TO owner");
$kafka->produce('spies', 0, '{"id": "5", "mood": "sad"}', $value);
$node->catch_up('postgres', 'app.spies', $kafka, 'spies');
said();
$kafka->produce('spies', 0, '{"id": "6", "mood": "sad"}', $value);
as_owner('owner', 'and the first one again');

# Who writes runs it in the own session, with the own rights.
$node->safe_psql('postgres', "SET ROLE writer; INSERT INTO app.spies (id, mood, constant, domain, elements, pair) VALUES ('w', 'fine', 'c', 'd', '{1}', '(1,b)')");
ok($node->catch_up('postgres', 'app.spies', $kafka, 'spies'), 'a write comes back');
my $said = said();
is_deeply(others($said->{'client backend'}, 'writer'), [], '... the session runs code as who writes');
ok($said->{'client backend'}{$_}, "... $_") foreach ('trigger', 'default', 'generated', 'check');
is_deeply(others($said->{'kafka_cache consumer'}, 'owner'), [], '... the consumer as the owner');
ok(!$said->{'kafka_cache producer'}, '... the producer none');

# --- trying to become more ------------------------------------------------------------------------------

# Each is run by a check; what it got is in the log.
my %tries = (
	role          => "PERFORM set_config('role', 'postgres', false)",
	session       => "PERFORM set_config('session_authorization', 'postgres', false)",
	reset_role    => 'RESET ROLE',
	reset_session => 'RESET SESSION AUTHORIZATION',
	superuser     => 'ALTER ROLE owner SUPERUSER',
	temporary     => 'CREATE TEMP TABLE mine (id int)',
	deferred      => 'INSERT INTO app.deferred VALUES (1)',
	held          => "EXECUTE 'DECLARE mine CURSOR WITH HOLD FOR SELECT app.spy(''cursor'')'",
	program       => "COPY (SELECT 1) TO PROGRAM 'true'",
	file          => "PERFORM pg_read_file('postgresql.conf')",
	terminate     => 'PERFORM pg_terminate_backend(pg_backend_pid())',
	setting       => "ALTER SYSTEM SET kafka_cache.databases = ''",
	mapping       => "PERFORM 1 / (SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL)",
	library       => "LOAD '/nowhere'",
	other_table   => 'PERFORM id FROM app.of_superuser');
my %expected = (
	(map { $_ => '42501' } keys %tries),
	temporary => '42501', session => '42501', mapping => '22012', setting => '25001|42501', terminate => '42501');

one(q{
	CREATE TABLE app.of_superuser (id int);
	CREATE TABLE app.deferred (id int); ALTER TABLE app.deferred OWNER TO owner;
	CREATE SERVER secrets FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'localhost:1', security_protocol 'sasl_ssl', sasl_mechanism 'PLAIN');
	CREATE USER MAPPING FOR postgres SERVER secrets OPTIONS (username 'canary', password 'canary');
	CREATE FUNCTION app.forbidden() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN RAISE LOG 'forbidden: it runs'; RETURN true; END$$;
	CREATE FUNCTION app.forbidden_constant() RETURNS boolean LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS $$BEGIN RAISE LOG 'forbidden: it runs'; RETURN true; END$$;
	REVOKE ALL ON FUNCTION app.forbidden, app.forbidden_constant FROM PUBLIC;
	SET ROLE owner;
	CREATE FUNCTION app.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM app.spy('deferred trigger'); RETURN NULL; END$$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.late()});
foreach my $try (sort keys %tries)
{
	$kafka->topic($try, 1);
	$kafka->produce($try, 0, 'k', 'v');
	one("SET ROLE owner;
		CREATE FUNCTION app.try_$try() RETURNS boolean LANGUAGE plpgsql AS \$\$
		BEGIN
			$tries{$try};
			RAISE LOG 'try $try: it worked, as % of %', current_user, session_user;
			RETURN true;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'try $try: %', SQLSTATE;
			RETURN true;
		END\$\$;
		CREATE FOREIGN TABLE app.tried_$try (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'), CHECK (app.try_$try()))
			SERVER kafka OPTIONS (topic '$try', format 'text')");
}
foreach my $try (sort keys %tries)
{
	ok($node->catch_up('postgres', "app.tried_$try", $kafka, $try), "who tries $try is served");
	my %got = map { $_ => 1 } $node->log_text =~ /kafka_cache consumer LOG:  try $try: (\w+)/g;
	like(join('|', sort keys %got), qr/^($expected{$try})$/, '... and gets nothing by it');
}
is(one("SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'"), 'f', 'the owner is no superuser');
is_deeply(others(said()->{'kafka_cache consumer'}, 'owner'), [], 'nothing was run as another one');

# A function that the owner may not call, though a check of the table names it.
foreach my $function (qw(forbidden forbidden_constant))
{
	$kafka->topic($function, 1);
	$kafka->produce($function, 0, 'k', 'v');
	one("SET ROLE owner; CREATE FOREIGN TABLE app.calls_$function (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'), CHECK (app.$function()))
		SERVER kafka OPTIONS (topic '$function', format 'text')");
	ok($node->wait_for('postgres', "SELECT state = 'failed' OR errors = 1 FROM kafka_cache.tables WHERE relation = 'app.calls_$function'::regclass"),
		"a check that calls $function() does not work");
}
unlike($node->log_text, qr/forbidden: it runs/, '... and does not call it');

# --- the log --------------------------------------------------------------------------------------------

my $forged = "x\n2026-01-01 00:00:00.000 UTC [1] postmaster LOG:  FORGED";
$kafka->topic('forged', 1);
$kafka->produce('forged', 0, $forged, $forged);
$kafka->produce('forged', 0, "canary-key $forged", "{\"n\": \"canary-value $forged\"}");
$kafka->produce('forged', 0, 'canary-key', '{"n": "canary-value"}', headers => [ $forged, $forged ]);
$kafka->produce('forged', 0, 'canary-key-2', '{"t": "canary-value"}');
$kafka->produce('forged', 0, 'canary-key-3', '{"n": 5, "canary-value": ');
one(qq{SET ROLE owner;
	CREATE FUNCTION app.tells(text) RETURNS boolean LANGUAGE plpgsql AS \$\$BEGIN RAISE EXCEPTION 'tells %', \$1 USING DETAIL = \$1, HINT = \$1; END\$\$;
	CREATE FOREIGN TABLE app."$forged" (key text OPTIONS (key 'true') NOT NULL, n int, t text,
		CONSTRAINT "$forged" CHECK (t IS NULL OR app.tells(t))) SERVER kafka OPTIONS (topic 'forged')});
my $oid = one("SELECT oid FROM pg_class WHERE relname ~ 'FORGED'");
ok($node->catch_up('postgres', $oid, $kafka, 'forged'), 'a table whose name and records look like lines of the log');
is(one("SELECT count(*) FROM kafka_cache.errors WHERE relation = $oid"), '5', '... its records are bad ones');
is(one("SELECT count(*) FROM kafka_cache.errors e WHERE relation = $oid AND e::text ~ 'canary'"), '0', '... of which nothing is shown');
one("ALTER FOREIGN TABLE app.\"$forged\" OPTIONS (ADD max_bytes '64kB')");
one("SELECT kafka_cache.reload(${oid}::regclass)");
$node->safe_psql('postgres', "CREATE DATABASE \"$forged\"");
(my $connection = $node->connstr) =~ s/dbname=\S+//;
my $name = $forged =~ s/([\\'])/\\$1/gr;
$node->safe_psql('postgres', 'SELECT 1', connstr => "$connection dbname='$name'");
$node->safe_psql('postgres', 'CREATE EXTENSION kafka_cache_fdw', connstr => "$connection dbname='$name'");
ok($node->wait_for('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'kafka_cache consumer' AND datname ~ 'FORGED'"),
	'... a database, too');
$node->safe_psql('postgres', "DROP DATABASE \"$forged\"");
$node->stop;
my @lines = split /\n/, $node->log_text;
is_deeply([ grep { /^2026-01-01/ } @lines ], [], 'no line of the log is forged');
is_deeply([ grep { !/^(\d{4}-\d\d-\d\d |\t)/ } @lines ], [], '... each begins as it should, or is indented');
is_deeply([ grep { /canary/ && !/CREATE|STATEMENT|canary', password/ } @lines ], [], 'neither keys nor values are in it');
unlike($node->log_text, qr/terminated by signal|was not properly shut down/, 'nothing crashed');
done_testing();
