# The same for a minute.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Reader;
use Test::More;

read_while_it_changes(seconds => 60, rate => 50000);
done_testing();
