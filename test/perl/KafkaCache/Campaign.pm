# Writers under fire: sessions that write to tables of all kinds of delivery while backends, the producer
# and the broker are killed, terminated, cancelled, paused at random moments. Whatever a session was told
# of a write must be true: reported as done, it is in the topic, once; reported as failed or rolled back,
# it is not; only where the session was told 08007, or lost its connection while the write was under way,
# either may be. And nothing hangs.
#
#   my ($node, $kafka) = battlefield();
#   campaign($node, $kafka, moments => 30);      # KCF_SEED chooses the moments; the seed is printed
package KafkaCache::Campaign;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Open3 qw(open3);
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(battlefield campaign);

# No statement takes longer, whatever happens.
my $longest = 60;
# What a session may be told by one that has not been written, besides a lost connection.
my %failures = map { $_ => 1 } qw(08006 57014);
my %tables = (
	committed => q(delivery 'commit'),
	immediate => q(delivery 'immediate'),
	atomic    => q(atomic 'true'),
	another   => q(atomic 'true'));

# --- a session that outlives its backends ------------------------------------------------------------

sub _connect
{
	my ($self) = @_;
	my $pid = open3(my $in, my $out, undef, 'psql', '-XqAt', '-d', $self->{connstr}, '-v', 'VERBOSITY=sqlstate');

	$in->autoflush(1);
	@$self{qw(pid in out buffer)} = ($pid, $in, $out, '');
	return $self->_run("SET kafka_cache.produce_timeout = '4s'; SET kafka_cache.wait_timeout = '8s'") eq '00000';
}

sub _disconnect
{
	my ($self) = @_;

	return unless $self->{pid};
	close $self->{in};
	close $self->{out};
	waitpid delete $self->{pid}, 0;
	return;
}

# Its SQLSTATE, or "lost", or "hangs"; in a list, also the lines it has printed. What the server says by itself, in a
# crash say, may stand before them.
sub _run
{
	my ($self, $sql) = @_;
	my $tag = '#' . ++$self->{statements};
	my $end = time + $longest;
	my $answer;
	local $SIG{PIPE} = 'IGNORE';

	print { $self->{in} } "$sql;\n\\echo $tag :SQLSTATE\n";
	until (defined $answer)
	{
		my $ready = '';

		vec($ready, fileno $self->{out}, 1) = 1;
		if ($self->{buffer} =~ s/\A(.*?)^$tag (\S*)\n//ms) { $answer = $2; $self->{lines} = $1 }
		elsif (time > $end) { $answer = 'hangs' }
		elsif (select($ready, undef, undef, 1) > 0
			&& !sysread($self->{out}, $self->{buffer}, 65536, length $self->{buffer}))
		{
			$answer = 'lost';
		}
	}
	# psql has no SQLSTATE for a connection that is lost.
	$answer = 'lost' if $answer eq '';
	$self->_disconnect if $answer !~ /\A\w{5}\z/ || $answer eq 'hangs';
	return wantarray ? ($answer, grep { !/\A[A-Z]+:  / } split /\n/, $self->{lines} // '') : $answer;
}

# --- a writer --------------------------------------------------------------------------------------------

# What became of the last statement of a write.
sub _fate
{
	my ($answer) = @_;

	return 'done' if $answer eq '00000';
	return 'unknown' if $answer eq '08007' || $answer eq 'lost';
	return "failed $answer";
}

sub _value { my ($key) = @_; return "('$key', 'value of $key')"; }

# One write. Says what became of which records: lines of table, key, fate, number of the write.
sub _write
{
	my ($self) = @_;
	my $n = ++$self->{writes};
	my $next = 0;
	my $key = sub { return "$self->{name}-$n-" . $next++ };
	my @fates;
	my $note = sub {
		my ($fate, $table, @keys) = @_;
		push @fates, map { [ $table, $_, $fate ] } @keys;
	};
	# Statements before the one that decides: a failure there means that nothing was sent.
	my $transaction = sub {
		my ($records, $rolled_back, @statements) = @_;
		my $answer;

		foreach my $statement ('BEGIN', @statements)
		{
			$answer = $self->_run($statement);
			last if $answer ne '00000';
		}
		my $fate;
		if ($answer ne '00000')
		{
			$fate = $answer eq 'hangs' ? $answer : "failed $answer";
			$self->_run('ROLLBACK') if $self->{pid};
		}
		else { $fate = _fate($self->_run('COMMIT')) }
		$note->($fate, @$_) foreach @$records;
		$note->('failed rolled back', @$_) foreach @$rolled_back;
	};
	my @keys = map { $key->() } 0 .. int rand 4;
	my $values = join ', ', map { _value($_) } @keys;
	my $kind = int rand 8;

	if ($kind < 3)
	{
		my $table = (keys %tables)[ rand keys %tables ];
		$note->(_fate($self->_run("INSERT INTO $table (key, value) VALUES $values")), $table, @keys);
	}
	elsif ($kind == 3)
	{
		# Where it says that a record is, there it is.
		my ($answer, @lines) = $self->_run("INSERT INTO immediate (key, value) VALUES "
			  . _value($keys[0]) . " RETURNING partition || ' ' || \"offset\"");
		my $fate = _fate($answer);
		$fate .= " $lines[0]" if $fate eq 'done';
		$note->($fate, 'immediate', $keys[0]);
	}
	elsif ($kind == 4)
	{
		my ($a, $b, $c) = map { $key->() } 1 .. 3;
		$transaction->(
			[ [ 'committed', $a, $c ] ], [ [ 'committed', $b ] ],
			'INSERT INTO committed (key, value) VALUES ' . _value($a), 'SAVEPOINT s',
			'INSERT INTO committed (key, value) VALUES ' . _value($b), 'ROLLBACK TO s',
			'INSERT INTO committed (key, value) VALUES ' . _value($c));
	}
	elsif ($kind == 5)
	{
		my @others = map { $key->() } 1, 2;
		$transaction->(
			[ [ 'atomic', @keys ], [ 'another', $others[0] ], [ 'committed', $others[1] ] ], [],
			"INSERT INTO atomic (key, value) VALUES $values",
			'INSERT INTO another (key, value) VALUES ' . _value($others[0]),
			'INSERT INTO committed (key, value) VALUES ' . _value($others[1]));
		# All or none.
		$_->[3] = $n foreach @fates;
	}
	elsif ($kind == 6)
	{
		my $table = $n % 2 ? 'committed' : 'atomic';
		$self->_run('BEGIN') eq '00000' && $self->_run("INSERT INTO $table (key, value) VALUES $values") eq '00000'
		  && $self->_run('ROLLBACK');
		$self->_disconnect if $self->{pid} && $n % 10 == 6;
		$self->_run('ROLLBACK') if $self->{pid};
		$note->('failed rolled back', $table, @keys);
	}
	elsif ($self->_run('BEGIN') eq '00000')
	{
		$note->(_fate($self->_run("INSERT INTO immediate (key, value) VALUES $values")), 'immediate', @keys);
		$self->_run('ROLLBACK') if $self->{pid};
	}
	if ($kind < 3) { $_->[3] = $n foreach grep { $_->[0] =~ /atomic|another/ } @fates }

	# What one has written, one reads.
	if ($self->{pid} && rand() < 0.05 && @fates && $fates[0][2] =~ /\Adone/)
	{
		my ($table, $written) = @{ $fates[0] };
		my ($answer, @lines) = $self->_run("SELECT value FROM $table WHERE key = '$written'");
		if ($answer eq '00000' && "@lines" ne "value of $written")
		{
			# What is known of it then.
			my (undef, @later) = $self->_run(
				"SELECT now(), kafka_cache.position('$table'), (SELECT value FROM $table WHERE key = '$written'),
					t.* FROM kafka_cache.tables t WHERE relation = '$table'::regclass") if $self->{pid};
			$fates[0][2] = "not read: '@lines', and then '@later'";
		}
	}
	return @fates;
}

sub _write_on
{
	my ($name, $connstr, $file, $seed) = @_;
	my $self = bless { name => $name, connstr => "$connstr application_name=$name" };
	my $stop = 0;

	srand $seed;
	local $SIG{TERM} = sub { $stop = 1 };
	open my $log, '>', $file or die "$file: $!";
	$log->autoflush(1);
	until ($stop)
	{
		# The server may be away for a while.
		if (!$self->{pid} && !$self->_connect)
		{
			$self->_disconnect;
			select undef, undef, undef, 0.05;
			next;
		}
		foreach my $fate ($self->_write)
		{
			print $log join("\t", $name, map { $_ // '' } @$fate[ 0 .. 3 ]) . "\n";
		}
	}
	$self->_disconnect;
	return;
}

# --- what happens ------------------------------------------------------------------------------------------

package KafkaCache::Campaign::Field;

use Test::More;
use Time::HiRes qw(time);

# How many records' fates the writers have told.
sub told
{
	my ($self) = @_;
	my $size = 0;

	$size += -s $_ // 0 foreach @{ $self->{files} };
	return $size;
}

# A random moment later: some records further, or, where nothing goes on, some seconds.
sub later
{
	my ($self) = @_;
	my $bytes = $self->told + 20 + rand 10000;
	my $end = time + 0.2 + rand 3;

	select undef, undef, undef, 0.01 while $self->told < $bytes && time < $end;
	return;
}

# Ask a server that may be coming back.
sub ask
{
	my ($self, $query) = @_;
	my $answer;

	KafkaCache::Cluster::eventually(
		sub {
			# psql may be gone before it has read the query: that raises an exception here.
			my ($status, $out, $err) = eval { $self->{node}->psql('postgres', $query, on_error_die => 0) };
			$answer = $out if defined $status && $status == 0;
			note($err // $@) if !defined $answer;
			return defined $answer;
		}) or BAIL_OUT('the server does not answer any more');
	return $answer;
}

my $backend = q(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'writer%' ORDER BY state = 'active' DESC, random() LIMIT 1);
my $producer = q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'kafka_cache producer');

sub strike
{
	my ($self, $signal, $whom) = @_;
	my $pid = $self->ask($whom);

	return '' if $pid eq '';
	kill $signal, $pid;
	return "SIG$signal to $pid";
}

# Processes of the server. kill -9 makes all of it begin anew, so it comes less often.
my @at_processes = (
	[ 'terminate a backend', sub { $_[0]->strike('TERM', $backend) } ],
	[ 'terminate the producer', sub { $_[0]->strike('TERM', $producer) } ],
	[ 'cancel a statement', sub { $_[0]->strike('INT', $backend) } ],
	[ 'terminate the producer', sub { $_[0]->strike('TERM', $producer) } ],
	[ 'kill a backend', sub { $_[0]->strike('KILL', $backend) } ],
	[ 'kill the producer', sub { $_[0]->strike('KILL', $producer) } ]);

my @at_broker = ([ 'pause', 'resume' ], [ 'pause', 'resume' ], [ 'kill', 'start' ], [ 'stop', 'start' ]);

sub moment
{
	my ($self, $n) = @_;
	my @events;

	$self->later;
	if (rand() < 0.3)
	{
		my ($begin, $end) = @{ $at_broker[ rand @at_broker ] };

		push @events, "$begin the broker";
		$self->{kafka}->broker(1, $begin);
		$self->later;
		# Troubles come in pairs.
		if (rand() < 0.5)
		{
			my ($what, $how) = @{ $at_processes[ rand @at_processes ] };
			push @events, $what, $how->($self);
			$self->later;
		}
		push @events, "$end it";
		$self->{kafka}->broker(1, $end);
	}
	else
	{
		my ($what, $how) = @{ $at_processes[ rand @at_processes ] };
		push @events, $what, $how->($self);
	}
	note("moment $n: " . join(', ', grep { $_ ne '' } @events));
	return;
}

package KafkaCache::Campaign;

# --- the truth --------------------------------------------------------------------------------------------

# Where kcat finds the records that readers of committed data see: key => [partition offset, ...].
sub _topic
{
	my ($kafka, $topic) = @_;
	my %found;

	open(my $pipe, '-|', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $kafka->address, '-t', $topic, '-f',
		'%k\t%p %o\n', '-X', 'isolation.level=read_committed', '-X', 'fetch.wait.max.ms=10')
	  or die "kcat: $!";
	while (my $line = <$pipe>)
	{
		chomp $line;
		my ($key, $place) = split /\t/, $line;
		push @{ $found{$key} }, $place;
	}
	close($pipe) or die "kcat failed on topic $topic";
	return \%found;
}

# What is behind a transaction that nobody has ended is not seen before the brokers have aborted it.
sub _settled
{
	my ($kafka, $topic, $partitions) = @_;

	$kafka->produce($topic, $_, "end-$_", 'end') foreach 0 .. $partitions - 1;
	return eventually(
		sub {
			my $found = _topic($kafka, $topic);
			return !grep { !$found->{"end-$_"} } 0 .. $partitions - 1;
		});
}

# A broker, and a server with the tables "committed", "immediate", "atomic" and "another" (atomic too).
sub battlefield
{
	my $kafka = KafkaCache::Kafka->new;
	my $node = KafkaCache::Cluster->new('main',
		conf => { 'kafka_cache.memory' => '256MB', restart_after_crash => 'on', log_min_messages => 'error' });

	$node->start;
	$node->connect_kafka('postgres', $kafka);
	foreach my $table (sort keys %tables)
	{
		# Every record must still be there to be counted.
		$kafka->topic($table, 4, 'min.compaction.lag.ms' => 3600000);
		$node->safe_psql('postgres',
			"CREATE FOREIGN TABLE $table (key text OPTIONS (key 'true') NOT NULL, value text OPTIONS (value 'true'),
				partition int OPTIONS (partition 'true'), \"offset\" bigint OPTIONS (offset 'true'))
			 SERVER kafka OPTIONS (topic '$table', format 'text', readonly 'false', $tables{$table})");
	}
	return ($node, $kafka);
}

sub campaign
{
	my ($node, $kafka, %options) = @_;
	my $seed = $ENV{KCF_SEED} // int rand 2**31;
	my $writers = $options{writers} // 6;

	note("seed $seed: KCF_SEED=$seed repeats these moments, as far as processes let themselves be repeated");
	srand $seed;

	my $folder = PostgreSQL::Test::Utils::tempdir('campaign');
	my @files = map { "$folder/writer$_" } 1 .. $writers;
	my $connstr = $node->connstr('postgres');
	my @running =
	  map { my $i = $_; beside(sub { _write_on("writer$i", $connstr, $files[ $i - 1 ], $seed + $i) }) } 1 .. $writers;
	my $field = bless { node => $node, kafka => $kafka, files => \@files }, 'KafkaCache::Campaign::Field';

	$field->moment($_) foreach 1 .. $options{moments};
	$field->later;
	$_->stop foreach @running;
	ok($_->succeeded, 'a writer has written to the end') foreach @running;

	# All is well again.
	foreach my $table (sort keys %tables)
	{
		my $key = "after-$table";
		$field->ask("INSERT INTO $table (key, value) VALUES ('$key', 'after')");
		is($field->ask("SELECT value FROM $table WHERE key = '$key'"), 'after', "$table can be written to, and read");
	}

	my %found;
	foreach my $table (sort keys %tables)
	{
		ok(_settled($kafka, $table, 4), "no transaction is left open on $table");
		$found{$table} = _topic($kafka, $table);
	}

	my (%count, %wrong, %together, %told);
	foreach my $file (@files)
	{
		open my $log, '<', $file or die "$file: $!";
		while (my $line = <$log>)
		{
			chomp $line;
			my ($writer, $table, $key, $fate, $write) = split /\t/, $line, -1;
			my @places = @{ $found{$table}{$key} // [] };
			my ($word, $more) = split / /, $fate, 2;

			$told{"$table $key"} = 1;
			$count{$word}++;
			push @{ $wrong{'reported as done, and not there'} }, $line if $word eq 'done' && !@places;
			push @{ $wrong{'there twice'} }, $line if @places > 1;
			push @{ $wrong{'reported as failed, and there'} }, $line if $word eq 'failed' && @places;
			push @{ $wrong{'not where it was said to be'} }, "$line: @places"
			  if $word eq 'done' && defined $more && "@places" ne $more;
			push @{ $wrong{'hangs'} }, $line if $word eq 'hangs';
			push @{ $wrong{'written, and not read'} }, $line if $word eq 'not';
			push @{ $wrong{'failed with another error'} }, $line
			  if $word eq 'failed' && $more !~ /\A(?:lost|rolled back)\z/ && !$failures{$more};
			if ($write ne '') { push @{ $together{"$writer write $write"} }, scalar @places }
		}
	}
	foreach my $write (sort keys %together)
	{
		my %seen = map { $_ => 1 } @{ $together{$write} };
		push @{ $wrong{'some of an atomic write'} }, "$write: @{ $together{$write} }" if keys %seen > 1;
	}
	foreach my $table (sort keys %found)
	{
		foreach my $key (sort keys %{ $found{$table} })
		{
			push @{ $wrong{'there, and never heard of'} }, "$table $key" if !$told{"$table $key"} && $key =~ /\Awriter/;
		}
	}
	note("records: " . join(', ', map { "$count{$_} $_" } sort keys %count));
	cmp_ok($count{done} // 0, '>', 100, 'there was something to lose');
	foreach my $what ('reported as done, and not there', 'there twice', 'reported as failed, and there',
		'not where it was said to be', 'some of an atomic write', 'there, and never heard of', 'written, and not read',
		'failed with another error', 'hangs')
	{
		my @lines = @{ $wrong{$what} // [] };
		is(scalar @lines, 0, "no record $what");
		diag($_) foreach splice @lines, 0, 10;
	}
	unlike($node->log_text, qr/PANIC|TRAP|signal (?:6|7|8|11)\b/, 'nobody crashed of itself');
	return;
}

1;
