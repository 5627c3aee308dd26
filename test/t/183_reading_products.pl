# What a query computes of the products that it reads: the same rows and the same keys, whatever the planner is told.
# What is right is said by ordinary tables that have what the functions would return.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Writing;
use Test::More;

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.refresh_workers' => 0, jit => 'off' });
$node->start;
$node->connect_kafka('postgres', $kafka, fetch_wait_max_ms => 20);

sub one { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

$kafka->topic($_, 2) foreach qw(p q r plain);
$kafka->produce('plain', 0, $_, "{\"name\": \"n$_\"}") foreach 0 .. 29;
one(q{
	-- each call says for which key; there is nothing for some keys
	CREATE FUNCTION p_of(k int, OUT n int, OUT rows int[]) LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes p %', k; IF k % 5 <> 4 THEN n := k * 2 % 31; rows := ARRAY[k, k + 1]; END IF; END$$;
	CREATE FUNCTION q_of(k int, OUT n int, OUT rows int[]) LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes q %', k; IF k % 3 <> 2 THEN n := k * 3 % 29; rows := ARRAY[k]; END IF; END$$;
	CREATE FUNCTION r_of(a int, b text) RETURNS text LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes r % %', a, b; RETURN CASE WHEN a % 4 <> 1 THEN b || a END; END$$;
	CREATE FOREIGN TABLE p (k int OPTIONS (key 'true') NOT NULL, n int, rows int[]) SERVER kafka OPTIONS (compute 'public.p_of');
	CREATE FOREIGN TABLE q (k int OPTIONS (key 'true') NOT NULL, n int, rows int[]) SERVER kafka OPTIONS (compute 'public.q_of');
	CREATE FOREIGN TABLE r (a int OPTIONS (key 'true') NOT NULL, b text OPTIONS (key 'true') NOT NULL, v jsonb OPTIONS (value 'true'))
		SERVER kafka OPTIONS (compute 'public.r_of', key_format 'json');
	CREATE FOREIGN TABLE plain (k int OPTIONS (key 'true') NOT NULL, name text) SERVER kafka;
	CREATE TABLE o (id int PRIMARY KEY, k int, c int, name text, ks int[]);
	CREATE TABLE c (id int PRIMARY KEY, k int, name text);
	INSERT INTO o SELECT i, CASE WHEN i % 9 <> 8 THEN i % 17 END, i % 13, 'o' || i % 6, ARRAY[i % 11, i % 11 + 1] FROM generate_series(1, 40) i;
	INSERT INTO c SELECT i, i % 7, 'o' || i % 4 FROM generate_series(3, 30) i;
	CREATE TABLE parts (k int, n int) PARTITION BY LIST (k);
	ANALYZE o, c;
	-- what there would be, were everything computed
	CREATE TABLE all_p AS SELECT k, k * 2 % 31 AS n, ARRAY[k, k + 1] AS rows FROM generate_series(0, 60) k WHERE k % 5 <> 4;
	CREATE TABLE all_q AS SELECT k, k * 3 % 29 AS n, ARRAY[k] AS rows FROM generate_series(0, 60) k WHERE k % 3 <> 2;
	CREATE TABLE all_r AS SELECT a, b, to_jsonb(b || a) AS v FROM generate_series(0, 60) a, (SELECT 'o' || i AS b FROM generate_series(0, 9) i) s WHERE a % 4 <> 1;
});
ok($node->wait_ready('postgres', $_), "$_ is ready") foreach qw(p q r plain);

# Some of it is there.
$node->psql('postgres', q{SELECT count(*) FROM p WHERE k = ANY ('{1,2,3,4,9,11}');
	SELECT count(*) FROM q WHERE k IN (0, 2, 5, 6, 9);
	SELECT count(*) FROM o JOIN r ON r.a = o.k AND r.b = o.name WHERE o.id < 6});
ok($node->catch_up('postgres', $_, $kafka, $_), "$_ has what was computed") foreach qw(p q r plain);
is(one('SELECT array_agg(k ORDER BY k) FROM p'), '{1,2,3,11}', 'a scan shows what is cached, but not what is nothing');
one(q{CREATE TABLE cached_p AS SELECT * FROM p; CREATE TABLE cached_q AS SELECT * FROM q; CREATE TABLE cached_r AS SELECT * FROM r});

# --- many queries, many settings -----------------------------------------------------------------------

# @p is computed, #p scanned as cached. The second, where there is one, is what is asked for of the products.
my @queries = (
	['SELECT * FROM @p p WHERE k = 7', "SELECT 'p 7'"],
	['SELECT * FROM @p p WHERE k = 4', 'SELECT NULL WHERE false'],
	['SELECT * FROM @p p WHERE k IN (1, 8, 9, 10, 8) AND n > 1', "SELECT 'p 8' UNION SELECT 'p 10'"],
	['SELECT * FROM @p p WHERE k = (SELECT max(k) FROM o)', "SELECT 'p ' || max(k) FROM o"],
	['SELECT * FROM @p p WHERE k = ANY (ARRAY(SELECT k FROM o WHERE id < 9))', "SELECT 'p ' || k FROM o WHERE id < 9"],
	['SELECT * FROM #p p WHERE k > 2', 'SELECT NULL WHERE false'],
	['SELECT * FROM #p p', 'SELECT NULL WHERE false'],
	['SELECT * FROM @r r WHERE a = 3 AND b = \'o5\'', "SELECT 'r 3 o5'"],
	['SELECT * FROM #r r WHERE a = 3'],
	['SELECT * FROM o JOIN @p p ON p.k = o.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k::bigint', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o LEFT JOIN @p p ON p.k = o.k AND p.n > 3', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM (o JOIN @p p ON p.k = o.k) JOIN c ON c.id = o.c', "SELECT 'p ' || o.k FROM o JOIN c ON c.id = o.c"],
	['SELECT * FROM (c CROSS JOIN @p p) JOIN o ON p.k = o.k AND c.id = o.c', "SELECT 'p ' || o.k FROM o JOIN c ON c.id = o.c"],
	['SELECT * FROM @p p JOIN o ON p.k = o.k JOIN c ON c.k = p.k', "SELECT 'p ' || o.k FROM o JOIN c ON c.k = o.k"],
	['SELECT * FROM @p p JOIN o ON p.k = o.k JOIN c ON c.id = p.n', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM @p p JOIN (o LEFT JOIN c ON c.id = o.c) ON p.k = o.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM @p p JOIN (o LEFT JOIN c ON c.id = o.c) ON p.k = coalesce(c.k, 20)', "SELECT 'p ' || coalesce(c.k, 20) FROM o LEFT JOIN c ON c.id = o.c"],
	['SELECT * FROM o LEFT JOIN (@p p JOIN c ON p.n = c.id) ON p.k = o.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o LEFT JOIN (@p p JOIN c ON p.k = c.k) ON c.id = o.c', "SELECT 'p ' || c.k FROM c"],
	['SELECT * FROM o LEFT JOIN (c LEFT JOIN @p p ON p.k = c.k) ON c.id = o.c'],
	['SELECT * FROM o LEFT JOIN @p p ON p.k = o.k JOIN c ON c.id = o.c', "SELECT 'p ' || o.k FROM o JOIN c ON c.id = o.c"],
	['SELECT * FROM o FULL JOIN (@p p JOIN c ON p.k = c.k) ON c.id = o.c', "SELECT 'p ' || c.k FROM c"],
	['SELECT * FROM (o FULL JOIN c ON c.id = o.c) JOIN @p p ON p.k = coalesce(o.k, c.k)', "SELECT 'p ' || coalesce(o.k, c.k) FROM o FULL JOIN c ON c.id = o.c"],
	['SELECT * FROM #p p LEFT JOIN o ON p.k = o.k', 'SELECT NULL WHERE false'],
	['SELECT * FROM o FULL JOIN #p p ON p.k = o.k', 'SELECT NULL WHERE false'],
	['SELECT * FROM o FULL JOIN @p p USING (k) WHERE k = 7', "SELECT 'p 7'"],
	['SELECT * FROM @p p WHERE k IN (SELECT k FROM o WHERE id < 9)', "SELECT 'p ' || k FROM o WHERE id < 9"],
	['SELECT * FROM @p p WHERE k IN (SELECT o.k FROM o JOIN c ON c.id = o.c)', "SELECT 'p ' || o.k FROM o JOIN c ON c.id = o.c"],
	['SELECT * FROM @p p JOIN c ON c.id = p.n WHERE p.k IN (SELECT k FROM o)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM @p p JOIN c ON c.k = p.k WHERE p.k IN (SELECT k FROM o)', "SELECT 'p ' || k FROM o JOIN c USING (k)"],
	['SELECT * FROM #p p WHERE NOT EXISTS (SELECT FROM o WHERE o.k = p.k)', 'SELECT NULL WHERE false'],
	['SELECT * FROM #p p WHERE k NOT IN (SELECT k FROM c)', 'SELECT NULL WHERE false'],
	['SELECT * FROM o WHERE EXISTS (SELECT FROM @p p WHERE p.k = o.k)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o WHERE k IN (SELECT k FROM @p p WHERE n > 3)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o WHERE NOT EXISTS (SELECT FROM @p p WHERE p.k = o.k)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o WHERE EXISTS (SELECT FROM @p p JOIN c ON c.id = p.n WHERE p.k = o.k)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k WHERE EXISTS (SELECT FROM c WHERE c.id = o.c AND c.k < 5)', "SELECT 'p ' || o.k FROM o JOIN c ON c.id = o.c WHERE c.k < 5"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k WHERE NOT EXISTS (SELECT FROM c WHERE c.id = o.c)', "SELECT 'p ' || k FROM o WHERE c NOT IN (SELECT id FROM c)"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k WHERE EXISTS (SELECT FROM c WHERE c.id = p.n)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k WHERE NOT EXISTS (SELECT FROM c WHERE c.id = p.n)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o, LATERAL unnest(o.ks) u JOIN @p p ON p.k = u', "SELECT 'p ' || unnest(ks) FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = ANY (o.ks)', "SELECT 'p ' || unnest(ks) FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k, LATERAL unnest(p.rows) e', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o, LATERAL (SELECT * FROM @p p WHERE p.k = o.k LIMIT 1) l', "SELECT 'p ' || k FROM o"],
	['SELECT o.*, (SELECT n FROM @p p WHERE p.k = o.k) FROM o', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o, (SELECT max(id) AS m FROM c) s, @p p WHERE p.k = o.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o, (SELECT max(id) AS m FROM c) s, @p p WHERE p.k = o.k AND o.id < s.m', "SELECT 'p ' || k FROM o WHERE id < 30"],
	['WITH w AS MATERIALIZED (SELECT * FROM o WHERE id < 9) SELECT * FROM w JOIN @p p ON p.k = w.k', "SELECT 'p ' || k FROM o WHERE id < 9"],
	['WITH w AS (SELECT * FROM @p p) SELECT * FROM w JOIN o ON o.k = w.k', "SELECT 'p ' || k FROM o"],
	['WITH w AS MATERIALIZED (SELECT * FROM #p p) SELECT * FROM w JOIN o ON o.k = w.k', 'SELECT NULL WHERE false'],
	['SELECT * FROM (SELECT k FROM o UNION SELECT k FROM c) u JOIN @p p ON p.k = u.k', "SELECT 'p ' || k FROM o UNION SELECT 'p ' || k FROM c"],
	['SELECT * FROM (SELECT k, n FROM @p p UNION ALL SELECT k, n FROM @q q) u JOIN o ON o.k = u.k', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || k FROM o"],
	['SELECT * FROM (SELECT k, n FROM @p p UNION ALL SELECT id, k FROM c) u JOIN o ON o.k = u.k', "SELECT 'p ' || k FROM o"],
	['SELECT k FROM @p p WHERE k = 7 UNION SELECT k FROM @q q WHERE k IN (7, 8)', "SELECT 'p 7' UNION SELECT 'q 7' UNION SELECT 'q 8'"],
	['SELECT * FROM (SELECT k, count(*) FROM o GROUP BY k) g JOIN @p p ON p.k = g.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM (VALUES (1), (7)) v(k) JOIN @p p USING (k)', "SELECT 'p 7'"],
	['SELECT * FROM generate_series(1, 8) g JOIN @p p ON p.k = g', "SELECT 'p ' || generate_series(1, 8)"],
	['SELECT * FROM plain JOIN @p p ON p.k = plain.k', "SELECT 'p ' || k FROM plain"],
	['SELECT * FROM plain JOIN @p p USING (k) JOIN o USING (k)', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM @view v JOIN o ON v.k = o.k', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM #barrier b JOIN o ON b.k = o.k', 'SELECT NULL WHERE false'],
	['SELECT * FROM @barrier b WHERE k = 7', "SELECT 'p 7'"],
	['SELECT * FROM #p p JOIN @q q ON p.k = q.k', "SELECT 'q ' || k FROM cached_p"],
	['SELECT * FROM #q q JOIN @p p ON p.k = q.k', "SELECT 'p ' || k FROM cached_q"],
	['SELECT * FROM #p p LEFT JOIN @q q ON p.k = q.k', "SELECT 'q ' || k FROM cached_p"],
	['SELECT * FROM @p p RIGHT JOIN #q q ON p.k = q.k', "SELECT 'p ' || k FROM cached_q"],
	['SELECT * FROM #p p FULL JOIN #q q ON p.k = q.k', 'SELECT NULL WHERE false'],
	['SELECT * FROM #p p JOIN @q q ON p.k = q.k JOIN o ON o.id = q.n', "SELECT 'q ' || k FROM cached_p"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k JOIN @q q ON q.k = o.k', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || k FROM o JOIN all_p USING (k)"],
	['SELECT * FROM o JOIN @q q ON q.k = o.k JOIN @p p ON p.k = o.k', "SELECT 'q ' || k FROM o UNION SELECT 'p ' || k FROM o JOIN all_q USING (k)"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k JOIN @q q ON q.k = p.n', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM @q q JOIN @p p ON q.k = p.n JOIN o ON p.k = o.k', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM o LEFT JOIN @p p ON p.k = o.k LEFT JOIN @q q ON q.k = p.n', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM o LEFT JOIN (@p p LEFT JOIN @q q ON q.k = p.n) ON p.k = o.k', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM o LEFT JOIN (@p p JOIN @q q ON q.k = p.n) ON p.k = o.k', "SELECT 'p ' || k FROM o UNION SELECT 'q ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM @p p JOIN @q q ON p.k = q.k JOIN o ON o.k = q.k JOIN @r r ON r.a = p.n AND r.b = o.name',
		"SELECT 'p ' || k FROM o UNION SELECT 'q ' || k FROM o JOIN all_p USING (k)
		 UNION SELECT 'r ' || p.n || ' ' || name FROM o JOIN all_p p USING (k) JOIN all_q USING (k)"],
	['SELECT * FROM @r r JOIN @q q ON q.k = r.a JOIN @p p ON p.k = q.n JOIN o ON o.id = r.a AND o.name = r.b',
		"SELECT 'r ' || id || ' ' || name FROM o UNION SELECT 'q ' || id FROM o JOIN all_r ON a = id AND b = name
		 UNION SELECT 'p ' || q.n FROM o JOIN all_r ON a = id AND b = name JOIN all_q q ON q.k = id"],
	['SELECT * FROM @p a JOIN @p b ON b.k = a.n JOIN o ON o.k = a.k', "SELECT 'p ' || k FROM o UNION SELECT 'p ' || n FROM o JOIN all_p USING (k)"],
	['SELECT * FROM o, c, @r r WHERE r.a = o.k AND r.b = c.name AND o.id < 4', "SELECT 'r ' || o.k || ' ' || c.name FROM o, c WHERE o.id < 4"],
	['SELECT * FROM o LEFT JOIN @r r ON r.a = o.k AND r.b = o.name', "SELECT 'r ' || k || ' ' || name FROM o"],
	['SELECT * FROM o LEFT JOIN (@r r JOIN c ON c.name = r.b) ON r.a = o.k WHERE o.id < 5', "SELECT 'r ' || o.k || ' ' || c.name FROM o, c WHERE o.id < 5"],
	['SELECT * FROM (SELECT k, sum(n) FROM @p p GROUP BY k) g WHERE k = 7', "SELECT 'p 7'"],
	['SELECT * FROM (SELECT k, sum(n) FROM #p p GROUP BY k) g JOIN o USING (k)', 'SELECT NULL WHERE false'],
	['SELECT p.k, count(*) FROM o JOIN @p p ON p.k = o.k GROUP BY p.k HAVING count(*) > 1', "SELECT 'p ' || k FROM o"],
	['SELECT * FROM o JOIN @p p ON p.k = o.k JOIN c ON c.id = p.n JOIN @q q ON q.k = c.k',
		"SELECT 'p ' || k FROM o UNION SELECT 'q ' || c.k FROM o JOIN all_p p USING (k) JOIN c ON c.id = p.n"],
	['WITH RECURSIVE t(k) AS (SELECT 7 UNION SELECT p.n FROM t JOIN @p p ON p.k = t.k) SELECT * FROM t', "WITH RECURSIVE t(k) AS (SELECT 7 UNION SELECT p.n FROM t JOIN all_p p ON p.k = t.k) SELECT 'p ' || k FROM t"],
	['SELECT count(*) FROM o LEFT JOIN #p p ON p.k = o.k', 'SELECT NULL WHERE false'],
);
one(q{CREATE VIEW view AS SELECT * FROM p WHERE n > 3;
	CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM p WHERE n > 3;
	CREATE VIEW all_view AS SELECT * FROM all_p WHERE n > 3;
	CREATE VIEW all_barrier AS SELECT * FROM all_p WHERE n > 3;
	CREATE VIEW cached_barrier AS SELECT * FROM cached_p WHERE n > 3});
my $parallel = one('SHOW server_version_num') < 160000 ? 'force_parallel_mode' : 'debug_parallel_query';
my @settings = ('', 'enable_nestloop=off', 'enable_hashjoin=off enable_mergejoin=off', 'enable_hashjoin=off', 'enable_nestloop=off enable_hashjoin=off',
	'enable_indexscan=off enable_bitmapscan=off', 'enable_seqscan=off', 'enable_memoize=off enable_material=off', 'geqo_threshold=2',
	'geqo_threshold=2 geqo_seed=0.7 enable_hashjoin=off', 'join_collapse_limit=1 from_collapse_limit=1', 'enable_hashagg=off', 'enable_sort=off',
	'random_page_cost=0 cpu_operator_cost=10', 'plan_cache_mode=force_generic_plan',
	"$parallel=on parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0");

sub products { my ($sql) = @_; return $sql =~ s/[@#](?=\w)//gr; }

sub expected
{
	my ($sql) = @_;
	return $sql =~ s/@(?=\w)/all_/gr =~ s/#(?=\w)/cached_/gr;
}

# Nothing is kept: a transaction that has written computes for itself alone. So each query finds the same.
my $script = "\\set ON_ERROR_STOP 0\n";
foreach my $n (0 .. $#queries)
{
	my $sql = products($queries[$n][0]);

	$script .= "\\echo = $n expected\nSELECT x FROM (" . expected($queries[$n][0]) . ") x ORDER BY x::text COLLATE \"C\";\n";
	$script .= "\\echo = $n keys\nSELECT DISTINCT key FROM ($queries[$n][1]) s(key) WHERE key IS NOT NULL AND key NOT IN (SELECT known FROM known) ORDER BY 1;\n"
	  if $queries[$n][1];
	foreach my $setting (@settings)
	{
		my @set = split ' ', $setting;

		$script .= "BEGIN; INSERT INTO written VALUES (1);\n";
		$script .= "SET LOCAL $_;\n" foreach @set;
		$script .= "PREPARE x AS SELECT x FROM ($sql) x ORDER BY x::text COLLATE \"C\";\n";
		$script .= "\\echo = $n by $setting\n\\warn = $n by $setting\nEXECUTE x;\n\\warn = end\nROLLBACK; DEALLOCATE x;\n";
	}
}
# What is remembered of p is {1,2,3,11} and that there is nothing for 4 and 9, and so on.
one(q{CREATE TABLE written (x int); CREATE TABLE known (known text);
	INSERT INTO known SELECT 'p ' || k FROM unnest('{1,2,3,4,9,11}'::int[]) k UNION ALL SELECT 'q ' || k FROM unnest('{0,2,5,6,9}'::int[]) k
		UNION ALL SELECT 'r ' || k || ' ' || name FROM o WHERE id < 6});
one("ALTER FOREIGN TABLE $_ OPTIONS (ADD negative_ttl '1 day')") foreach qw(p q r);
my ($out, $err) = ('', '');
$node->psql('postgres', $script, stdout => \$out, stderr => \$err, extra_params => ['--quiet', '-At']);

my (%rows, %keys);
my $to;
foreach my $line (split /\n/, $out)
{
	if ($line =~ /^= (.*?) ?$/) { $to = $1; $rows{$to} = ''; }
	else { $rows{$to} .= "$line\n"; }
}
foreach my $line (split /\n/, $err)
{
	if ($line =~ /^= end/) { $to = undef; }
	elsif ($line =~ /^= (.*?) ?$/) { $to = $1; $keys{$to} = {}; }
	elsif ($line =~ /computes (.*)$/) { $keys{$to}{$1}++; }
	elsif ($line =~ /ERROR/) { $keys{$to}{$line}++ if defined $to; diag($line); }
}
foreach my $n (0 .. $#queries)
{
	my (@other_rows, @other_keys, @repeated);

	my $computed = defined $rows{"$n keys"} ? join(', ', sort split /\n/, $rows{"$n keys"}) : join(', ', sort keys %{ $keys{"$n by"} });
	foreach my $setting (@settings)
	{
		my $run = $setting ? "$n by $setting" : "$n by";

		push @other_rows, "$setting: $rows{$run}" if $rows{$run} ne $rows{"$n expected"};
		my $seen = join ', ', sort keys %{ $keys{$run} };
		push @other_keys, "$setting: $seen" if $seen ne $computed;
		push @repeated, "$setting: $_" foreach grep { $keys{$run}{$_} > 1 } keys %{ $keys{$run} };
	}
	is($other_rows[0], undef, "rows of $queries[$n][0]") or diag("expected: $rows{\"$n expected\"}");
	is($other_keys[0], undef, '... and the keys that it computes') or diag("expected: $computed");
	is($repeated[0], undef, '... each once');
}

# --- one reader ----------------------------------------------------------------------------------------

# What EXPLAIN ANALYZE counts of the product, as "hits misses computed stale".
sub counts
{
	my ($sql) = @_;
	my $plan = one("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) $sql");

	return join ' ', map { $plan =~ /$_: (\d+)/ ? $1 : '-' } qw(Hits Misses Computed Stale);
}
# The keys for which the function was called.
sub calls
{
	my ($sql) = @_;
	my $told = told($node, $sql);

	return "$told->{out}|" . join ',', $told->{err} =~ /computes \w (.*)/g;
}

is(counts('SELECT * FROM p WHERE k = 1'), '1 0 0 0', 'a hit is counted');
is(counts('SELECT * FROM p WHERE k = 4'), '1 0 0 0', 'so is nothing that is remembered');
is(counts('SELECT * FROM p WHERE k = (SELECT NULL::int)'), '0 0 0 0', 'a key that is null is none');
is(counts("SELECT * FROM p WHERE k = ANY ('{1,4,2,NULL}')"), '3 0 0 0', 'and those of an array');
is(calls('SELECT * FROM p WHERE k = 40'), '40|18|{40,41}|40', 'what is missing is computed');
ok($node->catch_up('postgres', 'p', $kafka, 'p'), 'and kept');
is(calls('SELECT * FROM p WHERE k = 40'), '40|18|{40,41}|', 'so that it is computed once');
is(calls(q{SELECT k, n FROM p WHERE k = ANY ('{41,41,40,NULL,44,41,40,99999999999}'::bigint[]) ORDER BY k}), "40|18\n41|20|41,44", 'of a key given twice there is one row');
is(calls('SELECT count(*) FROM generate_series(1, 5), LATERAL (SELECT * FROM p WHERE k = 42 OFFSET 0) s'), '5|42', 'a statement computes a key once');
is(counts('SELECT * FROM generate_series(45, 47) g LEFT JOIN p ON p.k = g'), '0 3 3 0', 'those of several keys');
is(counts('SELECT (SELECT n FROM p WHERE k = 43 + 0 * g) FROM generate_series(1, 5) g'), '0 5 1 0', 'misses are counted, and computations');
is(calls('SELECT tableoid::regclass, xmin, cmin, ctid, k FROM p WHERE k = 48'), 'p|0|0|(4294967295,0)|48|48', 'a computed row has system columns');
is(calls('BEGIN; DECLARE x CURSOR FOR SELECT n FROM generate_series(50, 52) g JOIN p ON p.k = g; FETCH 2 FROM x; COMMIT'), "7\n9|50,51", 'what a cursor does not fetch is not computed');
is(calls('DO $$ DECLARE x p; BEGIN FOR i IN 1..3 LOOP SELECT * INTO x FROM p WHERE k = 53; END LOOP; END $$'), '|53', 'a function that asks in a loop has it computed once');

my $fixed = $node->background_psql('postgres');
$fixed->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($fixed->query('SELECT n FROM p WHERE k = 55'), '17', 'a transaction with a fixed snapshot is told what was computed');
is($fixed->query('SELECT n FROM p WHERE k = 55'), '17', '... and again');
$fixed->quit;
is(told($node, 'SELECT p.* FROM p WHERE EXISTS (SELECT FROM o WHERE o.k = p.k AND o.id > p.n)')->{state}, '0A000', 'a semi-join that nothing can bring keys through');

# --- ages ----------------------------------------------------------------------------------------------

one("ALTER FOREIGN TABLE p OPTIONS (ADD soft_ttl '1ms')");
ok($node->wait_for('postgres', 'SELECT clock_timestamp() > max(to_timestamp(0)) + interval \'1 ms\' FROM p'), 'time has passed');
is(counts('SELECT * FROM p WHERE k = 1'), '1 0 0 1', 'a stale row is shown');
is(counts('SELECT * FROM p WHERE k = 1'), '1 0 0 1', '... while nobody makes it anew');
is(calls('SELECT n FROM p WHERE k IN (1, 2, 3)'), "2\n4\n6|", 'and nothing is computed for it');
is(one("SELECT key, requests FROM kafka_cache.refresh_queue WHERE relation = 'p'::regclass ORDER BY 1"), "1|3\n2|1\n3|1", 'a refresh was asked for each time');
is(one("BEGIN READ ONLY; SELECT n FROM p WHERE k = 11; COMMIT"), '22', 'by a reader that may do nothing else, too');
is(one("SELECT count(*) FROM kafka_cache.refresh_queue WHERE relation = 'p'::regclass"), '4', '... it is asked for');
one("ALTER FOREIGN TABLE p OPTIONS (ADD hard_ttl '1ms')");
is(counts('SELECT * FROM p WHERE k = 1'), '0 1 1 0', 'a row that is too old is computed anew');
is(one('SELECT count(*) > 10 FROM p'), 't', 'a scan shows rows of any age');
one("ALTER FOREIGN TABLE p OPTIONS (DROP soft_ttl, DROP hard_ttl, ADD prime_on_miss 'false')");
is(told($node, 'SELECT * FROM p WHERE k = 60')->{state}, 'P0002', 'a miss that nobody may compute');
is(counts('SELECT * FROM p WHERE k = 1'), '1 0 0 0', '... a hit is one');
one("ALTER FOREIGN TABLE p OPTIONS (DROP prime_on_miss)");

# --- set and purge -------------------------------------------------------------------------------------

one('CREATE ROLE setter LOGIN; GRANT SELECT, INSERT ON p TO setter; CREATE USER MAPPING FOR PUBLIC SERVER kafka');
is(calls('SET ROLE setter; INSERT INTO p (k, n) VALUES (60, -1); SELECT n FROM p WHERE k = 60'), '-1|', 'INSERT sets a row: who may, may');
ok($node->catch_up('postgres', 'p', $kafka, 'p'), 'others see it, too');
is(told($node, 'SET ROLE setter; DELETE FROM p WHERE k = 60')->{state}, '42501', 'who may not, may not');
is(told($node, 'UPDATE p SET n = 1 WHERE k = 60')->{state}, '0A000', 'there is no UPDATE');
is(calls('DELETE FROM p WHERE k = 60 RETURNING n'), '-1|', 'DELETE purges it');
ok($node->catch_up('postgres', 'p', $kafka, 'p'), 'that too');
is(calls('SELECT n FROM p WHERE k = 60'), '27|60', 'and so it is computed');
is(calls('DELETE FROM p WHERE k = 61'), '|', 'what is not there is not computed in order to be deleted');
is(calls('DELETE FROM p USING o WHERE o.k = p.k AND o.id < 4 RETURNING p.k'), "1\n2\n3|", 'nor in a join');
is(calls("COPY p FROM PROGRAM 'echo 1,-5,{}' CSV; SELECT n FROM p WHERE k = 1"), '-5|', 'COPY sets rows, too');
ok($node->catch_up('postgres', 'p', $kafka, 'p'), 'that too');
is(calls('INSERT INTO q SELECT k, -n, NULL FROM p WHERE k IN (1, 2) AND n < 100; SELECT k, n FROM q WHERE k IN (1, 2) ORDER BY k'), "1|5\n2|-4|2",
	'of what is read to be set elsewhere the missing is computed');
ok($node->catch_up('postgres', 'p', $kafka, 'p'), 'that too');
is(calls('DELETE FROM p; SELECT count(*) FROM p'), '0|', 'all of it is purged');

is(calls("INSERT INTO r VALUES (3, 'x', NULL); SELECT v FROM r WHERE a = 3 AND b = 'x'"), '|', 'a value that is NULL sets nothing');

# --- as a partition ------------------------------------------------------------------------------------

one(q{CREATE TABLE halves (k int NOT NULL, n int, rows int[]) PARTITION BY RANGE (k);
	CREATE TABLE upper_half PARTITION OF halves FOR VALUES FROM (30) TO (100);
	INSERT INTO halves VALUES (35, -35, NULL);
	ALTER TABLE halves ATTACH PARTITION p FOR VALUES FROM (0) TO (30)});
is(calls('SELECT n FROM halves WHERE k = 3'), '6|3', 'a product can be a partition');
is(calls('SELECT o.k, n FROM generate_series(5, 36, 15) o(k) JOIN halves USING (k) ORDER BY 1'), "5|10\n20|9\n35|-35|5,20", 'in joins too');

done_testing();
