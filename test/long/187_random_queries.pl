# Random queries with products: the same rows, whatever the planner is told, never an error of its own, and nearly always
# a plan in which each product comes after what its keys come from. KCF_SEED and KCF_QUERIES choose.
#
# The keys that are computed differ, since the executor does not look for what it knows that it does not need, and when
# it knows depends on the plan. How often is told.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use Test::More;

my $seed = $ENV{KCF_SEED} || 1 + int rand 1_000_000;
my $queries = $ENV{KCF_QUERIES} || 1000;
srand $seed;
diag("KCF_SEED=$seed");

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.refresh_workers' => 0, jit => 'off', log_min_messages => 'warning' });
$node->start;
$node->connect_kafka('postgres', $kafka, fetch_wait_max_ms => 20);
$kafka->topic($_, 1) foreach qw(p q r);
$node->safe_psql('postgres', q{
	CREATE FUNCTION p_of(k int, OUT n int, OUT m int) LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes p %', k; IF k % 5 <> 4 THEN n := k * 2 % 7; m := k % 3; END IF; END$$;
	CREATE FUNCTION q_of(k int, OUT n int, OUT m int) LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes q %', k; IF k % 3 <> 2 THEN n := k * 3 % 7; m := k % 2; END IF; END$$;
	CREATE FUNCTION r_of(a int, b int, OUT n int, OUT m int) LANGUAGE plpgsql STABLE AS
		$$BEGIN RAISE NOTICE 'computes r % %', a, b; IF a % 4 <> 1 THEN n := a; m := b; END IF; END$$;
	CREATE FOREIGN TABLE p (k int OPTIONS (key 'true') NOT NULL, n int, m int) SERVER kafka OPTIONS (compute 'public.p_of');
	CREATE FOREIGN TABLE q (k int OPTIONS (key 'true') NOT NULL, n int, m int) SERVER kafka OPTIONS (compute 'public.q_of');
	CREATE FOREIGN TABLE r (k int OPTIONS (key 'true') NOT NULL, k2 int OPTIONS (key 'true') NOT NULL, n int, m int)
		SERVER kafka OPTIONS (compute 'public.r_of', key_format 'json');
	CREATE TABLE a (k int PRIMARY KEY, n int, m int);
	CREATE TABLE b (k int, n int, m int);
	CREATE TABLE c (k int, n int, m int);
	INSERT INTO a SELECT i, i % 5, i % 3 FROM generate_series(1, 9) i;
	INSERT INTO b SELECT nullif(i % 8, 5), i % 7, i % 2 FROM generate_series(1, 10) i;
	INSERT INTO c SELECT i % 6, nullif(i % 4, 3), i % 3 FROM generate_series(1, 8) i;
	CREATE INDEX ON c (n);
	ANALYZE a, b, c;
	CREATE TABLE written (x int);
	CREATE FUNCTION plan(query text) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE plan json; BEGIN
			EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
			RETURN CASE WHEN (plan->0->'Plan'->>'Total Cost')::float8 >= 1e15 THEN 'detour' ELSE 'direct' END;
		END $$;
});
ok($node->wait_ready('postgres', $_), "$_ is ready") foreach qw(p q r);
$node->safe_psql('postgres', 'SELECT count(*) FROM p WHERE k IN (1, 2, 6); SELECT count(*) FROM q WHERE k IN (0, 3);
	SELECT count(*) FROM generate_series(0, 3) x JOIN r ON r.k = x AND r.k2 = x % 2');
ok($node->catch_up('postgres', $_, $kafka, $_), "$_ has its rows") foreach qw(p q r);

sub one_of { return $_[ rand @_ ]; }
sub column { my (@names) = @_; return one_of(@names) . '.' . one_of(qw(k k n m)); }

# A condition on relations of both sides, as a rule on a product's key.
sub condition
{
	my ($left, $right) = @_;
	my @all = (@$left, @$right);
	my @products = grep { /^[pqr]/ } @all;
	my @conditions;

	foreach my $name (grep { rand() < 0.75 } @products)
	{
		my @others = grep { $_ ne $name } @all;

		next if !@others;
		push @conditions, "$name.k = " . (rand() < 0.85 ? column(@others) : 'coalesce(' . column(@others) . ', 3)');
		push @conditions, "$name.k2 = " . column(@others) if $name =~ /^r/ && rand() < 0.8;
	}
	push @conditions, column(@$left) . one_of(' = ', ' = ', ' <= ') . column(@$right) if !@conditions || rand() < 0.4;
	push @conditions, column(@all) . one_of(' > 1', ' <> 2', ' IS NOT NULL') if rand() < 0.2;
	return join ' AND ', @conditions;
}

my $serial;

# A tree of joins: its text, and the names in it that are seen from outside.
sub tree
{
	my ($size) = @_;

	if ($size <= 1)
	{
		my $table = one_of(qw(a b c p p q r));
		my $name = $table . ++$serial;

		return ("(SELECT k, min(n) AS n, max(m) AS m FROM $table GROUP BY k) $name", $name) if $table =~ /[abc]/ && rand() < 0.1;
		return ("(SELECT * FROM $table WHERE m < 2) $name", $name) if rand() < 0.1;
		return ("$table $name", $name);
	}
	my $first = 1 + int rand($size - 1);
	my ($left, @left) = tree($first);
	my ($right, @right) = tree($size - $first);
	my $kind = one_of('JOIN', 'JOIN', 'JOIN', 'LEFT JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN');
	my $on = condition(\@left, \@right);

	$on = column(@left) . ' = ' . column(@right) if $kind eq 'FULL JOIN';
	return ("($left $kind $right ON $on)", @left, @right);
}

sub query
{
	$serial = 0;
	my ($from, @names) = tree(2 + int rand 4);
	my @where;

	push @where, column(@names) . one_of(' > 1', ' <> 2', ' IS NULL') if rand() < 0.3;
	push @where, column(@names) . ' = ' . column(@names) if rand() < 0.3;
	if (rand() < 0.4)
	{
		my ($inner, @inner) = tree(1 + int rand 2);

		push @where, rand() < 0.5 ? column(@names) . one_of(' IN ', ' IN ', ' NOT IN ') . '(SELECT ' . column(@inner) . " FROM $inner)"
		  : one_of('EXISTS', 'EXISTS', 'NOT EXISTS') . " (SELECT FROM $inner WHERE " . condition(\@names, \@inner) . ')';
	}
	return 'SELECT ' . join(', ', map { "$_.k, $_.n" } @names) . " FROM $from" . (@where ? ' WHERE ' . join(' AND ', @where) : '');
}

my @settings = ('', 'enable_nestloop=off', 'enable_hashjoin=off enable_mergejoin=off', 'enable_hashjoin=off', 'enable_mergejoin=off enable_material=off enable_memoize=off',
	'enable_seqscan=off', 'geqo_threshold=2', 'geqo_threshold=2 geqo_seed=0.3', 'join_collapse_limit=1 from_collapse_limit=1', 'random_page_cost=0 cpu_operator_cost=10');
my @sql = map { query() } 1 .. $queries;
my $script = "\\set ON_ERROR_STOP 0\nSET statement_timeout = '20s';\n";
foreach my $n (0 .. $#sql)
{
	foreach my $setting (@settings)
	{
		my $set = join '', map { "SET LOCAL $_; " } split ' ', $setting;

		$script .= "BEGIN; INSERT INTO written VALUES (1); $set\n\\echo = $n by $setting\n\\warn = $n by $setting\n"
		  . "SELECT set_config('test.plan', plan((\$\$$sql[$n]\$\$)), true) \\gset\n"
		  . "SELECT current_setting('test.plan'), md5(string_agg(x::text, ',' ORDER BY x::text)), count(*) FROM ($sql[$n]) x;\n\\warn = end\nROLLBACK;\n";
	}
}
my ($out, $err) = ('', '');
$node->psql('postgres', $script, stdout => \$out, stderr => \$err, extra_params => ['--quiet', '-At'], timeout => 3000);

my (%rows, %keys, %errors, $to);
foreach my $line (split /\n/, $out)
{
	if ($line =~ /^= (.*?) ?$/) { $to = $1; $rows{$to} = ''; }
	else { $rows{$to} .= $line; }
}
foreach my $line (split /\n/, $err)
{
	if ($line =~ /^= end/) { $to = undef; }
	elsif ($line =~ /^= (.*?) ?$/) { $to = $1; $keys{$to} = {}; }
	elsif ($line =~ /computes (.*)$/) { $keys{$to}{$1}++; }
	elsif ($line =~ /ERROR: *(.*)/) { $errors{ $to // '' } = $1 =~ s/product "\w+"/a product/r; }
}
my ($impossible, $computing, $differing, $detours) = (0, 0, 0, 0);
foreach my $n (0 .. $#sql)
{
	my @wrong;
	$detours += $rows{"$n by"} =~ s/detour/direct/;
	my $first = join ', ', sort keys %{ $keys{"$n by"} };

	$computing++ if $first;
	$impossible++ if ($errors{"$n by"} // '') =~ /cannot be known/;
	foreach my $setting (@settings)
	{
		my $run = $setting ? "$n by $setting" : "$n by";
		my $seen = join ', ', sort keys %{ $keys{$run} };
		my $error = $errors{$run} // '';

		$detours++ if $rows{$run} =~ s/detour/direct/;
		push @wrong, "$setting: rows $rows{$run}, not $rows{\"$n by\"}" if $rows{$run} ne $rows{"$n by"};
		$differing++ if $seen ne $first;
		push @wrong, "$setting: $error" if $error ne ($errors{"$n by"} // '') || $error !~ /^$|cannot be known/;
	}
	ok(!@wrong, "query $n") or diag("$sql[$n]\n" . join "\n", @wrong);
}
note("$computing computed something, $impossible could not be run, $differing runs computed other keys than the first, $detours were detours");
cmp_ok($detours, '<=', 0.02 * @sql * @settings, 'products come after what their keys come from');

done_testing();
