# A real Apache Kafka, compacting within seconds; started in about two.
#
#   my $kafka = KafkaCache::Kafka->new(brokers => 1, version => '4.1.1', set => { ... },
#       listeners => { SASL => 'SASL_PLAINTEXT' });          # further ways in: $kafka->address('SASL')
#   $kafka->topic('users', 4, 'max.message.bytes' => 1000);   # compacted unless told otherwise
#   $kafka->produce('users', 0, 'k1', undef);                 # as with the mock broker
#   my $txn = $kafka->transaction('id');
#   $txn->begin; $txn->produce('users', 0, 'k2', '{}'); $txn->commit;      # or abort, or leave
#   $kafka->partitions('users', 8);
#   $kafka->delete_records('users', 0, 17);                   # needs cleanup.policy=compact,delete
#   $kafka->wait_compacted('users');
#   my %ends = $kafka->watermarks('users');                   # partition => [low, high]
#   $kafka->group('lag')->{users}{0};                         # a consumer group's committed offset
#   print $kafka->tool("kafka.admin.AclCommand", ...);        # what one of Kafka's own tools prints
#   $kafka->broker(1, 'pause');                               # stop, kill, pause, resume, start
#   $kafka->acl('add', 'allow', 'User:alice', 'read', 'topic', 'users');
#   $kafka->java(\@lines, 'kafka.tools.ConsoleProducer', ...); # one of Kafka's own tools, given these lines
package KafkaCache::Kafka;

use strict;
use warnings;

use KafkaCache::Broker;
use KafkaCache::Paths qw($top $bin);
use PostgreSQL::Test::Utils ();

our @ISA = ('KafkaCache::Broker');

sub new
{
	my ($class, %options) = @_;
	my @start = ('start', '--owner', $$);

	push @start, '--version', $options{version} if $options{version};
	push @start, '--brokers', $options{brokers} if $options{brokers};
	push @start, map { ('--listener', "$_=$options{listeners}{$_}") } sort keys %{ $options{listeners} || {} };
	push @start, map { ('--set', "$_=$options{set}{$_}") } sort keys %{ $options{set} || {} };
	my $answer = _run("$top/test/kafka", @start);
	$answer =~ /KCF_KAFKA=(\S+) KCF_KAFKA_BROKERS=(\S+)/ or die "Kafka did not start: $answer";

	my ($folder, $address) = ($1, $2);
	my $self = $class->spawn("$bin/producer", $address);
	@$self{qw(folder address owner)} = ($folder, $address, $$);
	return $self;
}

# Of the way in by which the test's own clients come, or of another one.
sub address
{
	my ($self, $listener) = @_;

	return $self->{address} unless defined $listener;
	return PostgreSQL::Test::Utils::slurp_file("$self->{folder}/address.$listener");
}

sub _run
{
	my @command = @_;

	open(my $pipe, '-|', @command) or die "$command[0]: $!";
	my $text = do { local $/ = undef; <$pipe> };
	close($pipe) or die "@command failed";
	return $text // '';
}

sub _admin
{
	my ($self, @words) = @_;

	return _run("$bin/kafka_admin", $self->address, @words);
}

sub topic
{
	my ($self, $name, $partitions, %config) = @_;

	return $self->_admin('topic', $name, $partitions, map { "$_=$config{$_}" } sort keys %config);
}

sub delete_topic { my ($self, $name) = @_; return $self->_admin('delete', $name); }

sub partitions { my ($self, $name, $count) = @_; return $self->_admin('partitions', $name, $count); }

sub delete_records
{
	my ($self, $topic, $partition, $offset) = @_;

	return $self->_admin('delete-records', $topic, $partition, $offset);
}

# A rule of the brokers' authorizer: add or remove; allow or deny; principal, operation, resource, name.
sub acl { my ($self, @words) = @_; return $self->_admin('acl', @words); }

# Until no key occurs twice; until a key, tombstones included, occurs no more. Both append tombstones
# of the key "roll", so that the newest segment is not the one that matters.
sub wait_compacted { my ($self, $topic) = @_; return $self->_admin('wait-compacted', $topic); }
sub wait_gone { my ($self, $topic, $key) = @_; return $self->_admin('wait-gone', $topic, $key); }

sub watermarks
{
	my ($self, $topic) = @_;

	return map { my ($partition, $low, $high) = split; $partition => [ $low, $high ] }
	  split /\n/, $self->_admin('watermarks', $topic);
}

# What a consumer group has committed: topic => { partition => offset }.
sub group
{
	my ($self, $id) = @_;
	my %topics;

	foreach my $line (split /\n/, $self->_admin('group', $id))
	{
		my ($topic, $partition, $offset) = split ' ', $line;
		$topics{$topic}{$partition} = $offset;
	}
	return \%topics;
}

sub delete_group { my ($self, $id) = @_; return $self->_admin('delete-group', $id); }

# What one of Kafka's own tools prints; dies when it fails.
sub tool
{
	my ($self, @command) = @_;
	local $ENV{KCF_KAFKA} = $self->{folder};

	return _run("$top/test/kafka", 'java', @command);
}

# Until the high watermark is there: a transaction's marker comes after its end was acknowledged.
sub wait_high
{
	my ($self, $topic, $partition, $offset) = @_;

	return $self->_admin('wait-high', $topic, $partition, $offset);
}

# A producer with a transactional id. An earlier one of the same id is fenced, its open transaction
# aborted.
sub transaction
{
	my ($self, $id) = @_;
	my $txn = KafkaCache::Kafka::Transaction->spawn("$bin/producer", $self->address,
		'--transactional-id', $id, '--set', 'transaction.timeout.ms=900000');

	@$txn{qw(address owner)} = ($self->address, $$);
	return $txn;
}

sub broker
{
	my ($self, $id, $what) = @_;
	local $ENV{KCF_KAFKA} = $self->{folder};

	return _run("$top/test/kafka", 'broker', $id, $what);
}

sub java
{
	my ($self, $lines, @command) = @_;
	local $ENV{KCF_KAFKA} = $self->{folder};

	open(my $pipe, '|-', "$top/test/kafka", 'java', @command) or die "test/kafka java: $!";
	print $pipe map { "$_\n" } @$lines;
	close($pipe) or die "@command failed";
	return;
}

sub stop
{
	my ($self) = @_;

	return unless $self->{pid};
	$self->SUPER::stop;
	local $ENV{KCF_KAFKA} = $self->{folder};
	_run("$top/test/kafka", 'stop');
	return;
}

package KafkaCache::Kafka::Transaction;

our @ISA = ('KafkaCache::Broker');

sub begin { return $_[0]->command('begin'); }
sub commit { return $_[0]->command('commit'); }
sub abort { return $_[0]->command('abort'); }

# End like one who is killed: the transaction stays open.
sub leave
{
	my ($self) = @_;

	$self->command('quit');
	$self->stop;
	return;
}

1;
