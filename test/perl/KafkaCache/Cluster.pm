# A PostgreSQL server with the extension loaded, for TAP tests.
#
#   my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '64MB' });
#   $node->start;
#   $node->connect_kafka('postgres', $kafka);         # extension and server "kafka"
#   $node->safe_psql('postgres', 'CREATE FOREIGN TABLE users (...) SERVER kafka ...');
#   $node->wait_ready('postgres', 'users');
#   $node->wait_for('postgres', "SELECT count(*) FROM users", '1000');
#
# It is a PostgreSQL::Test::Cluster: everything that has works here too. The superuser is "postgres".
# A server ends with its test, also when the test is killed.
package KafkaCache::Cluster;

use strict;
use warnings;

use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Exporter qw(import);
use Time::HiRes qw(time);

our @ISA = ('PostgreSQL::Test::Cluster');
our @EXPORT = qw(eventually);

$ENV{PGUSER} = 'postgres';

my %defaults = (
	'shared_preload_libraries' => 'kafka_cache_fdw',
	'kafka_cache.memory'       => '64MB',
	'shared_buffers'           => '16MB',
	'max_connections'          => 40,
	'max_worker_processes'     => 16,
	'timezone'                 => 'UTC',
	'log_line_prefix'          => '%m [%p] %b %q%a ',
	'log_min_messages'         => 'debug1',
	'log_statement'            => 'none');

# Ask again and again until the answer is true; false when that takes too long. For facts that are not
# in a database; wait_for() asks for those that are.
sub eventually
{
	my ($fact) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $end)
	{
		my $answer = $fact->();
		return $answer if $answer;
		select undef, undef, undef, 0.02;
	}
	return 0;
}

# A new server, initialized but not started. Options: conf, a hash of settings; install_path, of another version;
# further ones go to PostgreSQL::Test::Cluster's init (allows_streaming, has_archiving, extra).
sub new
{
	my ($class, $name, %options) = @_;
	my $conf = delete $options{conf} || {};
	my $standby_of = delete $options{standby_of};
	my @place = map { defined $options{$_} ? ($_ => delete $options{$_}) : () } qw(install_path);
	my $extra = delete $options{extra} || [];
	my $node = PostgreSQL::Test::Cluster::new($class, $name, @place);

	if ($standby_of)
	{
		my $backup = "for_$name";
		$standby_of->backup($backup);
		$node->init_from_backup($standby_of, $backup, has_streaming => 1);
	}
	else
	{
		$node->init(%options, extra => [ '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8', @$extra ]);
		$node->configure(%defaults);
	}
	$node->configure(%$conf);
	return $node;
}

# Append settings to postgresql.conf; the server is not told.
sub configure
{
	my ($self, %settings) = @_;

	foreach my $name (sort keys %settings)
	{
		my $value = $settings{$name};
		$value =~ s/'/''/g;
		$self->append_conf('postgresql.conf', "$name = '$value'");
	}
	return;
}

sub start
{
	my ($self, %params) = @_;
	my $started = $self->SUPER::start(%params);

	$self->_guard if $started;
	return $started;
}

sub restart
{
	my ($self) = @_;
	my $result = $self->SUPER::restart;

	$self->_guard;
	return $result;
}

sub _guard
{
	my ($self) = @_;

	system("$top/test/guardian", $$, $self->{_pid}, $self->basedir, $self->host) == 0
	  or BAIL_OUT("no guardian for the server");
	return;
}

# The extension, and a foreign server "kafka" that goes to this broker.
sub connect_kafka
{
	my ($self, $db, $kafka, %options) = @_;
	my $brokers = ref $kafka ? $kafka->address : $kafka;
	my $list = join ', ', "brokers '$brokers'", map { "$_ '$options{$_}'" } sort keys %options;

	$self->safe_psql($db,
		"CREATE EXTENSION IF NOT EXISTS kafka_cache_fdw;
		 CREATE SERVER kafka FOREIGN DATA WRAPPER kafka_cache_fdw OPTIONS ($list);");
	return;
}

# Wait until a table is ready; says what it is instead if it is not in time.
sub wait_ready
{
	my ($self, $db, $relation, $seconds) = @_;
	$seconds //= $PostgreSQL::Test::Utils::timeout_default;

	my $ready = $self->safe_psql($db,
		"SELECT kafka_cache.wait_ready('$relation', '$seconds s')");
	return 1 if $ready eq 't';
	diag("$relation is not ready: "
		  . $self->safe_psql($db,
			"SELECT t FROM kafka_cache.tables t WHERE relation = '$relation'::regclass"));
	return 0;
}

# Wait until a table is ready and has everything that its topic has now.
sub catch_up
{
	my ($self, $db, $relation, $kafka, $topic) = @_;
	my $position = $kafka->position($topic // $relation);
	my $seconds = $PostgreSQL::Test::Utils::timeout_default;

	return $self->wait_ready($db, $relation)
	  && $self->safe_psql($db,
		"SELECT kafka_cache.wait_for('$relation', '$position', '$seconds s')") eq 't';
}

# Wait until a query answers what is expected (true, if nothing is said).
sub wait_for
{
	my ($self, $db, $query, $expected) = @_;

	return $self->poll_query_until($db, $query, $expected);
}

# A session beside the others. Its time limit is that of a query, not of its life.
sub background_psql
{
	my ($self, @args) = @_;
	my $session = $self->SUPER::background_psql(@args);

	$session->set_query_timer_restart;
	return $session;
}

# Everything the server has logged since an offset (or ever).
sub log_text
{
	my ($self, $offset) = @_;

	return PostgreSQL::Test::Utils::slurp_file($self->logfile, $offset // 0);
}

1;
