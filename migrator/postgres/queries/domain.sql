-- A domain, by the search path where no schema is given.
SELECT t.oid::bigint AS oid,
       n.nspname::text AS schema,
       t.typname::text AS name,
       pg_catalog.format_type(t.typbasetype, t.typtypmod) AS type,
       pg_catalog.pg_get_expr(t.typdefaultbin, 0) AS "default",
       t.typnotnull AS not_null,
       pg_catalog.pg_has_role(t.typowner, 'USAGE') AS owned
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype = 'd'
   AND t.typname = %(name)s
   AND CASE WHEN %(schema)s::text IS NULL
            THEN pg_catalog.pg_type_is_visible(t.oid)
            ELSE n.nspname = %(schema)s::text END
