# Rows as records: generated documents rewritten, databases in other encodings.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use KafkaCache::Cluster;
use KafkaCache::Decoder;
use KafkaCache::Paths qw($top);
use PostgreSQL::Test::Utils;
use Test::More;

my $count = 20000;
my $seed = 4711;

my $node = KafkaCache::Cluster->new('main', conf => { 'kafka_cache.databases' => 'none', 'fsync' => 'off' });
$node->start;
my $d = KafkaCache::Decoder->new($node, 'postgres');

# --- documents with some of their members changed: the bytes that are expected, and the row that comes back
$d->table('t', q{k text OPTIONS (key 'true'), a int, b text, u_id int OPTIONS (json 'user.id'), zip text OPTIONS (json 'user.address.zip'), j jsonb,
	ids int[] OPTIONS (json 'groups[].id'), names text[] OPTIONS (json 'groups[].name')});
my $rewrites = PostgreSQL::Test::Utils::tempdir() . '/rewrites';
system("perl $top/test/kcf_test/rewrites.pl $count $seed > $rewrites") == 0 or BAIL_OUT('no documents');
$d->sql(qq{
	CREATE TABLE rewrites (id int, doc bytea, changed text[], a int, b text, u_id int, zip text, j jsonb, ids int[], names text[], expected bytea);
	COPY rewrites FROM '$rewrites';
	CREATE FUNCTION one(w rewrites, old t, OUT new t, OUT value bytea) LANGUAGE plpgsql AS \$\$
	BEGIN
		new := old;
		IF 'a' = ANY (w.changed) THEN new.a := w.a; END IF;
		IF 'b' = ANY (w.changed) THEN new.b := w.b; END IF;
		IF 'u_id' = ANY (w.changed) THEN new.u_id := w.u_id; END IF;
		IF 'zip' = ANY (w.changed) THEN new.zip := w.zip; END IF;
		IF 'j' = ANY (w.changed) THEN new.j := w.j; END IF;
		IF 'ids' = ANY (w.changed) THEN new.ids := w.ids; END IF;
		IF 'names' = ANY (w.changed) THEN new.names := w.names; END IF;
		SELECT r.value INTO one.value FROM kcf_test_rewrite(w.doc, new, w.changed) r;
	END \$\$;
	CREATE TABLE results AS
	SELECT id, doc, changed, expected, old, (o).new AS wanted, (o).value AS got
	FROM (SELECT w.*, x.old, one(w, x.old) AS o FROM rewrites w, LATERAL (SELECT kcf_test_row(NULL::t, 'k', doc) AS old OFFSET 0) x OFFSET 0) y;
	ALTER TABLE results ADD reread t;
	UPDATE results SET reread = kcf_test_row(NULL::t, 'k', got);
});
is($d->sql('SELECT count(*) FROM results WHERE (old).k IS NULL'), 0, 'the documents are good');
is($d->sql(q{SELECT id, changed, encode(doc, 'escape'), encode(expected, 'escape') AS expected, encode(got, 'escape') AS got
	FROM results WHERE got IS DISTINCT FROM expected ORDER BY length(doc) LIMIT 3}), '', "$count documents rewritten: not a byte is different");
# A column's array can change with another's: where it is written for the first time, where it goes, where elements have no value.
is($d->sql(q{SELECT id, changed, encode(doc, 'escape'), encode(got, 'escape'), wanted, reread FROM results
	WHERE ROW((wanted).a, (wanted).b, (wanted).u_id, (wanted).zip, (wanted).j) IS DISTINCT FROM ROW((reread).a, (reread).b, (reread).u_id, (reread).zip, (reread).j)
	   OR ('ids' = ANY (changed) AND (wanted).ids IS NOT NULL AND (wanted).ids IS DISTINCT FROM (reread).ids)
	   OR ('names' = ANY (changed) AND (wanted).names IS NOT NULL AND (wanted).names IS DISTINCT FROM (reread).names)
	ORDER BY length(doc) LIMIT 3}), '', '... and what is read again is the row');
is($d->sql(q{SELECT count(*) > 1000 FROM results WHERE changed && '{ids,names}' AND doc::text ~ '67726f757073'}), 't', '... many of them with arrays of objects');
is($d->sql(q{SELECT count(*) FROM results, kcf_test_rewrite(doc, old, '{}') r WHERE r.value <> doc}), 0, 'nothing changed is nothing done');

# --- other encodings: what is written is UTF-8
sub hex_of { return unpack('H*', $_[0]); }
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
my $l = KafkaCache::Decoder->new($node, 'latin');
$l->sql(q{DO $$ BEGIN EXECUTE format('CREATE FOREIGN TABLE t (k text OPTIONS (key ''true''), %I text, c jsonb, j json, s text[], g text[] OPTIONS (json %L), h jsonb OPTIONS (headers ''true''))
	SERVER kafka OPTIONS (topic ''t'')', 'm' || chr(233), 'g' || chr(233) || '[].n'); END $$});
my $row = q{ROW(chr(233), chr(233) || 'm', jsonb_build_object(chr(233), chr(233)), ('"' || chr(233) || '"')::json, ARRAY[chr(233)], ARRAY['n', chr(233)],
	jsonb_build_array(jsonb_build_array('h', chr(233))))::t};
my $e = "\xc3\xa9";
is($l->sql("SELECT encode(key, 'hex') FROM kcf_test_write($row)"), hex_of($e), 'a key from LATIN1');
is($l->sql("SELECT encode(value, 'hex') FROM kcf_test_write($row)"), hex_of(qq({"m$e":"${e}m","c":{"$e":"$e"},"j":"$e","s":["$e"],"g$e":[{"n":"n"},{"n":"$e"}]})), '... a document');
is($l->sql("SELECT encode(headers[2], 'hex') FROM kcf_test_write($row)"), hex_of($e), '... a header');
is($l->sql("SELECT kcf_test_row(NULL::t, key, value, headers => headers) *= $row FROM kcf_test_write($row)"), 't', '... and back');
is($l->sql("SELECT encode(value, 'hex') FROM kcf_test_rewrite(" . KafkaCache::Decoder::bytes(qq({"z":"\xe2\x82\xac","m\\u00e9":1,"g$e":[{"n":"$e","x":"\xe2\x82\xac"},{"n":"\\u00e9","x":2}]})) . ", $row, ARRAY['m' || chr(233), 'g'])"),
	hex_of(qq({"z":"\xe2\x82\xac","m\\u00e9":"${e}m","g$e":[{"n":"n"},{"n":"$e","x":"\xe2\x82\xac"}]})), '... a document rewritten, with characters that LATIN1 does not have');
is($l->sql(q{SELECT split_part(kcf_test_key('t', } . KafkaCache::Decoder::bytes($e) . q{), ' ', 1)}), 'raw', 'a key that was converted is doubtful');

$node->safe_psql('postgres', q{CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
my $a = KafkaCache::Decoder->new($node, 'ascii');
$a->table('t', q{k text OPTIONS (key 'true'), a text});
is($a->sql(qq{SELECT encode(value, 'hex') FROM kcf_test_write(ROW('$e', '$e')::t)}), hex_of(qq({"a":"$e"})), 'UTF-8 in a database that does not know it');
foreach my $row (q{ROW(E'\\xe9', 'a')}, q{ROW('k', E'\\xe9')})
{
	my ($ret, $out, $err) = $node->psql('ascii', "\\set VERBOSITY verbose\nSELECT kcf_test_write($row\::t)");
	like($err, qr/22021.*UTF8/, "$row: anything else is refused");
}

$node->stop;
done_testing();
