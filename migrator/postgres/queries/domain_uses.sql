-- What can hold values of a domain, or of a domain over it: columns of tables, which
-- `schema`, `table` and `column` name, and what else there is, which `what` describes.
WITH RECURSIVE made (oid) AS (
  SELECT %(domain)s::oid
  UNION ALL
  SELECT t.oid FROM pg_catalog.pg_type t
    JOIN made ON made.oid = t.typbasetype
   WHERE t.typtype = 'd'
)
SELECT DISTINCT
       CASE WHEN plain.oid IS NOT NULL THEN n.nspname::text END AS schema,
       CASE WHEN plain.oid IS NOT NULL THEN c.relname::text END AS "table",
       CASE WHEN plain.oid IS NOT NULL THEN a.attname::text END AS "column",
       CASE WHEN plain.oid IS NULL
            THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END AS what
  FROM made
  JOIN pg_catalog.pg_type t ON t.oid = made.oid
  JOIN pg_catalog.pg_depend d
    ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
   AND d.refobjid IN (t.oid, t.typarray)
   AND d.deptype = 'n'
  LEFT JOIN pg_catalog.pg_type o
    ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND o.oid = d.objid
   -- A domain over it stands among those that are made of it.
   AND NOT (o.typtype = 'd' AND d.refobjid = t.oid)
  LEFT JOIN pg_catalog.pg_attribute a
    ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
   AND a.attrelid = d.objid AND a.attnum = d.objsubid
  LEFT JOIN pg_catalog.pg_class c
    ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'f', 'c') AND NOT c.relispartition
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class plain
    ON plain.oid = c.oid AND plain.relkind IN ('r', 'p') AND a.atttypid = t.oid
 WHERE c.oid IS NOT NULL OR o.oid IS NOT NULL
 ORDER BY 1, 2, 3, 4
