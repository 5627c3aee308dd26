# The same for 200 moments.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Campaign;
use Test::More;

campaign(battlefield(), moments => 200);
done_testing();
