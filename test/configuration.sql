-- The tables of docs/configuration.md, line by line, as the library itself has them. Read by test/configuration and
-- by the regression test of the same name.
CREATE FUNCTION pg_temp.option_table() RETURNS TABLE (level text, name text, expected text, "default" text, required bool, secret bool,
	"right" text, alias_of text, property text, newer bool, doc text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_option_table' LANGUAGE C;
CREATE FUNCTION pg_temp.property_table() RETURNS TABLE (name text, class text, alias_of text, newer bool, why text)
	AS '$libdir/kafka_cache_fdw', 'kafka_cache_property_table' LANGUAGE C;

CREATE FUNCTION pg_temp.with_unit(value text, unit text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN unit IS NULL OR value !~ '^\d+$' OR value = '0' THEN value
		WHEN unit = 'ms' AND value::bigint % 1000 = 0 THEN pg_temp.with_unit((value::bigint / 1000)::text, 's')
		WHEN unit = 's' AND value::bigint % 60 = 0 THEN value::bigint / 60 || 'min'
		WHEN unit IN ('kB', 'MB') AND value::bigint % 1024 = 0
			THEN pg_temp.with_unit((value::bigint / 1024)::text, CASE unit WHEN 'kB' THEN 'MB' ELSE 'GB' END)
		ELSE value || unit
	END $$;

CREATE TEMPORARY VIEW configuration (section, n, line) AS
	-- options of our own
	SELECT level, row_number() OVER (), format('| `%s` | %s | %s | %s |', name, expected,
			CASE WHEN required THEN 'required' WHEN "default" IS NULL THEN '' ELSE '`' || "default" || '`' END, doc)
	FROM pg_temp.option_table() WHERE doc IS NOT NULL AND alias_of IS NULL
	UNION ALL
	-- librdkafka's, each with its other names
	SELECT level || ' librdkafka', row_number() OVER (ORDER BY o.name COLLATE "C"), format('| `%s` | %s | %s | %s |',
			name || coalesce((SELECT string_agg('`, `' || a.name, '' ORDER BY a.name COLLATE "C") FROM pg_temp.option_table() a WHERE a.alias_of = o.name), ''),
			expected, CASE WHEN "default" IS NULL THEN '' ELSE '`' || "default" || '`' END,
			concat_ws(', ', CASE "right" WHEN 'superuser' THEN 'superuser' WHEN 'pg_read_server_files' THEN 'superuser or `pg_read_server_files`' END,
					  CASE WHEN newer THEN 'librdkafka newer than 2.0.2' END))
	FROM pg_temp.option_table() o WHERE doc IS NULL AND alias_of IS NULL
	UNION ALL
	-- what is refused, by reason
	SELECT 'refused', row_number() OVER (ORDER BY kind, why COLLATE "C"), line FROM (
		SELECT why LIKE '% not supported.' AS kind, why, format('| %s | %s |', why,
				string_agg('`' || name || '`', ', ' ORDER BY name COLLATE "C")) AS line
		FROM pg_temp.property_table() WHERE why IS NOT NULL AND name NOT IN (SELECT property FROM pg_temp.option_table() WHERE property IS NOT NULL)
		GROUP BY why LIKE '% not supported.', why) r
	UNION ALL
	-- settings of the server
	SELECT 'settings', row_number() OVER (ORDER BY name COLLATE "C"), format('| `%s` | `%s` | %s | %s | %s |', name, pg_temp.with_unit(boot_val, unit),
			CASE WHEN vartype = 'enum' THEN array_to_string(ARRAY(SELECT '`' || v || '`' FROM unnest(enumvals) v), ', ')
				 WHEN vartype = 'bool' THEN '`on`, `off`'
				 WHEN vartype = 'integer' THEN pg_temp.with_unit(min_val, unit) || ' to ' || CASE WHEN max_val IN ('2147483647', '2147483') THEN 'no limit' ELSE pg_temp.with_unit(max_val, unit) END
				 ELSE '' END,
			CASE context WHEN 'postmaster' THEN 'restart' WHEN 'sighup' THEN 'reload' WHEN 'superuser' THEN '`SET`, by superusers' ELSE '`SET`' END,
			concat_ws(' ', short_desc, extra_desc))
	FROM pg_settings WHERE name LIKE 'kafka\_cache.%' AND context <> 'internal';
