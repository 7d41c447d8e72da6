-- A domain's own checks. Run under an empty search path, so that definitions name
-- every schema.
SELECT k.conname::text AS name,
       k.contype::text AS kind,
       pg_catalog.pg_get_expr(k.conbin, 0) AS definition,
       k.convalidated AS validated
  FROM pg_catalog.pg_constraint k
 WHERE k.contypid = %(domain)s::oid AND k.contype = 'c'
 ORDER BY k.conname
