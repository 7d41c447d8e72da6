-- A table's partitions on all levels, parents before their own; but for those that
-- are being detached. Reads pg_inherits, since pg_partition_tree locks them all.
WITH RECURSIVE part (oid, level) AS (
  SELECT %(table)s::oid, 0
  UNION ALL
  SELECT i.inhrelid, part.level + 1 FROM pg_catalog.pg_inherits i
    JOIN part ON part.oid = i.inhparent
   WHERE NOT i.inhdetachpending
)
SELECT n.nspname AS schema, c.relname AS name
  FROM part
  JOIN pg_catalog.pg_class c ON c.oid = part.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE part.level > 0
 ORDER BY part.level, n.nspname, c.relname
