-- Sessions that hold a lock on the table, or on a partition of it, which conflicts
-- with the wanted mode, and transactions whose snapshot a concurrent build waits for.
WITH RECURSIVE part (oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relname = %(name)s
  UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part ON part.oid = i.inhparent
), conflicts (wanted, held) AS (VALUES
  ('ACCESS EXCLUSIVE', ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock',
    'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
    'AccessExclusiveLock']),
  ('EXCLUSIVE', ARRAY['RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock',
    'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
  ('SHARE ROW EXCLUSIVE', ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock',
    'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
  ('SHARE UPDATE EXCLUSIVE', ARRAY['ShareUpdateExclusiveLock', 'ShareLock',
    'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
  ('ROW EXCLUSIVE', ARRAY['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
    'AccessExclusiveLock']),
  ('ROW SHARE', ARRAY['ExclusiveLock', 'AccessExclusiveLock']),
  ('ACCESS SHARE', ARRAY['AccessExclusiveLock'])
), holders AS (
  SELECT l.pid FROM pg_catalog.pg_locks l
    JOIN conflicts k ON k.wanted = %(mode)s AND l.mode = ANY (k.held)
   WHERE l.granted AND l.locktype = 'relation'
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
     AND l.relation IN (SELECT oid FROM part)
  UNION
  SELECT a.pid FROM pg_catalog.pg_stat_activity a
   WHERE %(mode)s = 'SHARE UPDATE EXCLUSIVE' AND a.datname = current_database()
     AND a.backend_xmin IS NOT NULL AND a.backend_type = 'client backend'
)
SELECT a.pid, COALESCE(a.application_name, '') AS application,
       COALESCE(a.state, 'state not visible to this role') AS activity,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds
  FROM holders h JOIN pg_catalog.pg_stat_activity a USING (pid)
 WHERE a.pid <> pg_catalog.pg_backend_pid()
 ORDER BY a.xact_start NULLS LAST
