# Definitions change under load and while they are read: tables come, go and are altered in loops, all of
# them are reloaded at once, and the extension itself comes and goes.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '256MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub one { return $node->safe_psql('postgres', $_[0]); }
my $in_use = "SELECT setting FROM kafka_cache.settings() WHERE name = 'tables'";

# --- thirty tables at once ------------------------------------------------------------------------------

my @many = map { "many_$_" } 1 .. 30;
my %topic = map { ($many[$_] => $many[ $_ < 7 ? $_ : 7 ]) } 0 .. $#many;
foreach my $name (@many[ 0 .. 7 ])
{
	$kafka->topic($name, 2);
	$kafka->load($name, '*', 0, 1000, 'key-%d', '{"n": %d, "t": "text %d"}');
}
my $definition = "(key text OPTIONS (key 'true') NOT NULL, n int, t text) SERVER kafka OPTIONS";
one(join ' ', map { "CREATE FOREIGN TABLE $_ $definition (topic '$topic{$_}');" } @many);
is(one(join ' UNION ALL ', map { "SELECT '$_' WHERE NOT kafka_cache.wait_ready('$_')" } @many), '', 'thirty tables get ready');
is(one('SELECT count(*), sum(entries), min(entries) FROM kafka_cache.tables'), '30|30000|1000', '... each with its rows');
is( one('SELECT count(*) FROM ' . join(' JOIN ', $many[0], map { "$_ USING (key)" } @many[ 1 .. 11 ])),
	'1000', '... and twelve of them are joined');

# All of them are reloaded at once, and again, while they are read.
my $load = load_beside($kafka, 20000, sub { map { [ 'load', $_, '*', 0, 100, 'key-%d', qq({"n": $_[0], "t": "x"}) ] } @many[ 0 .. 9 ] });
my $readers = pgbench_beside($node,
	join('', map { "SELECT 1 / (count(*) = 1000)::int FROM $_;\n" } @many[ 0, 7, 15, 29 ]), seconds => 5, clients => 3);
one('SELECT kafka_cache.reload(relation) FROM kafka_cache.tables') foreach 1 .. 5;
ok($node->wait_for('postgres', "SELECT bool_and(reloads > 0 AND state = 'ready') FROM kafka_cache.tables"), 'all are reloaded at once');
cmp_ok($readers->transactions, '>', 0, '... while they are read: all rows are there all the time');

# --- ALTER and DROP in loops, under load and while they are read ------------------------------------------------

# What a reader may be told when the definition changes below it.
my $told = qr/does not exist|is not ready|cached plan must not change result type|could not open relation|was dropped|changed while|concurrently|cache lookup/;
my @loops = (
	[ 'ALTER of columns', $many[0], 'ALTER FOREIGN TABLE many_1 ADD COLUMN more text', 'ALTER FOREIGN TABLE many_1 DROP COLUMN more' ],
	[ 'ALTER of options', $many[1], "ALTER FOREIGN TABLE many_2 OPTIONS (ADD on_error 'remove')", 'ALTER FOREIGN TABLE many_2 OPTIONS (DROP on_error)' ],
	[ 'ALTER of a type', $many[2], 'ALTER FOREIGN TABLE many_3 ALTER COLUMN n TYPE bigint', 'ALTER FOREIGN TABLE many_3 ALTER COLUMN n TYPE int' ],
	[ 'DROP and CREATE', $many[3], 'DROP FOREIGN TABLE many_4', "CREATE FOREIGN TABLE many_4 $definition (topic 'many_4')" ],
	[ 'ALTER of the topic', $many[4], "ALTER FOREIGN TABLE many_5 OPTIONS (SET topic 'many_6')", "ALTER FOREIGN TABLE many_5 OPTIONS (SET topic 'many_5')" ],
	[ 'ALTER of the server', $many[5], 'ALTER SERVER kafka OPTIONS (ADD client_id \'other\')', 'ALTER SERVER kafka OPTIONS (DROP client_id)' ],
	[ 'a transaction that is rolled back', $many[6], 'BEGIN; DROP FOREIGN TABLE many_7; ROLLBACK', "BEGIN; ALTER FOREIGN TABLE many_7 OPTIONS (ADD max_bytes '1MB'); ROLLBACK" ]);

# A reader of each, beside, that goes on after what it is told, and keeps what it was told.
my @beside;
foreach my $loop (@loops)
{
	my ($name, $table) = @$loop;
	push @beside, beside(
		sub {
			my $end = time + 8;
			while (time < $end)
			{
				my ($status, $out, $err) = $node->psql('postgres',
					"\\set ON_ERROR_STOP 0\nSET kafka_cache.wait_timeout = '2s'; PREPARE p AS SELECT count(*), count(n) FROM $table;
					 PREPARE k AS SELECT n FROM $table WHERE key = 'key-7';\n"
					  . "EXECUTE p; EXECUTE k; SELECT t FROM $table AS t LIMIT 3;\n" x 20, on_error_stop => 0);
				die "$err\n" if $status != 0;
				foreach my $line (grep { /ERROR|FATAL|PANIC/ } split /\n/, $err)
				{
					die "$line\n" unless $line =~ $told;
					print "$line\n";
				}
				foreach my $line (grep { /\|/ && !/\(/ } split /\n/, $out)
				{
					die "rows: $line\n" unless $line =~ /^1000\|1000$/;
				}
			}
		});
	push @beside, beside(
		sub {
			my $end = time + 8;
			for (my $i = 0; time < $end || $i % 2; $i++)
			{
				$node->safe_psql('postgres', $loop->[ 2 + $i % 2 ]);
				select undef, undef, undef, rand 0.3;
			}
		});
}
for (my $i = 0; $i < @beside; $i += 2)
{
	ok($beside[$i]->succeeded, "$loops[$i / 2][0]: readers get all rows, or are told");
	my %kinds;
	$kinds{ s/^.*?ERROR: *//r =~ s/"[^"]*"|\d+/.../gr }++ foreach split /\n/, $beside[$i]->output;
	note("$kinds{$_} times: $_") foreach sort keys %kinds;
	ok($beside[ $i + 1 ]->succeeded, "$loops[$i / 2][0]: in a loop");
}
$load->stop;
foreach my $name (@many[ 0 .. 6 ])
{
	ok($node->catch_up('postgres', $name, $kafka), "$name is ready in the end");
}
is(one("SELECT string_agg(DISTINCT c::text, ' ') FROM (" . join(' UNION ALL ', map { "SELECT count(*) FROM $_" } @many[ 0 .. 6 ]) . ') AS x (c)'),
	'1000', '... with all rows');
balanced($node, 'definitions that change');

# --- prepared statements and descriptions across ALTER ------------------------------------------------------------

$kafka->load('many_8', '*', 0, 1000, 'key-%d', '{"n": %d, "t": "text %d"}');
$node->catch_up('postgres', $_, $kafka, 'many_8') foreach @many[ 7 .. 9 ];
is( one("PREPARE p AS SELECT n FROM many_8 WHERE key = \$1;
		EXECUTE p('key-5'); EXECUTE p('key-6');
		ALTER FOREIGN TABLE many_8 ADD COLUMN extra text OPTIONS (json 't');
		EXECUTE p('key-7');
		ALTER FOREIGN TABLE many_8 DROP COLUMN t;
		EXECUTE p('key-8');
		SELECT * FROM many_8 WHERE key = 'key-9';"), "5\n6\n7\n8\nkey-9|9|text 9", 'a prepared statement across ALTER');
like(one("SELECT *, tableoid::regclass AS home, ctid FROM many_9 \\gdesc"), qr/key\|text\nn\|integer\nt\|text\nhome\|regclass\nctid\|tid/, '\gdesc');
is(one("SELECT m FROM many_9 m WHERE key = 'key-1'"), '(key-1,1,"text 1")', 'a whole row');
is(one("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT n FROM many_9 ORDER BY n; FETCH 2 FROM c; FETCH BACKWARD 1 FROM c; MOVE LAST IN c; FETCH RELATIVE 0 FROM c; COMMIT"),
	"0\n1\n0\n999", 'a cursor that scrolls');
is(one("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT n FROM many_9 ORDER BY n; COMMIT; DROP FOREIGN TABLE many_9; FETCH 2 FROM c"),
	"0\n1", 'a cursor that outlives its table');
my ($status, $out, $err) =
  $node->psql('postgres', "BEGIN; DECLARE c CURSOR FOR SELECT n FROM many_10; FETCH 1 FROM c; DROP FOREIGN TABLE many_10");
like($err, qr/being used by active queries in this session/, 'a table that a cursor reads is not dropped');

# --- everything goes -------------------------------------------------------------------------------------------------

one(join ' ', map { "DROP FOREIGN TABLE IF EXISTS $_;" } @many);
ok($node->wait_for('postgres', "$in_use", '0'), 'all tables are forgotten');
my $empty = one("SELECT setting FROM kafka_cache.settings() WHERE name = 'memory_used'");
$readers = pgbench_beside($node, "SELECT count(*) FROM kafka_cache.tables;\n", seconds => 60, clients => 1, protocol => 'simple', database => 'template1');
$readers->stop;
foreach my $round (1 .. 8)
{
	one("DROP EXTENSION kafka_cache_fdw CASCADE;
		 CREATE EXTENSION kafka_cache_fdw;
		 CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '" . $kafka->address . "');
		 CREATE FOREIGN TABLE many_11 $definition (topic 'many_8')");
	next if $round % 2;
	ok($node->wait_ready('postgres', 'many_11'), "DROP and CREATE EXTENSION: the table of round $round is loaded");
	is(one('SELECT count(*) FROM many_11'), '1000', '... and read');
}
one('DROP EXTENSION kafka_cache_fdw CASCADE; CREATE EXTENSION kafka_cache_fdw');
ok($node->wait_for('postgres', "$in_use", '0'), 'all is forgotten again');
is(one("SELECT setting FROM kafka_cache.settings() WHERE name = 'memory_used'"), $empty, '... and its memory given back');

unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
