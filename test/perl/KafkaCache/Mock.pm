# A mock broker: starts in no time, can be cut off and made to fail; no compaction, no transactions.
#
#   my $kafka = KafkaCache::Mock->new(brokers => 1);
#   $kafka->topic('users', 4);
#   $kafka->produce('users', 0, 'k1', '{"id": 1}', at => 1700000000000, headers => [a => 'b']);
#   $kafka->produce('users', 0, 'k1', undef);                 # a tombstone
#   $kafka->load('users', '*', 0, 1000, 'key-%d', '{"n": %d}');
#   $kafka->command('down', '*');                             # the rest: test/mock_kafka.c
package KafkaCache::Mock;

use strict;
use warnings;

use KafkaCache::Broker;
use KafkaCache::Paths qw($bin);

our @ISA = ('KafkaCache::Broker');

sub new
{
	my ($class, %options) = @_;
	my $self = $class->spawn("$bin/mock_kafka", '--brokers', $options{brokers} // 1);

	$self->{owner} = $$;
	my $ready = readline($self->{out}) // '';
	$ready =~ /\Aready (\S+)/ or die "the mock broker did not start";
	$self->{address} = $1;
	return $self;
}

sub topic
{
	my ($self, $name, $partitions) = @_;

	return $self->command('topic', $name, $partitions);
}

# A broker (or '*', all of them) cannot be reached; or can again.
sub down { my ($self, $broker) = @_; return $self->command('down', $broker // '*'); }
sub up { my ($self, $broker) = @_; return $self->command('up', $broker // '*'); }

1;
