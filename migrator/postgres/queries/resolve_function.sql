-- The schema of a function or procedure, and its signature: its name and the types of
-- its arguments, each with its schema where the search path does not have it.
SELECT n.nspname AS schema,
       quote_ident(p.proname) || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' AS name
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.oid = %(function)s::oid
