# Metrics as Prometheus' own programs understand them.
#
#   my $m = parsed($node->safe_psql('postgres', 'SELECT kafka_cache.metrics_text()'));
#   is($m->{'kafka_cache_ready{database=postgres,relation=public.users}'}, 1);     # labels in alphabetical order
#   my ($status, $said) = promtool($text, 'check', 'metrics');
package KafkaCache::Metrics;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run qw(run);
use JSON::PP;
use KafkaCache::Paths qw($top);

our @EXPORT = qw(exporter families parsed promtool);

my $parser = <<'END';
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
def number(v):
    return str(int(v)) if v == v and abs(v) != float("inf") and v == int(v) else repr(v)
print(json.dumps({"families": {f.name: [f.type, f.documentation] for f in families}, "samples": [
    [s.name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(s.labels.items())) + "}" if s.labels else ""), number(s.value)]
    for f in families for s in f.samples]}))
END

sub _parse
{
	my ($text) = @_;
	my ($out, $err);

	utf8::encode($text) if utf8::is_utf8($text);
	run([ '/usr/bin/python3', '-c', $parser ], \$text, \$out, \$err) or die "Prometheus' parser: $err";
	return decode_json($out);
}

# Samples by name and labels; a sample that comes twice is an error.
sub parsed
{
	my %samples;

	foreach my $sample (@{ _parse($_[0])->{samples} })
	{
		die "$sample->[0] is there twice" if exists $samples{ $sample->[0] };
		$samples{ $sample->[0] } = $sample->[1];
	}
	return \%samples;
}

# Type and help by name.
sub families { return _parse($_[0])->{families}; }

sub _program
{
	chomp(my $folder = `$top/test/monitoring`);
	return "$folder/$_[0]";
}

# Exit status and what it said.
sub promtool
{
	my ($input, @args) = @_;
	my $out = '';

	run([ _program('promtool'), @args ], \$input, '>&', \$out);
	return ($? >> 8, $out);
}

# The path of the postgres_exporter.
sub exporter { return _program('prometheus-postgres-exporter'); }

1;
