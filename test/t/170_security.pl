# Brokers that mean it: TLS, names and passwords by SCRAM-SHA-512 over it, client certificates from user
# mappings, and an authorizer that allows nothing by itself. Two owners of one topic with different
# rights; who writes with whose credentials; and no secret anywhere. The certificates are made here.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;

# --- certificates ---------------------------------------------------------------------------------------

my $folder = PostgreSQL::Test::Utils::tempdir('certificates');

sub openssl
{
	my (@words) = @_;

	system("cd $folder && openssl @words >>openssl.log 2>&1") == 0
	  or die "openssl @words: " . slurp_file("$folder/openssl.log");
	return;
}

sub authority
{
	my ($name) = @_;

	openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=$name' -keyout $name.key -out $name.pem");
	return;
}

# A key and a certificate of it, signed by an authority.
sub certificate
{
	my ($name, $authority, $more) = @_;

	append_to_file("$folder/$name.ext", $more // "extendedKeyUsage=clientAuth\n");
	openssl("req -newkey rsa:2048 -nodes -subj '/CN=$name' -keyout $name.key -out $name.csr");
	openssl("x509 -req -days 2 -in $name.csr -CA $authority.pem -CAkey $authority.key -CAcreateserial -extfile $name.ext -out $name.pem");
	return;
}

sub pem { return slurp_file("$folder/$_[0]"); }

authority($_) foreach qw(authority stranger);
certificate('broker', 'authority', "subjectAltName=DNS:localhost\n");
certificate('carol', 'authority');
certificate('mallory', 'stranger');
openssl("rsa -aes256 -passout pass:canary-key-password -in carol.key -out carol.locked.key");
append_to_file("$folder/broker.both", pem('broker.key') . pem('broker.pem'));

# --- brokers --------------------------------------------------------------------------------------------

my $kafka = KafkaCache::Kafka->new(
	listeners => { TLS => 'SSL@localhost', MTLS => 'SSL@localhost', SCRAM => 'SASL_SSL@localhost' },
	set       => {
		'authorizer.class.name'                    => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'super.users'                              => 'User:ANONYMOUS',
		'ssl.keystore.type'                        => 'PEM',
		'ssl.keystore.location'                    => "$folder/broker.both",
		'ssl.truststore.type'                      => 'PEM',
		'ssl.truststore.location'                  => "$folder/authority.pem",
		'listener.name.mtls.ssl.client.auth'       => 'required',
		'listener.name.scram.sasl.enabled.mechanisms' => 'SCRAM-SHA-512,PLAIN',
		'listener.name.scram.scram-sha-512.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.scram.ScramLoginModule required;',
		'listener.name.scram.plain.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.plain.PlainLoginModule required user_dave="canary-dave";',
	});

sub scram
{
	my ($user, $password) = @_;

	$kafka->java([], 'kafka.admin.ConfigCommand', '--bootstrap-server', $kafka->address, '--alter', '--entity-type', 'users',
		'--entity-name', $user, '--add-config', "SCRAM-SHA-512=[iterations=4096,password=$password]");
	return;
}

my $alice = 'canary-alice';
my $bob = 'canary-bob';
scram(alice => $alice);
scram(bob => $bob);
$kafka->topic('shared', 2);
$kafka->load('shared', '*', 0, 100, 'key-%d', '{"value": "value-%d"}');
$kafka->produce('shared', 0, 'bad', '{"value": ');
$kafka->topic($_, 1) foreach qw(carols orders pairs);
$kafka->produce('carols', 0, 'key', '{"value": "carol"}');
my @allowed = (
	[ 'alice', 'read', 'shared' ],
	[ 'alice', 'read', 'orders' ],
	[ 'alice', 'write', 'orders' ],
	[ 'alice', 'write', 'pairs' ],
	[ 'bob', 'read', 'orders' ],
	[ 'CN=carol', 'read', 'carols' ],
	[ 'CN=carol', 'write', 'carols' ],
	[ 'dave', 'read', 'orders' ]);
$kafka->acl('add', 'allow', "User:$_->[0]", $_->[1], 'topic', $_->[2]) foreach @allowed;

# --- the database: somebody runs the servers, others own tables ------------------------------------------

my $node = KafkaCache::Cluster->new('main', conf => { log_statement => 'none', 'kafka_cache.wait_timeout' => '100ms' });
$node->start;
$node->safe_psql('postgres', "CREATE EXTENSION kafka_cache_fdw;
	CREATE ROLE operator; GRANT USAGE ON FOREIGN DATA WRAPPER kafka_cache_fdw TO operator; GRANT CREATE ON SCHEMA public TO operator");

# Runs SQL as a role; what it prints, or the SQLSTATE and the rest of what went wrong.
sub as
{
	my ($role, $sql, %options) = @_;
	my ($stdout, $stderr);

	# psql itself takes the role, so that no statement with a secret is in the log for a RESET
	local $ENV{PGOPTIONS} = "-c role=$role -c search_path=pg_catalog";
	my $status = $node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, on_error_stop => 1,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	diag("as $role: $stderr") if $status != 0 && !$options{fails};
	return $status == 0 ? $stdout : $stderr;
}

sub server
{
	my ($name, $listener, %options) = @_;
	my $brokers = delete $options{brokers} // $kafka->address($listener);
	my $list = join '', map { ", $_ '$options{$_}'" } sort keys %options;

	as('operator', "CREATE SERVER $name FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS (brokers '$brokers'$list);
		GRANT USAGE ON FOREIGN SERVER $name TO PUBLIC");
	return;
}

sub mapping
{
	my ($role, $server, %options) = @_;
	my $list = join ', ', map { "$_ '$options{$_}'" } sort keys %options;

	as($role, "CREATE USER MAPPING FOR CURRENT_USER SERVER $server OPTIONS ($list)");
	return;
}

sub table
{
	my ($role, $name, $server, %options) = @_;
	my $list = join ', ', map { "$_ '$options{$_}'" } sort keys %options;

	as($role, "CREATE FOREIGN TABLE $role.$name (key text OPTIONS (key 'true') NOT NULL, value text) SERVER $server OPTIONS ($list)");
	return;
}

sub state_of
{
	my ($table, $what) = @_;

	return $node->safe_psql('postgres', 'SELECT ' . ($what // 'state') . " FROM kafka_cache.tables WHERE relation = '$table'::regclass");
}

sub in_state
{
	my ($table, $state, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($node->wait_for('postgres',
			"SELECT state = '$state' AND message ~ '$message' FROM kafka_cache.tables WHERE relation = '$table'::regclass"), $name)
	  or diag(state_of($table, "state || ': ' || message"));
	return;
}

sub ready
{
	my ($table, $topic, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok($node->catch_up('postgres', $table, $kafka, $topic), $name);
}

foreach my $role (qw(alice bob carol dave))
{
	$node->safe_psql('postgres', "CREATE ROLE $role; CREATE SCHEMA $role AUTHORIZATION $role; GRANT USAGE ON SCHEMA $role TO PUBLIC");
}
my $authority = pem('authority.pem');
server('scram', 'SCRAM', security_protocol => 'sasl_ssl', sasl_mechanism => 'SCRAM-SHA-512', ssl_ca_pem => $authority);
server('plain', 'SCRAM', security_protocol => 'sasl_ssl', sasl_mechanism => 'PLAIN', ssl_ca_pem => $authority);
server('mtls', 'MTLS', security_protocol => 'ssl', ssl_ca_pem => $authority);

# --- two owners of one topic ----------------------------------------------------------------------------

mapping('alice', 'scram', username => 'alice', password => $alice);
mapping('bob', 'scram', username => 'bob', password => 'canary-guess');
table($_, 'shared', 'scram', topic => 'shared') foreach qw(alice bob);
ready('alice.shared', 'shared', 'SCRAM-SHA-512 over TLS: the table is loaded');
in_state('bob.shared', 'auth_failed', 'uthentication', 'a wrong password: the state says so');
as('bob', "ALTER USER MAPPING FOR CURRENT_USER SERVER scram OPTIONS (SET password '$bob')");
in_state('bob.shared', 'auth_failed', 'opic authorization failed', 'the right one, but no right on the topic');

is(as('alice', 'SELECT count(*) FROM alice.shared'), '100', 'one owner reads her rows');
like(as('bob', 'SELECT count(*) FROM bob.shared', fails => 1), qr/55000/, '... and the other has none');
is(as('bob', "SELECT count(*) FROM bob.shared", fails => 1) =~ /value-/ ? 'rows' : 'none', 'none', '... whatever he is told');
is(as('bob', "SET kafka_cache.when_not_ready = partial; SELECT count(*) FROM bob.shared"), '0', '... nor anything to read of a load');
like(as('bob', 'SELECT count(*) FROM alice.shared', fails => 1), qr/42501/, '... and no right on her table');
my $seen = "SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM kafka_cache";
is(as('alice', "SELECT relation, entries, records, errors FROM kafka_cache.tables"), 'alice.shared|100|101|1', 'her counts are hers');
is(as('bob', "SELECT relation, ready, entries, records, errors, lag FROM kafka_cache.tables"), 'bob.shared|f|0|0|0|', '... and his are his');
is(as('bob', "$seen.partitions"), '', '... no positions of hers');
is(as('bob', "$seen.errors"), '', '... no errors of hers');
is(as('alice', "$seen.errors"), 'alice.shared', '... which she sees');
is(as('bob', "SELECT DISTINCT labels ->> 'relation' FROM kafka_cache.metrics WHERE labels ? 'relation'"), 'bob.shared', '... no figures of hers');
unlike(as('bob', "SELECT kafka_cache.metrics_text()"), qr/alice/, '... in whatever form');
like(as('bob', "SELECT $_", fails => 1), qr/42501/, "... nor does $_ tell him more")
  foreach "kafka_cache.position('alice.shared')", "kafka_cache.changes('alice.shared', '{}')", "kafka_cache.wait_for_change('alice.shared', '{}', '0')";
is(as('operator', "$seen.tables"), '', 'who runs the server sees neither');

# A rotated password, and a right that is given.
scram(bob => $bob = 'canary-rotated');
$kafka->acl('add', 'allow', 'User:bob', 'read', 'topic', 'shared');
as('bob', "ALTER USER MAPPING FOR CURRENT_USER SERVER scram OPTIONS (SET password '$bob')");
ready('bob.shared', 'shared', 'a rotated password takes effect without a restart, and a new right');
is(as('bob', 'SELECT count(*), (SELECT entries FROM kafka_cache.tables) FROM bob.shared'), '100|100', '... he has his own rows');

# ... and taken away: he keeps what he had, and does not live on hers.
$kafka->acl('remove', 'allow', 'User:bob', 'read', 'topic', 'shared');
in_state('bob.shared', 'auth_failed', 'opic authorization failed', 'a right that is taken away: the state says so');
$kafka->produce('shared', 1, 'later', '{"value": "later"}');
ready('alice.shared', 'shared', '... the other owner goes on');
is(as('alice', "SELECT value FROM alice.shared WHERE key = 'later'"), 'later', '... and reads what came later');
is(as('bob', "SELECT count(*), count(*) FILTER (WHERE key = 'later') FROM bob.shared"), '100|0', '... which he does not');
is(state_of('bob.shared', 'ready, entries, records'), 't|100|101', '... nor in his counts');

# The table changes its owner, and with that its credentials.
$node->safe_psql('postgres', "GRANT USAGE, CREATE ON SCHEMA alice TO bob; ALTER FOREIGN TABLE alice.shared OWNER TO bob");
in_state('alice.shared', 'auth_failed', 'opic authorization failed', 'another owner has other credentials');
$node->safe_psql('postgres', "ALTER FOREIGN TABLE alice.shared OWNER TO alice");
ready('alice.shared', 'shared', '... and the old one hers again');

# --- client certificates ----------------------------------------------------------------------------------

mapping('carol', 'mtls', ssl_certificate_pem => pem('mallory.pem'), ssl_key_pem => pem('mallory.key'));
table('carol', 'own', 'mtls', topic => 'carols', readonly => 'false');
in_state('carol.own', 'auth_failed', 'certificate|unknown ca', 'a certificate of an unknown authority');
is(state_of('carol.own', 'ready'), 'f', '... does not get in');
as('carol', "ALTER USER MAPPING FOR CURRENT_USER SERVER mtls OPTIONS (SET ssl_certificate_pem '" . pem('carol.pem') . "', SET ssl_key_pem '" . pem('carol.key') . "')");
ready('carol.own', 'carols', 'a certificate from the user mapping');
is(as('carol', 'SELECT * FROM carol.own'), 'key|carol', '... the row');
is(as('carol', "INSERT INTO carol.own VALUES ('new', 'written'); SELECT value FROM carol.own WHERE key = 'new'"), 'written', '... and a write');
as('carol', "DROP USER MAPPING FOR CURRENT_USER SERVER mtls");
mapping('carol', 'mtls', ssl_certificate_pem => pem('carol.pem'), ssl_key_pem => pem('carol.locked.key'), ssl_key_password => 'canary-wrong-key-password');
table('carol', 'locked', 'mtls', topic => 'carols');
in_state('carol.locked', 'failed', 'ssl.key.pem.*password', 'a key with another password');
is(state_of('carol.locked', 'ready'), 'f', '... cannot be used');
as('carol', "ALTER USER MAPPING FOR CURRENT_USER SERVER mtls OPTIONS (SET ssl_key_password 'canary-key-password')");
ready('carol.locked', 'carols', '... and can with its own');

table('dave', 'without', 'mtls', topic => 'carols');
in_state('dave.without', 'auth_failed', 'alert .*certificate', 'no certificate at all');

# --- the broker's certificate -----------------------------------------------------------------------------

# Nobody has an account here: brokers take these for ANONYMOUS.
server('tls', 'TLS', security_protocol => 'ssl', ssl_ca_pem => $authority);
server('tls_stranger', 'TLS', security_protocol => 'ssl', ssl_ca_pem => pem('stranger.pem'));
server('tls_known', 'TLS', security_protocol => 'ssl');
server('tls_name', 'TLS', brokers => $kafka->address('TLS') =~ s/localhost/127.0.0.1/gr, security_protocol => 'ssl', ssl_ca_pem => $authority);
server('open', 'TLS');
server('tls_open', 'TLS', brokers => $kafka->address, security_protocol => 'ssl', ssl_ca_pem => $authority);
table('dave', $_, $_, topic => 'shared') foreach qw(tls tls_stranger tls_known tls_name tls_open open);
ready('dave.tls', 'shared', 'TLS alone');
in_state('dave.tls_stranger', 'auth_failed', 'certificate', 'a broker of another authority');
in_state('dave.tls_known', 'auth_failed', 'certificate', '... of none that this machine knows');
in_state('dave.tls_name', 'auth_failed', 'certificate', '... with another name');
in_state('dave.open', 'connecting', '', 'an open connection to where TLS is spoken');
in_state('dave.tls_open', 'auth_failed', 'SSL handshake failed', '... and TLS to where it is not');
is($node->safe_psql('postgres', "SELECT count(*) FROM kafka_cache.tables WHERE ready AND relation::text ~ 'dave\.(tls_|open)'"), '0', '... none of them is read');
like(as('operator', "ALTER SERVER tls_name OPTIONS (ADD ssl_endpoint_identification_algorithm 'none')", fails => 1), qr/42501/, 'not to look at the name is for superusers');
$node->safe_psql('postgres', "ALTER SERVER tls_name OWNER TO postgres; ALTER SERVER tls_name OPTIONS (ADD ssl_endpoint_identification_algorithm 'none')");
ready('dave.tls_name', 'shared', '... whose server it has to be, then');
$node->safe_psql('postgres', "ALTER SERVER tls_known OWNER TO postgres; ALTER SERVER tls_known OPTIONS (ADD ssl_ca_location '$folder/authority.pem')");
ready('dave.tls_known', 'shared', 'the authority from a file');
$node->safe_psql('postgres', "GRANT USAGE ON FOREIGN DATA WRAPPER kafka_cache_fdw TO operator; ALTER SERVER tls_known OWNER TO operator");
in_state('dave.tls_known', 'failed', 'permission denied to set option', '... which only who may read files may name, whoever has set it');

# --- writing ----------------------------------------------------------------------------------------------

mapping('dave', 'plain', username => 'dave', password => 'canary-dave');
table('dave', 'orders', 'plain', topic => 'orders', readonly => 'false');
ready('dave.orders', 'orders', 'PLAIN over TLS');
like(as('dave', "INSERT INTO dave.orders VALUES ('d', 'd')", fails => 1), qr/42501/, 'who may read may not write');
$kafka->acl('add', 'allow', 'User:dave', 'write', 'topic', 'orders');
ok(eventually(sub { as('dave', "INSERT INTO dave.orders VALUES ('d', 'by dave')", fails => 1) eq '' }), '... until he may');
$kafka->acl('remove', 'allow', 'User:dave', 'write', 'topic', 'orders');
table('alice', 'orders', 'scram', topic => 'orders', readonly => 'false');
table('bob', 'orders', 'scram', topic => 'orders', readonly => 'false');
is(as('alice', "INSERT INTO alice.orders VALUES ('a', 'by alice')"), '', 'who may write does');
like(as('bob', "INSERT INTO bob.orders VALUES ('b', 'by bob')", fails => 1), qr/42501/, '... and another owner of the topic does not');
as('alice', "GRANT INSERT, SELECT ON alice.orders TO bob;
	CREATE VIEW alice.door AS SELECT * FROM alice.orders; GRANT INSERT ON alice.door TO bob;
	CREATE FUNCTION alice.put(text, text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'INSERT INTO alice.orders VALUES (\$1, \$2)'");
like(as('bob', "INSERT INTO alice.orders VALUES ('c', 'by bob')", fails => 1), qr/42501/, 'a granted table is written to with the writer\'s own credentials');
is(as('bob', "INSERT INTO alice.door VALUES ('d', 'by the view')"), '', '... a view with those of its owner');
is(as('bob', "SELECT alice.put('e', 'by the function')"), '', '... and so a function');
is_deeply({ fold($kafka, 'orders') }, { a => '{"value":"by alice"}', d => '{"value":"by the view"}', e => '{"value":"by the function"}' },
	'the topic has what was allowed');
ready('bob.orders', 'orders', 'bob reads it');

table('alice', 'pairs', 'scram', topic => 'pairs', readonly => 'false', atomic => 'true');
like(as('alice', "INSERT INTO alice.pairs VALUES ('a', '1')", fails => 1), qr/42501/, 'an atomic write needs a right on the transactional id');
$kafka->java([], 'kafka.admin.AclCommand', '--bootstrap-server', $kafka->address, '--add', '--allow-principal', 'User:alice',
	'--operation', 'Write', '--operation', 'Describe', '--transactional-id', 'kafka_cache_fdw.', '--resource-pattern-type', 'prefixed');
ok(eventually(sub { as('alice', "INSERT INTO alice.pairs VALUES ('a', '1')", fails => 1) eq '' }), '... which can be given by its prefix');

# --- secrets ----------------------------------------------------------------------------------------------

my @secrets = ($alice, $bob, 'canary-bob', 'canary-guess', 'canary-dave', 'canary-key-password', 'canary-wrong-key-password');
foreach my $name (qw(carol.key carol.locked.key mallory.key))
{
	push @secrets, grep { length >= 40 } split /\n/, pem($name);
}
my $secret = join '|', map { quotemeta } @secrets;
unlike($node->log_text, qr/$secret/, 'no secret is in the log');
foreach my $view (split /\n/, $node->safe_psql('postgres', "SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'kafka_cache'::regnamespace AND relkind = 'v'"))
{
	unlike($node->safe_psql('postgres', "SELECT v FROM $view v"), qr/$secret/, "... nor in $view");
}
unlike($node->safe_psql('postgres', 'SELECT s FROM kafka_cache.settings() s'), qr/$secret/, '... nor in the settings');
unlike(join('', map { slurp_file($_) } grep { -r } map { "/proc/$_/cmdline" } split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity')),
	qr/$secret/, '... nor in the title of a process');
foreach my $role (qw(alice bob carol operator))
{
	my $others = $role eq 'operator' ? '' : "AND usename <> '$role'";
	is(as($role, "SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL $others"), '0', "$role sees nobody else's");
}

$node->stop;
unlike($node->log_text, qr/terminated by signal|was not properly shut down/, 'nothing crashed');
done_testing();
