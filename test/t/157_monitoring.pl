# What examples/monitoring shows, with Prometheus' own programs: every metric that it names exists, the exporter tells
# what the server does, each alert fires on what it is for, and docs/metrics.md has all of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use HTTP::Tiny;
use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Metrics;
use KafkaCache::Mock;
use KafkaCache::Paths qw($top);
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = "$top/examples/monitoring";
my $scratch = PostgreSQL::Test::Utils::tempdir();
sub content { return PostgreSQL::Test::Utils::slurp_file($_[0]); }

sub put
{
	my ($name, $text) = @_;

	open(my $fh, '>', "$scratch/$name") or die "$name: $!";
	print $fh $text;
	close $fh;
	return "$scratch/$name";
}

my $kafka = KafkaCache::Mock->new;
my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->connect_kafka('postgres', $kafka);
$kafka->topic($_, 2) foreach qw(users squares);
$kafka->produce('users', 0, $_, "{\"n\": $_}") foreach 1 .. 10;
$kafka->produce('users', 1, 11, 'not json');
$node->safe_psql('postgres', q(
	CREATE FOREIGN TABLE users (id int OPTIONS (key 'true'), n int) SERVER kafka OPTIONS (topic 'users', readonly 'false');
	CREATE FUNCTION square(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * n';
	CREATE FOREIGN TABLE squares (n int OPTIONS (key 'true'), square jsonb OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'squares', compute 'public.square');
	CREATE ROLE exporter LOGIN IN ROLE pg_monitor));
ok($node->catch_up('postgres', 'users', $kafka), 'a table is ready');
$kafka->produce('users', 0, 12, '{"n": 12}');
ok($node->catch_up('postgres', 'users', $kafka), '... and follows its topic');
$node->safe_psql('postgres', 'INSERT INTO users VALUES (13, 13)');
ok($node->catch_up('postgres', 'users', $kafka), '... also what is written here, so that figures stand still');

my %known = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT DISTINCT name FROM kafka_cache.metrics');

# --- alerts and dashboard -----------------------------------------------------------------------------

my $alerts = content("$folder/alerts.yml");
my ($status, $said) = promtool('', 'check', 'rules', "$folder/alerts.yml");
is($status, 0, 'promtool accepts the alerts') or diag($said);
put('alerts.yml', $alerts);
($status, $said) = promtool('', 'test', 'rules', put('test.yml', content("$top/test/monitoring_alerts.yml")));
is($status, 0, 'each alert fires when it should, and only then') or diag($said);
my @alerts = $alerts =~ /- alert: (\w+)/g;
my $tests = content("$top/test/monitoring_alerts.yml");
is(join(' ', grep { $tests !~ /\b$_\b/ } @alerts), '', '... and there is none without a test');

my $dashboard = decode_json(content("$folder/grafana.json"));
my @exprs = map { $_->{expr} } map { @{ $_->{targets} || [] } } @{ $dashboard->{panels} };
cmp_ok(scalar(@exprs), '>', 20, 'the dashboard can be read');
my @rules = map { s/\$__rate_interval/5m/gr =~ s/\$\w+/.*/gr } @exprs;
($status, $said) = promtool('', 'check', 'rules', put('dashboard.yml', "groups:\n- name: dashboard\n  rules:\n"
		  . join('', map { "  - {record: 'panel:$_', expr: " . encode_json([ $rules[$_] ]) =~ s/\A\[|\]\z//gr . "}\n" } 0 .. $#rules)));
is($status, 0, '... and its queries are PromQL') or diag($said);

my %used;
foreach my $text ($alerts =~ /^ +expr: (.*)$/gm, @exprs, map { $_->{query}{query} } grep { $_->{type} eq 'query' } @{ $dashboard->{templating}{list} })
{
	$used{$_} = 1 foreach $text =~ /\b(kafka_cache_\w+)/g;
}
cmp_ok(scalar(keys %used), '>', 20, 'both name metrics');
is(join(' ', grep { !$known{$_} } sort keys %used), '', '... and each of them exists');

# --- the exporter -------------------------------------------------------------------------------------

my $port = PostgreSQL::Test::Cluster::get_free_port();
$ENV{DATA_SOURCE_NAME} = sprintf 'host=%s port=%s user=exporter dbname=postgres sslmode=disable', $node->host, $node->port;
my $exporter = beside([ exporter(), "--web.listen-address=127.0.0.1:$port", "--extend.query-path=$folder/postgres_exporter.yml", '--disable-default-metrics', '--disable-settings-metrics' ]);
my $scraped;
ok(eventually(sub {
	my $answer = HTTP::Tiny->new->get("http://127.0.0.1:$port/metrics");
	return 0 unless $answer->{success};
	$scraped = $answer->{content};
	return $scraped =~ /^kafka_cache_entries/m;
}), 'the exporter answers') or diag($exporter->output);
$exporter->stop;
like($scraped, qr/^pg_exporter_last_scrape_error 0$/m, '... without an error') or diag($exporter->output);
my $told = parsed(join "\n", (grep { /\A(?:# \w+ )?kafka_cache_/ } split /\n/, $scraped), '');
my $own = parsed($node->safe_psql('postgres', 'SELECT kafka_cache.metrics_text()'));
my %told = map { s/server=[^,}]*,?//r =~ s/,\}/}/r =~ s/(?:database|number)=(?=[,}]),?//gr =~ s/,\}/}/r =~ s/\{\}//r => $told->{$_} } keys %$told;
is(join(' ', grep { !defined $own->{$_} } sort keys %told), '', 'what it tells are our metrics, labels and all');
# what moves by itself is not compared
is(join(' ', grep { defined $own->{$_} && $own->{$_} != $told{$_} && !/staleness|_pin|_bytes/ } sort keys %told), '', '... with our figures');
my %exported = map { s/\{.*//r => 1 } keys %told;
is(join(' ', grep { !$exported{$_} } sort keys %used), '', '... and alerts and dashboard find all that they need');
my $families = families($scraped);
my $ours = families($node->safe_psql('postgres', 'SELECT kafka_cache.metrics_text()'));
is(join(' ', grep { $ours->{$_} && $ours->{$_}[0] ne $families->{$_}[0] } sort keys %$families), '', '... under their types');

# --- the text file ------------------------------------------------------------------------------------

my @psql = ('-h', $node->host, '-p', $node->port, '-U', 'exporter', 'postgres');
is(system("$folder/textfile", "$scratch/kafka_cache.prom", @psql), 0, 'the text file is written');
my $file = parsed(content("$scratch/kafka_cache.prom"));
is($file->{'kafka_cache_entries{database=postgres,relation=public.users}'}, 12, '... with all figures');
isnt(system("$folder/textfile $scratch/kafka_cache.prom -h $scratch postgres 2>/dev/null"), 0, 'where the server is away that is an error');
is_deeply([ map { s/.*\///r } glob("$scratch/kafka_cache*") ], ['kafka_cache.prom'], '... and the old file stays');

# --- the manual ---------------------------------------------------------------------------------------

my $page = content("$top/docs/metrics.md");
my ($manual) = $page =~ /^## All metrics\n(.*?)^##/ms;
my @rows = map { [ map { s/\A\s+|\s+\z//gr } split /\|/ ] } $manual =~ /^\| (`kafka_cache_.*) \|$/gm;
my %documented = map { my ($name) = $_->[0] =~ /`(\w+)`/; $name => $_ } @rows;
my %expected;
foreach my $line (split /\n/, $node->safe_psql('postgres', q(
	SELECT regexp_replace(name, CASE kind WHEN 'histogram' THEN '_(bucket|sum|count)$' ELSE 'x{99}' END, ''), kind,
		string_agg(DISTINCT l, ', ' ORDER BY l), help
	FROM kafka_cache.metrics LEFT JOIN LATERAL jsonb_object_keys(labels - 'le') l ON true GROUP BY 1, 2, 4)))
{
	my ($name, $kind, $labels, $help) = split /\|/, $line;
	$expected{$name} = [ "`$name`", $kind, join(', ', map { "`$_`" } split /, /, $labels), $help ];
}
is(join(' ', grep { !$expected{$_} } sort keys %documented), '', 'the manual has no metric that does not exist');
is(join(' ', grep { !$documented{$_} } sort keys %expected), '', '... and all that do');
is_deeply({ map { $_ => $documented{$_} } grep { $expected{$_} } keys %documented }, { map { $_ => $expected{$_} } grep { $documented{$_} } keys %expected },
	'... with their kinds, labels and meanings');

my %here = map { $_ => 1 } map { /\b(kafka_cache_\w+)/g } map { (split /\|/)[2] } grep { /\A\|/ } split /\n/, $page =~ s/.*^## Where you know them from\n//msr;
cmp_ok(scalar(keys %here), '>', 5, 'names of others are told');
is(join(' ', grep { !$known{$_} } sort keys %here), '', '... with ours, which exist');

done_testing();
