# kafka_cache.metrics and metrics_text(), read by Prometheus' own parser and promtool: each counter counts what its
# name says, in the cases in which it should; nothing begins anew when a process does.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Metrics;
use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.producer_idle_timeout' => '1h' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub text { return one('SELECT kafka_cache.metrics_text()'); }

# A figure by its name and all its labels; of a table, or of the database.
sub figure
{
	my ($name, %labels) = @_;
	my $list = join ', ', map { "'$_', '$labels{$_}'" } sort keys %labels;

	return one("SELECT value FROM kafka_cache.metrics WHERE name = 'kafka_cache_$name' AND labels = jsonb_build_object($list)");
}

sub of_table
{
	my ($relation, $name, %labels) = @_;

	return figure($name, database => 'postgres', relation => "public.$relation", %labels);
}

sub of_database
{
	my ($name, %labels) = @_;

	return figure($name, database => 'postgres', %labels);
}

sub rises
{
	my ($what, $figure, $test) = @_;
	my $last;

	ok(eventually(sub { $last = $figure->(); $last ne '' && $last > 0 }), $test // $what) or diag("$what: " . $last);
	return;
}

# --- what Prometheus makes of it ------------------------------------------------------------------

$kafka->topic($_, 2) foreach qw(users broken);
$kafka->produce('users', 0, 'k1', '{"id":"k1","n":1}');
one(q(CREATE FOREIGN TABLE users (id text OPTIONS (key 'true') NOT NULL, n int NOT NULL CHECK (n < 1000), at timestamptz OPTIONS (timestamp 'true'))
	SERVER kafka OPTIONS (topic 'users', readonly 'false', delivery 'immediate', max_record_bytes '1000')));
one(q(CREATE FOREIGN TABLE "a "" \ b" (id int OPTIONS (key 'true'), v text OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'users', format 'text')));
ok($node->catch_up('postgres', 'users', $kafka), 'a table is ready');

my ($status, $said) = promtool(text() . "\n", 'check', 'metrics');
is("$status $said", '0 ', 'promtool has nothing to say against the text');
my $families = families(text());
cmp_ok(scalar(keys %$families), '>', 40, 'Prometheus\' parser reads it');
is(join(' ', grep { $families->{$_}[1] eq '' || $families->{$_}[0] !~ /\A(?:counter|gauge|histogram)\z/ } sort keys %$families), '',
	'... each name has a type and a help text');
is(one("SELECT string_agg(DISTINCT regexp_replace(name, CASE kind WHEN 'counter' THEN '_total\$' WHEN 'histogram' THEN '_(bucket|sum|count)\$' ELSE 'x{99}' END, ''), ' ') FROM kafka_cache.metrics") =~ s/\s+/ /gr,
	join(' ', sort keys %$families), '... and the view has the same names');
my $all = parsed(text());
is(scalar(keys %$all), one('SELECT count(*) FROM kafka_cache.metrics'), '... and as many figures');
is($all->{'kafka_cache_state{database=postgres,relation=public."a "" \ b",state=stopped}'}, 0, 'a name of unusual characters comes through');
is($all->{'kafka_cache_visible_latency_seconds_bucket{database=postgres,le=+Inf,relation=public.users}'}, 0, 'no record of a load is in the histogram');
is($all->{'kafka_cache_worker_up{database=postgres,kind=consumer,number=0}'}, 1, 'the consumer is up');
is($all->{'kafka_cache_worker_up{database=postgres,kind=producer}'}, 0, '... there is no producer');
is($all->{'kafka_cache_worker_up{kind=launcher}'}, 1, '... and the launcher is up');

# --- records ----------------------------------------------------------------------------------------

my %bad = (
	json         => [ 'b1', 'not json' ],
	json_shape   => [ 'b2', '[1]' ],
	convert      => [ 'b3', '{"id":"b3","n":"x"}' ],
	range        => [ 'b4', '{"id":"b4","n":99999999999}' ],
	not_null     => [ 'b5', '{"id":"b5"}' ],
	check        => [ 'b6', '{"id":"b6","n":5000}' ],
	null_key     => [ undef, '{"n":1}' ],
	key          => [ "\xff\xfe", '{"n":1}' ],
	too_large    => [ 'b8', '{"id":"b8","n":1,"x":"' . 'x' x 2000 . '"}' ]);
$kafka->produce('users', 0, @{ $bad{$_} }) foreach sort keys %bad;
$kafka->produce('users', 0, 'k2', '{"id":"k2","n":2}', at => 1700000000000);
$kafka->produce('users', 0, 'k2', undef);
$kafka->produce('users', 0, 'k3', '{"id":"k3","n":3}', at => 9_000_000_000_000_000_000);
ok($node->catch_up('postgres', 'users', $kafka), 'bad records are passed');
$all = parsed(text());
my $users = 'database=postgres';
my $rejected = 0;
foreach my $reason (sort keys %bad)
{
	my $is = $all->{"kafka_cache_rejected_total{$users,reason=$reason,relation=public.users}"};

	# bytes that are no text at all are an encoding's matter
	$is = $all->{"kafka_cache_rejected_total{$users,reason=encoding,relation=public.users}"} if $reason eq 'key' && $is == 0;
	is($is, 1, "rejected: $reason");
	$rejected += $is;
}
is($all->{"kafka_cache_records_total{$users,outcome=error,relation=public.users}"}, $rejected, 'together they are the bad records');
is($all->{"kafka_cache_records_total{$users,outcome=upsert,relation=public.users}"}, 3, '... besides the good ones');
is($all->{"kafka_cache_records_total{$users,outcome=tombstone,relation=public.users}"}, 1, '... and the tombstone');
is($all->{"kafka_cache_listed_errors{$users,relation=public.users}"}, $rejected, '... they are listed');
is($all->{"kafka_cache_timestamps_out_of_range_total{$users,relation=public.users}"}, 1, 'a timestamp that is out of range is counted');
is($all->{"kafka_cache_visible_latency_seconds_count{$users,relation=public.users}"}, 12, 'records that came after the load are in the histogram');
is($all->{"kafka_cache_visible_latency_seconds_bucket{$users,le=300,relation=public.users}"}, 11, '... an old one beyond the last bound');
cmp_ok($all->{"kafka_cache_visible_latency_seconds_sum{$users,relation=public.users}"}, '>', 1e7, '... and the sum knows how old');
is($all->{"kafka_cache_entries{$users,relation=public.users}"}, 2, 'rows');
is($all->{"kafka_cache_last_seen_offset{$users,partition=0,relation=public.users,topic=users}"}, 12, 'the position');
is($all->{"kafka_cache_consumer_lag{$users,partition=0,relation=public.users,topic=users}"}, 0, 'no lag');

# --- what listeners are told --------------------------------------------------------------------------

$kafka->topic('told', 1);
one(q(CREATE FOREIGN TABLE told (id text OPTIONS (key 'true'), n int) SERVER kafka OPTIONS (topic 'told', notify 'told')));
ok($node->catch_up('postgres', 'told', $kafka), 'a table with listeners');
$kafka->produce('told', 0, 'k', '{"n": 1}');
rises('notifications', sub { of_table('told', 'notifications_total') }, 'a notification');
is(of_table('told', 'notified_keys_total'), 1, '... of one key');
$kafka->produce('told', 0, 'k', '{"n": 1}');
$kafka->produce('told', 0, 'absent', undef);
rises('the same value', sub { of_table('told', 'notifications_suppressed_total', reason => 'value_deduplication') }, 'the same value is not told again');
rises('nothing', sub { of_table('told', 'notifications_suppressed_total', reason => 'absent_key') }, '... nor the deletion of nothing');
is(of_table('told', 'notifications_total'), 1, '... so there was one notification');
is(of_table('told', 'notification_failures_total'), 0, '... and no failure');
one('DROP FOREIGN TABLE told');

# --- what stands in the way ---------------------------------------------------------------------------

$kafka->command('topic-error', 'no_such_topic', 'UNKNOWN_TOPIC_OR_PART');
one(q(CREATE FOREIGN TABLE missing (id int OPTIONS (key 'true')) SERVER kafka OPTIONS (topic 'no_such_topic')));
rises('no topic', sub { of_table('missing', 'stream_errors_total', error => 'no_topic') });
rises('state', sub { of_table('missing', 'state', state => 'topic_missing') }, 'its state is topic_missing');
is(of_table('missing', 'staleness_seconds'), 'Infinity', 'what never was fresh is infinitely old');
one('DROP FOREIGN TABLE missing');

is(of_table('users', 'clients_total'), 1, 'one client');
one(q(ALTER SERVER kafka OPTIONS (ADD client_id 'another')));
ok(eventually(sub { of_table('users', 'clients_total') == 2 }), 'another one after ALTER SERVER');
ok($node->catch_up('postgres', 'users', $kafka), '... goes on');
one(q(SELECT kafka_cache.reload('users')));
rises('reloads', sub { of_table('users', 'reloads_total') }, 'a reload is counted');
is(of_table('users', 'records_total', outcome => 'upsert'), 6, '... and the records that it has read');

# --- writes -------------------------------------------------------------------------------------------

one("INSERT INTO users (id, n) VALUES ('w1', 1), ('w2', 2)");
is(of_database('produce_total', outcome => 'delivered'), 2, 'records that were delivered');
is(of_database('produce_latency_seconds_count'), 1, '... in one write');
is(of_database('worker_up', kind => 'producer'), 1, 'the producer is up');
kill 'STOP', $kafka->{pid};
isnt($node->psql('postgres', "SET statement_timeout = '500ms'; INSERT INTO users (id, n) VALUES ('w3', 1)"), 0, 'a write that is cancelled');
is(of_database('produce_errors_total', error => 'given_up'), 1, '... was given up');
cmp_ok(of_database('produce_total', outcome => 'refused') + of_database('produce_total', outcome => 'unknown'), '==', 1, '... and its record is counted');
is(of_database('produce_latency_seconds_count'), 1, '... Kafka has not answered');
kill 'CONT', $kafka->{pid};
my $refused = of_database('produce_total', outcome => 'refused');
$kafka->command('error', 'produce', 'TOPIC_AUTHORIZATION_FAILED');
isnt($node->psql('postgres', "INSERT INTO users (id, n) VALUES ('w4', 1)"), 0, 'a write that is refused');
is(of_database('produce_total', outcome => 'refused'), $refused + 1, '... is counted');
is(of_database('produce_errors_total', error => 'auth'), 1, '... by its reason');
is(of_database('produce_latency_seconds_count'), 2, '... and Kafka has answered');

$kafka->down;
isnt($node->psql('postgres', "SET kafka_cache.produce_timeout = '1s'; INSERT INTO users (id, n) VALUES ('w5', 1)"), 0, 'a write without a broker');
cmp_ok(of_database('produce_total', outcome => 'refused') + of_database('produce_total', outcome => 'unknown'), '==', 3, '... is refused or unknown');
rises('unreachable', sub { of_table('users', 'stream_errors_total', error => 'unreachable') }, 'readers are cut off, too');
ok(eventually(sub { of_table('users', 'staleness_seconds') > 5 }), 'the contents get older');
ok(eventually(sub { of_table('users', 'state', state => 'stalled') == 1 }), '... and the table is stalled');
is(of_table('users', 'ready'), 1, '... but ready');
$kafka->up;
ok(eventually(sub { of_table('users', 'staleness_seconds') < 5 && of_table('users', 'state', state => 'ready') == 1 }), 'fresh again');

# --- processes ----------------------------------------------------------------------------------------

my $before = parsed(text());
my $consumer = one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer'");
one("SELECT pg_terminate_backend($consumer)");
rises('restarts', sub { of_database('worker_restarts_total', kind => 'consumer', number => '0') }, 'a consumer that was ended is started again');
ok($node->wait_for('postgres', "SELECT pid IS NOT NULL AND state = 'running' FROM kafka_cache.workers WHERE kind = 'consumer'"), '... and runs');
$kafka->produce('users', 1, 'k9', '{"id":"k9","n":9}');
ok($node->catch_up('postgres', 'users', $kafka), '... and reads on');
my $after = parsed(text());
my @less = grep { /_(?:total|bucket|sum|count)\b/ && $after->{$_} < $before->{$_} } sort keys %$before;
is("@less", '', 'no counter has gone back');
is($after->{"kafka_cache_visible_latency_seconds_count{$users,relation=public.users}"},
	$before->{"kafka_cache_visible_latency_seconds_count{$users,relation=public.users}"} + 1, 'the histogram goes on');

# A snapshot that is held.
my $holder = $node->background_psql('postgres', on_error_stop => 1);
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users');
ok(eventually(sub { of_database('oldest_pin_seconds') > 0.1 }), 'a snapshot that is held gets older');
is(of_database('pins'), 1, '... it is the only one');
$holder->quit;
ok(eventually(sub { of_database('pins') == 0 }), '... and gone with its session');

# Another database: its own tables, the same server.
one('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION kafka_cache_fdw');
my $other = parsed($node->safe_psql('other', 'SELECT kafka_cache.metrics_text()'));
is(join(' ', grep { /relation=/ } keys %$other), '', 'another database shows no table of this one');
is(join(' ', grep { /database=postgres/ } keys %$other), '', '... and no process');
is($other->{kafka_cache_tables}, 2, '... but the same server');

# A database that is not to be served any more.
$node->configure('kafka_cache.databases' => 'other');
$node->reload;
ok(eventually(sub { of_database('worker_up', kind => 'consumer', number => '0') == 0 }), 'a consumer that is not to run is not up');
is(of_table('users', 'ready'), 0, '... and nothing is ready');

done_testing();
