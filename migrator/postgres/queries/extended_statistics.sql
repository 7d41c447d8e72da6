-- A table's objects of CREATE STATISTICS, under an empty search path, so that
-- expressions name every schema. Kind "e" stands for expressions, which DDL tells by
-- themselves.
SELECT n.nspname::text AS schema,
       s.stxname::text AS name,
       COALESCE((
         SELECT ' (' || pg_catalog.string_agg(CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies'
                                                     ELSE 'mcv' END, ', ') || ')'
           FROM pg_catalog.unnest(s.stxkind) AS k WHERE k <> 'e'
       ), '') AS kinds,
       pg_catalog.pg_get_statisticsobjdef_columns(s.oid) AS columns,
       pg_catalog.pg_get_userbyid(s.stxowner)::text AS owner,
       -- Before 17 the server's own target is -1, since then NULL.
       NULLIF(s.stxstattarget, -1) AS target,
       pg_catalog.obj_description(s.oid, 'pg_statistic_ext') AS comment
  FROM pg_catalog.pg_statistic_ext s
  JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
 WHERE s.stxrelid = %(table)s::oid
 ORDER BY 1, 2
