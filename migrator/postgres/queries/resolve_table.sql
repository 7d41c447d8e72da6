-- The schema and name of a relation, by the search path where no schema is given.
SELECT n.nspname AS schema, c.relname AS name
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %(name)s
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND CASE WHEN %(schema)s::text IS NULL
            THEN pg_catalog.pg_table_is_visible(c.oid)
            ELSE n.nspname = %(schema)s::text END
