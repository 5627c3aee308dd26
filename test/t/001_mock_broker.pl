# The tests' own tools: the mock broker, as kcat sees it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Mock;
use Test::More;

my $kafka = KafkaCache::Mock->new(brokers => 2);
$kafka->topic('users', 3);

is($kafka->produce('users', 1, 'a', '{"n": 1}'), 0, 'the first record has offset 0');
is_deeply([ $kafka->produce('users', 1, "it's \N{U+20AC}", '') ], [ 1, 1 ], 'partition and offset');
$kafka->produce('users', 1, 'a', undef, at => 1700000000000, headers => [ h => 'x', h => undef ]);
$kafka->produce('users', 2, undef, "\n");

my @records = $kafka->read_topic('users');
is(scalar @records, 4, 'kcat reads every record');
is_deeply([ @{ $records[0] }{qw(partition offset key payload)} ], [ 1, 0, 'a', '{"n": 1}' ],
	'key and value');
is_deeply([ @{ $records[1] }{qw(key payload)} ], [ "it's \N{U+20AC}", '' ], 'text beyond ASCII, empty value');
is($records[2]{payload}, undef, 'a tombstone has no value');
is($records[2]{ts}, 1700000000000, 'a timestamp as given');
is_deeply($records[2]{headers}, [ 'h', 'x', 'h', undef ], 'headers, twice of one name');
is_deeply([ @{ $records[3] }{qw(key payload)} ], [ undef, "\n" ], 'a record without key');

$kafka->topic('many', 4);
$kafka->load('many', '*', 10, 1000, 'key-%d', '{"id":"%x","percent":"%%","n":%d}');
my %values = map { $_->{key} => $_->{payload} } $kafka->read_topic('many');
is(scalar keys %values, 1000, 'a load of 1000 keys');
is($values{'key-255'}, '{"id":"0000000000ff","percent":"%","n":255}', 'a value made from a pattern');
my %used = map { $_->{partition} => 1 } $kafka->read_topic('many');
is_deeply([ sort keys %used ], [ 0 .. 3 ], 'the partitioner uses every partition');

$kafka->down;
ok(!eval { $kafka->produce('users', 0, 'b', 'x'); 1 }, 'nothing goes to a broker that is down');
like($@, qr/timed out/, '... and the producer says why');
$kafka->up;
is($kafka->produce('users', 0, 'b', 'x'), 0, 'it works again when the broker is back');

ok(!eval { $kafka->command('nonsense'); 1 }, 'an unknown command is refused');

$kafka->stop;
done_testing();
