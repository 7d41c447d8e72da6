-- A table's columns: whether its type's equality is an equality of images, and
-- what depends on each but for its own default, indexes and CHECK constraints.
-- Foreign keys and generated columns stand apart; sequences owned by the column go
-- along with it. What depends on a column of a partition, whatever its number there,
-- depends on it. How types and defaults are spelt is in `column_texts`.
WITH RECURSIVE part (oid) AS (
  SELECT %(table)s::oid
  UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i
    JOIN part ON part.oid = i.inhparent
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
   WHERE NOT i.inhdetachpending
), same AS (
  SELECT a.attrelid, a.attnum, a.attname, a.attacl FROM pg_catalog.pg_attribute a
    JOIN part ON part.oid = a.attrelid
   WHERE a.attnum > 0 AND NOT a.attisdropped
), used AS (
  SELECT same.attname, dep.classid AS class, r.ev_class AS rule_of,
         CASE WHEN r.rulename = '_RETURN'
              THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0)
              ELSE pg_catalog.pg_describe_object(dep.classid, dep.objid, dep.objsubid) END AS what
    FROM same
    JOIN pg_catalog.pg_depend dep
      ON dep.refobjid = same.attrelid AND dep.refobjsubid = same.attnum
    LEFT JOIN pg_catalog.pg_rewrite r
      ON dep.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = dep.objid
   WHERE dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     AND NOT (dep.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass)
     AND NOT (dep.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
     AND NOT (dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_class x
                           WHERE x.oid = dep.objid AND x.relkind IN ('i', 'I', 'S')))
), imaged (oid) AS (
  -- Types whose `=` means the same image: support function 4 of a btree operator
  -- class is "equalimage"; for text it holds where the collation is deterministic
  -- (manual, 65.1.3). Neither is true of bpchar without a length, whose `=` passes
  -- over blanks. An operator outside of pg_catalog is not found under every search
  -- path.
  SELECT o.opcintype FROM pg_catalog.pg_opclass o
    JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
    JOIN pg_catalog.pg_amproc p
      ON p.amprocfamily = o.opcfamily AND p.amprocnum = 4
     AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype
   WHERE o.opcdefault AND o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace
  UNION ALL
  SELECT 'pg_catalog.varchar'::pg_catalog.regtype
)
SELECT a.attname::text AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS short_type,
       a.attnotnull AS not_null,
       EXISTS (
         SELECT FROM pg_catalog.pg_constraint k
          WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND NOT k.convalidated
            AND a.attnum = ANY (k.conkey)
       ) AS unproved,
       CASE WHEN a.attcollation <> b.typcollation
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END AS collation,
       -- Enums, arrays, ranges and rows have that of pg_catalog.
       COALESCE((
         SELECT 'OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || p.oprname || ')'
           FROM pg_catalog.pg_opclass o
           JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
           JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy = 3
            AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
           JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
           JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
          WHERE o.opcdefault AND o.opcintype = b.oid
       ), 'OPERATOR(pg_catalog.=)') AS equal,
       a.attgenerated <> '' AS generated,
       a.attgenerated = 'v' AS virtual,
       a.attidentity <> '' AS identity,
       ARRAY(
         SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
          WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder
       ) AS values,
       COALESCE(co.collisdeterministic, true)
       AND NOT (b.oid = 'pg_catalog.bpchar'::pg_catalog.regtype AND b.mod < 0)
       AND CASE WHEN b.typtype = 'e' THEN 'pg_catalog.anyenum'::pg_catalog.regtype
                ELSE b.oid END IN (SELECT imaged.oid FROM imaged) AS image_equal,
       COALESCE(co.collisdeterministic, true)
       AND NOT (e.oid IS NOT DISTINCT FROM 'pg_catalog.bpchar'::pg_catalog.regtype
                AND a.atttypmod < 0)
       AND CASE WHEN e.typtype = 'e' THEN 'pg_catalog.anyenum'::pg_catalog.regtype
                ELSE COALESCE(e.oid, 0) END IN (SELECT imaged.oid FROM imaged)
         AS element_image_equal,
       ARRAY(
         SELECT DISTINCT used.what FROM used WHERE used.attname = a.attname
         UNION
         SELECT 'grants on the column' FROM same
          WHERE same.attname = a.attname AND same.attacl IS NOT NULL
       ) AS dependents,
       -- But for a rule of the table itself, whose NEW is what a statement says before
       -- any trigger, and for what knows the column by its name: triggers, publications.
       ARRAY(
         SELECT DISTINCT used.what FROM used
          WHERE used.attname = a.attname
            AND (used.class IN ('pg_catalog.pg_policy'::pg_catalog.regclass,
                                'pg_catalog.pg_proc'::pg_catalog.regclass,
                                'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
                 OR used.rule_of NOT IN (SELECT oid FROM part))
       ) AS by_number,
       COALESCE((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                  g.privilege_type,
                  CASE g.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
                  g.is_grantable) ORDER BY g.grantee, g.privilege_type)
           FROM pg_catalog.aclexplode(a.attacl) AS g
       ), '[]') AS grants,
       ARRAY(
         SELECT DISTINCT g.attname::text FROM same
           JOIN pg_catalog.pg_depend dep
             ON dep.refobjid = same.attrelid AND dep.refobjsubid = same.attnum
           JOIN pg_catalog.pg_attrdef x ON x.oid = dep.objid
           JOIN pg_catalog.pg_attribute g ON g.attrelid = x.adrelid AND g.attnum = x.adnum
          WHERE same.attname = a.attname
            AND dep.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
            AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND g.attgenerated <> '' AND g.attname <> a.attname
       ) AS feeds,
       ARRAY(
         SELECT DISTINCT k.conname::text FROM same
           JOIN pg_catalog.pg_constraint k
             ON k.conrelid = same.attrelid AND same.attnum = ANY (k.conkey)
          WHERE same.attname = a.attname AND k.contype IN ('c', 'x')
       ) AS checks,
       ARRAY(
         SELECT DISTINCT x.relname::text FROM same
           JOIN pg_catalog.pg_index i ON i.indrelid = same.attrelid
           JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
          WHERE same.attname = a.attname AND i.indisunique
            -- By an expression or a predicate it is in it as well.
            AND (same.attnum = ANY (i.indkey) OR EXISTS (
              SELECT FROM pg_catalog.pg_depend dep
               WHERE dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND dep.objid = i.indexrelid AND dep.refobjid = i.indrelid
                 AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND dep.refobjsubid = same.attnum))
       ) AS unique_indexes,
       ARRAY(
         SELECT k.conname::text FROM same
           JOIN pg_catalog.pg_constraint k
             ON k.conrelid = same.attrelid AND same.attnum = ANY (k.conkey)
          WHERE same.attname = a.attname AND k.contype = 'f'
         UNION
         SELECT k.conname::text FROM same
           JOIN pg_catalog.pg_constraint k
             ON k.confrelid = same.attrelid AND same.attnum = ANY (k.confkey)
          WHERE same.attname = a.attname AND k.contype = 'f'
       ) AS foreign_keys,
       -- The key of a partitioned table depends on the table as its own part, as
       -- do the columns that an expression of it names.
       EXISTS (
         SELECT FROM same
           JOIN pg_catalog.pg_depend dep
             ON dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.objid = same.attrelid AND dep.objsubid = same.attnum
            AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refobjid = same.attrelid AND dep.refobjsubid = 0
          WHERE same.attname = a.attname AND dep.deptype = 'i'
       ) AS partition_key,
       pg_catalog.col_description(a.attrelid, a.attnum) AS comment,
       -- Before 17 the server's own target is -1, since then NULL.
       NULLIF(a.attstattarget, -1) AS statistics,
       CASE WHEN a.attstorage <> t.typstorage
            THEN CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                                   WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END AS storage,
       CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
       ARRAY(
         SELECT pg_catalog.quote_ident(option_name) || ' = '
                || pg_catalog.quote_literal(option_value)
           FROM pg_catalog.pg_options_to_table(a.attoptions)
       ) AS options,
       ARRAY(
         SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(x.relname)
           FROM pg_catalog.pg_depend dep
           JOIN pg_catalog.pg_class x ON x.oid = dep.objid AND x.relkind = 'S'
           JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
          WHERE dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refobjid = a.attrelid AND dep.refobjsubid = a.attnum AND dep.deptype = 'a'
       ) AS sequences,
       COALESCE((
         SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                  'schema', n.nspname, 'name', x.relname,
                  'type', pg_catalog.format_type(q.seqtypid, NULL),
                  'start', q.seqstart, 'increment', q.seqincrement,
                  'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
                  'always', CASE dep.deptype WHEN 'i' THEN a.attidentity = 'a' END,
                  'grants', (
                    SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                             g.privilege_type,
                             CASE g.grantee WHEN 0 THEN 'PUBLIC'
                               ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
                             g.is_grantable) ORDER BY g.grantee, g.privilege_type), '[]')
                      FROM pg_catalog.aclexplode(x.relacl) AS g WHERE g.grantee <> x.relowner),
                  'comment', pg_catalog.obj_description(x.oid, 'pg_class'),
                  'dependents', ARRAY(
                    SELECT DISTINCT pg_catalog.pg_describe_object(u.classid, u.objid, u.objsubid)
                      FROM pg_catalog.pg_depend u
                     WHERE u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                       AND u.refobjid = x.oid AND u.deptype = 'n'
                       AND NOT (u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                                AND u.objid IS NOT DISTINCT FROM d.oid)))
                ORDER BY x.relname)
           FROM pg_catalog.pg_depend dep
           JOIN pg_catalog.pg_class x ON x.oid = dep.objid AND x.relkind = 'S'
           JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
           JOIN pg_catalog.pg_sequence q ON q.seqrelid = x.oid
          WHERE dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND dep.refobjid = a.attrelid AND dep.refobjsubid = a.attnum
            AND dep.deptype IN ('a', 'i')
       ), '[]') AS counters
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  -- The type itself, or what a domain is made of in the end.
  JOIN LATERAL (
    WITH RECURSIVE made (of, mod) AS (
      SELECT a.atttypid, a.atttypmod
      UNION ALL
      SELECT u.typbasetype, u.typtypmod FROM made
        JOIN pg_catalog.pg_type u ON u.oid = made.of AND u.typtype = 'd'
    )
    SELECT v.oid, made.mod, v.typtype, v.typcollation FROM made
      JOIN pg_catalog.pg_type v ON v.oid = made.of AND v.typtype <> 'd'
  ) AS b ON true
  -- An array's elements; other types may have some, and are no arrays.
  LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(table)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
