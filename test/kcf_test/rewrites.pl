#!/usr/bin/perl
# Documents to be rewritten, and what shall become of them: rewrites.pl COUNT SEED prints lines for COPY rewrites
# (id, doc, changed, a, b, u_id, zip, j, ids, names, expected).
#
# A document is made as a list of members, spelled and spaced at random; what is expected is made from the same list,
# so nothing is parsed here.
use strict;
use warnings;

my ($count, $seed) = @ARGV;
srand($seed);

sub pick { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }
sub space { return chance(0.8) ? '' : pick(' ', "\n", "\t", '  '); }

# A string as we write it, and as others may.
sub quoted
{
	my ($s) = @_;
	$s =~ s/(["\\])/\\$1/g;
	$s =~ s/\n/\\n/g;
	$s =~ s/\x01/\\u0001/g;
	return "\"$s\"";
}

sub respelled
{
	my ($s) = @_;
	return quoted($s) if chance(0.7);
	return '"' . join('', map { chance(0.4) || /["\\\n\x01]/ ? sprintf('\\u%04x', ord $_) : $_ } split //, $s) . '"';
}

my @texts = ('', 'x', 'a b', 'q"q', "n\nn", '\\', "\x01", 'long enough for a second word', '}{][,:');

# --- documents ------------------------------------------------------------------------------------

sub unknown
{
	my ($depth) = @_;
	my $r = rand();

	return pick('1', '-0', '1.50', '1e400', 'true', 'null', 'false', '""', '"\\u0000"', '"\\ud83d\\ude00"', quoted(pick(@texts))) if $r < 0.7 || $depth > 3;
	return '[' . join(',', map { space() . unknown($depth + 1) . space() } 1 .. int rand 4) . ']' if $r < 0.85;
	return '{' . join(',', map { space() . quoted(pick('a', 'b', 'id', 'name', 'groups', 'z')) . ':' . unknown($depth + 1) } 1 .. int rand 4) . '}';
}

sub raw { return { text => $_[0] }; }
sub member { my ($name, $value) = @_; return { pre => space(), name => $name, key => respelled($name), colon => space() . ':' . space(), value => $value, post => space() }; }
sub object { return { members => [@_], space => space() }; }

sub integer { my $n = int rand 4; return { text => pick($n, $n, qq("$n"), "${n}e0"), n => $n }; }
sub string { my $s = pick(@texts); return { text => respelled($s), s => $s }; }

# Members of unknown names between the known ones, and some known ones twice.
sub members
{
	my (%makers) = @_;
	my @members;

	foreach my $name (sort { rand() <=> 0.5 } keys %makers)
	{
		push @members, member(pick('z', 'y', '', 'A', 'ids', 'aa', 'idd'), raw(unknown(1))) if chance(0.4);
		push @members, member($name, $makers{$name}->()) for 1 .. pick(0, 1, 1, 1, 1, 2);
	}
	@members = sort { rand() <=> 0.5 } @members if chance(0.2);
	return @members;
}

sub address { return chance(0.15) ? raw(pick('5', 'null', '[]', '"x"')) : object(members(zip => sub { chance(0.1) ? raw('null') : string() })); }
sub user { return chance(0.15) ? raw(pick('5', 'null', '[{"id":1}]', 'true')) : object(members(id => sub { chance(0.1) ? raw('null') : integer() }, address => \&address)); }

sub element
{
	return raw(pick('5', 'null', '"x"', '[1]', 'true')) if chance(0.15);
	return object(members(id => sub { chance(0.1) ? raw('null') : integer() }, name => sub { chance(0.1) ? raw('null') : string() }));
}

sub groups
{
	return raw('null') if chance(0.1);
	return { elements => [ map { element() } 1 .. int rand 6 ], gaps => [ map { space() } 1 .. 14 ] };
}

my %top = (
	a => sub { chance(0.1) ? raw('null') : integer() }, b => \&string, user => \&user, groups => \&groups,
	j => sub { raw(pick('{"x":1}', '[1, 2]', '"s"', 'null')) });

sub text_of
{
	my ($v) = @_;

	return $v->{text} if defined $v->{text};
	if ($v->{elements})
	{
		my @gaps = @{ $v->{gaps} };
		return '[' . join(',', map { shift(@gaps) . text_of($_) . shift(@gaps) } @{ $v->{elements} }) . ']';
	}
	my @members = @{ $v->{members} };
	my @new = @{ $v->{new} // [] };
	my $end = @members ? $members[-1]{post} : $v->{space};
	my @texts = map { $_->{pre} . $_->{key} . $_->{colon} . text_of($_->{value}) } @members;
	$texts[$_] .= $members[$_]{post} for 0 .. $#members - 1;
	return '{' . join(',', @texts, @new) . "$end}";
}

# --- what changes ---------------------------------------------------------------------------------

# The last member of a name, undef: there is none.
sub last_of { my ($object, $name) = @_; return (grep { $_->{name} eq $name } @{ $object->{members} // [] })[-1]; }

# The values that an element, or the null of others, has.
sub value_of
{
	my ($element, $name) = @_;
	my $m = last_of($element, $name) or return undef;
	return $m->{value}{n} // $m->{value}{s};
}

# Each change is [name, how]: how is a function of the old value (undef: none) that returns the new one, undef: away.
sub change
{
	my ($object, @changes) = @_;
	my @members = @{ $object->{members} };
	my $had = @members;
	my @new;

	foreach my $c (@changes)
	{
		my ($name, $how) = @$c;
		my $last = last_of($object, $name);
		my $value = $how->($last ? $last->{value} : undef);

		@members = grep { $_->{name} ne $name || (defined $value && $_ == $last) } @members;
		if (defined $value && $last) { @members = map { $_ == $last ? { %$_, value => $value } : $_ } @members; }
		elsif (defined $value) { push @new, quoted($name) . ':' . text_of($value); }
	}
	return { members => \@members, new => \@new, space => $had ? '' : $object->{space} };
}

sub to { my ($text) = @_; return sub { return defined $text ? raw($text) : undef; }; }

# Something within an object, which is made where there is something to say.
sub within
{
	my (@changes) = @_;
	return sub {
		my ($old) = @_;
		return change($old, @changes) if $old && $old->{members};
		my $new = change({ members => [], space => '' }, @changes);
		return @{ $new->{new} } ? $new : $old;
	};
}

sub written { my ($ids, $names, $i) = @_; my @m; push @m, '"id":' . $ids->[$i] if $ids && defined $ids->[$i]; push @m, '"name":' . quoted($names->[$i]) if $names && defined $names->[$i]; return raw('{' . join(',', @m) . '}'); }

# %new: ids and names, those that change
sub change_groups
{
	my ($old, %new) = @_;
	my ($ids, $names) = @new{qw(ids names)};
	my @old = $old && $old->{elements} ? @{ $old->{elements} } : ();
	my %columns = (ids => 'id', names => 'name');
	my ($fixed) = grep { my $c = $_; !exists $new{$c} && grep { defined value_of($_, $columns{$c}) } @old } keys %columns;
	my $removes = grep { !defined $new{$_} } keys %new;
	my ($taken) = grep { defined } values %new;
	my @result;

	if (!$old || !$old->{elements})
	{
		return $old unless $taken;
		return { elements => [ map { written($ids, $names, $_) } 0 .. $#$taken ], gaps => [ ('') x (2 * @$taken) ] };
	}
	return undef unless $taken || $fixed;
	my $n = $taken ? @$taken : @old;
	my @left = @old;
	for my $i (0 .. $n - 1)
	{
		my $mate;
		if ($fixed) { $mate = $old[$i]; }
		else
		{
			my $same = sub { my ($e, $c) = @_; my $v = value_of($e, $columns{$c}); return !defined $new{$c} || (defined $v ? defined $new{$c}[$i] && $v eq $new{$c}[$i] : !defined $new{$c}[$i]); };
			my ($at) = grep { my $e = $left[$_]; !grep { !$same->($e, $_) } keys %new } 0 .. $#left;
			$mate = splice @left, $at, 1 if defined $at;
		}
		my $null = !grep { defined && defined $_->[$i] } values %new;
		if ($mate && $mate->{members} && ($fixed || $removes))
		{
			push @result, change($mate, map { my $v = $new{$_} ? $new{$_}[$i] : undef; [ $columns{$_}, to(defined $v ? $_ eq 'ids' ? $v : quoted($v) : undef) ] } sort keys %new);
		}
		elsif ($mate && (!$fixed || $null)) { push @result, $mate; }
		else { push @result, written($ids, $names, $i); }
	}
	return { elements => \@result, gaps => [ ('') x (2 * $n) ] };
}

# --- lines ----------------------------------------------------------------------------------------

sub copied { my ($s) = @_; return '\\N' unless defined $s; $s =~ s/\\/\\\\/g; $s =~ s/\n/\\n/g; return $s; }
sub array { my ($values) = @_; return undef unless $values; return '{' . join(',', map { my $v = $_; defined $v ? do { $v =~ s/(["\\])/\\$1/g; "\"$v\"" } : 'NULL' } @$values) . '}'; }

for my $id (1 .. $count)
{
	my $doc = object(members(%top));
	my %changed = map { $_ => 1 } grep { chance(0.4) } qw(a b u_id zip j ids names);
	my $old = last_of($doc, 'groups');
	$old = $old && $old->{value};
	my $nold = $old && $old->{elements} ? @{ $old->{elements} } : undef;
	my ($a, $b, $u_id, $zip, $j, $ids, $names);

	$a = chance(0.8) ? int rand 100 : undef if $changed{a};
	$b = chance(0.8) ? pick(@texts) : undef if $changed{b};
	$u_id = chance(0.8) ? int rand 100 : undef if $changed{u_id};
	$zip = chance(0.8) ? pick(@texts) : undef if $changed{zip};
	$j = chance(0.8) ? pick('{"x":[1,2]}', '[]', '"s"', '1.50') : undef if $changed{j};
	if ($changed{ids} || $changed{names})
	{
		my $n = int rand 6;
		foreach my $c ([ 'ids', 'names', 'name' ], [ 'names', 'ids', 'id' ])
		{
			$n = $nold if defined $nold && $changed{ $c->[0] } && !$changed{ $c->[1] } && grep { defined value_of($_, $c->[2]) } @{ $old->{elements} };
		}
		# the old values, shuffled, so that some are found again
		my @order = sort { rand() <=> 0.5 } 0 .. ($nold // 0) + 2;
		$ids = chance(0.85) ? [ map { $order[$_ % @order] < ($nold // 0) ? value_of($old->{elements}[ $order[$_ % @order] ], 'id') : chance(0.2) ? undef : int rand 5 } 0 .. $n - 1 ] : undef if $changed{ids};
		$names = chance(0.85) ? [ map { $order[$_ % @order] < ($nold // 0) ? value_of($old->{elements}[ $order[$_ % @order] ], 'name') : chance(0.2) ? undef : pick(@texts) } 0 .. $n - 1 ] : undef if $changed{names};
	}

	my @changes;
	push @changes, [ a => to($a) ] if $changed{a};
	push @changes, [ b => to(defined $b ? quoted($b) : undef) ] if $changed{b};
	my @user;
	push @user, [ id => to($u_id) ] if $changed{u_id};
	push @user, [ address => within([ zip => to(defined $zip ? quoted($zip) : undef) ]) ] if $changed{zip};
	push @changes, [ user => within(@user) ] if @user;
	push @changes, [ j => to($j) ] if $changed{j};
	push @changes, [ groups => sub { change_groups($_[0], ($changed{ids} ? (ids => $ids) : ()), ($changed{names} ? (names => $names) : ())) } ] if $changed{ids} || $changed{names};

	my $before = text_of($doc);
	my $after = %changed ? text_of(change($doc, @changes)) : $before;
	my $around = chance(0.1) ? pick(' ', "\n") : '';
	$after = $around . $after unless %changed;
	print join("\t", $id, '\\\\x' . unpack('H*', $around . $before), '{' . join(',', sort keys %changed) . '}', copied($a), copied($b), copied($u_id), copied($zip),
		copied($j), copied(array($ids)), copied(array($names)), '\\\\x' . unpack('H*', $after)), "\n";
}
