-- The schema and name of an index's table, by the search path where no schema is given.
SELECT n.nspname AS schema, t.relname AS name
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE c.relname = %(name)s
   AND CASE WHEN %(schema)s::text IS NULL
            THEN pg_catalog.pg_table_is_visible(c.oid)
            ELSE c.relnamespace = (SELECT s.oid FROM pg_catalog.pg_namespace s
                                    WHERE s.nspname = %(schema)s::text) END
