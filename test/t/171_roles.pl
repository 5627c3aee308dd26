# Who may do what: every function, view and setting of the extension, and every statement on a table, for
# every kind of role. The objects come from the catalogs, what is expected of each from the tables here:
# one that is not in them fails.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.wait_timeout' => '1s' });
$node->start;
$kafka->topic($_, 1) foreach qw(orders others computed);
$kafka->produce('orders', 0, 'key', '{"value": "value"}');
$kafka->produce('orders', 0, 'bad', '{');
$kafka->produce('others', 0, 'key', '{"value": "value"}');
$kafka->produce('others', 0, 'bad', '{');
$node->connect_kafka('postgres', $kafka);

# Each kind of role, and how it comes to be one. The heir would have to SET ROLE first.
my @actors = qw(superuser monitor owner member heir reader column_reader key_reader all_reader writer server_owner stranger);
my $columns = "key text OPTIONS (key 'true') NOT NULL, value text";
$node->safe_psql('postgres', qq{
	CREATE ROLE superuser LOGIN SUPERUSER;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	CREATE ROLE owner LOGIN;
	CREATE ROLE member LOGIN IN ROLE owner;
	CREATE ROLE heir LOGIN NOINHERIT IN ROLE owner;
	CREATE ROLE reader LOGIN;
	CREATE ROLE column_reader LOGIN;
	CREATE ROLE key_reader LOGIN;
	CREATE ROLE all_reader LOGIN IN ROLE pg_read_all_data;
	CREATE ROLE writer LOGIN;
	CREATE ROLE server_owner LOGIN;
	CREATE ROLE stranger LOGIN;
	CREATE SCHEMA shop;
	GRANT USAGE ON SCHEMA shop TO PUBLIC;
	GRANT CREATE ON SCHEMA shop TO owner;
	GRANT USAGE ON FOREIGN DATA WRAPPER kafka_cache_fdw TO server_owner;
	ALTER SERVER kafka OWNER TO server_owner;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner;
	CREATE USER MAPPING FOR owner SERVER kafka;
	CREATE SERVER secrets FOREIGN DATA WRAPPER kafka_cache_fdw
		OPTIONS (brokers 'localhost:1', security_protocol 'sasl_ssl', sasl_mechanism 'PLAIN');
	ALTER SERVER secrets OWNER TO server_owner;
	GRANT USAGE ON FOREIGN SERVER secrets TO owner, stranger;
	CREATE USER MAPPING FOR owner SERVER secrets OPTIONS (username 'canary', password 'canary');
	SET ROLE owner;
	CREATE FOREIGN TABLE shop.orders ($columns) SERVER kafka OPTIONS (topic 'orders', readonly 'false', keep_value 'true');
	CREATE FOREIGN TABLE shop.missing ($columns) SERVER secrets;
	GRANT SELECT ON shop.orders, shop.missing TO reader;
	GRANT SELECT (value) ON shop.orders, shop.missing TO column_reader;
	GRANT SELECT (key) ON shop.orders, shop.missing TO key_reader;
	GRANT INSERT ON shop.orders, shop.missing TO writer;
	CREATE FUNCTION shop.compute(key text) RETURNS jsonb LANGUAGE sql STABLE AS \$\$ SELECT to_jsonb(key) \$\$;
	CREATE FOREIGN TABLE shop.computed (key text OPTIONS (key 'true') NOT NULL, value jsonb OPTIONS (value 'true')) SERVER kafka
		OPTIONS (topic 'computed', compute 'shop.compute');
	GRANT SELECT ON shop.computed TO reader;
	GRANT SELECT (value) ON shop.computed TO column_reader;
	GRANT SELECT (key) ON shop.computed TO key_reader;
	GRANT INSERT, DELETE ON shop.computed TO writer;
	RESET ROLE;
	CREATE FOREIGN TABLE shop.others ($columns) SERVER kafka OPTIONS (topic 'others');
	CREATE TABLE shop.ordinary (id int);
	GRANT SELECT ON shop.ordinary TO PUBLIC;
	-- the answer of a query, or its error; of a statement, which leaves nothing behind, whether it may be run
	CREATE FUNCTION answer(query text) RETURNS text LANGUAGE plpgsql AS \$\$
	DECLARE
		answer text;
	BEGIN
		EXECUTE query INTO answer;
		RETURN 'ok ' || COALESCE(answer, 'NULL');
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END\$\$;
	CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		EXECUTE statement;
		RAISE SQLSTATE 'KC000';
	EXCEPTION WHEN OTHERS THEN
		RETURN CASE SQLSTATE WHEN 'KC000' THEN 'ok' ELSE SQLSTATE END;
	END\$\$});
ok($node->catch_up('postgres', "shop.$_", $kafka, $_), "$_ is loaded") foreach qw(orders others computed);
ok($node->wait_for('postgres', "SELECT message ~ 'localhost:1' FROM kafka_cache.tables WHERE relation = 'shop.missing'::regclass"), 'a table has something to say');

# --- what is expected ---------------------------------------------------------------------------------------

# An answer for everybody, and others for some: only('42501', 'ok', 'owner', ...).
sub only
{
	my ($everybody, $answer, @actors) = @_;

	return { (map { $_ => $everybody } @main::all), map { $_ => $answer } @actors };
}
our @all = @actors;

my @owners = qw(superuser owner member);
my @readers = (@owners, qw(reader column_reader key_reader all_reader));
my @seeing = (@owners, 'monitor');
my %everybody = %{ only('ok', 'ok') };

# Of functions on a table: on one with grants, on somebody else's, on one that is not ours, on none.
my %select = (
	'shop.orders'   => only('42501', 'ok', @readers),
	'shop.others'   => only('42501', 'ok', qw(superuser all_reader)),
	'shop.ordinary' => only('42809', '42809'),
	'1'             => only('42P01', '42P01'));
my %keys = (
	'shop.orders'   => only('42501', 'ok', grep { $_ ne 'column_reader' } @readers),
	'shop.others'   => only('42501', 'ok', qw(superuser all_reader)),
	'shop.ordinary' => only('42809', '42809'),
	'1'             => only('42P01', '42P01'));
my %owned = (
	'shop.orders'   => only('42501', 'ok', @owners),
	'shop.others'   => only('42501', 'ok', qw(superuser)),
	'shop.ordinary' => only('42501', '42809', 'superuser'),
	'1'             => only('42P01', '42P01'));

# Of those on a data product.
my @whole = qw(superuser owner member reader all_reader);
my %product = (
	'shop.computed' => only('42501', 'ok', @whole),
	'shop.orders'   => only('42501', '42809', @whole),
	'shop.others'   => only('42501', '42809', qw(superuser all_reader)),
	'shop.ordinary' => only('42809', '42809'),
	'1'             => only('42P01', '42P01'));
my %product_written = (
	'shop.computed' => only('42501', 'ok', @owners, 'writer'),
	'shop.orders'   => only('42501', '42809', @owners),
	'shop.others'   => only('42501', '42809', 'superuser'),
	'shop.ordinary' => only('42501', '42809', 'superuser'),
	'1'             => only('42P01', '42P01'));

# Rows of a table in a view (or function) of many: with %s for the condition on relation; and what is said in words.
sub rows
{
	my ($query, $relation, $message) = @_;
	my @rows = (
		[ sprintf($query, "$relation = 'shop.orders'"), only('ok false', 'ok true', @readers, 'monitor') ],
		[ sprintf($query, "$relation = 'shop.others'"), only('ok false', 'ok true', qw(superuser monitor all_reader)) ]);

	push @rows, [ sprintf($query, "$relation = 'shop.missing' AND $message IS NOT NULL"), only('ok false', 'ok true', @seeing) ]
	  if $message;
	return @rows;
}

sub views_rows { my ($from, @more) = @_; return rows("SELECT (count(*) > 0)::text FROM kafka_cache.$from WHERE %s", @more); }

# Of rules for a product: none of these is one.
my %product_owned = (
	'shop.orders'   => only('42501', '42809', @owners),
	'shop.others'   => only('42501', '42809', qw(superuser)),
	'shop.ordinary' => only('42501', '42809', 'superuser'),
	'1'             => only('42P01', '42P01'));

my %functions = (
	'kafka_cache_fdw_handler()'              => [ [ 'SELECT kafka_cache.kafka_cache_fdw_handler() IS NULL', \%everybody ] ],
	'kafka_cache_fdw_validator(text[],oid)'  => [ [ "SELECT kafka_cache.kafka_cache_fdw_validator('{brokers=localhost}', 'pg_foreign_server'::regclass)", \%everybody ] ],
	'get_tables()'                           => [ views_rows('get_tables()', 'relation::text', 'message') ],
	'get_partitions()'                       => [ views_rows('get_partitions()', 'relation::text') ],
	'get_errors()'                           => [ views_rows('get_errors()', 'relation::text') ],
	'get_metrics()'                          => [ views_rows('get_metrics()', "labels->>'relation'") ],
	'metrics_text()'                         => [
		[ q{SELECT (kafka_cache.metrics_text() ~ 'relation="shop.orders"')::text}, only('ok false', 'ok true', @readers, 'monitor') ],
		[ q{SELECT (kafka_cache.metrics_text() ~ 'relation="shop.others"')::text}, only('ok false', 'ok true', qw(superuser monitor all_reader)) ] ],
	'get_workers()'                          => [
		[ "SELECT (count(*) > 1)::text FROM kafka_cache.get_workers()", only('ok true', 'ok true') ],
		[ "SELECT (count(message) > 0)::text FROM kafka_cache.get_workers()", only('ok false', 'ok true', qw(superuser monitor)) ] ],
	'settings()'                             => [ [ 'SELECT count(*) FROM kafka_cache.settings()', \%everybody ] ],
	'wait_ready(regclass,interval)'          => [ \%select, "SELECT kafka_cache.wait_ready(%s, '0')" ],
	'"position"(regclass)'                   => [ \%select, 'SELECT kafka_cache.position(%s)' ],
	'wait_for(regclass,jsonb,interval)'      => [ \%select, q{SELECT kafka_cache.wait_for(%s, '{"0": 0}', '0')} ],
	'wait_for_change(regclass,jsonb,interval)' => [ \%select, q{SELECT kafka_cache.wait_for_change(%s, '{"0": -1}', '0')} ],
	'changes(regclass,jsonb)'                => [ \%keys, q{SELECT count(*) FROM kafka_cache.changes(%s, kafka_cache.position(%1$s))} ],
	'refresh(regclass,text[])'               => [ {
			'shop.orders'   => only('42501', '42809', grep { $_ ne 'column_reader' } @readers),
			'shop.others'   => only('42501', '42809', qw(superuser all_reader)),
			'shop.ordinary' => only('42809', '42809'),
			'1'             => only('42P01', '42P01') }, "SELECT kafka_cache.refresh(%s, 'key')" ],
	'get_refresh_queue()'                    => [ [ 'SELECT count(*) FROM kafka_cache.get_refresh_queue()', only('ok 0', 'ok 0') ] ],
	'reload(regclass)'                       => [ \%owned, 'SELECT kafka_cache.reload(%s)' ],
	'"fetch"(regclass,text[])'               => [ \%product, q{SELECT value FROM kafka_cache.fetch(%s, 'key')} ],
	'fetch_many(regclass,text[])'            => [ \%product, q{SELECT value FROM kafka_cache.fetch_many(%s, '{key}')} ],
	'set(regclass,text[],jsonb,bigint)'      => [ { %product_written, 'shop.orders' => only('42501', '42809', @owners, 'writer') }, q{SELECT kafka_cache.set(%s, '{key}', '"set"')} ],
	'purge(regclass,text[],bigint)'          => [ \%product_written, q{SELECT kafka_cache.purge(%s, '{other}')} ],
	'refresh_on(regclass,regclass,regprocedure)' => [ \%product_owned, q{SELECT kafka_cache.refresh_on(%s, %s, 'now()'::regprocedure)} ],
	'refresh_on(regclass,regclass,text)'     => [ \%product_owned, q{SELECT kafka_cache.refresh_on(%s, %s, 'now')} ],
	'refresh_off(regclass,regclass)'         => [ \%product_owned, 'SELECT kafka_cache.refresh_off(%s, %s)' ],
	'rules_changed()'                        => [ [ 'SELECT kafka_cache.rules_changed()', only('39P01', '39P01') ] ],
	'log_changes()'                          => [ [ 'SELECT kafka_cache.log_changes()', only('39P01', '39P01') ] ]);

my %views = (
	tables     => [ views_rows('tables', 'relation::text', 'message') ],
	partitions => [ views_rows('partitions', 'relation::text') ],
	errors     => [
		views_rows('errors', 'relation::text'),
		[ "SELECT (count(message) > 0)::text FROM kafka_cache.errors WHERE relation::text = 'shop.orders'", only('ok false', 'ok true', @seeing) ],
		[ "SELECT (count(message) > 0)::text FROM kafka_cache.errors WHERE relation::text = 'shop.others'", only('ok false', 'ok true', qw(superuser monitor)) ] ],
	metrics => [ views_rows('metrics', "labels->>'relation'") ],
	refresh_queue => $functions{'get_refresh_queue()'},
	refresh_rules => [ [ 'SELECT count(*) FROM kafka_cache.refresh_rules', only('ok 0', 'ok 0') ] ],
	(map { $_ => [ [ "SELECT count(*) FROM kafka_cache.$_", only('42501', 'ok 0', qw(superuser all_reader)) ] ] } qw(refresh_positions refresh_log)),
	refresh_log_id_seq => [ [ 'SELECT is_called::text FROM kafka_cache.refresh_log_id_seq', only('42501', 'ok false', qw(superuser all_reader)) ] ],
	workers => $functions{'get_workers()'});

# What only the extension itself reads.
my %private = map { $_ => 1 } qw(refresh_positions refresh_log refresh_log_id_seq);

# Who may change a setting for the own session.
my %settings = (
	(map { $_ => only('55P02', '55P02') } qw(memory max_tables databases consumers_per_database max_pin_age max_errors load_queue
		deletion_memory producer_idle_timeout notify_interval refresh_workers refresh_load)),
	map { $_ => \%everybody } qw(when_not_ready wait_timeout max_staleness read_your_writes produce_timeout));

# On the table that was granted, and what is around it.
my @statements = (
	[ 'SELECT * FROM shop.orders', only('42501', 'ok', qw(superuser owner member reader all_reader)) ],
	[ 'SELECT value FROM shop.orders', only('42501', 'ok', qw(superuser owner member reader all_reader column_reader)) ],
	[ 'SELECT key FROM shop.orders', only('42501', 'ok', qw(superuser owner member reader all_reader key_reader)) ],
	[ 'SELECT count(*) FROM shop.orders', only('42501', 'ok', @readers) ],
	[ 'EXPLAIN (VERBOSE) SELECT * FROM shop.orders', only('42501', 'ok', qw(superuser owner member reader all_reader)) ],
	[ "INSERT INTO shop.orders (key, value) VALUES ('a', 'b')", only('42501', 'ok', @owners, 'writer') ],
	[ "INSERT INTO shop.orders (key, value) VALUES ('a', 'b') RETURNING value", only('42501', 'ok', @owners) ],
	[ "UPDATE shop.orders SET value = 'c' WHERE key = 'key'", only('42501', 'ok', @owners) ],
	[ "UPDATE shop.orders SET value = 'c'", only('42501', 'ok', @owners) ],
	[ "DELETE FROM shop.orders WHERE key = 'key'", only('42501', 'ok', @owners) ],
	[ 'ALTER FOREIGN TABLE shop.orders OPTIONS (ADD notify \'channel\')', only('42501', 'ok', @owners) ],
	[ 'ALTER FOREIGN TABLE shop.orders ADD COLUMN more text', only('42501', 'ok', @owners) ],
	[ "DO \$\$BEGIN GRANT SELECT ON shop.orders TO stranger; IF NOT has_table_privilege('stranger', 'shop.orders', 'SELECT') THEN RAISE insufficient_privilege; END IF; END\$\$", only('42501', 'ok', @owners) ],
	[ 'COMMENT ON FOREIGN TABLE shop.orders IS NULL', only('42501', 'ok', @owners) ],
	[ 'DROP FOREIGN TABLE shop.orders', only('42501', 'ok', @owners) ],
	[ "CREATE FOREIGN TABLE pg_temp.t ($columns) SERVER kafka OPTIONS (topic 'orders')", only('42501', 'ok', @owners, 'server_owner') ],
	[ 'CREATE SERVER own FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers \'localhost\')', only('42501', 'ok', qw(superuser server_owner)) ],
	[ "ALTER SERVER kafka OPTIONS (ADD client_id 'me')", only('42501', 'ok', qw(superuser server_owner)) ],
	[ "ALTER SERVER kafka OPTIONS (ADD ssl_ca_location '/nowhere', ADD security_protocol 'ssl')", only('42501', 'ok', 'superuser') ],
	[ "ALTER USER MAPPING FOR owner SERVER secrets OPTIONS (SET password 'mine')", only('42501', 'ok', qw(superuser owner server_owner)) ],
	[ "CREATE USER MAPPING FOR PUBLIC SERVER kafka", only('42501', 'ok', qw(superuser server_owner)) ],
	[ 'CREATE TABLE kafka_cache.mine (id int)', only('42501', 'ok', 'superuser') ],
	[ 'CREATE FUNCTION kafka_cache.wait_ready(text) RETURNS bool LANGUAGE sql AS $$SELECT true$$', only('42501', 'ok', 'superuser') ],
	[ 'DROP VIEW kafka_cache.errors', only('42501', '2BP01', 'superuser') ],
	[ 'ALTER EXTENSION kafka_cache_fdw DROP VIEW kafka_cache.errors', only('42501', 'ok', 'superuser') ],
	[ 'DROP EXTENSION kafka_cache_fdw CASCADE', only('42501', 'ok', 'superuser') ],
	[ "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE c AS '\$libdir/kafka_cache_fdw', 'kafka_cache_reload'", only('42501', 'ok', 'superuser') ],
	[ 'LISTEN channel', \%everybody ]);

# --- what there is ------------------------------------------------------------------------------------------

sub list { return split /\n/, $node->safe_psql('postgres', $_[0]); }

my @tests;    # kind of question, its text, expected answers by actor

# An entry's queries: either [query, expected]..., or what is expected by relation, and one query with its place.
sub queries
{
	my ($entry) = @_;

	return @$entry unless ref $entry->[0] eq 'HASH';
	my ($expected, $query) = @$entry;
	return map { my $arg = "'$_'::regclass"; [ sprintf($query, $arg, $arg), $expected->{$_} ] } sort keys %$expected;
}

foreach my $function (list("SELECT replace(oid::regprocedure::text, 'kafka_cache.', '') FROM pg_proc WHERE pronamespace = 'kafka_cache'::regnamespace ORDER BY 1"))
{
	ok($functions{$function}, "function $function has an entry") or next;
	push @tests, [ 'answer', @$_ ] foreach queries($functions{$function});
	push @tests, [ 'answer', "SELECT has_function_privilege('kafka_cache.$function', 'EXECUTE')::text", only('ok true', 'ok true') ];
}
is($node->safe_psql('postgres', "SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'kafka_cache'::regnamespace AND prosecdef"), '',
	'no function has the rights of another role');
foreach my $relation (list("SELECT relname FROM pg_class WHERE relnamespace = 'kafka_cache'::regnamespace AND relkind NOT IN ('i', 'c') ORDER BY 1"))
{
	ok($views{$relation}, "relation $relation has an entry") or next;
	push @tests, [ 'answer', @$_ ] foreach queries($views{$relation});
	push @tests, [ 'answer', "SELECT has_table_privilege('kafka_cache.$relation', 'SELECT')::text", $private{$relation} ? only('ok false', 'ok true', qw(superuser all_reader)) : only('ok true', 'ok true') ];
	push @tests, [ 'answer', "SELECT has_table_privilege('kafka_cache.$relation', '$_')::text", only('ok false', 'ok true', 'superuser') ]
	  foreach 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER';
}
foreach my $setting (list("SELECT replace(name, 'kafka_cache.', '') FROM pg_settings WHERE name LIKE 'kafka_cache.%' ORDER BY 1"))
{
	ok($settings{$setting}, "setting $setting has an entry") or next;
	my $value = $node->safe_psql('postgres', "SHOW kafka_cache.$setting");
	push @tests, [ 'attempt', "SET kafka_cache.$setting = '$value'", $settings{$setting} ];
}
push @tests, [ 'attempt', @$_ ] foreach @statements;

# --- ask ----------------------------------------------------------------------------------------------------

foreach my $actor (@actors)
{
	my $script = "SET client_min_messages = error;\n"
	  . join '', map { my ($how, $text) = @$_; $text =~ s/'/''/g; "SELECT $how('$text');\n" } @tests;
	my ($stdout, $stderr);
	$node->psql('postgres', $script, stdout => \$stdout, stderr => \$stderr, extra_params => [ '-U', $actor ]);
	my @answers = split /\n/, $stdout;
	diag($stderr) if $stderr;
	is(scalar @answers, scalar @tests, "$actor has an answer to everything");
	foreach my $test (@tests)
	{
		my ($how, $text, $expected) = @$test;
		my $answer = shift @answers;

		$answer = 'ok' if $expected->{$actor} eq 'ok' && $answer =~ /^ok /;
		is($answer, $expected->{$actor}, "$actor: $text");
	}
}

# --- rows for some ------------------------------------------------------------------------------------------

# A view as docs/security.md has it: others' rows are seen neither by it nor by a function in a condition.
$kafka->produce('orders', 0, 'reader', '{"value": "of reader"}');
ok($node->catch_up('postgres', 'shop.orders', $kafka, 'orders'), 'one more row');
$node->safe_psql('postgres', q{
	SET ROLE owner;
	CREATE VIEW shop.mine WITH (security_barrier) AS SELECT * FROM shop.orders WHERE key = current_user;
	GRANT SELECT ON shop.mine TO stranger, reader;
	RESET ROLE;
	CREATE FUNCTION leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END$$});
foreach my $query ('SELECT value FROM shop.mine', 'SELECT value FROM shop.mine WHERE leak(key) AND leak(value)', "SELECT value FROM shop.mine WHERE key = 'key' OR leak(key)")
{
	foreach my $actor (qw(reader stranger))
	{
		my ($stdout, $stderr);
		$node->psql('postgres', $query, stdout => \$stdout, stderr => \$stderr, extra_params => [ '-U', $actor ]);
		is($stdout, $actor eq 'reader' ? 'of reader' : '', "$actor: $query");
		unlike($stderr, qr/leaked (key|value)\b/, '... and nothing leaks');
	}
}

# --- secrets ------------------------------------------------------------------------------------------------

foreach my $actor (@actors)
{
	my $seen = '';
	$node->psql('postgres', "SELECT count(*) FROM pg_user_mappings WHERE umoptions::text LIKE '%canary%'", stdout => \$seen, extra_params => [ '-U', $actor ]);
	is($seen, (grep { $_ eq $actor } qw(superuser owner)) ? '1' : '0', "$actor: credentials of the owner");
}
$node->stop;
unlike($node->log_text, qr/terminated by signal|was not properly shut down/, 'nothing crashed');
done_testing();
