# Positions as lag tools see them: a consumer group that is told of them, never joined, never read back. On a real Kafka.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths;
use Test::More;

# A group of this name may not be used, once a rule is made for it; everything else is open to all.
my $kafka = KafkaCache::Kafka->new(set => {
	'authorizer.class.name'          => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
	'allow.everyone.if.no.acl.found' => 'true' });
my $GROUPS = 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand';

sub tool
{
	my ($class, @words) = @_;
	return $kafka->tool($class, '--bootstrap-server', $kafka->address, @words);
}

# What the servers should show: topic => { partition => offset after the position }.
sub positions
{
	my ($node, $where) = @_;
	my %topics;

	foreach my $row (split /\n/, $node->safe_psql('postgres',
		"SELECT relation, partition, position + 1, coalesce(high + 1, -1), coalesce(lag, -1)
		 FROM kafka_cache.partitions WHERE " . ($where // 'true')))
	{
		my ($topic, $partition, $next, $high, $lag) = split /\|/, $row;
		$topics{$topic}{$partition} = wantarray ? [ $next, $high, $lag ] : $next;
	}
	return wantarray ? %topics : \%topics;
}

sub same
{
	my ($node, $group, $where) = @_;
	my $theirs = $kafka->group($group);
	my $ours = positions($node, $where);

	return 0 if join(' ', sort keys %$theirs) ne join(' ', sort keys %$ours);
	foreach my $topic (keys %$ours)
	{
		my ($a, $b) = map { my $p = $_->{$topic}; join ' ', map { "$_:$p->{$_}" } sort keys %$p } $theirs, $ours;
		return 0 if $a ne $b;
	}
	return 1;
}

sub shown
{
	my ($node, $group, $name, $where) = @_;
	my $ok = eventually(sub { same($node, $group, $where) });

	ok($ok, $name);
	diag("the group has: ", explain($kafka->group($group)), "the tables have: ", explain(scalar positions($node, $where))) unless $ok;
	return $ok;
}

# topic => { partition => [ offset, end, lag ] } by Kafka's own tool
sub described
{
	my ($group) = @_;
	my %topics;

	foreach my $line (split /\n/, tool($GROUPS, '--describe', '--group', $group))
	{
		my (undef, $topic, $partition, @numbers) = split ' ', $line;
		$topics{$topic}{$partition} = [ @numbers[0 .. 2] ] if @numbers >= 3 && $partition =~ /^\d+$/;
	}
	return \%topics;
}

my %pods = map {
	local $ENV{POD_NAMESPACE} = 'shop';
	local $ENV{POD_NAME} = $_;
	my $node = KafkaCache::Cluster->new($_, conf => { cluster_name => $_ });
	$node->start;
	$node->connect_kafka('postgres', $kafka);
	($_ => $node)
} 'pg-0', 'pg-1';
my $node = $pods{'pg-0'};

sub cache
{
	my ($on, $table, $options) = @_;
	$on->safe_psql('postgres', "CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		SERVER kafka OPTIONS (format 'text'" . ($options // '') . ')');
	return;
}

sub count_of
{
	my ($table) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM $table");
}

# The private topic of groups comes into being when somebody asks for a group.
sub has_groups { return qx($KafkaCache::Paths::bin/kafka_admin @{[$kafka->address]} watermarks __consumer_offsets 2>&1) !~ /does not exist/; }

$kafka->topic('users', 4);
$kafka->topic('empty', 2);
$kafka->topic('marked', 1);
$kafka->load('users', 0, 0, 300, 'key-%d', 'value-%d');
$kafka->load('users', 2, 300, 50, 'key-%d', 'value-%d');
my $txn = $kafka->transaction('writer');
$txn->begin;
$txn->produce('marked', 0, 'a', '1');
$txn->commit;
foreach my $table ('users', 'empty', 'marked')
{
	cache($node, $table);
	ok($node->catch_up('postgres', $table, $kafka), "$table is read");
}
ok(!has_groups(), 'without group_id nobody asks for a group');

# Two pods, two groups.
foreach my $pod (sort keys %pods)
{
	$pods{$pod}->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (ADD group_id '%{POD_NAMESPACE}.%{POD_NAME}')");
}
shown($node, 'shop.pg-0', 'all partitions of all tables are shown, also empty ones');
ok(has_groups(), '... by a group');
is_deeply($kafka->group('shop.pg-0'), { users => { 0 => 300, 1 => 0, 2 => 50, 3 => 0 }, empty => { 0 => 0, 1 => 0 }, marked => { 0 => 2 } },
	'... and where they are: after the records, and after the mark of a transaction');
is_deeply($kafka->group('shop.pg-1'), {}, '... nothing under the name of the other pod, which has no table');
cache($pods{'pg-1'}, 'users');
shown($pods{'pg-1'}, 'shop.pg-1', '... until it has one');

my %ours = positions($node);
is_deeply(described('shop.pg-0'), \%ours, "Kafka's own tool and kafka_cache.partitions agree on offset, end and lag");
like(tool($GROUPS, '--describe', '--state', '--group', 'shop.pg-0'), qr/\bEmpty\s+0\b/, '... and nobody is a member');

# What nobody repeats is lost; looked at again at the end.
$kafka->delete_group('shop.pg-1');

$kafka->partitions('empty', 3);

# A worker that is held up, and goes on.
my $worker = $node->safe_psql('postgres', "SELECT pid FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'");
kill 'STOP', $worker;
$kafka->load('users', 1, 1000, 100, 'key-%d', 'value-%d');
is_deeply(described('shop.pg-0')->{users}{1}, [ 0, 100, 100 ], 'a worker that does not read has a lag');
kill 'CONT', $worker;
shown($node, 'shop.pg-0', '... and none when it reads again');
is($kafka->group('shop.pg-0')->{users}{1}, 100, '... as the group says');

# What the group says is nothing to us.
tool($GROUPS, '--reset-offsets', '--to-earliest', '--all-topics', '--execute', '--group', 'shop.pg-0');
is($kafka->group('shop.pg-0')->{users}{0}, 0, 'somebody sets the group back');
my $records = $node->safe_psql('postgres', "SELECT records FROM kafka_cache.tables WHERE relation = 'users'::regclass");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
$kafka->produce('users', 0, 'key-new', 'value-new');
ok($node->catch_up('postgres', 'users', $kafka), '... a new worker goes on where the old one was');
is($node->safe_psql('postgres', "SELECT records - $records FROM kafka_cache.tables WHERE relation = 'users'::regclass"), '1', '... and reads nothing again');
ok($node->wait_for('postgres', "SELECT count(*) FROM kafka_cache.partitions WHERE relation = 'empty'::regclass", '3'), 'a partition is added');
shown($node, 'shop.pg-0', '... and everything is shown as it is');

# Tables that share a topic: the one farthest behind.
$kafka->topic('wide', 1);
$kafka->load('wide', 0, 0, 3000, 'key-%d', 'value-' . ('x' x 200));
cache($node, 'wide');
cache($node, 'narrow', ", topic 'wide', max_bytes '300kB'");
ok($node->catch_up('postgres', 'wide', $kafka), 'a table that has all of its topic');
ok($node->wait_for('postgres', "SELECT state = 'full' FROM kafka_cache.tables WHERE relation = 'narrow'::regclass"), '... beside one that is full');
sub narrow { return $node->safe_psql('postgres', "SELECT position + 1 FROM kafka_cache.partitions WHERE relation = 'narrow'::regclass"); }
cmp_ok(narrow(), '<', 3000, '... and so behind');
ok(eventually(sub { ($kafka->group('shop.pg-0')->{wide}{0} // -1) == narrow() }), '... is what the group shows');
$node->safe_psql('postgres', 'DROP FOREIGN TABLE narrow');
shown($node, 'shop.pg-0', '... until it is gone');

# A right that is missing.
sub trouble
{
	return $node->safe_psql('postgres', "SELECT message FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'");
}
$kafka->acl('add', 'deny', 'User:ANONYMOUS', 'read', 'group', 'denied');
my $before = length $node->log_text;
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET group_id 'denied')");
ok(eventually(sub { trouble() =~ /not shown to lag tools: .*authorization/i }), 'a right on the group is missing: kafka_cache.workers says so');
$kafka->produce('users', 0, 'key-newer', 'value-newer');
ok($node->catch_up('postgres', 'users', $kafka), '... reading goes on');
is(count_of('users'), '452', '... with all rows');
is_deeply([ split /\n/, $node->safe_psql('postgres', 'SELECT DISTINCT state FROM kafka_cache.tables') ], ['ready'], '... and tables are ready');
$kafka->acl('remove', 'deny', 'User:ANONYMOUS', 'read', 'group', 'denied');
shown($node, 'denied', 'the right is given: positions are shown');
ok(eventually(sub { trouble() eq '4 tables' }), '... and nothing is left to say');
foreach my $name ('commits', 'commit_failures')
{
	is($node->safe_psql('postgres', "SELECT bool_and(value > 0) FROM kafka_cache.metrics WHERE name = 'kafka_cache_group_${name}_total'"), 't',
		"$name are counted for each table");
}
my @said = grep { /consumer group/ } split /\n/, substr($node->log_text, $before);
is(scalar(grep { /cannot be shown under consumer group "denied"/ } @said), 1, 'the log has one line for its beginning');
is(scalar(grep { /are shown under consumer group "denied" again/ } @said), 1, '... and one for its end');

# Brokers that do not answer, while a commit is under way and the client is exchanged.
$before = length $node->log_text;
$kafka->produce('users', 3, 'key-last', 'value-last');
$kafka->broker(1, 'pause');
ok($node->wait_for('postgres', "SELECT state = 'stalled' FROM kafka_cache.tables WHERE relation = 'users'::regclass"), 'brokers do not answer');
is($node->safe_psql('postgres', "SELECT value FROM users WHERE key = 'key-0'"), 'value-0', '... what there is can be read');
$node->safe_psql('postgres', 'DROP FOREIGN TABLE marked');
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET group_id 'shop.%{cluster_name}.%{system_identifier}')");
ok($node->wait_for('postgres', "SELECT message LIKE '3 tables%' FROM kafka_cache.workers WHERE kind = 'consumer' AND database = 'postgres'"),
	'... the worker is awake');
$kafka->broker(1, 'resume');
ok($node->wait_for('postgres', "SELECT state = 'ready' FROM kafka_cache.tables WHERE relation = 'users'::regclass"), 'they do again');
ok($node->catch_up('postgres', 'users', $kafka), '... reading goes on');
my $id = $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
shown($node, "shop.pg-0.$id", '... and showing, too, by the new name');
is(scalar(grep { /consumer group/ } split /\n/, substr($node->log_text, $before)), 0, '... without a word in the log');

ok(eventually(sub { same($pods{'pg-1'}, 'shop.pg-1') }), 'positions that do not change are repeated, so what was removed comes back');

$_->stop foreach values %pods;
unlike($node->log_text, qr/terminated by signal|was not properly shut down/, 'nothing crashed');
done_testing();
