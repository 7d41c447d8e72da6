-- Sessions that hold a lock on the table, or on a partition of it, which conflicts
-- with the wanted mode, and transactions whose snapshot a concurrent build waits for.
-- A prepared transaction holds its locks without a process, under what number it had.
-- Of a worker of autovacuum a role without rights sees no more than that it is nobody's;
-- then the table's age tells whether it prevents wraparound.
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
  ('SHARE', ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock',
    'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
  ('SHARE UPDATE EXCLUSIVE', ARRAY['ShareUpdateExclusiveLock', 'ShareLock',
    'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
  ('ROW EXCLUSIVE', ARRAY['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
    'AccessExclusiveLock']),
  ('ROW SHARE', ARRAY['ExclusiveLock', 'AccessExclusiveLock']),
  ('ACCESS SHARE', ARRAY['AccessExclusiveLock'])
), holders AS (
  SELECT l.pid, l.relation, l.virtualtransaction AS vxid FROM pg_catalog.pg_locks l
    JOIN conflicts k ON k.wanted = %(mode)s AND l.mode = ANY (k.held)
   WHERE l.granted AND l.locktype = 'relation'
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
     AND l.relation IN (SELECT oid FROM part)
  UNION
  SELECT a.pid, NULL, NULL FROM pg_catalog.pg_stat_activity a
   WHERE %(mode)s = 'SHARE UPDATE EXCLUSIVE' AND a.datname = current_database()
     AND a.backend_xmin IS NOT NULL AND a.backend_type = 'client backend'
)
SELECT a.pid, n.nspname AS schema, c.relname AS name,
       COALESCE(a.backend_type = 'autovacuum worker', a.usesysid IS NULL) AS autovacuum,
       CASE WHEN a.backend_type IS NULL
         THEN COALESCE(pg_catalog.age(c.relfrozenxid) >
             pg_catalog.current_setting('autovacuum_freeze_max_age')::int
           OR pg_catalog.mxid_age(c.relminmxid) >
             pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int, false)
         ELSE a.query LIKE '%%(to prevent wraparound)' END AS forced,
       COALESCE(a.application_name, '') AS application,
       COALESCE(a.state, 'state not visible to this role') AS activity,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds,
       '' AS prepared
  FROM holders h JOIN pg_catalog.pg_stat_activity a USING (pid)
  LEFT JOIN pg_catalog.pg_class c ON c.oid = h.relation
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE a.pid <> pg_catalog.pg_backend_pid()
UNION ALL
SELECT 0, n.nspname, c.relname, false, false, '', '',
       EXTRACT(epoch FROM clock_timestamp() - x.prepared)::float8, x.gid
  FROM (SELECT * FROM holders WHERE pid IS NULL) AS h
  JOIN pg_catalog.pg_locks own ON own.pid IS NULL AND own.locktype = 'transactionid'
   AND own.virtualtransaction = h.vxid
  JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
  JOIN pg_catalog.pg_class c ON c.oid = h.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 ORDER BY seconds DESC
