# Memory that is not enough: tables stop in order and loudly, others go on, and all go on by themselves
# when there is room. Old states that are held cost memory, and give way. Garbage costs little.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main',
	conf => { 'kafka_cache.memory' => '32MB', 'kafka_cache.max_pin_age' => '1s', 'kafka_cache.max_errors' => 500, log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
sub sqlstate_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql");
	return $err =~ /(?:ERROR|FATAL):\s+(\w+)/ ? $1 : "no error: $out";
}
my $value = 'value-%d-' . 'x' x 300;
my $state = "SELECT state FROM kafka_cache.tables WHERE relation = '%s'::regclass";

# --- one table is over its own limit ---------------------------------------------------------------------

$kafka->topic($_, 2) foreach qw(small big late churn);
$kafka->load('small', '*', 0, 1000, 'key-%d', $value);
$kafka->load('big', '*', 0, 10000, 'key-%d', $value);
text_table($node, 'small');
text_table($node, 'big', max_bytes => '2MB');
ok($node->wait_ready('postgres', 'small'), 'a table that has room');
ok($node->wait_for('postgres', sprintf($state, 'big'), 'full'), 'a table over its max_bytes says that it is full');
like(one("SELECT message FROM kafka_cache.tables WHERE relation = 'big'::regclass"), qr/max_bytes/, '... and why');
is(one("SELECT ready FROM kafka_cache.tables WHERE relation = 'big'::regclass"), 'f', '... not ready');
like(sqlstate_of("SET kafka_cache.wait_timeout = '200ms'; SELECT count(*) FROM big"), qr/^(53200|55000)$/, '... and is not read in part');
$kafka->load('small', '*', 0, 1000, 'key-%d', 'again-%d');
ok($node->catch_up('postgres', 'small', $kafka), 'others go on');
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '20MB')");
ok($node->wait_ready('postgres', 'big'), 'it goes on when max_bytes is raised');
same_as_kcat($node, $kafka, 'big', 'max_bytes raised');
is(one("SELECT records, reloads FROM kafka_cache.tables WHERE relation = 'big'::regclass"), '10000|0', '... nothing read twice');

# A table that gets full after it was ready serves what it had.
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '6MB')");
$kafka->load('big', '*', 10000, 20000, 'key-%d', $value);
ok($node->wait_for('postgres', sprintf($state, 'big'), 'full'), 'a table that was ready gets full');
cmp_ok(one('SELECT count(*) FROM big'), '>=', 10000, '... and is read on');
one("ALTER FOREIGN TABLE big OPTIONS (SET max_bytes '20MB')");
ok($node->catch_up('postgres', 'big', $kafka), '... and goes on');
same_as_kcat($node, $kafka, 'big', 'full and raised');

# --- the arena is full ---------------------------------------------------------------------------------------

$kafka->load('late', '*', 0, 60000, 'key-%d', $value);
text_table($node, 'late');
ok($node->wait_for('postgres', sprintf($state, 'late'), 'full'), 'the memory of all tables is used up');
like(one("SELECT message FROM kafka_cache.tables WHERE relation = 'late'::regclass"), qr/kafka_cache\.memory/, '... it says so');
is(one('SELECT count(*) FROM small'), '1000', 'others are read');
is(one("SELECT count(*) FROM big"), '30000', '... all of them');
like(sqlstate_of("SET kafka_cache.wait_timeout = '200ms'; SELECT count(*) FROM late"), qr/^(53200|55000)$/, '... but not that one');
like($node->log_text, qr/is full and stops where it is/, 'the log says it');
one('DROP FOREIGN TABLE big');
ok($node->wait_ready('postgres', 'late'), 'it goes on when another table is dropped');
is(one('SELECT count(*), count(DISTINCT key) FROM late'), '60000|60000', '... and has everything');
is(one("SELECT records, reloads FROM kafka_cache.tables WHERE relation = 'late'::regclass"), '60000|0', '... nothing read twice');

# A reload that finds no room leaves what is served alone.
one("SELECT kafka_cache.reload('late')");
ok($node->wait_for('postgres', "SELECT message ~ 'no memory' FROM kafka_cache.tables WHERE relation = 'late'::regclass"),
	'a reload that finds no memory is given up for now');
is(one('SELECT count(*) FROM late'), '60000', '... and what was there is served');
$kafka->produce('late', 0, 'key-new', 'new');
ok($node->catch_up('postgres', 'late', $kafka), '... and followed');
is(one("SELECT value FROM late WHERE key = 'key-new'"), 'new', '... as one can see');
one('DROP FOREIGN TABLE late');

# --- a state that is held, and rows that change --------------------------------------------------------------

$kafka->load('churn', '*', 0, 5000, 'key-%d', "0-$value");
text_table($node, 'churn');
ok($node->wait_ready('postgres', 'churn'), 'a table whose rows will change');
my $load = load_beside($kafka, 30000, sub { [ 'load', 'churn', '*', 0, 5000, 'key-%d', "$_[0]-$value" ] });

# A cursor that is finished soon keeps its state; one that is held too long is told.
my $readers = pgbench_beside($node, "BEGIN;\nDECLARE c CURSOR FOR SELECT value FROM churn;\nFETCH 10 FROM c;\nMOVE ALL IN c;\nCOMMIT;\n"
	. "SELECT 1 / (count(DISTINCT substr(value, 1, 20)) BETWEEN 1 AND count(*) AND count(*) = 5000)::int FROM churn;\n", seconds => 5);
my ($status, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
BEGIN; DECLARE c CURSOR FOR SELECT key, value FROM churn;
FETCH 3 FROM c;
CREATE TEMP TABLE t AS SELECT records FROM kafka_cache.tables WHERE relation = 'churn'::regclass;
DO $$ BEGIN WHILE (SELECT records FROM kafka_cache.tables WHERE relation = 'churn'::regclass) < (SELECT records FROM t) + 250000 LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
MOVE ALL IN c;
COMMIT});
like($err, qr/ERROR:\s+72000: .*snapshot too old/s, 'a cursor that is held while its memory is needed: snapshot too old');
cmp_ok($readers->transactions, '>', 0, 'short ones are not disturbed');
is(sqlstate_of("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM churn; CREATE TEMP TABLE t AS SELECT records FROM kafka_cache.tables WHERE relation = 'churn'::regclass;
	DO \$\$ BEGIN WHILE (SELECT records FROM kafka_cache.tables WHERE relation = 'churn'::regclass) < (SELECT records FROM t) + 250000 LOOP PERFORM pg_sleep(0.05); END LOOP; END \$\$;
	SELECT count(*) FROM churn"), '72000', 'a transaction that is held so: the same');
$load->stop;
ok($node->catch_up('postgres', 'churn', $kafka), 'the server is fine: it catches up');
same_as_kcat($node, $kafka, 'churn', 'after the churn');
is(accounts($node, 'churn')->{reloads}, 0, '... without a reload');

# --- garbage -------------------------------------------------------------------------------------------------------

$kafka->topic('garbage', 2);
one("CREATE FOREIGN TABLE garbage (key int OPTIONS (key 'true') NOT NULL, n int NOT NULL, t timestamptz, c jsonb) SERVER kafka OPTIONS (topic 'garbage')");
$kafka->load('garbage', '*', 0, 4000, '%d', '{"n": %d, "t": "no time"}');
$kafka->load('garbage', '*', 0, 4000, '%d', '{"n": %d');
$kafka->load('garbage', '*', 0, 4000, 'bad-%d', '{"n": %d}');
$kafka->load('garbage', '*', 0, 4000, '%d', "\xff\xfe%d");
$kafka->load('garbage', '*', 0, 4000, '%d', '{"n": 1e999, "c": {"a": "\u0000"}}');
$kafka->load('garbage', '*', 5000, 10, '%d', '{"n": %d}');
ok($node->catch_up('postgres', 'garbage', $kafka), 'twenty thousand bad records are passed');
is(one('SELECT count(*) FROM garbage'), '10', '... and the good ones arrive');
is(one("SELECT upserts, errors, records FROM kafka_cache.tables WHERE relation = 'garbage'::regclass"), '10|20000|20010', '... all are counted');
is(one("SELECT count(*) FROM kafka_cache.errors WHERE relation = 'garbage'::regclass"), '500', '... as many are listed as may be');
ok($node->wait_for('postgres', "SELECT message LIKE '%kafka_cache.max_errors%' FROM kafka_cache.tables WHERE relation = 'garbage'::regclass"), '... and the message says that there are more');
$kafka->load('garbage', '*', 0, 4000, '%d', '{"n": %d}');
$kafka->load('garbage', '*', 0, 4000, 'bad-%d', undef);
ok($node->catch_up('postgres', 'garbage', $kafka), 'good records come');
is(one("SELECT count(*) FROM kafka_cache.errors WHERE relation = 'garbage'::regclass"), '0', '... and heal everything');
is(one('SELECT count(*), sum(n) FROM garbage'), 4010 . '|' . (3999 * 2000 + 50045), '... and are there');
balanced($node, 'in the end');

unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
one("DROP FOREIGN TABLE small, churn, garbage");
ok($node->wait_for('postgres', "SELECT setting FROM kafka_cache.settings() WHERE name = 'memory_used'", '0'), 'all memory is given back')
  or diag(one("SELECT setting FROM kafka_cache.settings() WHERE name = 'memory_used'"));
$node->stop;
done_testing();
