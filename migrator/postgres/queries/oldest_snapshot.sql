-- The oldest transaction of this database that keeps dead rows from being pruned:
-- one with a snapshot, or one that has written. Those of other databases do not
-- count (ComputeXidHorizons, 14+); replication slots and standbys tell no time.
SELECT held_s, holder
  FROM (SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8 AS held_s,
               pg_catalog.format('pid %s (application "%s", %s)', pid, application_name, state) AS holder
          FROM pg_catalog.pg_stat_activity
         WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
           AND xact_start IS NOT NULL
           AND datname = current_database()
           AND backend_type = 'client backend'
           AND application_name NOT LIKE 'migrator:%'
           AND pid <> pg_catalog.pg_backend_pid()
         UNION ALL
        SELECT extract(epoch FROM clock_timestamp() - prepared)::float8,
               pg_catalog.format('prepared transaction "%s"', gid)
          FROM pg_catalog.pg_prepared_xacts
         WHERE database = current_database()) AS held
 ORDER BY held_s DESC
 LIMIT 1
