-- The names of tables and views, by the search path where no schema is given.
SELECT c.relname AS name
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND CASE WHEN %(schema)s::text IS NULL
            THEN n.nspname = ANY (pg_catalog.current_schemas(false))
            ELSE n.nspname = %(schema)s::text END
