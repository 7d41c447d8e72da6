-- A table's constraints, with what depends on each or on the index behind it. Run
-- under an empty search path, so that definitions name every schema.
SELECT k.conname::text AS name,
       k.contype::text AS kind,
       -- What the index behind a key has besides stands before what ends it.
       COALESCE((
         SELECT pg_catalog.substr(spelt.whole, 1, pg_catalog.length(spelt.whole)
                                  - pg_catalog.length(spelt.behind))
                || COALESCE(' WITH (' || (
                     SELECT pg_catalog.string_agg(pg_catalog.quote_ident(o.option_name) || ' = '
                              || pg_catalog.quote_literal(o.option_value), ', ')
                       -- An exclusion constraint's are there.
                       FROM pg_catalog.pg_options_to_table(x.reloptions) o
                      WHERE k.contype <> 'x') || ')', '')
                || COALESCE(' USING INDEX TABLESPACE ' || pg_catalog.quote_ident(s.spcname), '')
                || spelt.behind
           FROM pg_catalog.pg_class x
           LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = x.reltablespace
          WHERE x.oid = k.conindid AND k.contype IN ('p', 'u', 'x')
            AND pg_catalog.right(spelt.whole, pg_catalog.length(spelt.behind)) = spelt.behind
       ), spelt.whole) AS definition,
       ARRAY(
         SELECT a.attname::text
           FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (num, at)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
          ORDER BY u.at
       ) AS columns,
       k.convalidated AS validated,
       k.condeferrable AS deferrable,
       k.condeferred AS deferred,
       rn.nspname::text AS parent_schema,
       r.relname::text AS parent_name,
       COALESCE(r.relkind = 'p', false) AS to_partitioned,
       (SELECT x.relname::text FROM pg_catalog.pg_class x WHERE x.oid = k.conindid) AS index,
       ARRAY(
         SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
           FROM pg_catalog.pg_depend d
          WHERE d.deptype = 'n' AND k.contype IN ('p', 'u', 'x')
            AND (d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                 AND d.refobjid = k.oid
                 OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND d.refobjid = k.conindid)
       ) AS dependents,
       pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment,
       (WITH RECURSIVE above (name, up) AS (
          SELECT p.conname, p.conparentid FROM pg_catalog.pg_constraint p
           WHERE p.oid = k.conparentid AND k.contype = 'f'
          UNION ALL
          SELECT p.conname, p.conparentid FROM above
            JOIN pg_catalog.pg_constraint p ON p.oid = above.up
        )
        SELECT above.name::text FROM above WHERE above.up = 0) AS root,
       CASE k.contype WHEN 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid) END AS condition
  FROM pg_catalog.pg_constraint k
  LEFT JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
 CROSS JOIN LATERAL (
   SELECT pg_catalog.pg_get_constraintdef(k.oid),
          COALESCE((SELECT ' WHERE (' || pg_catalog.pg_get_expr(i.indpred, i.indrelid) || ')'
                      FROM pg_catalog.pg_index i WHERE i.indexrelid = k.conindid), '')
          || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
          || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
 ) AS spelt (whole, behind)
 WHERE k.conrelid = %(table)s::oid
   -- A foreign key to a partitioned table has one of its own to each partition.
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p
                    WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
 ORDER BY k.conname
