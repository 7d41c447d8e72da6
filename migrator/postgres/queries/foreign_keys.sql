-- Foreign keys of a table or of its partitions, and those that refer to them; but
-- for those that stand on partitions since they stand on the parent. Run under an
-- empty search path, so that definitions name every schema. In the order in which they
-- were made: their actions and checks come in it when a row is deleted, and those that
-- are made again in another one would refuse what a CASCADE before them took along.
WITH RECURSIVE part (oid) AS (
  SELECT %(table)s::oid
  UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i
    JOIN part ON part.oid = i.inhparent
   WHERE NOT i.inhdetachpending
)
SELECT k.conname::text AS name,
       n.nspname::text AS schema,
       c.relname::text AS table,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (num, at)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
          ORDER BY u.at
       ) AS columns,
       fn.nspname::text AS to_schema,
       fc.relname::text AS to_table,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u (num, at)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num
          ORDER BY u.at
       ) AS to_columns,
       pg_catalog.pg_get_constraintdef(k.oid) AS definition,
       pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment,
       k.convalidated AS validated,
       c.relkind = 'p' AS partitioned
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class fc ON fc.oid = k.confrelid
  JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND (k.conrelid IN (SELECT oid FROM part) OR k.confrelid IN (SELECT oid FROM part))
 ORDER BY k.oid
