-- The query of a view or materialized view.
SELECT pg_catalog.pg_get_viewdef(c.oid) AS text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('v', 'm')
