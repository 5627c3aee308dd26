# Whoever looks at the rows in several ways in one statement sees one state, however fast they change.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Reader;
use Test::More;

read_while_it_changes(seconds => 10, rate => 50000);
done_testing();
