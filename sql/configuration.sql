--
-- docs/configuration.md says of every option and every setting what the library says. Where it does not:
-- make private && test/configuration
--
SET client_min_messages = warning;
\set ECHO none
\i test/configuration.sql
\set ECHO all
\set document `cat docs/configuration.md`
CREATE TEMPORARY TABLE documented AS
	SELECT split_part(part, ' -->', 1) AS section, line
	FROM regexp_split_to_table(:'document', '<!-- begin ') part,
		 regexp_split_to_table(split_part(part, '<!-- end -->', 1), '\n') WITH ORDINALITY l (line, n)
	WHERE part LIKE '%<!-- end -->%' AND line LIKE '| %' AND n > 4;
\a
SELECT 'not in the document' AS what, section, line FROM (SELECT section, line FROM configuration EXCEPT SELECT * FROM documented) m
UNION ALL
SELECT 'not in the library', section, line FROM (SELECT * FROM documented EXCEPT SELECT section, line FROM configuration) s
ORDER BY 2, 3, 1;
SELECT count(*) > 100 AS enough FROM documented;
