# examples/data-products on Apache Kafka: the dashboards of the sample model, as their README shows them, stay
# equal to their functions whatever happens to what they are made of.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths qw($top);
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main');
$node->start;

sub one { return $node->safe_psql('postgres', $_[0]); }
sub org { return sprintf '00000000-0000-4000-a000-%012x', @_ }
sub user { return sprintf '00000000-0000-4000-8000-%012x', @_ }
sub session { return sprintf '00000000-0000-4000-b000-%012x', @_ }

# Blocks of the pages, by the word in the comment before them.
sub blocks
{
	my ($file) = @_;
	my $text = slurp_file("$top/$file");
	my %found;

	$found{$1} = $2 while $text =~ /<!-- run: (\w+) -->\s*```sql\n(.*?)```/gs;
	return %found;
}

# --- the model: three organizations; 12 users, the last two without sessions -----------------------------------------

my @products = qw(sessions_per_organization users_without_session busiest_hour spent overview sessions_of_user);
$kafka->topic($_, 2) foreach qw(organizations users sessions), map { "dashboards.$_" } @products;
$kafka->produce('organizations', '*', org($_), qq({"name":"Organization $_"})) foreach 1 .. 3;
foreach my $n (1 .. 12)
{
	my $org = org($n <= 10 ? 2 - $n % 2 : 3);
	$kafka->produce('users', '*', user($n), qq({"displayName":"User $n","groups":[{"id":"$org"}]}));
	$kafka->produce('sessions', '*', session($n), sprintf '{"user":{"id":"%s"},"type":"%s"}', user($n), $n % 3 ? 'REGULAR' : 'MEETINGSCREEN') if $n <= 10;
}

sub script
{
	my ($file) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'brokers=' . $kafka->address, '-d', $node->connstr('postgres'), '-f', "$top/examples/$file" ],
		"examples/$file runs");
	die "examples/$file failed" unless Test::More->builder->is_passing;
	return;
}
script('sample-model.sql');
ok($node->catch_up('postgres', $_, $kafka), "$_ are loaded") foreach qw(organizations users sessions);

# The example of the page, and then the whole of them in its place.
my ($example) = slurp_file("$top/docs/data-products.md") =~ /```sql\n(CREATE SCHEMA app;.*?)```/s;
is(one($example), join("\n", '[{"n": 3, "type": "REGULAR"}, {"n": 2, "type": "MEETINGSCREEN"}]', 'Organization 1|[{"n": 3, "type": "REGULAR"}, {"n": 2, "type": "MEETINGSCREEN"}]',
		'Organization 2|[{"n": 4, "type": "REGULAR"}, {"n": 1, "type": "MEETINGSCREEN"}]', ''), 'the example of docs/data-products.md');
one('DROP SCHEMA app, dashboards CASCADE');
is(one('SELECT count(*) FROM kafka_cache.refresh_rules'), '0', '... goes with its rule');
script('data-products/products.sql');

# --- the README ------------------------------------------------------------------------------------------------------------

my %run = blocks('examples/data-products/README.md');
is(join(' ', sort keys %run), 'columns explain join move order page queue scan', 'the README shows eight steps');

is_deeply(decode_json(one($run{page})),
	{ name => 'Organization 1', sessions => [ { type => 'REGULAR', n => 3 }, { type => 'MEETINGSCREEN', n => 2 } ], without_session => 0 }, 'a page is computed');
is(one($run{join}), join("\n", 'Organization 1|[{"n": 3, "type": "REGULAR"}, {"n": 2, "type": "MEETINGSCREEN"}]',
		'Organization 2|[{"n": 4, "type": "REGULAR"}, {"n": 1, "type": "MEETINGSCREEN"}]', 'Organization 3|'), 'all of them, by a join');
like(one($run{explain}), qr/Cache Access: Computed Lookup/, 'EXPLAIN says that the join looks up and computes');
like(one("EXPLAIN (COSTS OFF) $run{scan}"), qr/Cache Access: Cached Scan/, '... and that no key means what is cached');
is(one($run{scan}), '0', 'a scan shows what is cached: organization 1 has nobody without a session');
my ($any, $spent) = split /\n/, one($run{columns});
is($any, 't', 'columns of a row');
is($spent, one("SELECT app.spent('${\user(7)}')"), 'a scalar');

# --- rules -------------------------------------------------------------------------------------------------------------------

sub becomes
{
	my ($sql, $wanted, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return 1 if ok($node->wait_for('postgres', $sql, $wanted), $what);
	diag(one('SELECT * FROM kafka_cache.refresh_queue') . "\n" . one('SELECT * FROM kafka_cache.refresh_rules') . "\n" . one('SELECT * FROM kafka_cache.workers'));
	return 0;
}

one($run{order});
# What rules have done is seen without asking for a key: nothing is computed by a scan.
becomes("SELECT amount FROM dashboards.spent WHERE user_id::text = '${\user(7)}'", $spent + 1000, 'an order in an ordinary table reaches the sum');
like(one($run{queue}), qr/^(?:dashboards\.\w+\|.*\n?)*$/, 'the queue can be looked at');

# All that each product has is what its function says of the same key.
my %same = (
	sessions_per_organization => 'p.rows = (SELECT jsonb_agg(to_jsonb(f)) FROM app.sessions_per_organization(p.org_id) f)',
	users_without_session => 'p.names = (SELECT jsonb_agg(f) FROM app.users_without_session(p.org_id) f)',
	busiest_hour => '(p.hour, p.sessions) = (SELECT f.hour, f.sessions FROM app.busiest_hour(p.day) f)',
	spent => 'p.amount = to_jsonb(app.spent(p.user_id))',
	overview => 'p.page = app.overview(p.org_id)');

sub equal
{
	my ($what, %rows) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $product (sort keys %same)
	{
		becomes("SELECT count(*) >= $rows{$product} AND count(*) = count(*) FILTER (WHERE $same{$product}) FROM dashboards.$product p", 't', "$what: $product");
	}
	return;
}

one("SELECT FROM dashboards.overview WHERE org_id = '${\org(2)}'");
one($run{move});
becomes("SELECT string_agg(page->>'sessions', '; ' ORDER BY org_id) FROM dashboards.overview",
	'[{"n": 2, "type": "REGULAR"}, {"n": 2, "type": "MEETINGSCREEN"}]; [{"n": 5, "type": "REGULAR"}, {"n": 1, "type": "MEETINGSCREEN"}]',
	'a user moves, and both pages change');
equal('a user has moved', sessions_per_organization => 2, users_without_session => 0, overview => 2, spent => 1, busiest_hour => 1);

# Written by somebody else: a session ends, another begins, an organization is renamed.
$kafka->produce('sessions', '*', session(2), undef);
$kafka->produce('sessions', '*', session(20), sprintf '{"user":{"id":"%s"},"type":"REGULAR"}', user(11));
$kafka->produce('organizations', '*', org(1), '{"name":"Renamed"}');
becomes("SELECT page->>'without_session' FROM dashboards.overview WHERE org_id::text = '${\org(2)}'", '1', 'the end of a session reaches the page, through the product behind it');
becomes("SELECT page->>'name' FROM dashboards.overview WHERE org_id::text = '${\org(1)}'", 'Renamed', 'a new name does');
becomes("SELECT rows FROM dashboards.sessions_per_organization WHERE org_id::text = '${\org(3)}'", '[{"n": 1, "type": "REGULAR"}]', 'what was nothing is something');
equal('records of somebody else', sessions_per_organization => 3, users_without_session => 2, overview => 3, spent => 1, busiest_hour => 1);

# An augmented one: what is kept is changed by what has changed, and computed behind that.
my %page = blocks('docs/data-products.md');
one($page{augment});
is(one("SELECT n FROM dashboards.sessions_of_user WHERE user_id = '${\user(3)}'"), '1', 'a product that is augmented is computed first');
$kafka->produce('sessions', '*', session($_), sprintf '{"user":{"id":"%s"},"type":"REGULAR"}', user(3)) foreach 30, 31;
becomes("SELECT n FROM dashboards.sessions_of_user WHERE user_id::text = '${\user(3)}'", '3', '... and follows');
$kafka->produce('sessions', '*', session(30), sprintf '{"user":{"id":"%s"},"type":"REGULAR"}', user(4));
becomes("SELECT n FROM dashboards.sessions_of_user WHERE user_id::text = '${\user(3)}'", '2', '... when a session moves');
becomes("SELECT n FROM dashboards.sessions_of_user WHERE user_id::text = '${\user(4)}'", '2', '... to a user that had not been asked for');

# What changes while nobody looks: a session in a topic while the server is down, and an order just before.
one("SELECT FROM dashboards.spent WHERE user_id = '${\user(8)}'");
one("INSERT INTO orders (user_id, amount) VALUES ('${\user(8)}', 5000)");
$node->stop;
$kafka->produce('sessions', '*', session(40), sprintf '{"user":{"id":"%s"},"type":"REGULAR"}', user(12));
$node->start;
becomes("SELECT rows FROM dashboards.sessions_per_organization WHERE org_id::text = '${\org(3)}'", '[{"n": 2, "type": "REGULAR"}]', 'what changed while the server was down is worked off');
becomes("SELECT count(*) FROM dashboards.users_without_session WHERE org_id::text = '${\org(3)}'", '0', '... and something is nothing');
equal('after a restart', sessions_per_organization => 3, users_without_session => 1, overview => 3, spent => 2, busiest_hour => 1);

# What others read is the same, and they need nothing of ours for it.
my %kept = fold($kafka, 'dashboards.sessions_per_organization');
is_deeply(decode_json($kept{ org(3) }), [ { type => 'REGULAR', n => 2 } ], 'kcat reads the same from the topic');

balanced($node, 'the dashboards');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
