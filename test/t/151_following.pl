# The examples in Python and in Node follow a cached table; consumers, connections and the server end meanwhile. In the end
# they have told of everything.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Copy;
use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Paths qw($top);
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'log', 'kafka_cache.deletion_memory' => '64kB' });
my $db = 'postgres';

# The interpreter that Debian's package is for.
my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
# A module is looked for beside who wants it.
my $folder = PostgreSQL::Test::Utils::tempdir('node');
copy("$top/examples/listen/listen.mjs", "$folder/listen.mjs") or die "$folder/listen.mjs: $!";
symlink("$top/build/node/node_modules", "$folder/node_modules") or die "$folder/node_modules: $!";

$node->start;
$node->connect_kafka($db, $kafka);
$kafka->topic('users', 3);
$kafka->load('users', $_, $_ * 200, 200, 'key-%d', 'first %d') foreach 0 .. 2;
text_table($node, 'users', notify => 'users_changed');
ok($node->catch_up($db, 'users', $kafka), 'the table is loaded');

local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = $db;
my %followers = (
	python => beside([ $python, "$top/examples/listen/listen.py", 'users', 'users_changed', 'key' ]),
	node   => beside([ 'node', "$folder/listen.mjs", 'users', 'users_changed', 'key' ]));

# What a follower has told, folded: key to value.
sub told
{
	my ($who) = @_;
	my %rows;

	foreach my $line (split /\n/, $followers{$who}->output)
	{
		next unless $line =~ /^\{.*\}$/;
		my $change = decode_json($line);
		if ($change->{row}) { $rows{ $change->{key} } = $change->{row}{value} }
		else { delete $rows{ $change->{key} } }
	}
	return \%rows;
}

sub differences
{
	my ($who) = @_;
	my %rows = map { split /\|/, $_, 2 } split /\n/, $node->safe_psql($db, 'SELECT key, value FROM users');
	my $told = told($who);

	return grep { !exists $told->{$_} || !exists $rows{$_} || $told->{$_} ne $rows{$_} } sort keys %{ { %rows, %$told } };
}

sub same
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($node->catch_up($db, 'users', $kafka), "$what: the table has it all");
	foreach my $who (sort keys %followers)
	{
		my $same = ok(eventually(sub { !differences($who) }), "$what: $who has told of everything");

		diag(join(' ', (differences($who))[ 0 .. 9 ]), "\n", substr($followers{$who}->output, -2000)) unless $same;
	}
	return;
}

# Changes and deletions, some of new keys, while something happens.
my $seed = 0;
sub meanwhile
{
	my ($what, $work) = @_;
	my $first = ++$seed * 100000;
	my $load = load_beside($kafka, 100,
		sub {
			my ($round) = @_;
			my $n = ($round * 7919 + $seed) % 700;
			return [ 'produce', 'users', $n % 3, "key-$n", $round % 4 == 0 ? undef : 'value ' . ($first + $round) ];
		});

	ok(eventually(sub { ($load->so_far)[0] > 20 }), "$what: records come");
	my ($before) = $load->so_far;
	$work->($load);
	ok(eventually(sub { ($load->so_far)[0] > $before + 20 }), "$what: and go on to come");
	$load->stop;
	return same($what);
}

same('at first');
meanwhile('nothing happens', sub { });
meanwhile(
	'the consumer ends',
	sub {
		my $consumer = $node->safe_psql($db, "SELECT pg_terminate_backend(pid) FROM kafka_cache.workers WHERE kind = 'consumer'");
		is($consumer, 't', 'it is told to end');
	});
meanwhile(
	'their connections end',
	sub {
		$node->safe_psql($db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	});
meanwhile('the server is started again', sub { $node->restart; });
meanwhile(
	'the server dies',
	sub {
		$node->stop('immediate');
		$kafka->produce('users', 0, 'key-' . 3 * $_, undef) foreach 0 .. 50;
		$node->start;
	});
meanwhile(
	'the table is loaded again',
	sub {
		$node->safe_psql($db, "SELECT kafka_cache.reload('users')");
		ok($node->wait_for($db, "SELECT reloads > 0 FROM kafka_cache.tables WHERE relation = 'users'::regclass"), 'it has been');
	});

# Away for so long that deletions are forgotten.
kill 'STOP', $followers{$_}->pid foreach keys %followers;
$kafka->load('users', 0, 20000, 3000, 'gone-%d', 'x');
$kafka->load('users', 0, 20000, 3000, 'gone-%d', undef);
ok($node->catch_up($db, 'users', $kafka), 'three thousand come and go');
kill 'CONT', $followers{$_}->pid foreach keys %followers;
same('away for long');

foreach my $who (sort keys %followers)
{
	ok($followers{$who}->running, "$who still follows");
	my $told = () = $followers{$who}->output =~ /^\{"key"/mg;
	note("$who has told of $told changes");
	$followers{$who}->stop;
}
done_testing();
