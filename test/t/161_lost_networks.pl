# Brokers that come and go, or are away for long; names that are never resolved; a clock that is set wrong.
# The tables that this does not concern go on, the log stays short, and the server can be stopped.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Paths qw($bin);
use KafkaCache::Story;
use Test::More;

# A server with a machine of its own: test/faults.c.
my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock';
PostgreSQL::Test::Utils::append_to_file($clock, pack 'qq', 0, 0);
my $node = KafkaCache::Cluster->new('main', conf => { log_min_messages => 'warning' });
{
	local $ENV{LD_PRELOAD} = "$bin/faults.so";
	local $ENV{KCF_CLOCK} = $clock;
	$node->start;
}

sub set_clock
{
	my ($time_of_day, $forward) = @_;
	open(my $fh, '+<', $clock) or die "$clock: $!";
	syswrite $fh, pack 'qq', $time_of_day, $forward // 0;
	close $fh;
	return;
}

sub one { return $node->safe_psql('postgres', $_[0]); }
sub of { return one("SELECT $_[1] FROM kafka_cache.tables WHERE relation = '$_[0]'::regclass"); }
sub becomes
{
	my ($table, $condition, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->wait_for('postgres', "SELECT $condition FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $what)
	  || diag(one("SELECT t FROM kafka_cache.tables t WHERE relation = '$table'::regclass"));
}
sub lines { my ($like) = @_; return scalar grep { /$like/ } split /\n/, $node->log_text; }

# Each table with brokers of its own.
my %mock = map { $_ => KafkaCache::Mock->new } qw(away flaps steady);
one('CREATE EXTENSION kafka_cache_fdw');
foreach my $table (sort keys %mock)
{
	$mock{$table}->topic($table, 2);
	$mock{$table}->load($table, '*', 0, 100, 'key-%d', 'value-%d');
	one("CREATE SERVER $table FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $mock{$table}->address . "')");
	one("CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		 SERVER $table OPTIONS (topic '$table', format 'text')");
	ok($node->catch_up('postgres', $table, $mock{$table}), "$table is loaded");
}

# What takes long is begun: for a minute there is no broker.
$mock{away}->down;

# --- names that are never resolved ----------------------------------------------------------------------------

one("CREATE SERVER hangs FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers 'broker.hangs:9092')");
sub hang
{
	my ($table) = @_;
	one("CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		 SERVER hangs OPTIONS (topic 'any', format 'text')");
	return becomes($table, "state = 'connecting'", "a name that is never resolved: $table connects");
}
hang('lost');
$mock{steady}->produce('steady', 0, 'meanwhile', '1');
ok($node->catch_up('postgres', 'steady', $mock{steady}), '... which keeps nobody waiting');
one('DROP FOREIGN TABLE lost');
$mock{steady}->produce('steady', 0, 'meanwhile', '2');
ok($node->catch_up('postgres', 'steady', $mock{steady}), '... nor does its end');
hang('stays');

# --- a clock that is set wrong ----------------------------------------------------------------------------------

is(one("SELECT now() > '2020-01-01'"), 't', 'the time of day is right');
foreach my $days (-1, 1)
{
	set_clock($days * 86400);
	is(one("SELECT abs(extract(epoch FROM now()) - " . (time + $days * 86400) . ") < 3600"), 't', "the clock is set by $days day(s)");
	becomes('steady', "state = 'ready' AND staleness < '3 s'", '... nothing gets old by that');
	kill 'STOP', $mock{steady}{pid};
	becomes('steady', "state = 'stalled' AND staleness > '3 s'", '... nor stays young by it');
	kill 'CONT', $mock{steady}{pid};
	becomes('steady', "state = 'ready' AND staleness < '3 s'", '... and what was cut off comes back');
	$mock{steady}->produce('steady', 0, "day $days", '1');
	ok($node->catch_up('postgres', 'steady', $mock{steady}), '... and follows');
}
set_clock(0);

# --- brokers that come and go -----------------------------------------------------------------------------------

my $flaps = 0;
my $given_up = q(SELECT value > 0 FROM kafka_cache.metrics WHERE name = 'kafka_cache_clients_given_up_total'
	AND labels->>'relation' LIKE '%away' AND labels->>'reason' = 'cut_off');
until (one($given_up) eq 't' && $flaps >= 100)
{
	$mock{flaps}->down;
	select undef, undef, undef, 0.1;
	$mock{flaps}->up;
	# Now and then long enough for a record.
	next if ++$flaps % 20;
	$mock{flaps}->produce('flaps', '*', "flap-$flaps", 'value');
	ok($node->catch_up('postgres', 'flaps', $mock{flaps}), "after $flaps flaps a record comes through");
}
note("$flaps flaps");
same_as_kcat($node, $mock{flaps}, 'flaps', 'after flapping');
is(accounts($node, 'flaps')->{records}, accounts($node, 'flaps')->{entries}, '... each record once');
is(accounts($node, 'flaps')->{reloads}, 0, '... and without another load');
balanced($node, 'after flapping');

# --- brokers that were away -------------------------------------------------------------------------------------

is(lines(qr/cached table public\.away gets a new Kafka client: no broker has answered it for a minute/), 1,
	'no broker for a minute: a new client asks for their addresses');
is(lines(qr/cached table public\.(?:steady|flaps) gets a new/), 0, '... of no other table');
is(one('SELECT count(*) FROM away'), 100, '... the rows are served');
becomes('away', "state = 'stalled' AND staleness > '60 s'", '... and it is known how old they are');
$mock{away}->up;
$mock{away}->produce('away', 0, 'new', 'value');
ok($node->catch_up('postgres', 'away', $mock{away}), '... it heals by itself');

# --- the log ------------------------------------------------------------------------------------------------------

$node->wait_for_log(qr/\d+ more lines? about Kafka clients (?:was|were) left out/);
my $lines = lines(qr/kafka_cache consumer/);
cmp_ok($lines, '<', 30, "the log of all that is short ($lines lines)");
my $left_out = 0;
my $text = $node->log_text;
$left_out += $1 while $text =~ /(\d+) more lines? about Kafka clients/g;
cmp_ok($left_out, '>', 0, "... and says what it leaves out ($left_out lines)");

# --- half a day without an answer ---------------------------------------------------------------------------------

my $reloads = of('steady', 'reloads');
kill 'STOP', $mock{steady}{pid};
set_clock(0, 11 * 3600);
becomes('steady', "state = 'stalled' AND staleness > '11 h'", 'cut off for eleven hours');
kill 'CONT', $mock{steady}{pid};
becomes('steady', "state = 'ready' AND staleness < '3 s'", '... and back');
$mock{steady}->produce('steady', 0, 'after eleven hours', '1');
ok($node->catch_up('postgres', 'steady', $mock{steady}), '... it goes on');
is(of('steady', 'reloads'), $reloads, '... where it was');
kill 'STOP', $mock{steady}{pid};
set_clock(0, 24 * 3600);
becomes('steady', "state = 'stalled' AND staleness > '12 h'", 'cut off for thirteen hours');
is(one('SELECT count(*) > 0 FROM steady'), 't', '... it serves what it has');
kill 'CONT', $mock{steady}{pid};
becomes('steady', "state = 'ready' AND reloads = $reloads + 1", '... deletions may have been compacted away meanwhile: it is loaded again');
same_as_kcat($node, $mock{steady}, 'steady', 'after a long outage');
is(lines(qr/cached table public\.steady is loaded again: it was cut off for more than 12 hours/), 1, '... the log says why');
is(of('steady', 'reloads'), $reloads + 1, '... once');

# --- the end --------------------------------------------------------------------------------------------------------

my $consumer = one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'");
is(of('stays', 'state'), 'connecting', 'somebody still waits for a name');
$node->stop('fast');
ok(!kill(0, $consumer), 'the server stops all the same');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal|immediate shutdown|crash/, '... in an orderly way');
done_testing();
