# examples/http: PostGraphile in front of cached tables, asked by curl. Who has no good token learns nothing, a tenant reads what
# it wrote, and nothing of another tenant. The commands are those of the example's README.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Digest::SHA qw(hmac_sha256);
use File::Copy;
use JSON::PP;
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Paths qw($top);
use KafkaCache::Story;
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main');
my $db = 'postgres';
my $folder = PostgreSQL::Test::Utils::tempdir('http');
my $readme = slurp_file("$top/examples/http/README.md");
my $url;

foreach my $file (qw(schema.sql graphile.config.mjs token.mjs))
{
	copy("$top/examples/http/$file", "$folder/$file") or die "$folder/$file: $!";
}
symlink("$top/build/node-http/node_modules", "$folder/node_modules") or die "$folder/node_modules: $!";
$kafka->topic($_, 2) foreach qw(members team);
$node->start;

local $ENV{PATH} = "$top/build/node22:$ENV{PATH}";
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = $db;
local $ENV{PORT} = 0;
delete local @ENV{qw(HOST JWT_AUDIENCE API_ROLES GRAPHILE_ENV NODE_ENV)};

# The commands of a part of the README, for this test's broker and server; what npm installs is there already.
sub commands
{
	my ($part) = @_;
	my ($text) = $readme =~ /<!-- $part: run by .*?-->\s*```sh\n(.*?)```/s or die "no part \"$part\" in the README";
	my $broker = $kafka->address;

	$text =~ s/localhost:9092/$broker/g;
	$text =~ s{http://localhost:5678/graphql}{$url}g if $url;
	$text =~ s/^npm ci$//m;
	return [ 'bash', '-ec', "cd '$folder'\n$text" ];
}

# What commands print; they have to end well.
sub run_part
{
	my ($part) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $run = beside(commands($part));

	ok($run->succeeded, "the README's commands: $part");
	return $run->output;
}

# --- the README, as it stands ------------------------------------------------------------------------

run_part('set up');
run_part('keys');
ok($node->wait_ready($db, 'app.members'), 'the table is loaded');

my $command = commands('serve');
$command->[2] =~ s/^(node_modules)/exec $1/m; # the process that we end later is the server
my $server = beside($command);
ok(eventually(sub { $server->output =~ m{listening on port \d+ at (http://\S+)} && ($url = $1) || !$server->running }), 'it listens');
BAIL_OUT($server->output) unless $url;

my @answers = map { decode_json($_) } grep { /^\{/ } split /\n/, run_part('ask');
is(scalar(@answers), 3, 'update() says where the record lies, the others answer');
is_deeply($answers[0]{data}{fetch}, { value => { name => 'Ann', email => 'ann@example.com' }, offset => '0', stale => JSON::PP::false },
	'fetch() gives it, seen from there');
is_deeply($answers[1]{data}{fetch}, { value => { members => 1, names => ['Ann'] } }, 'what is computed from it');
is_deeply([ map { "$_->{name} $_->{email}" } @{ $answers[2]{data}{allMembers}{nodes} } ], ['Ann ann@example.com'], 'and so does the view');

# --- tokens ------------------------------------------------------------------------------------------

my $ours = '0a0a0e9c-6a4e-4f4a-9a55-2b1de3c1a001';
my $theirs = '0a0a0e9c-6a4e-4f4a-9a55-2b1de3c1a002';
my $ann = '6f1f0e9c-6a4e-4f4a-9a55-2b1de3c1a001';
my $secret = slurp_file("$folder/jwt.secret");
my $json = JSON::PP->new->canonical;

sub sign_rsa
{
	my ($text, $key) = @_;

	append_to_file("$folder/signed", $text);
	open(my $pipe, '-|', 'openssl', 'dgst', '-sha256', '-sign', $key, "$folder/signed") or die "openssl: $!";
	my $signature = do { local $/ = undef; <$pipe> };
	close($pipe) or die 'openssl could not sign';
	unlink "$folder/signed";
	return $signature;
}

# A token, by no code of the example's. Options are claims, and alg and key.
sub token
{
	my (%claims) = (alg => 'HS256', aud => 'api', role => 'api_writer', org => $ours, exp => time + 3600, @_);
	my ($alg, $key) = delete @claims{qw(alg key)};

	delete @claims{ grep { !defined $claims{$_} } keys %claims };
	my $text = join '.', map { encode_base64url($json->encode($_)) } { alg => $alg, typ => 'JWT' }, \%claims;
	my $signature =
	    $alg eq 'none'  ? ''
	  : $alg eq 'RS256' ? sign_rsa($text, $key // "$folder/jwt.key")
	  : $alg eq 'HS384' ? Digest::SHA::hmac_sha384($text, $key // $secret)
	  :                   hmac_sha256($text, $key // $secret);
	return $text . '.' . encode_base64url($signature);
}

# What curl gets: status, headers and body.
sub curl
{
	my (@arguments) = @_;

	open(my $pipe, '-|', 'curl', '-sS', '-i', '--max-time', $PostgreSQL::Test::Utils::timeout_default, @arguments) or die "curl: $!";
	my $text = do { local $/ = undef; <$pipe> };
	close($pipe) or die 'curl failed';
	my ($head, $body) = split /\r\n\r\n/, $text, 2;
	my ($status) = $head =~ m{^HTTP/1\.1 (\d+)};
	return ($status, $head, $body);
}

# A GraphQL request: data and errors of its answer.
sub ask
{
	my ($token, $query, %variables) = @_;
	my ($status, undef, $body) =
	  curl($url, '-H', "Authorization: Bearer $token", '--json', $json->encode({ query => $query, variables => \%variables }));
	my $answer = decode_json($body);

	return $status == 200 ? @$answer{qw(data errors)} : (undef, [ { extensions => { code => $status } } ]);
}

# Requests at once, joined by --next: the bodies.
sub in_parallel
{
	open(my $pipe, '-|', 'curl', '--parallel', '--no-progress-meter', @_) or die "curl: $!";
	my $bodies = do { local $/ = undef; <$pipe> };
	close($pipe) or die 'curl failed';
	return $bodies;
}

sub data { my ($data) = ask(@_); return $data; }

# The SQLSTATE of the error, or the status where there was no answer.
sub refusal { my (undef, $errors) = ask(@_); return $errors ? $errors->[0]{extensions}{code} // $errors->[0]{message} : 'no error'; }

my $schema = '{"query": "{ __schema { queryType { name } } }"}';
my @refused = (
	[ 'no token', 401, undef ],
	[ 'an empty one', 401, '' ],
	[ 'something else', 401, 'let-me-in' ],
	[ 'one that has expired', 401, token(exp => time - 60) ],
	[ 'one that has expired, RS256', 401, token(alg => 'RS256', exp => time - 60) ],
	[ 'one of tomorrow', 401, token(nbf => time + 86400) ],
	[ 'one without an end', 401, token(exp => undef) ],
	[ 'one for another audience', 401, token(aud => 'elsewhere') ],
	[ 'another secret', 401, token(key => 'x' x 64) ],
	[ 'no signature', 401, token(alg => 'none') ],
	[ 'another algorithm', 401, token(alg => 'HS384') ],
	[ 'the public key taken for a secret', 401, token(key => slurp_file("$folder/jwt.pub")) ],
	[ 'no role', 401, token(role => undef) ],
	[ 'a role that is not the server\'s', 403, token(role => 'postgres') ]);
system('openssl', 'genrsa', '-out', "$folder/other.key", '2048') == 0 or die 'openssl genrsa failed';
push @refused, [ 'another private key', 401, token(alg => 'RS256', key => "$folder/other.key") ];
my @parts = split /\./, token();
push @refused, [ 'other claims than were signed', 401, "$parts[0]." . (split /\./, token(org => $theirs))[1] . ".$parts[2]" ];

foreach my $case (@refused)
{
	my ($what, $expected, $token) = @$case;
	my ($status, $head, $body) = curl($url, defined $token ? ('-H', "Authorization: Bearer $token") : (), '--json', $schema);

	is($status, $expected, "$what: $expected");
	like($head, qr/^WWW-Authenticate: Bearer/m, '... and says what is wanted');
	unlike($body, qr/data/, '... and nothing else');
}
foreach my $what ([ 'GET', '-G', '--data-urlencode', 'query={ __typename }' ], ['GET'], [ 'OPTIONS', '-X', 'OPTIONS' ])
{
	my ($verb, @arguments) = @$what;

	is((curl($url, @arguments))[0], 401, "$verb without a token");
}
is((curl($url =~ s{/graphql$}{/}r))[0], 401, 'another page');
is((curl($url, '--json', $schema, '-H', 'Authorization: Basic ' . encode_base64url('postgres:postgres')))[0], 401, 'a password');
foreach my $alg (qw(HS256 RS256))
{
	my ($status, undef, $body) = curl($url, '-H', 'Authorization: Bearer ' . token(alg => $alg), '--json', $schema);
	is($status, 200, "a good one, $alg");
}

# --- a round trip, and another tenant ----------------------------------------------------------------

my $update = 'mutation ($key: String, $data: JSON) { update(input: {entity: "member", key: $key, data: $data}) { position } }';
my $fetch = 'query ($key: [String], $after: JSON) { fetch(product: "member", key: $key, after: $after) { value offset computedAt } }';
my $view = '{ allMembers { totalCount nodes { key name } } }';
my ($writer, $reader, $stranger) = (token(), token(alg => 'RS256', role => 'api_reader'), token(alg => 'RS256', org => $theirs));

sub key { return sprintf '00000000-0000-4000-8000-%012d', $_[0]; }

# Each time by whatever connection is free.
my $wrong = 0;
foreach my $n (1 .. 20)
{
	my ($written) = ask($writer, $update, key => key($n % 4), data => { name => "member $n" });
	my ($read, $errors);

	do { ($read, $errors) = ask($reader, $fetch, key => [ key($n % 4) ], after => $written->{update}{position}) }
	  while ($errors && ($errors->[0]{extensions}{code} // '') eq '40001'); # where ten seconds were not enough
	$wrong++ unless ($read->{fetch}{value}{name} // '') eq "member $n";
	diag($json->encode($errors)) if $errors;
}
is($wrong, 0, 'whoever has a position reads what was written there');
is((sort { $b->{offset} <=> $a->{offset} } grep { ($_->{key} // '') =~ /"org":"$ours"/ } $kafka->read_topic('members'))[0]{payload} =~ /^\{"name":/,
	1, 'the topic has documents');
is(scalar(grep { $_->{key} =~ /"org":"$ours"/ } $kafka->read_topic('members')) >= 5, 1, '... of the tenant\'s keys');

# One that waits for what is yet to come.
my %next = %{ decode_json($kafka->position('members')) };
$_++ foreach values %next;
my $waiting = beside(sub { my $data = data($reader, $fetch, key => [ key(0) ], after => { '0' => $next{0}, '1' => $next{1} }); print $data->{fetch}{value}{name}, "\n" });
ok($node->wait_for($db, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'api_server' AND state = 'active' AND query LIKE '%fetch%'}), 'a read waits');
my $last = 0;
foreach my $n (1 .. 100)
{
	last unless $waiting->running;
	# Until both partitions have got on.
	ask($writer, $update, key => key($_), data => { name => "later $n" }) foreach 0 .. 3;
	$last = $n;
}
ok($waiting->succeeded, '... for a position that is yet to come');
like($waiting->output, qr/^later \d+$/, '... and gives what is there then, not what was there when it began');

is_deeply(data($stranger, $view), { allMembers => { totalCount => 0, nodes => [] } }, 'another tenant sees no row');
is_deeply(data($stranger, $fetch, key => [$ann]), { fetch => undef }, '... nor fetches one');
is_deeply(data($stranger, 'query ($key: UUID!) { memberByKey(key: $key) { name } }', key => $ann), { memberByKey => undef }, '... nor by key');
is_deeply(data($writer, 'query ($key: UUID!) { memberByKey(key: $key) { name } }', key => $ann), { memberByKey => { name => 'Ann' } },
	'whose it is does');
my ($written) = ask($stranger, $update, key => $ann, data => { name => 'Not Ann' });
is_deeply(data($stranger, $fetch, key => [$ann], after => $written->{update}{position})->{fetch}{value}, { name => 'Not Ann', email => undef },
	'the same key of another tenant is another row');
is_deeply(data($writer, $fetch, key => [$ann])->{fetch}{value}, { name => 'Ann', email => 'ann@example.com' }, '... and overwrites nothing');
is_deeply(data($stranger, $view), { allMembers => { totalCount => 1, nodes => [ { key => $ann, name => 'Not Ann' } ] } }, '... and is all it sees');

is(refusal($reader, $update, key => $ann, data => { name => 'Bob' }), '42501', 'a reader writes nothing');
is(refusal(token(org => undef), $fetch, key => [$ann]), '42501', 'a token that speaks for nobody');
is(refusal($writer, $update, key => $ann, data => { email => 'ann@example.com' }), '23502', 'a document without a name');
is(refusal($writer, $update, key => $ann, data => { name => 'Ann', email => '?' }), '23514', 'an address that is none');
is(refusal($writer, $update, key => 'Ann', data => { name => 'Ann' }), '22P02', 'a key that is none');
is(refusal($writer, $fetch, key => ["$ann' OR org <> '$ours"]), '22P02', 'a key that would be more');
is(refusal($writer, 'mutation { update(input: {entity: "app.members", key: "x", data: null}) { position } }'), '22023', 'an entity that is none');
is(refusal($writer, $fetch, key => [$ann], after => 'now'), '22023', 'a position that is none');
is_deeply(data($writer, $fetch, key => [$ann])->{fetch}{value}, { name => 'Ann', email => 'ann@example.com' }, 'none of them wrote');

# What is computed from a tenant's rows, and kept.
my $team = '{ fetch(product: "team") { value offset } }';
my %teams = (
	$writer   => { members => 5, names => [ sort map { $_->{name} } @{ data($writer, $view)->{allMembers}{nodes} } ] },
	$stranger => { members => 1, names => ['Not Ann'] });
foreach my $who ($writer, $stranger)
{
	my $wanted = $json->encode($teams{$who});
	my $got;
	ok(eventually(sub { $got = $json->encode(data($who, $team)->{fetch}{value}); $got eq $wanted }), 'a product follows what its tenant has written')
	  or diag("$got, not $wanted");
}
my $third = '0a0a0e9c-6a4e-4f4a-9a55-2b1de3c1a003';
my $nobody = token(org => $third);
my @team = map { ($_ ? '--next' : (), '-sS', '-H', "Authorization: Bearer $nobody", '--json', $json->encode({ query => $team }), $url) } 0 .. 29;
my $together = in_parallel(@team);
is(() = $together =~ /"members":0/g, 30, 'thirty who ask at once are answered');
is(scalar(grep { ($_->{key} // '') eq $third } $kafka->read_topic('team')), 1, '... and one has computed it');

# Many at once, of both tenants, over ten connections.
my @requests;
foreach my $n (1 .. 60)
{
	push @requests, '--next' if @requests;
	push @requests, '-sS', '-H', 'Authorization: Bearer ' . ($n % 2 ? $writer : $stranger), '--json', $json->encode({ query => $view }), $url;
}
my @counts = sort { $a <=> $b } in_parallel(@requests) =~ /"totalCount":(\d+)/g;
is("@counts", join(' ', (1) x 30, (5) x 30), 'requests of two tenants at once: each has its own rows');

# --- the database alone ------------------------------------------------------------------------------

# Who has got hold of the server's connection, without a token's role; with it, a function that tells what it is shown.
my ($status, undef, $stderr) = $node->psql($db, 'SELECT * FROM api.members', connstr => $node->connstr($db) . ' user=api_server');
like($stderr, qr/permission denied/, 'the server\'s role alone reads nothing');
($status, undef, $stderr) = $node->psql($db, 'SET ROLE postgres', connstr => $node->connstr($db) . ' user=api_server');
like($stderr, qr/permission denied to set role/, '... and takes on no other');
$node->safe_psql($db,
	q{CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN RAISE NOTICE 'shown %', $1; RETURN true; END$$});
my ($shown, $notices);
$node->psql($db, qq{SET ROLE api_reader; SET request.jwt.claims = '{"org": "$ours"}'; SELECT count(*) FROM api.members WHERE public.leak(name)},
	stdout => \$shown, stderr => \$notices);
is($shown, 5, 'a function in a condition');
unlike($notices, qr/Not Ann/, '... is shown no row of another tenant');
like($node->safe_psql($db, qq{SET ROLE api_reader; SET request.jwt.claims = '{"org": "$ours"}'; EXPLAIN (COSTS OFF) SELECT * FROM api.members WHERE key = '$ann'}),
	qr/Key Lookup/, 'a row by its key is looked up');
foreach my $forbidden ('SELECT * FROM app.members', q{SELECT api.update('member', '', '{}')}, 'DELETE FROM api.members')
{
	($status, undef, $stderr) = $node->psql($db, "SET ROLE api_reader; $forbidden");
	like($stderr, qr/permission denied/, "a reader is refused: $forbidden");
}

# --- it goes on --------------------------------------------------------------------------------------

$node->restart;
ok($node->wait_ready($db, 'app.members'), 'PostgreSQL was restarted');
ok( eventually(sub { my $data = data($reader, $fetch, key => [$ann]); $data && $data->{fetch} && $data->{fetch}{value}{name} eq 'Ann' }),
	'the server connects again');
ok($server->running, '... and is the one that it was');
unlike($server->output . $node->log_text, qr/\Q$secret\E|\Q$parts[2]\E/, 'no log has a secret or a token');
$server->stop;

done_testing();
