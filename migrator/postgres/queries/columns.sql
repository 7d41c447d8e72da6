-- A table's columns: type, whether its equality is an equality of images, and
-- what depends on each but for its own default, indexes and CHECK constraints.
-- Foreign keys stand apart; sequences owned by the column go along with it.
SELECT a.attname::text AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null,
       CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END AS "default",
       CASE WHEN a.attcollation <> t.typcollation
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END AS collation,
       a.attgenerated <> '' AS generated,
       a.attidentity <> '' AS identity,
       -- Support function 4 of a btree operator class is "equalimage"; for text
       -- it holds where the collation is deterministic (manual, 65.1.3).
       COALESCE(co.collisdeterministic, true) AND EXISTS (
         SELECT FROM pg_catalog.pg_opclass o
           JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
           JOIN pg_catalog.pg_amproc p
             ON p.amprocfamily = o.opcfamily AND p.amprocnum = 4
            AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype
          WHERE o.opcdefault AND o.opcintype = CASE
            WHEN t.typtype = 'e' THEN 'pg_catalog.anyenum'::pg_catalog.regtype
            WHEN t.oid = 'pg_catalog.varchar'::pg_catalog.regtype THEN 'pg_catalog.text'::pg_catalog.regtype
            ELSE t.oid END
       ) AS image_equal,
       ARRAY(
         SELECT DISTINCT pg_catalog.pg_describe_object(dep.classid, dep.objid, dep.objsubid)
           FROM pg_catalog.pg_depend dep
          WHERE dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refobjid = a.attrelid AND dep.refobjsubid = a.attnum
            AND NOT (dep.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND dep.objid = d.oid)
            AND NOT (dep.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
            AND NOT (dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                     AND EXISTS (SELECT FROM pg_catalog.pg_class x
                                  WHERE x.oid = dep.objid AND x.relkind IN ('i', 'I', 'S')))
         UNION ALL
         SELECT 'grants on the column' WHERE a.attacl IS NOT NULL
       ) AS dependents,
       ARRAY(
         SELECT k.conname::text FROM pg_catalog.pg_constraint k
          WHERE k.contype IN ('c', 'x')
            AND k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey)
       ) AS checks,
       ARRAY(
         SELECT x.relname::text FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
          WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = ANY (i.indkey)
       ) AS unique_indexes,
       ARRAY(
         SELECT k.conname::text FROM pg_catalog.pg_constraint k
          WHERE k.contype = 'f'
            AND ((k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey))
              OR (k.confrelid = a.attrelid AND a.attnum = ANY (k.confkey)))
       ) AS foreign_keys
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(table)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
