# Where things are: the checkout, its programs, and the private PostgreSQL of tests.
#
# Loading this module puts the private server's programs first on the path and makes PostgreSQL's own
# test modules loadable; it must come before them.
package KafkaCache::Paths;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);

our @EXPORT_OK = qw($top $bin);
our $top;
our $bin;

BEGIN
{
	$top = abs_path(dirname(__FILE__) . '/../../..');
	$bin = "$top/build/bin";

	# Absolute, because the private server's own pg_config comes first on the path below.
	chomp(my $pg_config = `command -v \${PG_CONFIG:-pg_config}`);
	$ENV{PG_CONFIG} = $pg_config;
	chomp(my $pgxs = `$pg_config --pgxs`);
	die "no pg_config: run test/setup first\n" if $pgxs eq '';
	my $pgsrc = dirname($pgxs) . '/..';
	unshift @INC, "$pgsrc/test/perl";

	chomp(my $server = `$top/test/pg bindir`);
	die "no private server: run make private first\n" unless -x "$server/postgres";
	$ENV{PATH} = "$server:$ENV{PATH}";
	$ENV{PG_REGRESS} = "$pgsrc/test/regress/pg_regress";
}

1;
