# Every kind of bad record, each with its reason and column; and what must not be taken for one.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Decoder;
use Test::More;

my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.databases' => 'none' });
$node->start;
my $d = KafkaCache::Decoder->new($node, 'postgres');

my $key = q{k text OPTIONS (key 'true')};
my $nul = "\0";

$d->sql(q{
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN required AS text NOT NULL;
	CREATE TYPE pair AS (x int, y text);
	CREATE FUNCTION secret_check(v text) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN IF v = 'canary' THEN RAISE EXCEPTION 'I saw %', v; END IF; RETURN v <> 'no'; END$$;
});
$d->table('t', "$key, a int, b text, c jsonb");
$d->table('typed', "$key, i2 smallint, i4 int, i8 bigint, f8 float8, n numeric, u uuid, d date, ts timestamptz, m mood,
	p positive, pr pair, arr int[], v varchar(3), bo boolean, j json, by bytea");
$d->table('needs', "$key, a int NOT NULL, r required");
$d->table('checked', "$key, a int CHECK (a > 0), b text, CONSTRAINT pair CHECK (a < 100 OR b IS NOT NULL),
	CONSTRAINT seen CHECK (secret_check(b))");
$d->table('whole', "$key, v jsonb OPTIONS (value 'true')");
$d->table('whole_text', "$key, v text OPTIONS (value 'true')");
$d->table('whole_json', "$key, v json OPTIONS (value 'true')");
$d->table('whole_bytes', "$key, v bytea OPTIONS (value 'true')");
$d->table('as_text', "$key, v text OPTIONS (value 'true')", q{format 'text'});
$d->table('as_text_json', "$key, v jsonb OPTIONS (value 'true')", q{format 'text'});
$d->table('as_bytes', q{k bytea OPTIONS (key 'true'), v bytea OPTIONS (value 'true')}, q{format 'bytea', key_format 'bytea'});

sub reason { my ($fault) = @_; $fault =~ /^(\S+) (\S+):/ or return $fault; return "$1 $2"; }
sub is_fault { my ($table, $value, $expected, $name, @with) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; is(reason($d->fault($table, 'key', $value, @with)), $expected, $name); }
sub is_row { my ($table, $value, $expected, $name, @with) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; is($d->row($table, 'key', $value, @with), $expected, $name); }

# --- encoding
is_fault('t', qq({"b":"\xff"}), 'encoding -', 'a document that is not UTF-8, in a member that is mapped');
is_fault('t', qq({"z":"\xc3\x28"}), 'encoding -', '... and in one that is not');
is_fault('t', qq({"z":"\xc0\x80"}), 'encoding -', 'an overlong sequence');
is_fault('t', qq({"z":"\xed\xa0\x80"}), 'encoding -', 'a surrogate in UTF-8');
is_fault('as_text', "a\xff", 'encoding -', 'text that is not UTF-8');
is_fault('as_text', "a${nul}b", 'encoding -', 'text with a NUL byte');
is_fault('t', qq({"b":"a${nul}b"}), 'encoding -', 'a document with a NUL byte');
is_row('as_bytes', "a\xff$nul", '("\\\\x6b6579","\\\\x61ff00")', 'bytea takes any byte');
is_row('whole_bytes', qq({"a":"\xc3\xa9"}), '(key,"\\\\x7b2261223a22c3a9227d")', 'the bytes of a whole document');
is(reason($d->fault('t', "k\xff", '{}')), 'encoding k', 'a key that is not UTF-8');
is(reason($d->fault('t', "k$nul", '{}')), 'encoding k', 'a key with a NUL byte');
is($d->fault('as_bytes', "k\xff$nul", ''), '', 'a bytea key takes any byte');

# --- the escape of NUL
is_fault('t', '{"b":"a\u0000b"}', 'encoding b', 'an escaped NUL in a text column');
is_fault('t', '{"c":{"x":["a\u0000"]}}', 'encoding c', '... within a jsonb column');
is_fault('t', '{"c":{"\u0000":1}}', 'encoding c', '... in a name within a jsonb column');
is_row('t', '{"z":"a\u0000","a":1,"\u0000":{"\u0000":[]}}', '(key,1,,)', '... is ignored where nobody maps it');
is_row('typed', '{"j":"\u0000"}', '(key,,,,,,,,,,,,,,,"""\\\\u0000""",)', '... and kept verbatim in a json column');

# --- not JSON
my %not_json = (
	'lone high surrogate' => '{"z":"\ud800"}', 'lone low surrogate' => '{"z":"\udc00x"}', 'raw control character' => qq({"z":"a\nb"}),
	'NaN' => '{"z":NaN}', 'Infinity' => '{"z":-Infinity}', 'comment' => '{"z":1}/* x */', 'byte order mark' => "\xef\xbb\xbf{}",
	'trailing garbage' => '{} x', 'two documents' => '{}{}', 'nothing' => '', 'only white space' => " \n", 'cut off' => '{"a":1',
	'leading zero' => '{"z":01}', 'trailing comma' => '{"z":1,}', 'single quotes' => q({'z':1}), 'bare word' => 'hello',
	'framing of a schema registry' => "${nul}${nul}${nul}${nul}\x05{}");
is_fault('t', $not_json{$_}, 'json -', "not JSON: $_") foreach sort keys %not_json;
like($d->fault('t', 'k', "$nul$nul$nul$nul\x05{}"), qr/schema registry/, 'the framing is named');
like($d->fault('t', 'k', "\xef\xbb\xbf{}"), qr/byte order mark/, 'the byte order mark is named');
like($d->fault('t', 'k', '{"a": 1, "b": oops}'), qr/at byte 14 of 19/, 'the place is told');
is_fault('whole', 'hello', 'json -', 'not JSON in a value column');

# --- shape
is_fault('t', '[1]', 'json_shape -', 'an array where columns are mapped');
is_fault('t', '"x"', 'json_shape -', 'a scalar where columns are mapped');
is_fault('t', 'null', 'json_shape -', 'null where columns are mapped');
is_row('whole', ' [1, "x"] ', '(key,"[1, ""x""]")', 'an array is a value');
is_row('whole', '"x"', '(key,"""x""")', 'a scalar is a value');
is_row('whole', 'null', '(key,null)', 'null is a value');
is_row('whole_text', ' {"a" : 1.50} ', '(key," {""a"" : 1.50} ")', 'text keeps the document as it is');
is_row('whole_json', ' {"a" : 1.50, "a":2} ', '(key," {""a"" : 1.50, ""a"":2} ")', 'json keeps the document as it is');

# --- depth: as jsonb, whose limit is the stack's
my $deep = sub { my ($n) = @_; return '{"z":' . '[' x $n . ']' x $n . '}'; };
is_row('t', $deep->(900), '(key,,,)', 'deep nesting, as jsonb takes it');
is_row('t', $deep->(5000), '(key,,,)', 'very deep nesting, as jsonb takes it');
is_fault('t', $deep->(60000), 'json -', 'nesting beyond the stack');
is_fault('t', $deep->(200000), 'json -', 'nesting beyond anything');
is_fault('t', '{"c":' . '[' x 60000 . ']' x 60000 . '}', 'json -', '... in a jsonb column');
is($d->sql(q{SELECT (r).c = (repeat('[', 200) || repeat(']', 200))::jsonb
	FROM kcf_test_row(NULL::t, 'k', ('{"c":' || repeat('[', 200) || repeat(']', 200) || '}')::bytea) r}), 't', 'deep jsonb is the same');

# --- members
is_row('t', '{"a":1,"a":2}', '(key,2,,)', 'the last of duplicate members counts');
is_row('t', '{"a":1,"b":null,"zz":{"a":9}}', '(key,1,,)', 'missing, null and unknown members');
is_row('t', '{"\u0061":7,"b":"\u00e9\ud83d\ude00\n"}', qq{(key,7,"\xc3\xa9\xf0\x9f\x98\x80\n",)}, 'escaped names and values');

# --- numbers
is_row('typed', '{"n":123456789012345678901234567890.123456789012345678901234567890}',
	'(key,,,,,123456789012345678901234567890.123456789012345678901234567890,,,,,,,,,,,)', 'all digits of a numeric');
is_row('typed', '{"n":9223372036854775808}', '(key,,,,,9223372036854775808,,,,,,,,,,,)', 'an integer beyond 64 bits into numeric');
is_fault('typed', '{"i8":9223372036854775808}', 'range i8', '... into bigint');
is_fault('typed', '{"f8":1e400}', 'range f8', 'too large for float8');
is($d->sql(q{SELECT (r).n = 1e400 FROM kcf_test_row(NULL::typed, 'k', '{"n":1e400}') r}), 't', '... but not for numeric');
is_fault('typed', '{"n":1e131072}', 'range n', 'too large for numeric');
is_row('typed', '{"zz":1e131072}', '(key' . ',' x 16 . ')', '... is ignored where nobody maps it');
is_fault('t', '{"c":{"x":1e131072}}', 'range c', '... and seen within a jsonb column');
is_fault('typed', '{"i2":32768}', 'range i2', 'too large for smallint');
is_fault('typed', '{"i4":-2147483649}', 'range i4', 'too small for integer');
is_fault('typed', '{"i4":1.5}', 'convert i4', 'a fraction into an integer');
is_row('typed', '{"i4":1e2,"i8":"12"}', '(key,,100,12' . ',' x 13 . ')', 'an exponent, and a string, into integers');

# --- types
my %wrong = (
	i2 => '"x"', i4 => '{}', i8 => 'true', f8 => '"abc"', n => '[]', u => '"c4ca4238"', d => '"2024-02-30"', ts => '"yesterdayish"',
	m => '"happy"', pr => '5', arr => '{"a":1}', v => '"abcd"', bo => '"maybe"', by => '"\\\\x0"');
is_fault('typed', qq({"$_":$wrong{$_}}), "convert $_", "what is no value of column $_") foreach sort keys %wrong;
is_fault('typed', '{"arr":[1,"x"]}', 'convert arr', 'a bad element');
is_fault('typed', '{"arr":[[1],[2,3]]}', 'convert arr', 'an array that is no matrix');
is_fault('typed', '{"pr":{"x":"a"}}', 'convert pr', 'a bad field of a composite');
is_fault('typed', '{"p":-1}', 'check p', 'a domain is checked');
is_row('typed', '{"arr":[[1,2],[3,null]],"pr":{"y":"q","w":0},"m":"ok","v":"abc  ","p":"5"}',
	'(key,,,,,,,,,ok,5,"(,q)","{{1,2},{3,NULL}}",abc,,,)', 'a matrix, a composite, an enum, blanks at the end');

# --- NULL
is_fault('needs', '{"r":"x"}', 'not_null a', 'a missing member in a NOT NULL column');
is_fault('needs', '{"a":null,"r":"x"}', 'not_null a', 'null in a NOT NULL column');
is_fault('needs', '{"a":1}', 'not_null r', 'a missing member in a column of a NOT NULL domain');
is_row('needs', '{"a":1,"r":""}', '(key,1,"")', 'an empty string is not NULL');

# --- CHECK
is_fault('checked', '{"a":0,"b":"x"}', 'check -', 'a check constraint');
is_fault('checked', '{"a":100}', 'check -', 'a check of two columns');
is_row('checked', '{"a":100,"b":"x"}', '(key,100,x)', '... that is fulfilled');
is_row('checked', '{}', '(key,,)', 'NULL fulfills a check');
like($d->fault('checked', 'k', '{"b":"no"}'), qr/^check -: violates check constraint "seen"$/, 'the constraint is named');
my $told = $d->fault('checked', 'k', '{"b":"canary"}');
like($told, qr/^check -: check constraint "seen" could not be evaluated \(SQLSTATE P0001\)$/, 'an error within a check');
unlike($told, qr/canary/, '... is told without its message');

# --- preparing a check is the owner's business as well: functions of constants run then
$d->sql(q{
	CREATE ROLE owner;
	GRANT USAGE ON FOREIGN SERVER kafka TO owner;
	GRANT CREATE ON SCHEMA public TO owner;
	SET ROLE owner;
	CREATE FUNCTION owned(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN current_user = 'owner'; END$$;
});
$d->sql(q{SET ROLE owner; CREATE FOREIGN TABLE of_owner (k text OPTIONS (key 'true'), a int, CHECK (owned(1))) SERVER kafka});
is_row('of_owner', '{"a":1}', '(key,1)', 'a check is prepared as the owner');

# --- no message says what the value was
foreach my $case ([ 'typed', '{"ts":"canary"}' ], [ 'typed', '{"by":"\\\\xcanary"}' ], [ 'typed', '{"f8":"canary"}' ],
	[ 'typed', '{"m":"canary"}' ], [ 'typed', '{"arr":"canary"}' ], [ 'typed', '{"p":"canary"}' ], [ 't', '{"canary' ],
	[ 'typed', '{"v":"canary"}' ], [ 'as_text_json', 'canary' ])
{
	my ($table, $value) = @$case;
	my $fault = $d->fault($table, 'key', $value);
	ok($fault ne '' && $fault !~ /canary/i, "no data in: $fault");
}
$d->table('ukey', q{k uuid OPTIONS (key 'true')});
$d->table('tkey', q{k timestamptz OPTIONS (key 'true')});
unlike($d->fault('ukey', 'canary', '{}'), qr/canary/, 'nor of a key');
unlike($d->fault('tkey', 'canary', '{}'), qr/canary/, 'nor of a key that an input function refuses');

# --- keys
is(reason($d->fault('t', undef, '{}')), 'null_key -', 'a record without key');
is($d->row('t', '', '{}'), '("",,,)', 'an empty key is a key');
is(reason($d->fault('ukey', 'zzz', '{}')), 'key k', 'a key of another type');
is(reason($d->fault('tkey', '2024-13-01', '{}')), 'key k', 'a key that an input function refuses');
is(reason($d->fault('ukey', '', '{}')), 'key k', 'an empty key of a type that has none');
$d->table('ikey', q{k int OPTIONS (key 'true')});
my ($same) = $d->key('ikey', '1') =~ /canonical (\d+)/;
is($d->key('ikey', $_), "raw $same", "the same key spelled '$_'") foreach ('01', ' 1', '+1', '1 ');
($same) = $d->key('ukey', 'c4ca4238-a0b9-2382-0dcc-509a6f75849b') =~ /canonical (\d+)/;
is($d->key('ukey', $_), "raw $same", "the same key spelled $_")
  foreach ('C4CA4238-A0B9-2382-0DCC-509A6F75849B', 'c4ca4238a0b923820dcc509a6f75849b', '{c4ca4238-a0b9-2382-0dcc-509a6f75849b}');
like($d->key('t', $_), qr/^canonical/, "text is what it is: '$_'") foreach ('', 'a', ' A ', "\xc3\xa9");
like($d->key('tkey', '2024-01-02 03:04:05+00'), qr/^raw/, 'how a time is printed depends on settings');
$d->table('mkey', q{k mood OPTIONS (key 'true')});
like($d->key('mkey', 'sad'), qr/^canonical/, 'an enum is its label');
$d->table('bkey', q{k boolean OPTIONS (key 'true')});
like($d->key('bkey', 't'), qr/^canonical/, 'a boolean as it is printed');
like($d->key('bkey', 'true'), qr/^raw/, '... and as it is not');
$d->table('nkey', q{k numeric OPTIONS (key 'true')});
($same) = $d->key('nkey', '1.0') =~ /(\d+)$/;
like($d->key('nkey', '1.000'), qr/ $same$/, 'numeric keys are equal by value');
$d->table('pkey', q{k positive OPTIONS (key 'true')});
is(reason($d->fault('pkey', '-1', '{}')), 'key k', 'a key that its domain refuses');

# --- JSON keys
$d->table('jkey', q{a int OPTIONS (key 'true'), b text OPTIONS (key 'true'), v int}, q{key_format 'json'});
is($d->row('jkey', '{"a":1,"b":"x"}', '{"v":3}'), '(1,x,3)', 'a key of two members');
($same) = $d->key('jkey', '{"a":1,"b":"x"}') =~ /canonical (\d+)/;
is($d->key('jkey', $_), "raw $same", "the same key spelled $_")
  foreach ('{"a": 1, "b":"x"}', '{"b":"x","a":1}', '{"a":1,"b":"x","c":null}', '{"a":1,"b":"\u0078"}', '{"a":"1","b":"x"}', '{"a":2,"a":1,"b":"x"}');
is(reason($d->fault('jkey', $_->[0], '{}')), $_->[1], 'bad key ' . $_->[0] =~ s/\xff/?/r)
  foreach ([ '{"a":1}', 'key b' ], [ '{"a":null,"b":"x"}', 'key a' ], [ '{"a":"y","b":"x"}', 'key a' ], [ '[1,"x"]', 'key -' ], [ '1', 'key -' ],
	[ '{"a":1,"b":"x"', 'key -' ], [ '', 'key -' ], [ "{\"a\":1,\"b\":\"\xff\"}", 'encoding -' ], [ '{"a":1,"b":"\u0000"}', 'key b' ]);
$d->table('jkey1', q{id uuid OPTIONS (key 'true')}, q{key_format 'json'});
($same) = $d->key('jkey1', '{"id":"c4ca4238-a0b9-2382-0dcc-509a6f75849b"}') =~ /canonical (\d+)/;
is($d->key('jkey1', '"c4ca4238-a0b9-2382-0dcc-509a6f75849b"'), "raw $same", 'one key column takes a bare scalar too');
is(reason($d->fault('jkey1', 'null', '{}')), 'key id', '... but not null');

# --- the key in the document
$d->table('twice', q{k uuid OPTIONS (key 'true', json 'user.id'), a int});
my $id = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b';
is($d->row('twice', $id, '{"user":{"id":"' . uc($id) . '"},"a":1}'), "($id,1)", 'the same key in the document');
is(reason($d->fault('twice', $id, '{"user":{"id":"00000000-0000-0000-0000-000000000000"}}')), 'key_mismatch k', 'another key in the document');
is(reason($d->fault('twice', $id, '{"user":{"id":"x"}}')), 'convert k', 'no key in the document');
is($d->row('twice', $id, '{"a":1}'), "($id,1)", 'a document that does not repeat it');

# --- sizes
$d->table('small', "$key, a text", q{max_record_bytes '64kB'});
is_row('small', '{"zz":"' . 'x' x 65000 . '"}', '(key,)', 'a record within the limit');
is_fault('small', '{"zz":"' . 'x' x 65536 . '"}', 'too_large -', 'a record beyond the limit');
is(reason($d->fault('small', 'k' x 65537, '{}')), 'too_large -', 'a key beyond the limit');

# --- what comes with a record
$d->table('meta', "$key, p int OPTIONS (partition 'true'), o bigint OPTIONS (\"offset\" 'true'), t timestamptz OPTIONS (timestamp 'true'),
	h jsonb OPTIONS (headers 'true')");
is_row('meta', '{}', '(key,3,9000000000,"2023-11-14 22:13:20.123+00",[])', 'partition, offset and time',
	partition => 3, offset => 9000000000, record_time => 1700000000123);
is_row('meta', '{}', '(key,0,0,,[])', 'no time', record_time => -1);
is_row('meta', '{}', '(key,0,0,,[])', 'a time that PostgreSQL does not have', record_time => '9223372036854775807');
is_row('meta', '{}', '(key,0,0,,[])', '... a little beyond its last', record_time => 9224318016000000);
is_row('meta', '{}', '(key,0,0,"1969-12-31 23:59:59+00",[])', 'a time before 1970', record_time => -1000);
is_row('meta', '{}', '(key,0,0,"2023-11-14 22:13:20+00","[[""a"", ""x""], [""a"", null], [""b"", """"], [""c"", ""\\\\\\\\xff00""]]")',
	'headers: twice of one name, null, empty, not UTF-8', headers => [ a => 'x', a => undef, b => '', c => "\xff$nul" ]);
is_fault('meta', '{}', 'headers h', 'too many headers', headers => [ map { ('h', 'x') } 1 .. 1001 ]);
is_fault('meta', '{}', 'headers h', 'headers of too many bytes', headers => [ 'h', 'x' x 1100000 ]);
is_fault('t', '{}', '', 'headers that nobody wants are not looked at', headers => [ 'h', 'x' x 1100000 ]);

# --- text
is_row('as_text', '', '(key,"")', 'an empty value is an empty text');
is_fault('t', '', 'json -', '... and no JSON');
is_row('as_text_json', '{"b":1,"a":2}', '(key,"{""a"": 2, ""b"": 1}")', 'text into jsonb');

# --- a table that changes while its rows are decoded
$d->sql(q{ALTER TYPE mood ADD VALUE 'happy'});
is_fault('typed', '{"m":"happy"}', '', 'a label that the enum has got since');
$d->sql(q{ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'});
is_fault('typed', '{"m":"happy"}', 'convert m', '... and lost again');
$d->sql('ALTER FOREIGN TABLE t DROP COLUMN b, ADD COLUMN e int');
is_row('t', '{"a":1,"b":"x","e":5}', '(key,1,,5)', 'a dropped column');

# --- a database in another encoding
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
my $l = KafkaCache::Decoder->new($node, 'latin');
$l->sql(q{CREATE TYPE mood AS ENUM ('ok')});
$l->table('t', "$key, a text, c jsonb, j json, s text[]");
my $latin = sub { my ($column, $key, $value) = @_; return $l->sql("SELECT encode(convert_to(((kcf_test_row(NULL::t, " . KafkaCache::Decoder::arguments($key, $value) . ")).$column)::text, 'LATIN1'), 'hex')"); };
is($latin->('a', 'k', qq({"a":"\xc3\xa9"})), 'e9', 'a character is converted');
is($latin->('a', 'k', '{"a":"x\u00e9"}'), '78e9', '... its escape too');
is($latin->('c', 'k', qq({"c":{"\xc3\xa9":"\\u00e9"}})), unpack('H*', qq({"\xe9": "\xe9"})), '... within jsonb');
is($latin->('j', 'k', qq({"j":["\xc3\xa9","\\u00e9"]})), unpack('H*', qq(["\xe9","\\u00e9"])), '... within json');
is($latin->('s', 'k', qq({"s":["\xc3\xa9","\\u00e9"]})), unpack('H*', "{\xe9,\xe9}"), '... within an array');
is($latin->('k', "\xc3\xa9", '{}'), 'e9', '... within a key');
is(reason($l->fault('t', 'k', qq({"a":"\xe2\x82\xac"}))), 'encoding a', 'a character without equivalent');
is(reason($l->fault('t', 'k', '{"a":"\u20ac"}')), 'encoding a', '... escaped');
is(reason($l->fault('t', 'k', '{"c":["\u20ac"]}')), 'encoding c', '... within jsonb');
is($l->fault('t', 'k', qq({"zz":"\xe2\x82\xac"})), '', '... is ignored where nobody maps it');
is(reason($l->fault('t', "\xe2\x82\xac", '{}')), 'encoding k', '... in a key');

# --- a database that does not know its encoding: bytes pass, characters that must be made do not
$node->safe_psql('postgres', q{CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
my $a = KafkaCache::Decoder->new($node, 'ascii');
$a->table('t', "$key, a text, c jsonb");
is($a->row('t', "\xc3\xa9", qq({"a":"\xe2\x82\xac","c":["\xc3\xa9"]})), qq{(\xc3\xa9,\xe2\x82\xac,"[""\xc3\xa9""]")}, 'bytes as they are');
is(reason($a->fault('t', 'k', '{"a":"\u20ac"}')), 'encoding a', 'an escaped character');
is(reason($a->fault('t', 'k', '{"c":["\u20ac"]}')), 'encoding c', '... within jsonb');
is($a->row('t', 'k', '{"a":"\u0041\n"}'), "(k,\"A\n\",)", 'an escaped character of ASCII');

$node->stop;
done_testing();
