# As test/t/143, for longer.
use strict;
use warnings;

use FindBin;

$ENV{KCF_ROUNDS} //= 10000;
do "$FindBin::RealBin/../t/143_history_of_keys.pl" or die $@ || $!;
