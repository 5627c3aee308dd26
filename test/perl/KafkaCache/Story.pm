# What tests of whole stories share: tables of keys and values, load that goes on beside a test,
# readers that go on beside it, and kcat's word for what a topic holds.
#
#   text_table($node, 'users', $kafka);            # a topic's table of keys and values
#   my $load = load_beside($kafka, 20000, sub { my ($round) = @_; [ 'load', ... ] });
#   my $readers = beside(['pgbench', ...]);        # a program of its own
#   ... $load->stop; ok($readers->succeeded, ...);
#   my %rows = fold($kafka, 'users');              # by kcat: the last value of each key
package KafkaCache::Story;

use strict;
use warnings;

use Exporter qw(import);
use File::Temp;
use KafkaCache::Paths qw($bin);
use POSIX qw(WNOHANG _exit);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(accounts balanced beside fold kcat load_beside pgbench_beside same_as_kcat text_table);

# A table of a topic's keys and values as they are; further options of the table may follow.
sub text_table
{
	my ($node, $name, %options) = @_;
	my $db = delete $options{database} // 'postgres';
	my $topic = delete $options{topic} // $name;
	my $list = join '', map { ", $_ '$options{$_}'" } sort keys %options;

	$node->safe_psql($db,
		"CREATE FOREIGN TABLE $name (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'))
		 SERVER kafka OPTIONS (topic '$topic', format 'text'$list)");
	return;
}

# The topic as kcat reads it, committed records only: key => last value, tombstones taken out. Keys
# and values must be without tabs and line ends.
sub fold
{
	my ($kafka, $topic, @options) = @_;
	my %last;

	open(my $pipe, '-|', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $kafka->address, '-t', $topic, '-f',
		'%p\t%o\t%S\t%k\t%s\n', '-X', 'isolation.level=read_committed', '-X', 'fetch.wait.max.ms=10', @options)
	  or die "kcat: $!";
	while (my $line = <$pipe>)
	{
		chomp $line;
		my ($partition, $offset, $size, $key, $value) = split /\t/, $line, 5;
		# Records of one partition come in order; a key lies in one partition here.
		if ($size < 0) { delete $last{$key} }
		else { $last{$key} = $value }
	}
	close($pipe) or die "kcat failed on topic $topic";
	return %last;
}

# What SELECT shows of a table of text_table(), against kcat.
sub same_as_kcat
{
	my ($node, $kafka, $name, $what, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %expected = fold($kafka, $options{topic} // $name);
	my %got = map { split /\t/, $_, 2 }
	  split /\n/, $node->safe_psql($options{database} // 'postgres', "COPY (SELECT key, value FROM $name) TO STDOUT");
	my @wrong = grep { !exists $got{$_} || !exists $expected{$_} || $got{$_} ne $expected{$_} }
	  sort keys %{ { %got, %expected } };

	splice @wrong, 10;
	diag("key $_: SELECT has " . ($got{$_} // 'nothing') . ', kcat ' . ($expected{$_} // 'nothing')) foreach @wrong;
	return ok(!@wrong, "$what: SELECT shows what kcat reads (" . keys(%expected) . ' keys)');
}

# Give kcat something to produce, a line for each record.
sub kcat
{
	my ($kafka, $topic, $input, @options) = @_;

	open(my $pipe, '|-', 'kcat', '-P', '-b', $kafka->address, '-t', $topic, @options) or die "kcat: $!";
	binmode $pipe;
	print $pipe $input;
	close($pipe) or die "kcat could not produce to $topic";
	return;
}

# The counters of a table: entries, records, upserts, tombstones, errors, ignored, reloads.
sub accounts
{
	my ($node, $name, $db) = @_;
	my %counts;

	@counts{qw(entries records upserts tombstones errors ignored reloads)} = split /\|/,
	  $node->safe_psql($db // 'postgres',
		"SELECT entries, records, upserts, tombstones, errors, ignored, reloads FROM kafka_cache.tables WHERE relation = '$name'::regclass"
	  );
	return \%counts;
}

# No table whose counters do not add up.
sub balanced
{
	my ($node, $what, $db) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(
		$node->safe_psql($db // 'postgres',
			'SELECT t FROM kafka_cache.tables t WHERE records <> upserts + tombstones + errors + ignored'),
		'', "$what: records = upserts + tombstones + errors + ignored");
}

# --- what goes on beside a test ----------------------------------------------------------------------

# A file in the test's folder.
sub _file
{
	my ($what) = @_;
	our $folder //= PostgreSQL::Test::Utils::tempdir('story');

	return File::Temp::tempfile("$what-XXXXXX", DIR => $folder);
}

# Run a program (or a function) beside the test, its output kept.
sub beside
{
	my ($what) = @_;
	my ($fh, $file) = _file('beside');
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>&', $fh;
		open STDERR, '>&', $fh;
		if (ref $what eq 'ARRAY') { exec { $what->[0] } @$what or _exit(127) }
		$SIG{TERM} = 'DEFAULT';
		my $ok = eval { $what->(); 1 };
		print STDERR $@ unless $ok;
		_exit($ok ? 0 : 1);
	}
	return bless { pid => $pid, file => $file, owner => $$ }, __PACKAGE__;
}

sub running
{
	my ($self) = @_;

	return 0 unless defined $self->{pid};
	return 1 if waitpid($self->{pid}, WNOHANG) == 0;
	$self->{status} = $?;
	delete $self->{pid};
	return 0;
}

# Wait for its end; true when it ended well.
sub succeeded
{
	my ($self) = @_;

	if (defined $self->{pid})
	{
		waitpid $self->{pid}, 0;
		$self->{status} = $?;
		delete $self->{pid};
	}
	diag($self->output) if $self->{status} != 0;
	return $self->{status} == 0;
}

sub output
{
	my ($self) = @_;

	open(my $fh, '<', $self->{file}) or return '';
	local $/ = undef;
	return <$fh> // '';
}

sub pid { return $_[0]->{pid}; }

sub stop
{
	my ($self) = @_;

	if (defined $self->{pid})
	{
		kill 'TERM', $self->{pid};
		waitpid $self->{pid}, 0;
		$self->{status} = $?;
		delete $self->{pid};
	}
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);

	$self->stop if $self->{owner} == $$;
	return;
}

# Produce round after round, each what the function says for it (commands of test/produce.h), not
# faster than so many records a second; load_file tells how far it is, stop() ends it after a round.
sub load_beside
{
	my ($kafka, $rate, $commands) = @_;
	my ($fh, $file) = _file('load');
	my $address = $kafka->address;
	my $self = beside(
		sub {
			my $producer = KafkaCache::Broker->spawn("$bin/producer", $address);
			my $stop = 0;
			my $start = time;
			my $records = 0;

			local $SIG{TERM} = sub { $stop = 1 };
			for (my $round = 1; !$stop; $round++)
			{
				foreach my $command ($commands->($round))
				{
					$producer->command(@$command);
					$records += $command->[0] eq 'load' ? $command->[4] : 1;
				}
				seek $fh, 0, 0;
				printf $fh "%12d %12d %12.3f\n", $round, $records, time - $start;
				$fh->flush;
				my $ahead = $records / $rate - (time - $start);
				select undef, undef, undef, $ahead if $ahead > 0 && !$stop;
			}
			$producer->stop;
		});
	$self->{progress} = $file;
	return $self;
}

# Of load_beside: rounds and records so far, and its seconds.
sub so_far
{
	my ($self) = @_;

	open(my $fh, '<', $self->{progress}) or die;
	my $line = <$fh> // '0 0 0';
	return split ' ', $line;
}

# A script of SQL in several sessions for some seconds, or so many transactions each; an error in it ends
# it in failure. variables: what each session begins with.
sub pgbench_beside
{
	my ($node, $sql, %options) = @_;
	my ($fh, $file) = _file('script');
	my $clients = $options{clients} // 2;
	my $variables = $options{variables} || {};

	print $fh $sql;
	close $fh;
	my $self = beside(
		[
			'pgbench', '-n', '-f', $file, '-c', $clients, '-j', 1,
			($options{transactions} ? ('-t', $options{transactions}) : ('-T', $options{seconds})),
			(map { ('-D', "$_=$variables->{$_}") } sort keys %$variables), '-M', $options{protocol} // 'prepared', '-h', $node->host, '-p', $node->port, '-U', 'postgres',
			$options{database} // 'postgres'
		]);
	$self->{script} = $file;
	return $self;
}

# Of pgbench_beside: transactions done, if all went well.
sub transactions
{
	my ($self) = @_;

	return 0 unless $self->succeeded;
	return 0 if $self->output =~ /aborted|ERROR/;
	return $self->output =~ /number of transactions actually processed: (\d+)/ ? $1 : 0;
}

1;
