-- How types and defaults of a table's columns are spelt. Run under an empty search path,
-- so that they name every schema.
SELECT a.attname::text AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       a.atttypid::bigint AS type_oid,
       a.atttypmod AS modifier,
       CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END AS "default",
       CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(b.oid, b.mod) END AS base,
       CASE WHEN e.oid IS NOT NULL THEN pg_catalog.format_type(e.oid, a.atttypmod) END AS element
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  -- What a domain is made of in the end.
  JOIN LATERAL (
    WITH RECURSIVE made (of, mod) AS (
      SELECT a.atttypid, a.atttypmod
      UNION ALL
      SELECT u.typbasetype, u.typtypmod FROM made
        JOIN pg_catalog.pg_type u ON u.oid = made.of AND u.typtype = 'd'
    )
    SELECT v.oid, made.mod FROM made
      JOIN pg_catalog.pg_type v ON v.oid = made.of AND v.typtype <> 'd'
  ) AS b ON true
  -- An array's elements; other types may have some, and are no arrays.
  LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(table)s::oid AND a.attnum > 0 AND NOT a.attisdropped
