# The drills of docs/operations.md, as people run them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;

my @drills = map { m{([^/]+)\.sh$} } sort glob("$top/test/drills/*.sh");
@drills = grep { $_ ne 'lib' } @drills;
cmp_ok(scalar(@drills), '>=', 8, 'drills');

my ($out, $err) = ('', '');
ok(IPC::Run::run([ "$top/test/drills/run", @drills ], '>', \$out, '2>', \$err), 'they end well') or diag("$out\n$err");
foreach my $drill (@drills)
{
	like($out, qr/^=== \Q$drill\E: all is well$/m, $drill);
	like(PostgreSQL::Test::Utils::slurp_file("$top/docs/operations.md"), qr/`\Q$drill\E`/, '... is in docs/operations.md');
}

done_testing();
