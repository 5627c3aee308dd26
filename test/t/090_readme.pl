# What the README shows a newcomer, as it stands there.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Mock;
use KafkaCache::Paths qw($top);
use Test::More;

my $readme = PostgreSQL::Test::Utils::slurp_file("$top/README.md");
my ($sql) = $readme =~ /<!-- quickstart.*?-->\s*```sql\n(.*?)```/s;
ok($sql, 'the README has a quick start');

my $kafka = KafkaCache::Mock->new;
$kafka->topic('users', 2);
$kafka->topic('group_members', 2);
my $id = '6f1f0e9c-6a4e-4f4a-9a55-2b1de3c1a001';
my $org = '0a0a0e9c-6a4e-4f4a-9a55-2b1de3c1a002';
$kafka->produce('users', '*', $id,
	qq({"id":"$id","displayName":"Ann","email":"ann\@example.com","groups":[{"id":"$org"}]}));
$kafka->produce('users', '*', $org, qq({"displayName":"Bob","groups":[]}));

my $node = KafkaCache::Cluster->new('main');
$node->start;

my $address = $kafka->address;
is($sql =~ s/localhost:9092/$address/g, 1, 'it names one broker');
is_deeply([ sort split /\n/, $node->safe_psql('postgres', $sql) ], [ "$org|Bob", "$id|Ann", 't' ], 'it works as it stands')
  or diag($node->log_text);
is($node->safe_psql('postgres', "SELECT email, groups, _offset IS NOT NULL, _time IS NOT NULL FROM users WHERE id = '$id'"),
	"ann\@example.com|{$org}|t|t", 'and the columns are what it says');

# The first thing it shows: a join of an ordinary table with a topic.
my ($join) = $readme =~ /```sql\n(SELECT o\.id, u\.display_name.*?)```/s;
$node->safe_psql('postgres', "CREATE TABLE orders (id int, user_id uuid); INSERT INTO orders VALUES (1, '$id'), (2, '$org')");
is(join("\n", sort split /\n/, $node->safe_psql('postgres', $join)), "1|Ann\n2|Bob", 'the join at its top');

# Its first write, and what others see of that.
my ($write) = $readme =~ /<!-- first write.*?-->\s*```sql\n(.*?)```/s;
my ($kcat) = $readme =~ /^(kcat -C .*)$/m;
$kcat =~ s/localhost:9092/$address/;
my $cleo = '00000000-0000-4000-8000-0000000000c1';
is($node->safe_psql('postgres', $write), 'Cleo|', 'a session reads what it wrote');
is_deeply([ grep { /^$cleo / } split /\n/, `$kcat` ],
	[ qq($cleo 22 {"displayName":"Cleo"}), qq($cleo 49 {"displayName":"Cleo","email":"cleo\@example.com"}), "$cleo -1 " ],
	'and others see two documents and a tombstone');

# What a listener hears.
my ($listen) = $readme =~ /<!-- listening.*?-->\s*```sql\n(.*?)```/s;
my $session = $node->background_psql('postgres', on_error_stop => 1);
my $heard = $session->query($listen);
my $dora = '00000000-0000-4000-8000-0000000000d2';
ok(eventually(sub { ($heard .= $session->query('SELECT')) =~ /users_changed/ }), 'a listener is told');
like($heard, qr/^\Q$dora\E\|f$/m, '... after what changes() says');
like($heard, qr/"users_changed" with payload "\{"v":1,"topic":"users","offsets":\{"[01]":\d+\},"updates":\{"$dora":\{\}\}\}" received/, '... as the README shows it');
$session->quit;

# A function with a memory: what is computed first is read then, and follows what it is made of.
my ($product) = $readme =~ /<!-- data product.*?-->\s*```sql\n(.*?)```/s;
my ($group) = $product =~ /WHERE group_id = '([^']+)'/;
my $members = qq([{"id": "$dora", "display_name": "Dora"}]);
is($node->safe_psql('postgres', $product), "$members\n$members\n", 'a data product is computed, and read');
$kafka->produce('users', '*', $id, qq({"displayName":"Ann","groups":[{"id":"$group"}]}));
ok($node->wait_for('postgres', "SELECT rows->0->>'display_name' FROM group_members", 'Ann'), '... and follows the topic it is made of')
  or diag($node->safe_psql('postgres', 'SELECT * FROM kafka_cache.refresh_queue'));

# The example of the page on writing.
my ($example) = PostgreSQL::Test::Utils::slurp_file("$top/docs/writing.md") =~ /```sql\n(CREATE FOREIGN TABLE users.*?)```/s;
like($node->safe_psql('postgres', "CREATE SCHEMA writing; SET search_path = writing; $example"), qr/^Ann\|\d+$/, 'the example of docs/writing.md');

# What it asks a person to watch.
my ($watch) = $readme =~ /```sql\n(SELECT relation, state.*?)\n\\watch/s;
like($node->safe_psql('postgres', $watch), qr/^users\|ready\|3\|100\.0\|0\|/, 'the view to watch');

done_testing();
