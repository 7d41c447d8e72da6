-- Transactions that may see the database as it was at a time, each with its virtual
-- number. A snapshot is no older than its transaction; when that began a role without
-- rights does not see, so that any of them may. What VACUUM, ANALYZE and builds of
-- indexes have a snapshot for reads no table that takes another one's place.
SELECT l.virtualxid AS number, a.pid,
       false AS autovacuum, false AS forced,
       COALESCE(a.application_name, '') AS application,
       COALESCE(a.state, 'state not visible to this role') AS activity,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds
  FROM pg_catalog.pg_stat_activity a
  JOIN pg_catalog.pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid'
   AND l.mode = 'ExclusiveLock' AND l.granted
 WHERE a.datname = current_database()
   AND a.backend_xmin IS NOT NULL
   AND (a.xact_start IS NULL OR a.xact_start <= %(at)s)
   AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.pid NOT IN (
     SELECT pid FROM pg_catalog.pg_stat_progress_vacuum
      UNION ALL SELECT pid FROM pg_catalog.pg_stat_progress_analyze
      UNION ALL SELECT pid FROM pg_catalog.pg_stat_progress_create_index
   )
 ORDER BY a.xact_start NULLS LAST
