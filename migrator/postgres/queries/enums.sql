-- The enums of a database with their values in order, and the columns of tables that are
-- of them: schema, table, column, whether the table's name needs no schema, and whether
-- it is an array of them. `visible` tells the same of the type's name.
SELECT n.nspname::text AS schema,
       t.typname::text AS name,
       pg_catalog.pg_type_is_visible(t.oid) AS visible,
       ARRAY(
         SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
          WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder
       ) AS "values",
       COALESCE((
         SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
                  s.nspname, c.relname, a.attname, pg_catalog.pg_table_is_visible(c.oid),
                  a.atttypid <> t.oid))
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
          WHERE a.atttypid IN (t.oid, t.typarray) AND a.attnum > 0 AND NOT a.attisdropped
            AND c.relkind IN ('r', 'p')
       ), '[]') AS columns
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype = 'e'
