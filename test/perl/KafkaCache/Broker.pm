# What the mock broker and Apache Kafka have in common for a test: records go in by a program of ours
# and are read by kcat, which shares no code with the extension.
package KafkaCache::Broker;

use strict;
use warnings;

use IPC::Open2 qw(open2);
use JSON::PP;
use KafkaCache::Paths;
use Test::More;

# The address clients connect to.
sub address { return $_[0]->{address}; }

# Start a program that takes commands, one a line, and answers each with one.
sub spawn
{
	my ($class, @command) = @_;
	my $self = { command => \@command };

	$self->{pid} = open2($self->{out}, $self->{in}, @command);
	$self->{in}->autoflush(1);
	return bless $self, $class;
}

# One word of a command, as test/line.h has them.
sub _word
{
	my ($value) = @_;

	return 'NULL' unless defined $value;
	return $value if $value =~ /\A[\w.*-]+\z/ && $value ne 'NULL';
	utf8::encode($value) if utf8::is_utf8($value);
	return 'hex:' . unpack('H*', $value);
}

# Send a command, give its answer without the "ok"; dies when the answer is an error.
sub command
{
	my ($self, @words) = @_;

	print { $self->{in} } join(' ', map { _word($_) } @words) . "\n"
	  or die "$self->{command}[0] is gone";
	my $answer = readline($self->{out});
	die "$self->{command}[0] is gone" unless defined $answer;
	chomp $answer;
	$answer =~ s/\Aok ?// or die "@words: $answer";
	return $answer;
}

# One record, acknowledged. An undefined key or value is NULL; partition '*' is the partitioner's
# choice. Options: at => milliseconds since 1970, headers => [name => value, ...]. Returns the offset;
# in a list, partition and offset.
sub produce
{
	my ($self, $topic, $partition, $key, $value, %options) = @_;
	my @tail;
	my @headers = @{ $options{headers} || [] };

	push @tail, 'at', $options{at} if defined $options{at};
	while (my ($name, $header) = splice @headers, 0, 2)
	{
		push @tail, 'header', $name, $header;
	}
	my ($p, $offset) =
	  split / /, $self->command('produce', $topic, $partition, $key, $value, @tail);
	return wantarray ? ($p, $offset) : $offset;
}

# Many records: %d in key and value is the number of the record, %x its last 12 digits of a uuid.
sub load
{
	my ($self, $topic, $partition, $first, $count, $key, $value) = @_;

	return $self->command('load', $topic, $partition, $first, $count, $key, $value);
}

# Where the topic ends now: a position, as kafka_cache.wait_for() takes it.
sub position { my ($self, $topic) = @_; return $self->command('position', $topic); }

# What kcat finds in the topic, to its present end: a list of hashes with partition, offset, ts, key,
# payload, headers. Options for kcat follow, as -X => 'isolation.level=read_committed'.
sub read_topic
{
	my ($self, $topic, @options) = @_;
	my @command = ('kcat', '-q', '-C', '-J', '-e', '-o', 'beginning', '-X', 'fetch.wait.max.ms=10', '-b', $self->address,
		'-t', $topic, @options);

	open(my $pipe, '-|', @command) or die "kcat: $!";
	my @records = map { decode_json($_) } <$pipe>;
	close($pipe) or die "kcat failed on topic $topic";
	@records = sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @records;
	return @records;
}

# The topics that kcat sees, each a hash with topic and partitions.
sub metadata
{
	my ($self) = @_;
	my @command = ('kcat', '-q', '-L', '-J', '-b', $self->address);

	open(my $pipe, '-|', @command) or die "kcat: $!";
	my $metadata = decode_json(do { local $/ = undef; <$pipe> });
	return @{ $metadata->{topics} };
}

sub stop
{
	my ($self) = @_;

	return unless $self->{pid};
	close $self->{in};
	waitpid delete $self->{pid}, 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);

	$self->stop if defined $self->{owner} && $self->{owner} == $$;
	return;
}

1;
