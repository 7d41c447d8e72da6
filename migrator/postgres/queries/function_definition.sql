-- The statement that makes a function or procedure; an aggregate has none.
SELECT pg_catalog.pg_get_functiondef(p.oid) AS text
  FROM pg_catalog.pg_proc p
 WHERE p.oid = pg_catalog.to_regprocedure(%(function)s) AND p.prokind <> 'a'
