# Every kind of bad record, seen from outside: produced to a real Kafka, met by a table for each
# on_error, found in kafka_cache.errors by its offset, and healed by a good record and by a tombstone
# of its key. And what must not be taken for bad.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Temp qw(tempfile);
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '128MB', log_min_messages => 'info' });
$node->start;
$node->connect_kafka('postgres', $kafka);
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$node->connect_kafka('latin', $kafka);

my @modes = qw(keep remove fail);
my $types = q{
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN required AS text NOT NULL;
	CREATE TYPE pair AS (x int, y text);};
my $id = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b';
my $nul = "\0";
my $text_key = q{k text OPTIONS (key 'true')};
my $typed = "$text_key, a int NOT NULL CHECK (a > 0), i2 smallint, i8 bigint, b text, c jsonb, j json, f float8, n numeric, u uuid,
	d date, ts timestamptz, e mood, p positive, v varchar(3), bo boolean, ip inet, pr pair, arr int[], by bytea, CONSTRAINT two CHECK (a < 100 OR b IS NOT NULL)";

# --- the table -----------------------------------------------------------------------------------------

# A shape is a topic with a table for each on_error. A case: what it is, reason and column (or the row
# that a good record gives, after "row"), value, and further options: key => the key's bytes (else one of
# its own), headers, at. "good" is a good value, given to every key first and to heal it.
my @shapes = (
	{
		name => 'typed', columns => $typed, good => '{"a":1,"b":"good"}',
		cases => [
			# encoding
			[ 'not UTF-8, in a mapped member',      'encoding -', qq({"a":1,"b":"\xff"}) ],
			[ 'not UTF-8, in another member',       'encoding -', qq({"a":1,"z":"\xc3\x28"}) ],
			[ 'a NUL byte in a document',           'encoding -', qq({"a":1,"b":"x${nul}y"}) ],
			[ 'an escaped NUL into text',           'encoding b', '{"a":1,"b":"x\u0000y"}' ],
			[ 'an escaped NUL into jsonb',          'encoding c', '{"a":1,"c":["\u0000"]}' ],
			[ 'an escaped NUL that nobody maps',    'row 1', '{"a":1,"z":"\u0000"}' ],
			# not JSON
			[ 'a lone surrogate',                   'json -', '{"a":1,"z":"\ud800"}' ],
			[ 'an overlong sequence',               'encoding -', qq({"a":1,"z":"\xc0\xaf"}) ],
			[ 'a raw control character',            'json -', qq({"a":1,"z":"x\x01y"}) ],
			[ 'NaN',                                'json -', '{"a":1,"z":NaN}' ],
			[ 'a comment',                          'json -', '{"a":1}/* x */' ],
			[ 'a byte order mark',                  'json -', qq(\xef\xbb\xbf{"a":1}) ],
			[ 'something behind the document',      'json -', '{"a":1} x' ],
			[ 'two documents',                      'json -', '{"a":1}{"a":1}' ],
			[ 'a document that is cut off',         'json -', '{"a":1' ],
			[ 'an empty value is no document',      'json -', '' ],
			[ 'blanks are no document',             'json -', " \n" ],
			[ 'framing of a schema registry',       'json -', qq($nul$nul$nul$nul\x05{"a":1}) ],
			[ 'very deep nesting',                  'json -', '{"a":1,"z":' . '[' x 100000 . ']' x 100000 . '}' ],
			# shape
			[ 'an array at the top',                'json_shape -', '[{"a":1}]' ],
			[ 'a scalar at the top',                'json_shape -', '17' ],
			[ 'null at the top',                    'json_shape -', 'null' ],
			# members
			[ 'duplicate members: the last counts', 'row 3', '{"a":2,"a":3}' ],
			[ 'unknown members are ignored',        'row 4', '{"a":4,"zz":{"a":{"b":[1,2,{}]}},"":null}' ],
			[ 'missing members are NULL',           'row 5', '{"a":5}' ],
			# numbers
			[ 'beyond int64 into numeric',          'row 12345678901234567890123', '{"a":1,"n":12345678901234567890123}', show => 'n' ],
			[ 'all digits into numeric',            'row 0.12345678901234567890123456789', '{"a":1,"n":0.12345678901234567890123456789}', show => 'n' ],
			[ 'all digits into jsonb',              'row [0.12345678901234567890123456789]', '{"a":1,"c":[0.12345678901234567890123456789]}', show => 'c' ],
			[ 'beyond int64 into bigint',           'range i8', '{"a":1,"i8":9223372036854775808}' ],
			[ 'beyond float8',                      'range f', '{"a":1,"f":1e400}' ],
			[ 'beyond numeric',                     'range n', '{"a":1,"n":1e131072}' ],
			[ 'beyond smallint',                    'range i2', '{"a":1,"i2":32768}' ],
			[ 'a fraction into an integer',         'convert a', '{"a":1.5}' ],
			# types
			[ 'no number',                          'convert i2', '{"a":1,"i2":"x"}' ],
			[ 'an unknown label',                   'convert e', '{"a":1,"e":"happy"}' ],
			[ 'a day that is none',                 'convert d', '{"a":1,"d":"2024-02-30"}' ],
			[ 'a time that is none',                'convert ts', '{"a":1,"ts":"yesterdayish"}' ],
			[ 'no uuid',                            'convert u', '{"a":1,"u":"c4ca"}' ],
			[ 'no address',                         'convert ip', '{"a":1,"ip":"fe80::1%eth0"}' ],
			[ 'an address',                         'row ::ffff:10.0.0.1', '{"a":1,"ip":"::ffff:10.0.0.1"}', show => 'ip' ],
			[ 'no boolean',                         'convert bo', '{"a":1,"bo":"maybe"}' ],
			[ 'too long',                           'convert v', '{"a":1,"v":"abcd"}' ],
			[ 'no bytea',                           'convert by', '{"a":1,"by":"\\\\x0"}' ],
			[ 'a bad element',                      'convert arr', '{"a":1,"arr":[1,"x"]}' ],
			[ 'a bad field',                        'convert pr', '{"a":1,"pr":{"x":"a"}}' ],
			# constraints
			[ 'a missing member, NOT NULL',         'not_null a', '{"b":"x"}' ],
			[ 'null, NOT NULL',                     'not_null a', '{"a":null}' ],
			[ 'a check',                            'check -', '{"a":0}' ],
			[ 'a check of two columns',             'check -', '{"a":100}' ],
			[ 'a check of a domain',                'check p', '{"a":1,"p":0}' ],
			# keys
			[ 'the empty key is a key',             'convert a', '{"a":"x"}', key => '' ],
			[ 'a key with blanks and quotes',       'convert a', '{"a":"x"}', key => q{ it's "a" key\t\\ } ],
			# times
			[ 'a time in the future',               'row 2100-01-01 00:00:00+00', '{"a":1,"ts":"2100-01-01"}', at => 4102444800000, show => 'ts' ],
			[ 'a time in the past',                 'convert a', '{"a":"x"}', at => 1000 ],
		],
	},
	{
		name => 'whole', columns => "$text_key, v jsonb OPTIONS (value 'true')", good => '{"good": true}',
		cases => [
			[ 'an array is a value',                'row [1, "x"]', '[1,"x"]', show => 'v' ],
			[ 'a scalar is a value',                'row "x"', '"x"', show => 'v' ],
			[ 'JSON null is a value',               'row null', 'null', show => 'v' ],
			[ 'not JSON',                           'json -', 'hello' ],
			[ 'an empty value is no tombstone',     'json -', '' ],
		],
	},
	{
		name => 'as_text', columns => "$text_key, v text OPTIONS (value 'true')", options => { format => 'text' }, good => 'good',
		cases => [
			[ 'text that is not UTF-8',             'encoding -', "x\xff" ],
			[ 'text with a NUL byte',               'encoding -', "x${nul}y" ],
			[ 'an empty value is an empty text',    'row ', '', show => 'v' ],
			[ 'the word null is a text',            'row null', 'null', show => 'v' ],
			[ 'a key that is not UTF-8',            'encoding k', 'x', key => "k\xff", bare => 1 ],
			[ 'a key with a NUL byte',              'encoding k', 'x', key => "k$nul", bare => 1 ],
		],
	},
	{
		name => 'as_bytes', columns => q{k bytea OPTIONS (key 'true'), v bytea OPTIONS (value 'true')},
		options => { format => 'bytea', key_format => 'bytea' }, good => 'good', key => sub { sprintf "k%d\xff$nul", $_[0] },
		cases => [ [ 'bytea takes any byte', 'row \xff00c328', "\xff$nul\xc3\x28", show => 'v' ], [ 'and none', 'row \x', '', show => 'v' ] ],
	},
	{
		name => 'by_uuid', columns => q{k uuid OPTIONS (key 'true'), a int}, good => '{"a":1}',
		key => sub { sprintf '00000000-0000-4000-8000-%012d', $_[0] },
		cases => [
			[ 'a key that is no uuid',              'key k', '{"a":1}', key => 'canary', bare => 1 ],
			[ 'an empty key of a type without one', 'key k', '{"a":1}', key => '', bare => 1 ],
			[ 'a bad value under capitals',         'convert a', '{"a":"x"}', key => uc $id ],
			[ 'a bad value under braces',           'convert a', '{"a":"x"}', key => '{11111111-a0b9-2382-0dcc-509a6f75849b}' ],
		],
	},
	{
		name => 'by_int', columns => q{k int OPTIONS (key 'true'), a int}, good => '{"a":1}', key => sub { return 100 + $_[0] },
		cases => [
			[ 'a key that is no number',            'key k', '{"a":1}', key => 'x', bare => 1 ],
			[ 'a key beyond its type',              'key k', '{"a":1}', key => '99999999999', bare => 1 ],
		],
	},
	{
		name => 'by_json', columns => q{x int OPTIONS (key 'true'), y text OPTIONS (key 'true'), a int}, options => { key_format => 'json' },
		good => '{"a":1}', key => sub { return qq({"x":$_[0],"y":"q"}) }, order => 'x',
		cases => [
			[ 'a JSON key that lacks a member',     'key y', '{"a":1}', key => '{"x":1}', bare => 1 ],
			[ 'a member that is null',              'key x', '{"a":1}', key => '{"x":null,"y":"q"}', bare => 1 ],
			[ 'a member of another type',           'key x', '{"a":1}', key => '{"x":"z","y":"q"}', bare => 1 ],
			[ 'a key that is no JSON',              'key -', '{"a":1}', key => 'plain', bare => 1 ],
			[ 'a key that is no object',            'key -', '{"a":1}', key => '[1,"q"]', bare => 1 ],
			[ 'a bad value, the key spelled oddly', 'convert a', '{"a":"x"}', key => '{ "y":"q", "x":77, "z":[] }' ],
		],
	},
	{
		name => 'twice', columns => q{k uuid OPTIONS (key 'true', json 'user.id'), a int}, good => '{"a":1}',
		key => sub { sprintf '00000000-0000-4000-8000-%012d', $_[0] },
		cases => [
			[ 'the same key in the document',       'row 7', qq({"user":{"id":"\U$id\E"},"a":7}), key => $id ],
			[ 'another key in the document',        'key_mismatch k', qq({"user":{"id":"$id"}}) ],
			[ 'no key of that type in it',          'convert k', '{"user":{"id":"x"}}' ],
		],
	},
	{
		name => 'small', columns => "$text_key, a int", options => { max_record_bytes => '64kB' }, good => '{"a":1}',
		cases => [
			[ 'a record within the limit',          'row 2', '{"a":2,"z":"' . 'x' x 65000 . '"}' ],
			[ 'a record beyond the limit',          'too_large -', '{"a":2,"z":"' . 'x' x 65536 . '"}' ],
			[ 'a record far beyond the limit',      'too_large -', '{"a":2,"z":"' . 'x' x 900000 . '"}' ],
			[ 'a key beyond the limit',             'too_large -', '{"a":2}', key => 'k' x 70000, bare => 1, lost => 1 ],
		],
	},
	{
		name => 'with_headers', columns => "$text_key, a int, h jsonb OPTIONS (headers 'true')", good => '{"a":1}',
		cases => [
			[ 'twice of one name, NULL, empty, any bytes', 'row [["a", "x"], ["a", null], ["b", ""], ["c", "\\\\xff00"]]', '{"a":1}',
				show => 'h', headers => [ a => 'x', a => undef, b => '', c => "\xff$nul" ] ],
			[ 'too many bytes of headers',          'headers h', '{"a":1}', headers => [ h => 'x' x 1100000 ] ],
		],
	},
	{
		name => 'any_time', columns => "$text_key, t timestamptz OPTIONS (timestamp 'true'), a int", good => '{"a":1}',
		topic => { 'message.timestamp.after.max.ms' => '9223372036854775807', 'message.timestamp.before.max.ms' => '9223372036854775807' },
		cases => [
			[ 'a time that PostgreSQL does not have', 'row \N', '{"a":2}', at => 9224318016000000, show => 't' ],
			[ 'a time that goes back',              'row 1970-01-01 00:00:01+00', '{"a":3}', at => 1000, show => 't' ],
		],
	},
	{
		name => 'latin', database => 'latin', columns => "$text_key, a text, c jsonb, e text[]", good => '{"a":"good"}',
		cases => [
			[ 'a character that LATIN1 has',        "row \xc3\xa9", qq({"a":"\xc3\xa9"}) ],
			[ '... escaped',                        "row \xc3\xa9", '{"a":"\u00e9"}' ],
			[ '... in a key',                       "row x", '{"a":"x"}', key => "\xc3\xa9" ],
			[ 'one that it lacks',                  'encoding a', qq({"a":"\xe2\x82\xac"}) ],
			[ '... escaped',                        'encoding a', '{"a":"\u20ac"}' ],
			[ '... within jsonb',                   'encoding c', qq({"c":["\xe2\x82\xac"]}) ],
			[ '... within an array',                'encoding e', qq({"e":["\xe2\x82\xac"]}) ],
			[ '... that nobody maps',               'row y', qq({"a":"y","z":"\xe2\x82\xac"}) ],
			[ '... in a key',                       'encoding k', '{"a":"x"}', key => "\xe2\x82\xac", bare => 1 ],
			[ 'not UTF-8',                          'encoding -', qq({"a":"\xe9"}) ],
		],
	});

# --- telling what happened -----------------------------------------------------------------------------

sub query
{
	my ($shape, $sql) = @_;

	return $node->safe_psql($shape->{database}, "SET client_encoding = 'UTF8'; $sql");
}

sub literal
{
	my ($bytes) = @_;
	return "convert_from('\\x" . unpack('H*', $bytes) . "', 'UTF8')";
}

sub catch_up_all
{
	my ($shape, $what) = @_;
	my $position = $kafka->position($shape->{name});
	my $missed = query($shape, join ' UNION ALL ',
		map { "SELECT '$_' WHERE NOT kafka_cache.wait_for('$shape->{name}_$_', '$position', '60s')" } @modes);

	is($missed, '', "$shape->{name}: $what") if $missed ne '';
	return;
}

# The listed errors of a table: "partition offset" => "reason column".
sub listed
{
	my ($shape, $mode) = @_;

	return { map { split /\|/, $_, 2 } split /\n/,
		  query($shape,
			qq{SELECT partition || ' ' || "offset", reason || ' ' || coalesce(column_name, '-') FROM kafka_cache.errors
			 WHERE relation = '$shape->{name}_$mode'::regclass}) };
}

# Where records without a usable key lie whose bytes were not kept either: nothing heals those.
my %lost;

sub left
{
	my ($shape, $mode) = @_;
	my $listed = listed($shape, $mode);

	return sort map { $listed->{$_} } grep { !$lost{"$shape->{name} $_"} } keys %$listed;
}

sub produce_all
{
	my ($shape, $which, $what) = @_;
	my %where;

	foreach my $case (@{ $shape->{cases} })
	{
		my %options = %{ $case->{options} };
		next unless $which->($case);
		my $value = $what eq 'bad' ? $case->{value} : $what eq 'good' ? $shape->{good} : undef;
		my @at = $kafka->produce($shape->{name}, 0, $case->{key}, $value,
			$what eq 'bad' ? map { exists $options{$_} ? ($_ => $options{$_}) : () } qw(at headers) : ());
		$where{"@at"} = $case;
		$lost{"$shape->{name} @at"} = 1 if $options{lost};
	}
	return \%where;
}

sub is_bad { return $_[0]->{expected} !~ /^row / }
sub is_bare { return $_[0]->{options}{bare} }

# What a lookup of the case's key shows.
sub row_of
{
	my ($shape, $mode, $case) = @_;
	my $show = $case->{options}{show} // $shape->{show};
	my $table = "$shape->{name}_$mode";
	my $where =
	    $table =~ /^as_bytes/ ? "k = '\\x" . unpack('H*', $case->{key}) . "'"
	  : $table =~ /^by_json/  ? do { my ($x) = $case->{key} =~ /"x":\s*(\d+)/; "x = $x AND y = 'q'" }
	  : $table =~ /^by_int/   ? "k = $case->{key}"
	  : $table =~ /^(by_uuid|twice)/ ? "k = '$case->{key}'"
	  :                         'k = ' . literal($case->{key});
	my ($status, $out, $err) =
	  $node->psql($shape->{database}, "\\set VERBOSITY sqlstate\nSET client_encoding = 'UTF8';\nCOPY (SELECT $show FROM $table WHERE $where) TO STDOUT");

	return $status == 0 ? ($out =~ s/\\\\/\\/gr) : $err =~ /ERROR:\s+(\w+)/ ? "ERROR $1" : $err;
}

# How many rows there are, or which error a scan gives.
sub scan_of
{
	my ($shape, $mode) = @_;
	my ($status, $out, $err) =
	  $node->psql($shape->{database}, "\\set VERBOSITY sqlstate\nSELECT count(*) FROM $shape->{name}_$mode");
	return $status == 0 ? $out : $err =~ /ERROR:\s+(\w+)/ ? "ERROR $1" : $err;
}

foreach my $database (qw(postgres latin))
{
	$node->safe_psql($database, $types);
}
foreach my $shape (@shapes)
{
	my $n = 0;
	$shape->{database} //= 'postgres';
	$shape->{show} //= $shape->{columns} =~ /\ba (?:int|text)\b/ ? 'a' : 'v';
	my $list = join '', map { ", $_ '$shape->{options}{$_}'" } sort keys %{ $shape->{options} || {} };

	foreach my $case (@{ $shape->{cases} })
	{
		my ($name, $expected, $value, %options) = @$case;
		$n++;
		my $key = $options{key} // ($shape->{key} ? $shape->{key}->($n) : "case $n");
		$case = { name => $name, expected => $expected, value => $value, key => $key, options => \%options };
	}
	$kafka->topic($shape->{name}, 1, 'max.message.bytes' => 8000000, %{ $shape->{topic} || {} });
	foreach my $mode (@modes)
	{
		$node->safe_psql($shape->{database},
			"CREATE FOREIGN TABLE $shape->{name}_$mode ($shape->{columns}) SERVER kafka
			 OPTIONS (topic '$shape->{name}', on_error '$mode'$list)");
	}
}

# --- the stories ---------------------------------------------------------------------------------------

foreach my $shape (@shapes)
{
	my $name = $shape->{name};
	my @cases = @{ $shape->{cases} };
	my @bad = grep { is_bad($_) } @cases;
	my @keyed = grep { is_bad($_) && !is_bare($_) } @cases;
	my %good_row;

	# Everybody has a good row; then bad records (and odd good ones) come.
	produce_all($shape, sub { !is_bare($_[0]) }, 'good');
	catch_up_all($shape, 'good records arrive');
	$good_row{ $_->{key} } = row_of($shape, 'keep', $_) foreach @keyed;
	my $where = produce_all($shape, sub { 1 }, 'bad');
	catch_up_all($shape, 'bad records are passed');
	my %expected = map { $_ => $where->{$_}{expected} } grep { is_bad($where->{$_}) } keys %$where;

	foreach my $mode (@modes)
	{
		my $got = listed($shape, $mode);
		is_deeply($got, \%expected, "$name, $mode: every bad record is listed, with its reason, and no other");
		foreach my $at (sort keys %$where)
		{
			my $case = $where->{$at};
			next if is_bare($case);
			my $row =
			    !is_bad($case)    ? $case->{expected} =~ s/^row //r
			  : $mode eq 'keep'   ? $good_row{ $case->{key} }
			  : $mode eq 'remove' ? ''
			  :                     'ERROR 22000';
			is(row_of($shape, $mode, $case), $row, "$name, $mode: $case->{name}");
		}
		my $rows = @cases - grep { is_bare($_) } @cases;
		is( scan_of($shape, $mode),
			$mode eq 'keep' ? $rows : $mode eq 'remove' ? $rows - @keyed : @keyed ? 'ERROR 22000' : $rows,
			"$name, $mode: what a scan gives");
	}

	# No message tells what the record said.
	is(query($shape, "SELECT message FROM kafka_cache.errors WHERE message ~ 'canary|happy|yesterdayish|eth0'"), '', "$name: no data in messages")
	  if $shape->{database} eq 'postgres';

	# A good record heals; what has no good record is healed by a tombstone of the same bytes.
	produce_all($shape, sub { is_bad($_[0]) && !is_bare($_[0]) }, 'good');
	produce_all($shape, sub { is_bare($_[0]) }, 'tombstone');
	catch_up_all($shape, 'healing records arrive');
	foreach my $mode (@modes)
	{
		my @left = left($shape, $mode);
		is(join(', ', @left), '', "$name, $mode: healed by a good record, or a tombstone where the key is bad");
		is(row_of($shape, $mode, $_), $good_row{ $_->{key} }, "$name, $mode: the row of $_->{name} is back") foreach @keyed;
	}

	# Bad again, twice, and a tombstone.
	produce_all($shape, sub { is_bad($_[0]) && !is_bare($_[0]) }, 'bad') foreach 1, 2;
	catch_up_all($shape, 'bad records again');
	foreach my $mode (@modes)
	{
		my @left = left($shape, $mode);
		is(scalar @left, scalar @keyed, "$name, $mode: one error is listed for each key");
	}
	produce_all($shape, sub { !is_bare($_[0]) }, 'tombstone');
	catch_up_all($shape, 'tombstones arrive');
	foreach my $mode (@modes)
	{
		my @left = left($shape, $mode);
		is(join(', ', @left), '', "$name, $mode: healed by a tombstone");
		is(scan_of($shape, $mode), 0, "$name, $mode: and nobody is left");
		my $counts = accounts($node, "${name}_$mode", $shape->{database});
		my $keyed = @keyed;
		my $bare = grep { is_bare($_) } @cases;
		my $fine = @cases - @bad;
		my $lost = grep { $_->{options}{lost} } @cases;
		is_deeply(
			$counts,
			{
				entries => 0, reloads => 0, ignored => 0,
				upserts => (@cases - $bare) + $fine + $keyed,
				errors => @bad + 2 * $keyed + $lost,
				tombstones => $bare - $lost + (@cases - $bare),
				records => (@cases - $bare) + @cases + $keyed + $bare + 2 * $keyed + (@cases - $bare)
			},
			"$name, $mode: every record is counted, once");
	}
}

# --- records without a key -------------------------------------------------------------------------------

$kafka->topic('compacted', 1);
ok(!eval { $kafka->produce('compacted', 0, undef, '{}'); 1 }, 'a compacted topic takes no record without a key');
$kafka->topic('keyless', 1, 'cleanup.policy' => 'delete');
$node->safe_psql('postgres', "CREATE FOREIGN TABLE keyless ($text_key, a int) SERVER kafka OPTIONS (topic 'keyless')");
kcat($kafka, 'keyless', "{\"a\":1}\n{\"a\":2}\n");
$kafka->produce('keyless', 0, 'k', '{"a":3}');
ok($node->catch_up('postgres', 'keyless', $kafka), 'records without a key are passed');
is($node->safe_psql('postgres', 'SELECT k, a FROM keyless'), 'k|3', '... and those behind them arrive');
is( $node->safe_psql('postgres', q{SELECT "offset", reason, column_name FROM kafka_cache.errors WHERE relation = 'keyless'::regclass ORDER BY 1}),
	"0|null_key|\n1|null_key|", '... and they are listed');

# A big value in a few bytes: unpacked it is beyond the limit.
$kafka->topic('bomb', 1);
$node->safe_psql('postgres', "CREATE FOREIGN TABLE bomb ($text_key, v text OPTIONS (value 'true')) SERVER kafka OPTIONS (topic 'bomb', format 'text')");
my ($fh, $zeros) = tempfile(UNLINK => 1);
print $fh '0' x 20_000_000;
close $fh;
foreach my $codec (qw(gzip lz4 snappy zstd))
{
	kcat($kafka, 'bomb', '', '-k', $codec, '-z', $codec, '-X', 'message.max.bytes=40000000', $zeros);
}
$kafka->produce('bomb', 0, 'k', 'behind them');
ok($node->catch_up('postgres', 'bomb', $kafka), 'big values in a few bytes are passed');
is($node->safe_psql('postgres', "SELECT v FROM bomb WHERE k = 'k'"), 'behind them', '... and what is behind them arrives');
is($node->safe_psql('postgres', q{SELECT string_agg(reason, ' ') FROM kafka_cache.errors WHERE relation = 'bomb'::regclass}),
	'too_large too_large too_large too_large', '... and they are listed');

balanced($node, 'postgres');
balanced($node, 'latin', 'latin');
unlike($node->log_text, qr/PANIC|TRAP|terminated by signal|canary/, 'nothing alarming in the log');
$node->stop;
done_testing();
