-- Views that depend on a table by their query or by a rule, with what the server calls
-- these dependents. One that names the table's row type cannot be made again over
-- another table, nor can one of a session's own.
WITH used AS (
  SELECT DISTINCT w.oid, w.ev_class, w.rulename
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
   WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     AND d.refobjid = %(table)s::oid AND w.ev_class <> d.refobjid
), typed AS (
  SELECT w.ev_class
    FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    JOIN pg_catalog.pg_depend d
      ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = t.oid
    JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
   WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
     AND %(table)s::oid IN (t.typrelid, e.typrelid)
)
SELECT n.nspname::text AS schema,
       v.relname::text AS name,
       pg_catalog.array_agg(CASE u.rulename
         WHEN '_RETURN' THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, v.oid, 0)
         ELSE pg_catalog.pg_describe_object('pg_catalog.pg_rewrite'::pg_catalog.regclass, u.oid, 0)
       END) AS described,
       pg_catalog.pg_has_role(v.relowner, 'USAGE')
         AND pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS owned
  FROM used u
  JOIN pg_catalog.pg_class v
    ON v.oid = u.ev_class AND v.relkind = 'v' AND v.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
 WHERE v.oid NOT IN (SELECT ev_class FROM typed)
 GROUP BY v.oid, v.relname, v.relowner, n.oid, n.nspname
 ORDER BY 1, 2
