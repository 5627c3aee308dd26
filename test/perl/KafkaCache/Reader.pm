# The background reader: statements that look at the same rows in several ways, while the rows change
# as fast as a producer can make them. Run briefly by test/t, longer by test/long.
package KafkaCache::Reader;

use strict;
use warnings;

use Exporter qw(import);
use KafkaCache::Cluster;
use KafkaCache::Kafka;
use KafkaCache::Story;
use Test::More;

our @EXPORT = qw(read_while_it_changes);

my $keys = 20000;
my $columns = "key text OPTIONS (key 'true') NOT NULL, r bigint NOT NULL, n bigint NOT NULL, t text NOT NULL,
	_partition int OPTIONS (partition 'true'), _offset bigint OPTIONS (offset 'true')";

# Both tables by scan, by key, joined to themselves and with each other; each number again at the end.
# A row is torn when what its record said several times is not the same.
my $same_in_a_statement = q{
WITH a1 AS MATERIALIZED (SELECT count(*) AS c, sum(n) AS n, sum(r) AS r, max(_offset) AS o,
	count(*) FILTER (WHERE t <> r || '-' || n || repeat('x', 100) OR key <> 'key-' || n) AS torn, count(DISTINCT key) AS d FROM a),
     b1 AS MATERIALIZED (SELECT count(*) AS c, sum(n) AS n, sum(r) AS r, max(_offset) AS o FROM b),
     keyed AS MATERIALIZED (SELECT count(a.n) AS c, sum(a.n) AS n, sum(a.r) AS r, max(a._offset) AS o
	FROM generate_series(0, %d) AS g LEFT JOIN a ON a.key = 'key-' || g),
     self AS MATERIALIZED (SELECT count(*) AS c, sum(x.n) AS n, sum(y.r) AS r, max(x._offset) AS o,
	count(*) FILTER (WHERE (x.r, x._partition, x._offset) <> (y.r, y._partition, y._offset)) AS torn
	FROM a AS x JOIN a AS y USING (key)),
     both_ways AS MATERIALIZED (SELECT count(a.key) AS ac, count(b.key) AS bc, sum(a.r) AS ar, sum(b.r) AS br
	FROM a FULL JOIN b USING (key)),
     b2 AS MATERIALIZED (SELECT count(*) AS c, sum(n) AS n, sum(r) AS r, max(_offset) AS o FROM b),
     a2 AS MATERIALIZED (SELECT count(*) AS c, sum(n) AS n, sum(r) AS r, max(_offset) AS o FROM a)
SELECT must((a1.torn, self.torn, a1.d) = (0, 0, a1.c), 'torn or double: ' || a1.torn || ' ' || self.torn || ' ' || a1.d || ' ' || a1.c),
       must((a1.c, a1.n, a1.r, a1.o) = (keyed.c, keyed.n, keyed.r, keyed.o), 'keys: ' || a1 || keyed),
       must((a1.c, a1.n, a1.r, a1.o) = (self.c, self.n, self.r, self.o), 'self-join: ' || a1 || self),
       must((a1.c, a1.n, a1.r, a1.o) = (a2.c, a2.n, a2.r, a2.o), 'a again: ' || a1 || a2),
       must(b1 = b2, 'b again: ' || b1 || b2),
       must((a1.c, b1.c, a1.r, b1.r) = (both_ways.ac, both_ways.bc, both_ways.ar, both_ways.br), 'both: ' || a1 || b1 || both_ways)
FROM a1, b1, keyed, self, both_ways, b2, a2;
};

# One state for a whole transaction, whatever it does between.
my $same_in_a_transaction = q{
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) AS ac, coalesce(sum(r), 0) AS ar FROM a \gset
SELECT count(*) AS bc, coalesce(sum(r), 0) AS br FROM b \gset
SELECT must(count(*) = :bc AND coalesce(sum(r), 0) = :br, 'b in a transaction') FROM b;
SELECT must(count(*) = :ac AND coalesce(sum(r), 0) = :ar, 'a in a transaction') FROM a;
COMMIT;
};

# A cursor keeps the state of its opening.
my $same_in_a_cursor = q{
BEGIN;
DECLARE c CURSOR FOR SELECT key, r, n FROM a ORDER BY key;
SELECT must(count(*) = count(DISTINCT key), 'a cursor') FROM drain('c');
COMMIT;
};

# Options: seconds, rate (records a second, of each topic's share), clients.
sub read_while_it_changes
{
	my (%options) = @_;
	my $kafka = KafkaCache::Kafka->new;
	my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.memory' => '512MB', log_min_messages => 'log' });

	$node->start;
	$node->connect_kafka('postgres', $kafka);
	$kafka->topic($_, 4) foreach qw(a b);
	$kafka->load($_, '*', 0, $keys, 'key-%d', '{"r": 0, "n": %d, "t": "0-%d' . 'x' x 100 . '"}') foreach qw(a b);
	$node->safe_psql('postgres', "CREATE FOREIGN TABLE $_ ($columns) SERVER kafka OPTIONS (topic '$_')") foreach qw(a b);
	$node->safe_psql('postgres', q{
		CREATE FUNCTION must(good boolean, what text) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN IF good IS NOT TRUE THEN RAISE EXCEPTION '%', what; END IF; RETURN good; END$$;
		CREATE FUNCTION drain(c refcursor) RETURNS TABLE (key text, r bigint, n bigint) LANGUAGE plpgsql AS
		$$BEGIN LOOP FETCH c INTO key, r, n; EXIT WHEN NOT FOUND; RETURN NEXT; END LOOP; END$$;
	});
	ok($node->wait_ready('postgres', $_), "$_ is loaded") foreach qw(a b);

	# A tenth of the keys comes and goes, the others change all the time.
	my $load = load_beside(
		$kafka,
		$options{rate},
		sub {
			my ($round) = @_;
			my $first = ($round * 2000) % $keys;
			my $value = qq({"r": $round, "n": %d, "t": "$round-%d) . 'x' x 100 . '"}';

			return (
				[ 'load', 'a', '*', $first, 2000, 'key-%d', $value ],
				[ 'load', 'b', '*', $first, 2000, 'key-%d', $value ],
				[ 'load', $round % 2 ? 'a' : 'b', '*', $first, 200, 'key-%d', undef ]);
		});
	my $before = accounts($node, 'a')->{records} + accounts($node, 'b')->{records};
	my @readers = (
		pgbench_beside($node, sprintf($same_in_a_statement, $keys - 1), seconds => $options{seconds}, clients => 2),
		pgbench_beside($node, $same_in_a_transaction, seconds => $options{seconds}, clients => 1),
		pgbench_beside($node, $same_in_a_cursor, seconds => $options{seconds}, clients => 1, protocol => 'simple'));
	my @kinds = ('in a statement', 'in a transaction', 'in a cursor');

	foreach my $i (0 .. $#readers)
	{
		my $n = $readers[$i]->transactions;
		cmp_ok($n, '>', 0, "one state $kinds[$i]");
		note("$kinds[$i]: $n times");
	}
	my ($rounds, $records, $seconds) = $load->so_far;
	$load->stop;
	my $seen = accounts($node, 'a')->{records} + accounts($node, 'b')->{records} - $before;
	cmp_ok($seen, '>', 0, 'the rows changed meanwhile');
	note(sprintf '%d records in %.1f s produced, %d applied', $records, $seconds, $seen);
	ok($node->catch_up('postgres', $_, $kafka), "$_ catches up") foreach qw(a b);
	foreach my $topic (qw(a b))
	{
		my %expected = fold($kafka, $topic);
		my %got = map { split /\t/, $_, 2 } split /\n/,
		  $node->safe_psql('postgres',
			qq{COPY (SELECT key, '{"r": ' || r || ', "n": ' || n || ', "t": "' || t || '"}' FROM $topic) TO STDOUT});
		is_deeply(\%got, \%expected, "$topic: in the end, SELECT shows what kcat reads");
	}
	balanced($node, 'under load');
	unlike($node->log_text, qr/PANIC|TRAP|terminated by signal|snapshot too old/, 'nothing alarming in the log');
	$node->stop;
	return;
}

1;
