# The sample model of examples/, loaded by kcat with everything that such data brings along: oddly spelled
# keys, lists that are null or hold null, labels that an enum does not have yet, addresses, and documents
# that name another key than their own.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths qw($top);
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main');
my @keyed = ('-K', "\t");
$node->start;
$kafka->topic($_, 3) foreach qw(users organizations sessions);
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'brokers=' . $kafka->address, '-d', $node->connstr('postgres'), '-f', "$top/examples/sample-model.sql" ],
	'the sample model is created');

sub one { return $node->safe_psql('postgres', $_[0]); }
sub uuid { return sprintf '%08x-0000-4000-8000-%012x', @_ }
sub arrived
{
	my ($topic, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->catch_up('postgres', $topic, $kafka), $what);
}
sub errors_of
{
	my ($table) = @_;
	return one("SELECT string_agg(reason || ' ' || coalesce(column_name, '-'), ', ' ORDER BY reason, column_name) FROM kafka_cache.errors WHERE relation = '$table'::regclass");
}

# --- users: keys and lists --------------------------------------------------------------------------------

my ($ann, $bob, $cid) = map { uuid(1, $_) } 0xa, 0xb, 0xc;
my ($red, $blue) = map { uuid(2, $_) } 1, 2;
kcat($kafka, 'users', <<"EOT", @keyed);
$ann\t{"displayName":"Ann","email":"ann\@example.org","groups":[{"id":"$red"},{"id":"$blue"}]}
$bob\t{"displayName":"Bob","groups":[]}
EOT
arrived('users', 'users arrive');
is(one('SELECT display_name, email, groups FROM users ORDER BY 1'), "Ann|ann\@example.org|{$red,$blue}\nBob||{}", '... with their groups');

# One key, however it is spelled, from another partition too.
$kafka->produce('users', 0, uc $ann, qq({"displayName":"ANN"}), at => 4000000000000);
arrived('users', 'a key in capitals');
is(one("SELECT display_name, groups FROM users WHERE id = '$ann'"), 'ANN|', '... is the same row');
$kafka->produce('users', 0, "{$ann}", qq({"displayName":"{Ann}"}), at => 4000000000000);
$kafka->produce('users', 0, $ann =~ s/-//gr, qq({"displayName":"A-n-n"}), at => 4000000000000);
arrived('users', 'a key in braces, and one without hyphens');
is(one("SELECT id, display_name FROM users WHERE id = '$ann'"), "$ann|A-n-n", '... are the same row, and the last one wins');
is(one('SELECT count(*), count(DISTINCT id) FROM users'), '2|2', '... one for each key');
cmp_ok(one("SELECT key_spellings FROM kafka_cache.tables WHERE relation = 'users'::regclass"), '>=', 1, '... which is counted');
$kafka->produce('users', 0, uc $ann, undef, at => 4000000000000);
arrived('users', 'a tombstone in capitals');
is(one("SELECT count(*) FROM users WHERE id = '$ann'"), '0', '... removes it');

my %lists = (
	'"groups":null' => '', '"groups":[null]' => '{NULL}', '"groups":[]' => '{}', '"groups":[{}]' => '{NULL}', '"groups":[{"id":null}]' => '{NULL}',
	'"x":1' => '', qq("groups":[{"id":"$red"},null]) => "{$red,NULL}", qq("groups":[{"id":"\U$red\E","name":"x"}]) => "{$red}");
my %list_of;
my $n = 0;
foreach my $list (sort keys %lists)
{
	my $id = uuid(3, $n++);
	$list_of{$id} = $lists{$list};
	kcat($kafka, 'users', qq($id\t{"displayName":"x",$list}\n), @keyed);
}
arrived('users', 'lists that are null, hold null, or are not there');
is_deeply({ map { split /\|/, $_, 2 } split /\n/, one("SELECT id, groups FROM users WHERE id::text LIKE '00000003%'") }, \%list_of, '... are what they say');
is(one("SELECT count(*) FROM kafka_cache.errors"), '0', '... and no errors');

kcat($kafka, 'users', <<"EOT", @keyed);
$cid\t{"displayName":"Cid","groups":"$red"}
@{[uuid(4, 1)]}\t{"email":"nobody\@example.org"}
@{[uuid(4, 2)]}\t{"displayName":null}
@{[uuid(4, 3)]}\t{"displayName":"Dan","email":"nowhere"}
@{[uuid(4, 4)]}\t{"displayName":"Eve","groups":[{"id":"red"}]}
carl\t{"displayName":"Carl"}
EOT
arrived('users', 'users that are none');
is(errors_of('users'), 'check -, convert groups, convert groups, key id, not_null display_name, not_null display_name', '... are listed');
is(one("SELECT count(*) FROM users WHERE display_name IS NULL OR email NOT LIKE '%_\@_%'"), '0', '... and not shown');

# --- organizations: names arrive when they arrive --------------------------------------------------------------

kcat($kafka, 'users', qq($ann\t{"displayName":"Ann","email":"ann\@example.org","groups":[{"id":"$red"},{"id":"$blue"}]}\n), @keyed);
kcat($kafka, 'users', qq($bob\t{"displayName":"Bob","groups":[{"id":"$blue"},null]}\n), @keyed);
$kafka->produce('users', 0, $ann, qq({"displayName":"Ann","groups":[{"id":"$red"},{"id":"$blue"}]}), at => 4000000000000);
arrived('users', 'users in groups that nobody knows yet');
my $groups = "SELECT groups FROM users_with_groups WHERE id = '$ann'";
is(one($groups), '{NULL,NULL}', 'both are unknown');
kcat($kafka, 'organizations', qq($red\t{"name":"Red"}\n), @keyed);
arrived('organizations', 'one of them arrives');
is(one($groups), '{Red,NULL}', '... and is named');
kcat($kafka, 'organizations', qq($blue\t{"name":"Blue"}\n), @keyed);
arrived('organizations', 'the other arrives');
is(one($groups), '{Blue,Red}', '... and is named');
kcat($kafka, 'organizations', qq($red\t\n), @keyed, '-Z');
arrived('organizations', 'one is deleted');
is(one($groups), '{Blue,NULL}', '... and is unknown again');

# --- sessions: an enum, addresses, joins by key -------------------------------------------------------------------

my @sessions = map { uuid(5, $_) } 0 .. 9;
my %address = (1 => '10.0.0.1', 2 => '::ffff:10.0.0.1', 3 => 'fe80::1', 4 => '192.168.0.0/24');
kcat($kafka, 'sessions', join('', map { qq($sessions[$_]\t{"user":{"id":"$ann"},"type":"REGULAR","ipAddress":"$address{$_}"}\n) } 1 .. 4), @keyed);
kcat($kafka, 'sessions', <<"EOT", @keyed);
$sessions[5]\t{"user":{"id":"$ann"},"type":"KIOSK"}
$sessions[6]\t{"user":{"id":"$ann"},"type":"REGULAR","ipAddress":"fe80::1%eth0"}
$sessions[7]\t{"user":{},"type":"REGULAR"}
$sessions[8]\t{"user":{"id":"@{[uuid(9, 9)]}"},"type":"MEETINGSCREEN","ipAddress":null}
$sessions[9]\t{"user":null,"type":"REGULAR"}
EOT
arrived('sessions', 'sessions arrive');
is_deeply([ split /\n/, one("SELECT ip_address FROM sessions WHERE ip_address IS NOT NULL ORDER BY id") ], [ map { $address{$_} } 1 .. 4 ], '... with their addresses');
is(errors_of('sessions'), 'convert ip_address, convert type, not_null user_id, not_null user_id', '... and those that are none');
is(one('SELECT count(*), count(u.id) FROM sessions s LEFT JOIN users u ON u.id = s.user_id'), '5|4', 'sessions and their users');
is(one("SET enable_hashjoin = off; SET enable_mergejoin = off; EXPLAIN (COSTS OFF) SELECT s.id, u.display_name FROM sessions s LEFT JOIN users u ON u.id = s.user_id")
	=~ /Key Lookup/ ? 1 : 0, 1, '... can be joined by looking keys up');

one("ALTER TYPE session_type ADD VALUE 'KIOSK'");
is(one("SELECT count(*) FROM sessions WHERE type::text = 'KIOSK'"), '0', 'a new label changes nothing at once');
one("SELECT kafka_cache.reload('sessions')");
ok($node->wait_for('postgres', "SELECT reloads = 1 AND state = 'ready' FROM kafka_cache.tables WHERE relation = 'sessions'::regclass"), '... but after a reload');
is(one("SELECT id FROM sessions WHERE type = 'KIOSK'"), $sessions[5], '... the record with it is a row');
is(errors_of('sessions'), 'convert ip_address, not_null user_id, not_null user_id', '... and no error any more');
kcat($kafka, 'sessions', qq($sessions[6]\t{"user":{"id":"$ann"},"type":"KIOSK","ipAddress":"fe80::1"}\n), @keyed);
arrived('sessions', 'records with the new label');
is(one("SELECT count(*) FROM sessions WHERE type = 'KIOSK'"), '2', '... are rows');

# --- the key in the document ------------------------------------------------------------------------------------------

one("CREATE FOREIGN TABLE users_by_both (id uuid OPTIONS (key 'true', json 'id') NOT NULL, display_name text OPTIONS (json 'displayName'))
	SERVER kafka OPTIONS (topic 'users')");
$kafka->produce('users', 0, $cid, qq({"id":"\U$cid\E","displayName":"Cid"}), at => 4000000000000);
ok($node->catch_up('postgres', 'users_by_both', $kafka, 'users'), 'a document that names its key');
is(one("SELECT display_name FROM users_by_both WHERE id = '$cid'"), 'Cid', '... in any spelling');
$kafka->produce('users', 0, $cid, qq({"id":"$bob","displayName":"Bob"}), at => 4000000000000);
ok($node->catch_up('postgres', 'users_by_both', $kafka, 'users'), 'a document that names another');
is(one("SELECT display_name FROM users_by_both WHERE id = '$cid'"), 'Cid', '... does not displace it');
like(errors_of('users_by_both'), qr/key_mismatch id/, '... and is listed');

balanced($node, 'the sample model');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal/, 'nothing alarming in the log');
$node->stop;
done_testing();
