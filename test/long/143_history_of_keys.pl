# As test/t/143, for longer.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

# Its INIT blocks have to be known before anything runs.
use KafkaCache::Cluster;

$ENV{KCF_ROUNDS} //= 10000;
do "$FindBin::RealBin/../t/143_history_of_keys.pl" or die $@ || $!;
