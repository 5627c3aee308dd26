# As test/t/141, with more inserts.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Brokers;
use Test::More;

lose_brokers(inserts => 20000, sessions => 16);
done_testing();
