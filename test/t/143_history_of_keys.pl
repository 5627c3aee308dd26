# The history of keys, written by SQL and by others in turn: at every moment of it the topic holds what
# the statements mean, and in the end the table is what the topic, as kcat reads it, amounts to.
# KCF_SEED=n repeats a run.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use KafkaCache::Writing;
use Test::More;

my $seed = $ENV{KCF_SEED} // int(rand(2**31));
my $rounds = $ENV{KCF_ROUNDS} // 400;
srand($seed);
note("seed $seed");

my $kafka = KafkaCache::Kafka->new;
my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '64MB', log_min_messages => 'log' });
$node->start;
$node->connect_kafka('postgres', $kafka);

sub any { return $_[ rand @_ ]; }
sub chance { return rand() < $_[0]; }

# --- tables ---------------------------------------------------------------------------------------------

# A key's value, as its bytes when we write it, as others may spell it, and as SQL.
sub text_key
{
	my ($n) = @_;
	my $bytes = $n % 3 ? "key-$n" : "k y'$n \xc3\xa9";
	my $sql = $bytes =~ s/'/''/gr;
	return { id => $bytes, bytes => $bytes, others => [$bytes], where => "k = '$sql'", columns => 'k', values => "'$sql'" };
}

sub uuid_key
{
	my ($n) = @_;
	my $bytes = sprintf 'abcdef00-0000-4000-8000-%012x', $n;
	return { id => $bytes, bytes => $bytes, others => [ $bytes, uc $bytes, "{$bytes}" ], where => "k = '$bytes'", columns => 'k', values => "'$bytes'" };
}

sub json_key
{
	my ($n) = @_;
	my ($a, $b) = ($n % 4, 'b"' . int($n / 4));
	my $quoted = $b =~ s/"/\\"/gr;
	return {
		id => qq({"a":$a,"b":"$quoted"}),
		bytes => qq({"a":$a,"b":"$quoted"}),
		others => [ qq({"a":$a,"b":"$quoted"}), qq({"b": "$quoted", "a": $a}), qq({"a":$a,"more":[1, 2],"b":"$quoted"}) ],
		where => "(a, b) = ($a, '$b')",
		columns => 'a, b',
		values => "$a, '$b'"
	};
}

# Columns besides the key: member, kind; nested ones have the object they lie in.
my %tables = (
	texts => { key => \&text_key, sql => 'k text OPTIONS (key $$true$$) NOT NULL', options => q{keep_value 'true'} },
	uuids => { key => \&uuid_key, sql => 'k uuid OPTIONS (key $$true$$) NOT NULL', options => q{keep_value 'true', delivery 'immediate'} },
	jsons => {
		key => \&json_key,
		sql => 'a int OPTIONS (key $$true$$) NOT NULL, b text OPTIONS (key $$true$$) NOT NULL',
		options => q{keep_value 'true', key_format 'json'}
	},
	docs => { key => \&text_key, sql => 'k text OPTIONS (key $$true$$) NOT NULL, doc text OPTIONS (value $$true$$)', options => '' },
	units => { key => \&text_key, sql => 'k text OPTIONS (key $$true$$) NOT NULL', options => q{keep_value 'true', atomic 'true'} });

foreach my $name (sort keys %tables)
{
	my $table = $tables{$name};

	$kafka->topic($name, 3, 'cleanup.policy' => 'delete');
	$table->{name} = $name;
	$table->{keys} = [ map { $table->{key}->($_) } 1 .. 8 ];
	$table->{model} = {};
	my $options = join ', ', grep { $_ ne '' } "topic '$name'", "readonly 'false'", $table->{options};
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE $name ($table->{sql}, s text, n numeric, l int[] OPTIONS (json 'in.l'),
		_partition int OPTIONS (partition 'true'), _offset bigint OPTIONS (offset 'true')) SERVER kafka OPTIONS ($options)");
}

# --- documents --------------------------------------------------------------------------------------------

# A document is a list of members, [name, text] each; the text of "in" is such a list.
my @strings = ([ '', '""' ], [ 'x', '"x"' ], [ qq(\xc3\xa9 "\\), qq("\xc3\xa9 \\"\\\\") ], [ q(it's), q("it's") ], [ "a\nb\x01", '"a\nb\u0001"' ], [ 'true', '"true"' ]);
my @numbers = ('0', '-1', '1.50', '123456789012345678901234567890.10', '700');
my @lists = ('[]', '[1]', '[3,2,1]', '[null,2]');
my @foreign_strings = (map({ $_->[1] } @strings), '"\u0041\ud83d\ude00"', 'null', '17', '{"s": 1}');
my @foreign_numbers = (@numbers, '7E2', '"12.0"', 'null');
my @foreign_lists = (@lists, '[ 3 ,2, 1 ]', 'null');
my @strange = ('{"deep": {"er": [1.0, {"x": null}]}}', '1.2300e5', '"\u0041"', 'null', '[ ]', 'false');

sub shuffled { return map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } @_; }

sub foreign_document
{
	my @in = shuffled((chance(0.7) ? [ l => any(@foreign_lists) ] : ()), (chance(0.5) ? [ other => any(@strange) ] : ()));

	return [
		shuffled(
			(chance(0.8) ? [ s => any(@foreign_strings) ] : ()),
			(chance(0.7) ? [ n => any(@foreign_numbers) ] : ()),
			(chance(0.6) ? [ in => \@in ] : ()),
			(chance(0.7) ? [ u1 => any(@strange) ] : ()),
			(chance(0.4) ? [ u2 => any(@strange) ] : ()))
	];
}

sub write_out
{
	my ($doc, $space) = @_;

	return "{$space"
	  . join(",$space", map { "\"$_->[0]\":$space" . (ref $_->[1] ? write_out($_->[1], $space) : $_->[1]) } @$doc) . '}';
}

# Over one value of a text.
sub skip_value
{
	my ($text) = @_;

	$$text =~ /\G\s*/gc;
	return if $$text =~ /\G(?:"(?:[^"\\]|\\.)*"|[-+.\w]+)\s*/gc;
	$$text =~ /\G([\[{])\s*/gc or die 'no value: ' . substr($$text, pos($$text) // 0);
	my $end = $1 eq '[' ? ']' : '}';
	until ($$text =~ /\G\s*\Q$end\E\s*/gc)
	{
		skip_value($text);
		$$text =~ /\G[,:]\s*/gc;
	}
	return;
}

# A text as a document.
sub take_apart
{
	my ($text) = @_;
	my @doc;

	$text =~ /\G\s*\{\s*/gc or die "not an object: $text";
	until ($text =~ /\G\s*\}/gc)
	{
		$text =~ /\G\s*"((?:[^"\\]|\\.)*)"\s*:\s*/gc or die "no member: $text";
		my ($name, $start) = ($1, pos $text);
		skip_value(\$text);
		my $value = substr($text, $start, pos($text) - $start) =~ s/\s+\z//r;
		push @doc, [ $name, $name eq 'in' ? take_apart($value) : $value ];
		$text =~ /\G,/gc;
	}
	return \@doc;
}

# Documents that mean the same to whoever has not changed the other's members: in any order, and with
# an empty "in" or none.
sub canonical
{
	my ($doc) = @_;

	return 'a tombstone' unless defined $doc;
	return join ',', sort map { "$_->[0]=" . (ref $_->[1] ? '{' . canonical($_->[1]) . '}' : $_->[1]) } grep { !ref $_->[1] || @{ $_->[1] } } @$doc;
}

# The document with this member replaced, put in or (undef) taken out.
sub with_member
{
	my ($doc, $name, $value) = @_;
	my @others = grep { $_->[0] ne $name } @$doc;

	return [ @others, (defined $value ? [ $name, $value ] : ()) ];
}

# --- statements ---------------------------------------------------------------------------------------------

# Some columns with values: what SQL says of them, and what that does to a document.
sub some_columns
{
	my (%as);

	if (chance(0.7)) { my $s = any(@strings); my $sql = $s->[0] =~ s/'/''/gr; $as{s} = [ "'$sql'", $s->[1] ] }
	if (chance(0.6)) { my $n = any(@numbers); $as{n} = [ $n, $n ] }
	if (chance(0.5)) { my $l = any(@lists); $as{l} = [ "'" . ($l =~ tr/[]/{}/r) . "'", $l ] }
	foreach my $name (keys %as) { $as{$name} = [ 'NULL', undef ] if chance(0.2) }
	return %as;
}

sub changed
{
	my ($doc, %as) = @_;

	foreach my $name (qw(s n))
	{
		$doc = with_member($doc, $name, $as{$name}[1]) if $as{$name};
	}
	if ($as{l})
	{
		my ($in) = map { $_->[1] } grep { $_->[0] eq 'in' } @$doc;
		$doc = with_member($doc, 'in', with_member($in // [], 'l', $as{l}[1]));
	}
	return $doc;
}

# What happens to a key: the statement, and what it means: [key's bytes, document], or nothing.
sub put_in
{
	my ($table, $key) = @_;
	my %as = some_columns();
	my ($columns, $values) = ($key->{columns}, $key->{values});
	my $doc = [];

	foreach my $name (sort keys %as) { $columns .= ", $name"; $values .= ", $as{$name}[0]" }
	if ($table->{name} eq 'docs' && chance(0.5))
	{
		$doc = foreign_document();
		my $text = write_out($doc, any('', ' ')) =~ s/'/''/gr;
		($columns, $values) = ("$columns, doc", "$values, '$text'");
		# NULL overrides nothing
		%as = map { $_ => $as{$_} } grep { defined $as{$_}[1] } keys %as;
	}
	return ("INSERT INTO $table->{name} ($columns) VALUES ($values)", [ $key->{bytes}, changed($doc, %as) ]);
}

sub update
{
	my ($table, $key, $before) = @_;
	my %as = some_columns();
	my $doc;
	my @set;

	%as = (s => [ 'NULL', undef ]) unless %as;
	@set = map { "$_ = $as{$_}[0]" } sort keys %as;
	if ($before->{doc}) { $doc = $before->{doc} }
	if ($table->{name} eq 'docs' && chance(0.2))
	{
		$doc = foreign_document();
		my $text = write_out($doc, ' ') =~ s/'/''/gr;
		push @set, "doc = '$text'";
	}
	my $sql = "UPDATE $table->{name} SET " . join(', ', @set) . " WHERE $key->{where}";
	return ($sql, $before->{doc} ? [ $before->{bytes}, changed($doc, %as) ] : undef);
}

sub take_out
{
	my ($table, $key, $before) = @_;

	return ("DELETE FROM $table->{name} WHERE $key->{where}", $before->{doc} ? [ $before->{bytes}, undef ] : undef);
}

my %count;

# It is so: what the topic has more now, and what the key is.
sub happened
{
	my ($table, $key, $what, $who) = @_;

	$count{$who}++;
	return unless $what;
	push @{ $table->{history}{ $key->{id} } }, [ @$what, $who ];
	$table->{model}{ $key->{id} } = { bytes => $what->[0], doc => $what->[1] };
	return;
}

# Each key lies in the partition that its own spelling leads to.
foreach my $table (values %tables)
{
	foreach my $key (@{ $table->{keys} })
	{
		my $doc = foreign_document();
		($key->{partition}) = $kafka->produce($table->{name}, '*', $key->{bytes}, write_out($doc, ''));
		happened($table, $key, [ $key->{bytes}, $doc ], 'another producer');
	}
}

my $session = $node->background_psql('postgres', on_error_stop => 1);
for my $round (1 .. $rounds)
{
	my $table = $tables{ any(sort keys %tables) };

	if (chance(0.3))
	{
		my $key = any(@{ $table->{keys} });
		my $doc = chance(0.75) ? foreign_document() : undef;
		my $bytes = any(@{ $key->{others} });
		my $text = $doc ? write_out($doc, any('', ' ', "\t")) : undef;

		if (chance(0.3))
		{
			kcat($kafka, $table->{name}, "$bytes\x1f" . ($text // ''), '-p', $key->{partition}, '-K', "\x1f", '-Z', '-D', "\x1e");
			happened($table, $key, [ $bytes, $doc ], 'kcat');
		}
		else
		{
			$kafka->produce($table->{name}, $key->{partition}, $bytes, $text);
			happened($table, $key, [ $bytes, $doc ], 'another producer');
		}
		# A session reads its own writes, not those of others.
		$session->query_safe("SELECT kafka_cache.wait_for('$table->{name}', '" . $kafka->position($table->{name}) . "', '60 s')");
		next;
	}

	# One statement or several, of different keys; some of them rolled back.
	my @keys = shuffled(@{ $table->{keys} });
	my $immediate = $table->{options} =~ /immediate/;
	my $n = chance(0.6) ? 1 : 2 + int rand 4;
	my $rolled_back = $n > 1 && chance(0.25);
	my @sql;
	my @done;
	for my $key (@keys[ 0 .. $n - 1 ])
	{
		my $before = $table->{model}{ $key->{id} } // {};
		my $how = any(\&put_in, \&put_in, \&update, \&update, \&update, \&take_out);
		my ($sql, $what) = $how->($table, $key, $before);
		my $undone = $n > 1 && chance(0.2);

		push @sql, $undone ? ('SAVEPOINT a', $sql, 'ROLLBACK TO a') : $sql;
		push @done, [ $key, $what ] unless $undone && !$immediate;
	}
	@sql = ('BEGIN', @sql, $rolled_back ? 'ROLLBACK' : 'COMMIT') if $n > 1;
	$session->query_safe(join '; ', @sql);
	next if $rolled_back && !$immediate;
	happened($table, @$_, 'SQL') foreach @done;
}
$session->quit;
note(join ', ', map { "$_: $count{$_}" } sort keys %count);

# --- what came of it ---------------------------------------------------------------------------------------------

foreach my $name (sort keys %tables)
{
	my $table = $tables{$name};
	my %id = map { my $key = $_; map { ($_ => $key->{id}) } $key->{bytes}, @{ $key->{others} } } @{ $table->{keys} };
	my (%history, %last, %elsewhere);

	foreach my $record (map { in_bytes($_) } committed($kafka, $name))
	{
		my $id = $id{ $record->{key} } // "unknown: $record->{key}";
		my $doc = defined $record->{payload} ? take_apart($record->{payload}) : undef;

		push @{ $history{$id} }, "$record->{key} " . canonical($doc);
		$last{$id} = $record->{payload};
		$elsewhere{ $record->{partition} }{$id} = 1;
	}
	foreach my $key (@{ $table->{keys} })
	{
		my @expected = map { "$_->[0] " . canonical($_->[1]) } @{ $table->{history}{ $key->{id} } };
		is_deeply($history{ $key->{id} }, \@expected, "$name, key $key->{id}: each record as it was written, in order (seed $seed)");
		is(join(',', grep { $elsewhere{$_}{ $key->{id} } } sort keys %elsewhere), $key->{partition}, '... in its partition');
	}
	is(scalar(grep { /^unknown/ } keys %history), 0, "$name: no other keys");

	# The fold, read by the server's own functions.
	ok($node->catch_up('postgres', $name, $kafka), "$name is at the end");
	my $rows = join '', map { my $id = $_; join("\t", map { s/([\\\t\n\r])/"\\" . { "\\" => "\\", "\t" => 't', "\n" => 'n', "\r" => 'r' }->{$1}/ger } $id, $last{$id}) . "\n" }
	  grep { defined $last{$_} } sort keys %last;
	$node->safe_psql('postgres', "CREATE TABLE fold_$name (id text, doc text);\nCOPY fold_$name FROM STDIN;\n$rows\\.\n");
	my $id = $name eq 'jsons' ? q{format('{"a":%s,"b":%s}', a, to_json(b))} : 'k::text';
	my $doc = $name eq 'docs' ? 'doc' : 'NULL';
	my $expected = qq{
		SELECT id, CASE WHEN '$name' = 'docs' THEN doc END AS doc, doc::jsonb ->> 's' AS s, (doc::jsonb ->> 'n')::numeric::text AS n,
			(SELECT array_agg(e::int ORDER BY i) FROM jsonb_array_elements_text(CASE jsonb_typeof(doc::jsonb #> '{in,l}') WHEN 'array' THEN doc::jsonb #> '{in,l}' END)
				WITH ORDINALITY AS x(e, i)) AS l, doc::jsonb #> '{in,l}' = '[]' AS empty
		FROM fold_$name};
	my $got = "SELECT $id, $doc, s, n::text, CASE WHEN l <> '{}' THEN l END, CASE WHEN l = '{}' THEN true WHEN l IS NOT NULL THEN false END FROM $name";
	my $same = "SELECT id, doc, s, n, l, CASE WHEN empty OR l IS NOT NULL THEN empty END FROM ($expected) x";
	is($node->safe_psql('postgres', "($got EXCEPT $same) UNION ALL ($same EXCEPT $got)"), '', "$name: the table is what the topic amounts to (seed $seed)");
	is($node->safe_psql('postgres', "SELECT count(*) FROM $name"), scalar(grep { defined } values %last), '... no more and no less');
}

# What is kept is accounted for.
$kafka->topic('kept', 1);
$kafka->load('kept', 0, 0, 1000, 'key-%d', '{"n": %d, "more": "' . 'x' x 500 . '"}');
foreach my $keep (qw(false true))
{
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE kept_$keep (key text OPTIONS (key 'true') NOT NULL, n int) SERVER kafka OPTIONS (topic 'kept', keep_value '$keep')");
	ok($node->wait_ready('postgres', "kept_$keep"), "keep_value $keep");
}
my $more = $node->safe_psql('postgres', q{SELECT max(bytes) - min(bytes) FROM kafka_cache.tables WHERE topic = 'kept'});
cmp_ok($more, '>', 500000, '... a table that keeps its documents is larger by them');
cmp_ok($more, '<', 1000000, '... and not by much more');

balanced($node, 'in the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM kafka_cache.errors'), '0', 'none was a bad record');
$node->stop;
done_testing();
