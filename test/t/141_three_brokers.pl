# Of three brokers one dies while sessions insert: nothing is lost, nothing is there twice. A second one
# dies: that is told in time.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Brokers;
use Test::More;

lose_brokers(inserts => 4000, sessions => 8);
done_testing();
