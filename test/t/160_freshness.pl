# How old what one reads may be is known at every moment: brokers that are gone, frozen, or talk without
# saying anything; a consumer that is stopped. And who has lost its way finds it again.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Mock;
use KafkaCache::Proxy;
use KafkaCache::Story;
use Test::More;

my $proxy = KafkaCache::Proxy->new;
my $kafka = KafkaCache::Kafka->new(set => $proxy->advertised);
my $direct = $kafka->address;
$proxy->before($kafka);
my $mock = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub of { return one("SELECT $_[1] FROM kafka_cache.tables WHERE relation = '$_[0]'::regclass"); }
sub becomes
{
	my ($table, $condition, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->wait_for('postgres', "SELECT $condition FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $what)
	  || diag(one("SELECT t FROM kafka_cache.tables t WHERE relation = '$table'::regclass"));
}

# Nobody is left behind who cannot end.
my @stopped;
END { kill 'CONT', @stopped if @stopped; }

# The SQLSTATE of a query under a limit.
sub limited
{
	my ($table, $limit) = @_;
	my ($status, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET kafka_cache.max_staleness = '$limit'; SELECT count(*) FROM $table");
	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : $out;
}

# Asked again and again, in the server: the table's row when its state was another one for the first time.
one(q{
CREATE FUNCTION first_seen(name regclass, unlike text) RETURNS kafka_cache.tables LANGUAGE plpgsql AS $$
DECLARE
	seen kafka_cache.tables;
BEGIN
	LOOP
		SELECT * INTO seen FROM kafka_cache.tables WHERE relation = name;
		IF seen.state <> unlike THEN RETURN seen; END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$});

one("CREATE SERVER mock FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $mock->address . "')");
$mock->topic('frozen', 2);
$mock->load('frozen', '*', 0, 100, 'key-%d', 'value-%d');
one("CREATE FOREIGN TABLE frozen (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
	 SERVER mock OPTIONS (topic 'frozen', format 'text')");
foreach my $table (qw(quiet starved ignored damaged))
{
	$kafka->topic($table, 2);
	$kafka->load($table, '*', 0, 100, 'key-%d', 'value-%d');
	text_table($node, $table);
}
ok($node->catch_up('postgres', $_, $kafka), "$_ is loaded") foreach qw(quiet starved ignored damaged);
ok($node->catch_up('postgres', 'frozen', $mock), 'frozen is loaded');
is(limited('quiet', '5s'), '100', 'a quiet topic is known to be at its end');

# --- what takes long is begun ------------------------------------------------------------------------------

# Its client is told that there are records, and gets none: no error, a connection in order, and nothing comes.
$proxy->command('starve', 'starved');
# No request for records is answered, all others are.
$proxy->command('ignore', 'ignored');
my $producer = KafkaCache::Broker->spawn("$KafkaCache::Paths::bin/producer", $direct);
$producer->{address} = $direct;
$producer->produce($_, 0, 'new', 'value') foreach qw(starved ignored);

# --- a damaged batch ------------------------------------------------------------------------------------------

$proxy->command('damage', 'damaged', 2);
$producer->load('damaged', '*', 0, 100, 'key-%d', 'second-%d');
ok($node->catch_up('postgres', 'damaged', $kafka), 'a batch that is damaged on its way is fetched again');
is($proxy->command('damaged'), '2', '... as often as needed');
same_as_kcat($node, $kafka, 'damaged', 'after damage');
is(accounts($node, 'damaged')->{errors}, 0, '... and no record counts as bad');
is(accounts($node, 'damaged')->{records}, 200, '... each once');

$proxy->command('damage', 'damaged', 1000);
$producer->produce('damaged', '*', 'key-1', 'third');
becomes('damaged', "state = 'failed' AND ready AND message ~* 'crc'", 'a batch that stays damaged is told');
is(one("SELECT count(*) FROM damaged"), 100, '... the rows are served');
becomes('damaged', "staleness > '3 s'", '... and are known to be stale');
$proxy->command('damage', 'damaged', 0);
ok($node->catch_up('postgres', 'damaged', $kafka), 'it heals');
becomes('damaged', "state = 'ready' AND staleness < '3 s'", '... and is fresh');
same_as_kcat($node, $kafka, 'damaged', 'after more damage');

# --- a broker that is frozen ------------------------------------------------------------------------------------

push @stopped, $mock->{pid};
kill 'STOP', $mock->{pid};
is(one("SELECT state || ' ' || (staleness < '5 s') || ' ' || ready || ' ' || (message ~ 'no answer of the brokers since')
		FROM first_seen('frozen', 'ready')"),
	'stalled true true true', 'a frozen broker is seen within 5 s');
is(one('SELECT count(*) FROM frozen'), 100, '... the rows are served');
is(limited('frozen', '3s'), '40001', '... unless that is too stale');
is(limited('quiet', '5s'), '100', '... which other tables are not');
my $before = of('frozen', 'extract(epoch FROM staleness)');
cmp_ok(of('frozen', 'extract(epoch FROM staleness)'), '>', $before, '... and staleness grows');
kill 'CONT', $mock->{pid};
becomes('frozen', "state = 'ready' AND staleness < '3 s' AND message IS NULL", 'it thaws');
$mock->produce('frozen', 0, 'new', 'value');
ok($node->catch_up('postgres', 'frozen', $mock), '... and the table follows');

# --- a consumer that is stopped -----------------------------------------------------------------------------------

my $consumer = one("SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'");
push @stopped, $consumer;
kill 'STOP', $consumer;
like(one("SELECT state || ' ' || ready || ' ' || message FROM first_seen('quiet', 'ready')"),
	qr/^stalled true its consumer process is there/, 'a consumer that is stopped is seen');
is(limited('quiet', '2s'), '40001', '... its tables are stale');
is(one('SELECT count(*) FROM quiet'), 100, '... and are served');
kill 'CONT', $consumer;
becomes('quiet', "state = 'ready' AND staleness < '3 s'", 'it goes on');

# --- brokers that are gone ------------------------------------------------------------------------------------------

$mock->down;
becomes('frozen', "state = 'stalled' AND staleness > '4 s'", 'brokers are gone: the table is cut off');
is(limited('frozen', '3s'), '40001', '... too stale for who sets a limit');
is(one('SELECT count(*) FROM frozen'), 101, '... and read by everybody else');
$mock->up;
becomes('frozen', "state = 'ready' AND staleness < '3 s'", 'they are back, and it is ready by itself');
$mock->produce('frozen', 0, 'newer', 'value');
ok($node->catch_up('postgres', 'frozen', $mock), '... and follows');

# --- what took long ---------------------------------------------------------------------------------------------------

becomes('ignored', "state = 'stalled' AND staleness > '10 s'", 'answers to other questions do not make a table fresh');
$node->wait_for_log(qr/cached table public\.starved gets a new Kafka client: it is connected, but makes no progress/);
ok($node->catch_up('postgres', 'starved', $kafka), 'a client that has lost its way: a new one finds it');
becomes('starved', "state = 'ready' AND staleness < '3 s'", '... and is at the end');
$node->wait_for_log(qr/cached table public\.ignored gets a new Kafka client: it is connected, but makes no progress/);
becomes('ignored', "state = 'stalled'", 'where a new one does not help either, that is told');
is(one(q{SELECT string_agg(labels->>'relation' || ' ' || (labels->>'reason') || ' ' || value, ', ' ORDER BY labels->>'relation')
		FROM kafka_cache.metrics WHERE name = 'kafka_cache_clients_given_up_total' AND value > 0}),
	'public.ignored stuck 1, public.starved stuck 1', '... and counted');
$proxy->command('pass');
ok($node->catch_up('postgres', 'ignored', $kafka), '... and it heals with the network');
same_as_kcat($node, $kafka, $_, 'in the end') foreach qw(quiet starved ignored damaged);
is(accounts($node, $_)->{reloads}, 0, "$_ was never loaded again") foreach qw(quiet starved ignored damaged frozen);

unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$producer->stop;
$node->stop;
done_testing();
