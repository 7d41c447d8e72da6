-- A table's indexes, each key column with the options that DDL would spell. Run under an
-- empty search path, so that definitions name every schema.
SELECT x.relname::text AS name,
       x.oid::bigint AS oid,
       am.amname::text AS method,
       i.indisunique AS unique,
       i.indnullsnotdistinct AS nulls_not_distinct,
       i.indisvalid AS valid,
       i.indisprimary AS primary,
       i.indisreplident AS replica_identity,
       i.indisclustered AS clustered,
       COALESCE((SELECT pg_catalog.jsonb_agg(
                          pg_catalog.jsonb_build_array(a.attnum, a.attstattarget) ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute a
                  -- Before 17 the server's own target is -1, since then NULL.
                  WHERE a.attrelid = x.oid AND a.attstattarget >= 0), '[]') AS targets,
       i.indisexclusion AS exclusion,
       i.indimmediate AS immediate,
       CASE WHEN x.relispartition THEN
         (SELECT r.relname::text FROM pg_catalog.pg_class r
           WHERE r.oid = pg_catalog.pg_partition_root(x.oid))
       END AS root,
       ARRAY(
         SELECT k.conname::text FROM pg_catalog.pg_constraint k
          WHERE k.conindid = i.indexrelid ORDER BY 1
       ) AS constraints,
       pg_catalog.substr(spelt.whole, 1, pg_catalog.length(spelt.whole)
                         - pg_catalog.length(spelt.predicate)) AS spelt,
       COALESCE(x.reloptions, '{}') AS storage,
       (SELECT s.spcname::text FROM pg_catalog.pg_tablespace s WHERE s.oid = x.reltablespace) AS tablespace,
       pg_catalog.obj_description(x.oid, 'pg_class') AS comment,
       COALESCE(pg_catalog.pg_stat_get_numscans(x.oid), 0) AS scans,
       i.indexprs IS NULL AND i.indpred IS NULL AS plain,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
       -- Its text alone tells a predicate's columns from the keys'.
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND NOT a.attisdropped
            AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) ~ ('(^|[^[:alnum:]_])'
                || pg_catalog.regexp_replace(pg_catalog.quote_ident(a.attname), '([^[:alnum:]_])', '\\\1', 'g')
                || '([^[:alnum:]_]|$)')
          ORDER BY a.attname
       ) AS mentions,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = i.indrelid AND a.attnum > 0
            AND (a.attnum = ANY (i.indkey) OR EXISTS (
              SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND d.refobjsubid = a.attnum))
       ) AS columns,
       COALESCE((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'name', COALESCE(a.attname::text, ''),
                  'options', pg_catalog.concat_ws(' ',
                    CASE WHEN c.oid IS NOT NULL AND c.oid <> a.attcollation
                         THEN 'COLLATE ' || pg_catalog.quote_ident(n.nspname)
                              || '.' || pg_catalog.quote_ident(c.collname) END,
                    CASE WHEN NOT o.opcdefault OR class.parameters IS NOT NULL
                         THEN pg_catalog.quote_ident(onsp.nspname) || '.'
                              || pg_catalog.quote_ident(o.opcname) || COALESCE(class.parameters, '') END,
                    CASE WHEN (i.indoption[k.at - 1] & 1) = 1 THEN 'DESC' END,
                    CASE WHEN am.amname = 'btree'
                          AND (i.indoption[k.at - 1] & 1) <> ((i.indoption[k.at - 1] >> 1) & 1)
                         THEN CASE WHEN (i.indoption[k.at - 1] & 2) = 2
                                   THEN 'NULLS FIRST' ELSE 'NULLS LAST' END END)
                ) ORDER BY k.at)
           FROM pg_catalog.generate_series(1, i.indnkeyatts) AS k (at)
           LEFT JOIN pg_catalog.pg_attribute a
             ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.at - 1] AND a.attnum > 0
           LEFT JOIN pg_catalog.pg_collation c ON c.oid = i.indcollation[k.at - 1]
           LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
           JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[k.at - 1]
           JOIN pg_catalog.pg_namespace onsp ON onsp.oid = o.opcnamespace
          CROSS JOIN LATERAL (
            SELECT '(' || pg_catalog.string_agg(pg_catalog.quote_ident(p.option_name) || ' = '
                                                || pg_catalog.quote_literal(p.option_value), ', ') || ')'
              FROM pg_catalog.pg_attribute own,
                   pg_catalog.pg_options_to_table(own.attoptions) AS p
             WHERE own.attrelid = x.oid AND own.attnum = k.at
          ) AS class (parameters)
       ), '[]') AS keys,
       -- Of the first key column: 1 or -1 where the rows stand in its order.
       (SELECT s.correlation::float8
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_stats s
            ON s.schemaname = tn.nspname AND s.tablename = t.relname
           AND s.attname = a.attname AND NOT s.inherited
         WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
       ) AS correlation,
       compared.greater,
       compared.not_greater,
       ARRAY(
         SELECT a.attname::text
           FROM pg_catalog.generate_series(i.indnkeyatts + 1, i.indnatts) AS k (at)
           JOIN pg_catalog.pg_attribute a
             ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.at - 1]
          ORDER BY k.at
       ) AS include
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_am am ON am.oid = x.relam
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  -- What a row comparison by the index is written with; "" where there is no such
  -- operator, or not the same one for all columns (strategies 5 and 2: manual, 36.16).
 CROSS JOIN LATERAL (
   SELECT COALESCE(max(s.operator) FILTER (WHERE s.strategy = 5), '') AS greater,
          COALESCE(max(s.operator) FILTER (WHERE s.strategy = 2), '') AS not_greater
     FROM (SELECT m.amopstrategy AS strategy,
                  CASE WHEN count(DISTINCT (p.oprname, p.oprnamespace)) = 1
                       THEN 'OPERATOR(' || pg_catalog.quote_ident(min(n.nspname)) || '.' || min(p.oprname) || ')' END AS operator
             FROM pg_catalog.unnest(i.indclass::pg_catalog.oid[]) AS k (class)
             JOIN pg_catalog.pg_opclass o ON o.oid = k.class
             JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy IN (2, 5)
              AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
             JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
             JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
            GROUP BY m.amopstrategy) AS s
 ) AS compared
  -- Behind the table's name, which the server spells in just this way. It leaves the
  -- tablespace out, which stands before the predicate.
 CROSS JOIN LATERAL (
   SELECT pg_catalog.substr(pg_catalog.pg_get_indexdef(x.oid), pg_catalog.length(
            'CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX '
            || pg_catalog.quote_ident(x.relname) || ' ON '
            || CASE WHEN x.relkind = 'I' THEN 'ONLY ' ELSE '' END
            || pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.relname)
          ) + 2),
          COALESCE(' WHERE ' || pg_catalog.pg_get_expr(i.indpred, i.indrelid), '')
 ) AS spelt (whole, predicate)
 WHERE i.indrelid = %(table)s::oid
 ORDER BY x.relname
