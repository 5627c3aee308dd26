# What tests of writing share: statements with all that they told, what kcat finds where they say that
# it is, and who is connected to the brokers.
#
#   my $told = told($node, "INSERT ...");          # $told->{state}: SQLSTATE or '', {out}, {err}
#   my $record = record_at($kafka, 'users', 3, 17);
#   is(producers($node), 0, 'no producer');
package KafkaCache::Writing;

use strict;
use warnings;

use Exporter qw(import);
use JSON::PP;
use KafkaCache::Story;
use Test::More;

our @EXPORT = qw(at_once committed connected_to in_bytes told told_by producers record_at);

# A statement, or several, to the first error. Options: database, those of psql().
sub told
{
	my ($node, $sql, %options) = @_;
	my $db = delete $options{database} // 'postgres';
	my ($status, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\n$sql", on_error_stop => 1, %options);

	return _told($status, $out, $err);
}

sub _told
{
	my ($status, $out, $err) = @_;
	my ($state) = $err =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}): /;

	# The server or the backend went away.
	$state //= $status == 0 ? '' : 'gone';
	return { status => $status, state => $state, out => $out, err => $err };
}

# The same beside the test: at_once($node, $sql, ...) starts a session for each, told_by() waits for one.
sub at_once
{
	my ($node, @scripts) = @_;

	return map {
		my $sql = $_;
		beside(
			sub {
				my ($status, $out, $err) =
				  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 1);
				print encode_json([ $status, $out, $err ]);
			})
	} @scripts;
}

sub told_by
{
	my ($session) = @_;

	$session->succeeded or die $session->output;
	return _told(@{ decode_json($session->output) });
}

# What kcat finds at this place of a topic: key, payload, headers, ts, as it prints them.
sub record_at
{
	my ($kafka, $topic, $partition, $offset) = @_;

	open(my $pipe, '-|', 'kcat', '-q', '-C', '-J', '-b', $kafka->address, '-t', $topic, '-p', $partition, '-o', $offset,
		'-c', 1, '-e', '-X', 'fetch.wait.max.ms=10')
	  or die "kcat: $!";
	my $line = <$pipe> // '{}';
	close($pipe) or die "kcat failed on topic $topic";
	return in_bytes(decode_json($line));
}

# Text as UTF-8 has it, in a structure.
sub in_bytes
{
	my ($what) = @_;

	return { map { ($_ => in_bytes($what->{$_})) } keys %$what } if ref $what eq 'HASH';
	return [ map { in_bytes($_) } @$what ] if ref $what eq 'ARRAY';
	utf8::encode($what) if defined $what;
	return $what;
}

# All records of a topic that a consumer of committed ones sees, in order.
sub committed
{
	my ($kafka, $topic) = @_;

	return $kafka->read_topic($topic, -X => 'isolation.level=read_committed');
}

# How many producers run in all databases.
sub producers
{
	my ($node) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer'");
}

# Of the server's processes, those of a kind ('' is none of ours) that hold a connection to this
# address: their number of connections.
sub connected_to
{
	my ($node, $address, $kind) = @_;
	my $port = sprintf '%04X', $address =~ /:(\d+)\z/;
	my %inodes;
	my $n = 0;

	open(my $tcp, '<', '/proc/net/tcp') or die "/proc/net/tcp: $!";
	while (<$tcp>)
	{
		my @field = split;
		$inodes{ $field[9] } = 1 if $field[2] =~ /:$port\z/ && $field[3] eq '01';
	}
	foreach my $line (split /\n/, $node->safe_psql('postgres', 'SELECT pid, backend_type FROM pg_stat_activity'))
	{
		my ($pid, $type) = split /\|/, $line;
		my $matches = $kind eq '' ? $type !~ /^kafka_cache / : $type eq "kafka_cache $kind";
		next unless $matches;
		foreach my $fd (glob "/proc/$pid/fd/*")
		{
			my $to = readlink $fd // next;
			$n++ if $to =~ /^socket:\[(\d+)\]/ && $inodes{$1};
		}
	}
	return $n;
}

1;
