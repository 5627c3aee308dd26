#!/usr/bin/perl
# Documents for the decoder's comparison with the server: generate.pl COUNT SEED prints lines for COPY docs.
use strict;
use warnings;

my ($count, $seed) = @ARGV;
srand($seed);

sub pick { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }

sub space { return chance(0.85) ? '' : pick(' ', "\n", "\t", "\r\n", '  '); }

sub utf8
{
	my ($code) = @_;
	return chr $code if $code < 0x80;
	return pack('C2', 0xc0 | $code >> 6, 0x80 | $code & 63) if $code < 0x800;
	return pack('C3', 0xe0 | $code >> 12, 0x80 | $code >> 6 & 63, 0x80 | $code & 63) if $code < 0x10000;
	return pack('C4', 0xf0 | $code >> 18, 0x80 | $code >> 12 & 63, 0x80 | $code >> 6 & 63, 0x80 | $code & 63);
}

sub some_code
{
	my $code = pick(0xa0 + int rand 0x700, 0x800 + int rand 0xd000, 0xe000 + int rand 0x2000,
		0x10000 + int rand 0x100000, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10ffff, 0xf6, 0x20ac);
	return $code;
}

sub escape
{
	my ($code) = @_;
	my $format = chance(0.5) ? '\\u%04x' : '\\u%04X';
	return sprintf $format, $code if $code < 0x10000;
	$code -= 0x10000;
	return sprintf $format . $format, 0xd800 + ($code >> 10), 0xdc00 + ($code & 0x3ff);
}

# The inside of a string.
sub chars
{
	my $s = '';
	my $plain = chance(0.6);

	for (1 .. int rand pick(3, 8, 40))
	{
		if ($plain || chance(0.5)) { $s .= pick('a' .. 'z', 'A' .. 'Z', 0 .. 9, ' ', ' ', ',', ':', '{', '}', '[', ']', '-', '/'); }
		elsif (chance(0.3)) { $s .= pick('\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t'); }
		elsif (chance(0.5)) { $s .= utf8(some_code()); }
		elsif (chance(0.9)) { $s .= escape(some_code()); }
		elsif (chance(0.5)) { $s .= escape(32 + int rand 94); }
		elsif (chance(0.4)) { $s .= '\\u0000'; }
		elsif (chance(0.1)) { $s .= pick('\\ud83d', '\\ude00', '\\ud83dx', '\\q', '\\u12', "\x01", "\t", "\xff", "\xc3", "\xed\xa0\x80"); }
	}
	return $s;
}

sub quoted { return '"' . $_[0] . '"'; }
sub string { return quoted(chars()); }

sub number
{
	return pick(
		0, 1, -1, 7, 42, '-0', '0.0', '-0.0', '-0.00', 100, 32767, 32768, -32768, -32769, 2147483647, 2147483648, -2147483648,
		-2147483649, '9223372036854775807', '9223372036854775808', '-9223372036854775808', '-9223372036854775809',
		'18446744073709551616', '99999999999999999', '999999999999999999', '9999999999999999999', '1e2', '1E2', '1.5e1', '1.50e1', '1e-5',
		'-0e0', '0e999', '1.5E-7', '1e22', '1e23', '123456789012345', '1234567890123456', '0.1', '0.30000000000000004',
		'1.7976931348623157e308', '1.7976931348623159e308', '5e-324', '2e-324', '1e-400', '2.2250738585072011e-308', '123.456', '-99.999',
		'9999.994', '9999.995', '3.4028235e38', '1e39', '1.17549435e-38', '0.1234567890123456789012345678', '12345678901234567890.0987654321',
		'20240229', '1700000000000') if chance(0.6);
	return pick('1e400', '-1e400', '1e131071', '1e131072', '1e-16383', '1e-16384', '1e99999', '1.5e-99999', '1e2147483647',
		'1' . '0' x 300, '0.' . '0' x 300 . '1', '1' . '0' x 1100, '-0.' . '0' x 1100) if chance(0.05);
	return int rand 100000 if chance(0.5);
	return sprintf '%.*f', int rand 10, rand(2000) - 1000 if chance(0.5);
	return sprintf '%.*g', 1 + int rand 20, (rand() - 0.5) * 10**(int(rand 60) - 30);
}

my @unmapped = ('zz', 'yy', 'a', 'id', '', 'x y', 'c', 'k', 'Int4', 'int44', "gr\xc3\xb6ss");

sub object
{
	my ($depth) = @_;
	my @members;

	for (1 .. int rand pick(2, 4, 6))
	{
		push @members, space() . quoted(pick(@unmapped, 'a', 'b', 'name', 'x', 'y', chars())) . space() . ':' . space() . value($depth + 1) . space();
	}
	return '{' . (@members ? join(',', @members) : space()) . '}';
}

sub array
{
	my ($depth) = @_;
	my @elems = map { space() . value($depth + 1) . space() } 1 .. int rand pick(2, 4, 40);

	return '[' . (@elems ? join(',', @elems) : space()) . ']';
}

sub nested
{
	my ($levels) = @_;
	my $open = '';
	my $close = '';

	for (1 .. $levels)
	{
		if (chance(0.5)) { $open .= '[' . (chance(0.1) ? '1,' : ''); $close = ']' . $close; }
		else { $open .= '{' . (chance(0.1) ? '"q":2,' : '') . '"a":'; $close = '}' . $close; }
	}
	return $open . pick('1', '"x"', 'null', '[]', '{}') . $close;
}

sub value
{
	my ($depth) = @_;
	my $r = rand();

	return nested(pick(3, 14, 15, 16, 17, 18, 33, 70)) if $depth == 1 && chance(0.02);
	return object($depth) if $r < 0.15 && $depth < 5;
	return array($depth) if $r < 0.3 && $depth < 5;
	return string() if $r < 0.6;
	return number() if $r < 0.85;
	return pick('true', 'false', 'null');
}

sub date { return sprintf '%04d-%02d-%02d', pick(1999, 2000, 2024, 2026, 1, 9999, 1900, int rand 3000), 1 + int rand(chance(0.1) ? 14 : 12), 1 + int rand pick(28, 31, 32); }

sub timestamp
{
	my $s = date() . pick('T', ' ', 'T', 't') . sprintf '%02d:%02d:%02d', int rand pick(24, 25), int rand pick(60, 61), int rand pick(60, 61);
	$s .= '.' . substr('123456789', 0, pick(1, 3, 6, 6, 7)) if chance(0.4);
	$s .= pick('', 'Z', 'Z', '+00:00', '+02', '-07:30', '+05:45', '+15:59', '+16', 'z', ' UTC', '+0200', ' Europe/Paris', '-00:00', '+2');
	return $s;
}

sub hex_uuid
{
	my @h = map { sprintf '%04x', int rand 65536 } 1 .. 8;
	my $u = "$h[0]$h[1]-$h[2]-$h[3]-$h[4]-$h[5]$h[6]$h[7]";

	return $u if chance(0.7);
	return uc $u if chance(0.3);
	$u =~ s/-//g if chance(0.5);
	$u = "{$u}" if chance(0.2);
	$u =~ s/(.{4})(?=.)/$1-/g if chance(0.3);
	substr($u, int rand length $u, 1) = pick('g', '-', ' ', 'G', '') if chance(0.3);
	return $u;
}

sub string_of { my ($of) = @_; return chance(0.1) ? quoted($of . pick(' ', "\\n", 'x', '\\u0020')) : quoted($of); }
sub number_or_string { my $n = number(); return chance(0.7) ? $n : string_of(chance(0.2) ? pick(' ', '+') . $n : $n); }
sub mood { return string_of(pick('sad', 'ok', 'happy', "\xc3\xb6", '\\u00f6', 'Sad', '', '[]')); }

sub comp
{
	return string() if chance(0.1);
	return quoted(pick('(1,x,2.5,sad,)', '(1,2)', '(,,,,)', '(1,\\"a b\\",3,ok,\\"(7,{p,q})\\")')) if chance(0.1);
	my %m = (x => sub { number_or_string() }, y => sub { value(3) }, z => sub { number() }, m => sub { mood() },
		i => sub { chance(0.5) ? '{"a":' . number() . ',"b":' . array(4) . '}' : value(3) }, w => sub { value(3) });
	return '{' . join(',', map { quoted($_) . ':' . $m{$_}->() } grep { chance(0.6) } sort keys %m) . '}';
}

my @moments = ('infinity', '-infinity', 'epoch', '2024-01-01', '20240101T101112', '2024-001', 'Jan 5 2024', '4714-11-24 BC', '294276-12-31',
	'99999-01-01', '2024-02-30', '12:00', '');
my %make = (
	bool => sub { pick('true', 'false', '"t"', '"yes"', '"off"', '" on "', '"o"', '1', '0', '2', '"1"', '1.0', '"tru"', '"maybe"') },
	int2 => \&number_or_string, int4 => \&number_or_string, int8 => \&number_or_string, float8 => \&number_or_string,
	float4 => \&number_or_string, numeric => \&number_or_string, num62 => \&number_or_string, oid => \&number_or_string,
	positive => \&number_or_string,
	vc => sub { chance(0.5) ? quoted(pick('abcde', 'abcdef', 'abcde  ', "\xc3\xa9" x 5, "\xc3\xa9" x 6, '\\u00e9bcde')) : value(2) },
	bp => sub { quoted(pick('a', 'abc', 'abcd', 'abc   ', '')) },
	uuid => sub { string_of(hex_uuid()) },
	date => sub { string_of(chance(0.7) ? date() : chance(0.5) ? timestamp() : pick(@moments)) },
	ts => sub { string_of(chance(0.85) ? timestamp() : pick(@moments)) },
	tz => sub { string_of(chance(0.85) ? timestamp() : pick(@moments)) },
	tz3 => sub { string_of(chance(0.85) ? timestamp() : pick(@moments)) },
	time => sub { quoted(pick('10:11:12', '10:11:12.5', '24:00:00', '25:00', 'noon')) },
	interval => sub { quoted(pick('1 day', 'P1DT2H', '-3 mons', 'x', '1:2:3')) },
	bytea => sub { quoted(pick('\\\\x00ff', 'abc', '\\\\x0', '\\\\001', '')) },
	mood => \&mood, comp => \&comp,
	inet => sub { quoted(pick('10.0.0.1', '10.0.0.0/8', '::1', '300.1.1.1')) },
	range => sub { quoted(pick('[1,5)', '(,)', 'empty', '[5,1)', '[1')) },
	many => sub { chance(0.7) ? '[' . join(',', map { number() } 1 .. int rand 6) . ']' : quoted(pick('{1,2}', '{}', '{1,2,3,4}', '{x}')) },
	dotted => sub { value(1) });
my %elements = (
	texts => sub { value(3) }, ints => \&number_or_string, bigints => \&number_or_string, uuids => $make{uuid}, jsonbs => sub { value(3) },
	jsons => sub { value(3) }, numerics => \&number_or_string, moods => \&mood, positives => \&number_or_string,
	shorts => sub { chance(0.8) ? string() : value(3) }, comps => \&comp, tzs => $make{tz}, vcs => sub { quoted(pick('abcd', 'abcde', '')) },
	float8s => \&number_or_string, bools => $make{bool});

sub array_of
{
	my ($of) = @_;
	my $r = rand();

	return value(2) if $r < 0.1;
	return quoted(pick('{}', '{1,2}', '{a,NULL}', '{{1},{2}}', '{', '[2:3]={1,2}')) if $r < 0.15;
	if ($r < 0.25)
	{
		# more dimensions, regular and not
		my $n = pick(1, 2, 2);
		return '[' . join(',', map { '[' . join(',', map { $of->() } 1 .. (chance(0.9) ? $n : $n + 1)) . ']' } 1 .. pick(1, 2, 3)) . ']';
	}
	return '[' . join(',', map { space() . (chance(0.1) ? 'null' : $of->()) . space() } 1 .. int rand pick(3, 6, 40)) . ']';
}

sub user
{
	return value(2) if chance(0.2);
	my $address = chance(0.8) ? '{' . (chance(0.5) ? '"street":' . string() . ',' : '') . '"zip":' . number_or_string() . '}' : value(3);
	my @m = ('"id":' . value(3), '"address":' . $address, '"other":' . value(3));
	return '{' . join(',', grep { chance(0.7) } @m, (chance(0.1) ? @m : ())) . '}';
}

sub groups
{
	return value(2) if chance(0.15);
	return '[' . join(',', map {
		chance(0.1) ? value(3)
		  : '{' . join(',', grep { chance(0.8) } '"id":' . (chance(0.8) ? number() : value(3)),
			'"n":' . (chance(0.8) ? '{"name":' . (chance(0.8) ? string() : value(4)) . '}' : value(3))) . '}'
	} 1 .. int rand 5) . ']';
}

my %paths = (user => \&user, groups => \&groups, tags => sub { array_of(sub { value(3) }) }, 'dot.ted' => sub { value(1) },
	"gr\xc3\xb6\xc3\x9fe" => sub { string() }, 'a\\"b\\\\c' => \&number, text => sub { value(1) }, vcx => sub { value(1) },
	json => sub { value(1) }, jsonb => sub { value(1) }, short => sub { chance(0.7) ? string() : value(1) }, name => sub { string() });
my @names = (sort keys %make, sort keys %elements, sort keys %paths, qw(jsonb json text));

sub made
{
	my ($name) = @_;

	return value(1) if chance(0.08);
	return $make{$name}->() if $make{$name};
	return $paths{$name}->() if $paths{$name};
	return array_of($elements{$name});
}

# A name as it may also be spelled.
sub spelled
{
	my ($name) = @_;

	return $name if $name =~ /[\\\x80-\xff]/ || chance(0.9);
	$name =~ s/(.)/chance(0.4) ? escape(ord $1) : $1/ge;
	return $name;
}

sub document
{
	return value(0) if chance(0.05);
	return nested(pick(100, 500, 1001, 3000)) if chance(0.002);
	my @members;

	for (1 .. pick(1, 2, 3, 5, 8))
	{
		my $name = pick(@names);
		if (chance(0.15)) { push @members, quoted(pick(@unmapped)) . ':' . value(1); }
		push @members, quoted(spelled($name)) . space() . ':' . space() . made($name);
		if (chance(0.07)) { push @members, quoted(spelled($name)) . ':' . made($name); }
	}
	return space() . '{' . space() . join(space() . ',' . space(), @members) . space() . '}' . space();
}

my @junk = (map({ chr } 0 .. 0x20), '"', '\\', '{', '}', '[', ']', ',', ':', 't', 'n', '-', '.', 'e', '0', '9', "\x7f", "\x80", "\xc3",
	"\xe2", "\xf0", "\xff", '\\u', '\\ud800', 'true', '//', '/**/', "'", 'NaN', '+', '1.', "\xef\xbb\xbf", "\xc0\x80", "\xa9");

sub mutate
{
	my ($doc) = @_;

	for (1 .. pick(1, 1, 1, 2, 3))
	{
		my $at = int rand(1 + length $doc);
		my $kind = rand();

		if ($kind < 0.35) { substr($doc, $at, 0) = pick(@junk); }
		elsif ($kind < 0.6) { substr($doc, $at, 1 + int rand pick(1, 1, 5)) = '' if $at < length $doc; }
		elsif ($kind < 0.8) { substr($doc, $at, 1) = pick(@junk) if $at < length $doc; }
		elsif ($kind < 0.9) { $doc = substr($doc, 0, $at); }
		else { $doc .= pick(@junk, $doc); }
	}
	return $doc;
}

for my $id (1 .. $count)
{
	my $doc = document();

	$doc = mutate($doc) if chance(0.3);
	# one tab for COPY, two backslashes for bytea
	print "$id\t\\\\x", unpack('H*', $doc), "\n";
}
