# Brokers that refuse: a wrong password, a right that is not there or is taken away. On a real Kafka with SASL and ACLs.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use Test::More;

# A second way in, with a name and a password; the first is for the test's own clients.
my $kafka = KafkaCache::Kafka->new(
	listeners => { SASL => 'SASL_PLAINTEXT' },
	set       => {
		'sasl.enabled.mechanisms' => 'PLAIN',
		'listener.name.sasl.plain.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="app-password";',
		'authorizer.class.name'          => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'allow.everyone.if.no.acl.found' => 'true',
		'super.users'                    => 'User:ANONYMOUS'
	});
my $port = $kafka->address('SASL') =~ s/.*://r;

my $node = KafkaCache::Cluster->new('main');
$node->start;
$node->safe_psql('postgres', "CREATE EXTENSION kafka_cache_fdw;
	CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw
		OPTIONS (brokers '127.0.0.1:$port', security_protocol 'sasl_plaintext', sasl_mechanism 'PLAIN');
	CREATE USER MAPPING FOR postgres SERVER kafka OPTIONS (username 'app', password 'not-the-password')");

sub cache
{
	my ($table) = @_;
	return $node->safe_psql('postgres',
		"CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		 SERVER kafka OPTIONS (format 'text')");
}

sub in_state
{
	my ($table, $state, $name) = @_;
	return ok($node->wait_for('postgres',
			"SELECT state = '$state' FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $name);
}

$kafka->topic('users', 2);
$kafka->load('users', '*', 0, 100, 'key-%d', 'value-%d');
cache('users');
in_state('users', 'auth_failed', 'a wrong password: the state says so');
like($node->safe_psql('postgres', 'SELECT message FROM kafka_cache.tables'), qr/Invalid username or password/, '... and the message why');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER kafka OPTIONS (SET password 'app-password')");
ok($node->wait_ready('postgres', 'users'), 'the right password takes effect at once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'), '100', '... and the table is loaded');

# A right that is taken away while the table follows its topic.
$kafka->acl('add', 'deny', 'User:app', 'read', 'topic', 'users');
in_state('users', 'auth_failed', 'a right that is taken away: the state says so');
is($node->safe_psql('postgres', "SELECT ready FROM kafka_cache.tables"), 't', '... what was ready is still served');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'), '100', '... with its rows');
$kafka->produce('users', 0, 'key-new', 'value-new');
$kafka->acl('remove', 'deny', 'User:app', 'read', 'topic', 'users');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR postgres SERVER kafka OPTIONS (SET password 'app-password')");
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (ADD client_id 'anew')");
ok($node->catch_up('postgres', 'users', $kafka), 'the right is given back, and the client is another one: it goes on');
is($node->safe_psql('postgres', 'SELECT count(*), (SELECT records FROM kafka_cache.tables) FROM users'), '101|101', '... where it was');

# A topic that may not even be described.
$kafka->topic('secret', 1);
$kafka->acl('add', 'deny', 'User:app', 'all', 'topic', 'secret');
cache('secret');
ok($node->wait_for('postgres', "SELECT state IN ('auth_failed', 'topic_missing') FROM kafka_cache.tables WHERE relation = 'secret'::regclass"),
	'a topic that must not be seen');
my ($status) = $node->psql('postgres', "SET kafka_cache.wait_timeout = '100ms'; SELECT count(*) FROM secret");
isnt($status, 0, '... is not read');

my @said = grep { /kafka_cache consumer/ } split /\n/, $node->log_text;
cmp_ok(scalar @said, '>', 0, 'the consumer has said something');
is_deeply([ grep { /not-the-password|app-password/ } @said ], [], '... and no password');
$node->stop;
unlike($node->log_text, qr/terminated by signal|was not properly shut down/, 'nothing crashed');
done_testing();
