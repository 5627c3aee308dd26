# The decoder as SQL functions (test/kcf_test), for TAP tests.
#
#   my $decoder = KafkaCache::Decoder->new($node, 'postgres');
#   $decoder->table('t', 'k text OPTIONS (key \'true\'), a int', q{key_format 'json'});
#   is($decoder->fault('t', 'key', '{"a":1}'), '', 'a good record');      # '' or "reason column: message"
#   is($decoder->row('t', 'key', '{"a":1}'), '(key,1)', 'its row');
#
# Keys and values are bytes; undef is null. Nothing goes to a broker.
package KafkaCache::Decoder;

use strict;
use warnings;

use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;

sub new
{
	my ($class, $node, $db) = @_;
	my $self = bless { node => $node, db => $db }, $class;

	$node->connect_kafka($db, 'localhost:1');
	my $sql = PostgreSQL::Test::Utils::slurp_file("$top/test/kcf_test/kcf_test.sql");
	$sql =~ s/:'module'/'$top\/build\/kcf_test\/kcf_test.so'/g;
	$self->sql($sql);
	return $self;
}

sub sql
{
	my ($self, $sql) = @_;

	return $self->{node}->safe_psql($self->{db}, $sql);
}

sub table
{
	my ($self, $name, $columns, $options) = @_;

	$options = $options ? "OPTIONS (topic 't', $options)" : "OPTIONS (topic 't')";
	return $self->sql("CREATE FOREIGN TABLE $name ($columns) SERVER kafka $options");
}

sub bytes
{
	my ($bytes) = @_;

	return defined $bytes ? "'\\x" . unpack('H*', $bytes) . "'::bytea" : 'NULL';
}

# What comes with a record: partition, offset, time, headers (a list of bytes, name and value in turn).
sub arguments
{
	my ($key, $value, %with) = @_;
	my @args = (bytes($key), bytes($value));

	push @args, "$_ => $with{$_}" foreach grep { defined $with{$_} } qw(partition record_time);
	push @args, "\"offset\" => $with{offset}" if defined $with{offset};
	push @args, 'headers => ARRAY[' . join(',', map { bytes($_) } @{ $with{headers} }) . ']::bytea[]' if $with{headers};
	return join ', ', @args;
}

sub fault
{
	my ($self, $table, @record) = @_;

	return $self->sql("SELECT kcf_test_fault('$table', " . arguments(@record) . ')');
}

sub row
{
	my ($self, $table, @record) = @_;

	return $self->sql("SELECT kcf_test_row(NULL::$table, " . arguments(@record) . ')');
}

# "canonical" or "raw", and the hash.
sub key
{
	my ($self, $table, $key) = @_;

	return $self->sql("SELECT kcf_test_key('$table', " . bytes($key) . ')');
}

1;
