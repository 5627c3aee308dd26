# A session that listens, and what it was told.
#
#   my $listener = KafkaCache::Listener->new($node, 'users_changed');
#   ok($listener->hears(sub { $_[0]->{updates}{k1} }), 'k1 was announced');
#   is_deeply($listener->keys, { k1 => 'changed', k2 => 'deleted' });
package KafkaCache::Listener;

use strict;
use warnings;

use IPC::Open2 qw(open2);
use JSON::PP;
use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# A query as third argument is asked with $1 = the payload as soon as that arrives.
sub new
{
	my ($class, $node, $channel, $query) = @_;
	my $self = bless { buffer => '', lines => [], all => [] }, $class;

	$self->{pid} = open2($self->{out}, $self->{in}, "$top/build/bin/listener", $node->connstr('postgres'),
		$channel, defined $query ? $query : ());
	$self->{in}->autoflush(1);
	$self->{owner} = $$;
	my $line = $self->_line($PostgreSQL::Test::Utils::timeout_default) // 'nothing';
	BAIL_OUT("the listener says $line") if $line ne 'listening';
	return $self;
}

# The next line, waited for so long (seconds); undefined: none.
sub _line
{
	my ($self, $seconds) = @_;
	my $end = time + $seconds;

	for (;;)
	{
		return $1 if $self->{buffer} =~ s/\A(.*)\n//;
		my $left = $end - time;
		my $ready = '';

		vec($ready, fileno $self->{out}, 1) = 1;
		$left = 0 if $left < 0;
		return if select($ready, undef, undef, $left) <= 0;
		return if !sysread($self->{out}, $self->{buffer}, 1 << 20, length $self->{buffer});
	}
}

# The next notification: a hash with time (s), channel, text, answer, and the payload's members. Waits
# for it so long (or as long as a test may).
sub next
{
	my ($self, $seconds) = @_;

	my $line = $self->_line($seconds // $PostgreSQL::Test::Utils::timeout_default);
	return unless defined $line;
	my ($at, $channel, $text, $answer) = split /\t/, $line, -1;
	my $told = decode_json($text);
	@$told{qw(time channel text answer)} = ($at / 1e6, $channel, $text, $answer);
	push @{ $self->{all} }, $told;
	return $told;
}

# Listens until a notification is what is looked for; that one, or undefined when time is over.
sub hears
{
	my ($self, $wanted) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while (my $told = $self->next($end - time))
	{
		return $told if $wanted->($told);
	}
	return;
}

# All that was heard until now; forgotten then if one wants that.
sub heard { return @{ $_[0]->{all} }; }
sub forget { $_[0]->{all} = []; return; }

# Of all keys that were named, what was said last.
sub keys
{
	my ($self) = @_;
	my %keys;

	foreach my $told ($self->heard)
	{
		my $updates = $told->{updates} or next;
		$keys{$_} = $updates->{$_}{deleted} ? 'deleted' : 'changed' foreach keys %$updates;
	}
	return \%keys;
}

# A statement in the listening session: its SQLSTATE. Or begun, before one asks how it ended.
sub run
{
	my ($self, $sql) = @_;

	$self->begin($sql);
	return $self->ended;
}

sub begin { my ($self, $sql) = @_; print { $self->{in} } "$sql\n"; return; }

sub ended
{
	my ($self) = @_;
	my $heard = '';
	my $answer;

	until (defined $answer)
	{
		my $line = $self->_line($PostgreSQL::Test::Utils::timeout_default) // "done\tno answer";
		if ($line =~ /\Adone\t(.*)/) { $answer = $1 }
		else { $heard .= "$line\n" }
	}
	substr($self->{buffer}, 0, 0) = $heard;
	return $answer;
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

	$self->stop if $self->{owner} && $self->{owner} == $$;
	return;
}

1;
