-- All tables with their checks, oldest first; one without has one row. `own` tells those
-- that a table does not have from a parent alone, `visible` whether its name needs no
-- schema.
SELECT n.nspname::text AS schema,
       c.relname::text AS "table",
       pg_catalog.pg_table_is_visible(c.oid) AS visible,
       k.conname::text AS name,
       k.conislocal AS own,
       pg_catalog.pg_get_expr(k.conbin, k.conrelid) AS condition
  FROM pg_catalog.pg_class c
  LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype = 'c'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY k.oid
