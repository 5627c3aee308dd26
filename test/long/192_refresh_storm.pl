# A storm of refreshes against Kafka itself: sources of all kinds change, sessions read, set and purge, while processes of the server
# and the broker are ended at random moments. When all is quiet every row of every product is what its function says.
# KCF_MOMENTS: how many (40); KCF_SEED repeats them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;
use Time::HiRes qw(time);

my $moments = $ENV{KCF_MOMENTS} // 40;
my $seed = $ENV{KCF_SEED} // int rand 2**31;
note("KCF_SEED=$seed");
srand $seed;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { restart_after_crash => 'on', log_min_messages => 'log', 'kafka_cache.refresh_workers' => 2,
	'kafka_cache.refresh_load' => 100, 'kafka_cache.memory' => '128MB', deadlock_timeout => '100ms' });
$node->start;
$node->connect_kafka('postgres', $kafka);
$kafka->topic($_, 3) foreach qw(users per_user per_group aging);
my ($nusers, $ngroups) = (300, 10);
$kafka->load('users', '*', 1, $nusers, '%d', '{"name": "n%d"}');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Of a cached table and an ordinary one; of another product; by age and interval alone.
sql(qq{
	CREATE FOREIGN TABLE users (id int OPTIONS (key 'true') NOT NULL, name text NOT NULL) SERVER kafka OPTIONS (topic 'users');
	CREATE TABLE visits (user_id int, pages int);
	CREATE INDEX ON visits (user_id);
	INSERT INTO visits SELECT g, 1 FROM generate_series(1, $nusers) g;
	CREATE FUNCTION per_user(id int) RETURNS TABLE (name text, visits bigint, pages bigint) LANGUAGE sql STABLE AS \$\$
		SELECT u.name, count(v.pages), sum(v.pages) FROM public.users u LEFT JOIN public.visits v ON v.user_id = u.id WHERE u.id = per_user.id GROUP BY u.name \$\$;
	CREATE FOREIGN TABLE per_users (id int OPTIONS (key 'true') NOT NULL, rows jsonb OPTIONS (value 'true')) SERVER kafka
		OPTIONS (topic 'per_user', compute 'public.per_user', domain 'SELECT g FROM generate_series(1, $nusers) g', refresh_every '1 hour', negative_ttl '1 s');
	CREATE FUNCTION per_group(n int) RETURNS jsonb LANGUAGE sql STABLE AS \$\$
		SELECT to_jsonb(COALESCE(sum((p.rows->0->>'pages')::bigint), 0)) FROM public.per_users p WHERE p.id % $ngroups = n \$\$;
	CREATE FOREIGN TABLE per_groups (n int OPTIONS (key 'true') NOT NULL, pages jsonb OPTIONS (value 'true')) SERVER kafka
		OPTIONS (topic 'per_group', compute 'public.per_group', domain 'SELECT g FROM generate_series(0, $ngroups - 1) g', refresh_every '1 hour');
	CREATE FUNCTION aging(id int, OUT pages bigint) LANGUAGE sql STABLE AS \$\$ SELECT COALESCE(sum(v.pages), 0) FROM public.visits v WHERE v.user_id = aging.id \$\$;
	CREATE FOREIGN TABLE aging (id int OPTIONS (key 'true') NOT NULL, pages jsonb OPTIONS (value 'true')) SERVER kafka
		OPTIONS (topic 'aging', compute 'public.aging', soft_ttl '2 s', hard_ttl '1 h');
	CREATE FUNCTION of_user(old users, new users) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k FROM unnest(ARRAY[(old).id, (new).id]) k WHERE k IS NOT NULL \$\$;
	CREATE FUNCTION of_visit(old visits, new visits) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k FROM unnest(ARRAY[(old).user_id, (new).user_id]) k WHERE k IS NOT NULL \$\$;
	CREATE FUNCTION of_product(old per_users, new per_users) RETURNS SETOF int LANGUAGE sql STABLE AS
		\$\$ SELECT DISTINCT k % $ngroups FROM unnest(ARRAY[(old).id, (new).id]) k WHERE k IS NOT NULL \$\$;
});
ok($node->wait_ready('postgres', $_), "$_ is ready") foreach qw(users per_users per_groups aging);
sql(q{SELECT kafka_cache.refresh_on('per_users', 'users', 'of_user(users, users)');
	SELECT kafka_cache.refresh_on('per_users', 'visits', 'of_visit(visits, visits)');
	SELECT kafka_cache.refresh_on('per_groups', 'per_users', 'of_product(per_users, per_users)')});
ok($node->wait_for('postgres', "SELECT count(*) = $nusers FROM per_users"), 'all keys of the domain are computed');

# --- the storm ------------------------------------------------------------------------------------------------

# Errors of a server that goes away are none of these sessions.
sub storm
{
	my ($script, $times) = @_;
	return beside(
		sub {
			while (1)
			{
				eval { $node->psql('postgres', $script->(), on_error_stop => 0, timeout => 60) };
			}
		});
}
my @storms = (
	(map { my $n = $_; storm(sub { my $user = 1 + int rand $nusers; my $other = 1 + int rand $nusers; qq{
		UPDATE visits SET pages = pages + 1 WHERE user_id BETWEEN $user AND $user + 10;
		UPDATE visits SET user_id = $other WHERE ctid IN (SELECT ctid FROM visits WHERE user_id = $user LIMIT 1);
		INSERT INTO visits SELECT $user, g FROM generate_series(1, 5) g;
		BEGIN; DELETE FROM visits WHERE user_id = $other; ROLLBACK;
		DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE pages < 10 AND random() < 0.1 LIMIT 20)} }) } 1 .. 2),
	storm(sub { my $user = 1 + int rand $nusers; qq{
		SELECT count(*) FROM generate_series($user, $user + 20) g JOIN aging a ON a.id = g;
		SELECT count(*) FROM kafka_cache.fetch_many('per_users', (SELECT array_agg(g::text) FROM generate_series($user, $user + 20) g WHERE g <= $nusers));
		SELECT kafka_cache.purge('per_users', '{$user}');
		SELECT kafka_cache.set('aging', '{$user}', '-1')} }));
my $load = load_beside($kafka, 200, sub { my ($round) = @_; [ 'load', 'users', '*', 1 + int rand($nusers - 20), 20, '%d', qq({"name": "name $round of %d"}) ] });

sub ask
{
	my ($query) = @_;
	my $answer;
	eventually(
		sub {
			my ($status, $out) = eval { $node->psql('postgres', $query, on_error_die => 0) };
			$answer = $out if defined $status && $status == 0;
			return defined $answer;
		}) or BAIL_OUT('the server does not answer any more');
	return $answer;
}
sub strike
{
	my ($signal, $kind) = @_;
	my $pid = ask("SELECT pid FROM kafka_cache.workers WHERE kind = '$kind' AND pid IS NOT NULL ORDER BY random() LIMIT 1");
	kill $signal, $pid if $pid =~ /\A\d+\z/;
	return "SIG$signal to the $kind";
}
my @events = (
	(sub { strike('TERM', 'refresher') }) x 4, (sub { strike('TERM', 'producer') }) x 3, sub { strike('TERM', 'consumer') },
	sub { strike('KILL', 'refresher') }, sub { strike('KILL', 'producer') },
	(sub { $kafka->broker(1, 'pause'); select undef, undef, undef, rand 6; $kafka->broker(1, 'resume'); 'the broker pauses' }) x 2,
	sub { $kafka->broker(1, 'kill'); select undef, undef, undef, rand 4; $kafka->broker(1, 'start'); 'the broker is killed' },
	sub { ask("SELECT kafka_cache.reload('users')"); 'users is loaded anew' });
foreach my $n (1 .. $moments)
{
	select undef, undef, undef, rand 1.5;
	note("moment $n: " . $events[ rand @events ]->());
}
select undef, undef, undef, 2;
$load->stop;
$_->stop foreach @storms;

# --- all is quiet ---------------------------------------------------------------------------------------------

my $wrong_users = 'SELECT count(*) FROM generate_series(1, ' . $nusers . ') g LEFT JOIN (SELECT * FROM per_users OFFSET 0) p ON p.id = g
	WHERE p.rows IS DISTINCT FROM (SELECT jsonb_agg(f) FROM per_user(g) f)';
my $wrong_groups = 'SELECT count(*) FROM generate_series(0, ' . ($ngroups - 1) . ') g LEFT JOIN (SELECT * FROM per_groups OFFSET 0) p ON p.n = g
	WHERE p.pages IS DISTINCT FROM per_group(g)';
my $wrong_aging = 'SELECT count(*) FROM (SELECT * FROM aging OFFSET 0) a WHERE a.pages IS DISTINCT FROM to_jsonb(aging(a.id))';
ok($node->catch_up('postgres', 'users', $kafka), 'the storm is over');
# What is purged comes back when it is asked for.
sql("SELECT count(*) FROM generate_series(1, $nusers) g JOIN per_users p ON p.id = g");
ok($node->wait_for('postgres', $wrong_users, '0'), 'every row is what its function says')
  or diag(sql("SELECT g, p.rows, (SELECT jsonb_agg(f) FROM per_user(g) f) FROM generate_series(1, $nusers) g LEFT JOIN (SELECT * FROM per_users OFFSET 0) p ON p.id = g
	WHERE p.rows IS DISTINCT FROM (SELECT jsonb_agg(f) FROM per_user(g) f)"));
ok($node->wait_for('postgres', $wrong_groups, '0'), '... of a product of a product too');
ok($node->wait_for('postgres', 'SELECT count(*) = 0 FROM kafka_cache.refresh_log'), 'nothing of what transactions have asked for is left to do')
  or diag(sql('SELECT * FROM kafka_cache.refresh_log LIMIT 10'));
# By reading alone: what is stale is asked for, and after a while it is new.
sql('SELECT count(*) FROM aging a WHERE id = ANY (ARRAY(SELECT g FROM generate_series(1, ' . $nusers . ') g))');
ok($node->wait_for('postgres', "WITH asked AS MATERIALIZED (SELECT count(*) FROM aging WHERE id = ANY (ARRAY(SELECT g FROM generate_series(1, $nusers) g)))
	SELECT w.count FROM ($wrong_aging) w, asked", '0'), 'and so is what is renewed by being read');
ok($node->wait_for('postgres', 'SELECT count(*) = 0 FROM kafka_cache.refresh_queue'), 'nothing waits')
  or diag(sql('SELECT * FROM kafka_cache.refresh_queue LIMIT 10'));
# kcat's word for it.
my %topic = fold($kafka, 'per_group');
is(join(' ', map { $topic{$_} // '?' } 0 .. $ngroups - 1), sql("SELECT string_agg(pages::text, ' ' ORDER BY n) FROM per_groups"), 'the topic has what is read');
balanced($node, 'after the storm');
note(sql("SELECT name, labels->>'relation', value FROM kafka_cache.metrics WHERE name ~ 'product|refresh' AND value > 0 ORDER BY 2, 1"));
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal (?!9)/, 'nothing alarming in the log');
$node->stop;
done_testing();
