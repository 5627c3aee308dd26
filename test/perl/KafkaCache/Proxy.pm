# A real Apache Kafka behind a network that fails when it is told to: test/proxy says how.
#
#   my $proxy = KafkaCache::Proxy->new;
#   my $kafka = KafkaCache::Kafka->new(set => $proxy->advertised);
#   $proxy->before($kafka);                     # from now on its address is the proxy's
#   $proxy->command('mute', $proxy->PRODUCE);   # records arrive, nobody is told
#   $proxy->command('pass');
package KafkaCache::Proxy;

use strict;
use warnings;

use KafkaCache::Broker;
use KafkaCache::Paths qw($top);

our @ISA = ('KafkaCache::Broker');

# Numbers of requests, as the protocol has them.
use constant { PRODUCE => 0, END_TXN => 26 };

sub new
{
	my ($class) = @_;
	my $self = $class->spawn("$top/test/proxy");

	$self->{owner} = $$;
	my $ready = readline($self->{out}) // '';
	$ready =~ /\Aready (\S+)/ or die "the proxy did not start";
	$self->{address} = $1;
	return $self;
}

sub advertised { return { 'advertised.listeners' => "PLAINTEXT://$_[0]->{address}" }; }

sub before
{
	my ($self, $kafka) = @_;

	$self->command('target', $kafka->address);
	$kafka->{address} = $self->address;
	return;
}

1;
