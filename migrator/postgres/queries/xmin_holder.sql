-- A standby or replication slot that keeps rows from being removed which died in a
-- transaction or later. Neither tells since when, so that it is asked by transactions.
SELECT holder
  FROM (SELECT pg_catalog.format('standby "%%s"', application_name) AS holder,
               pg_catalog.age(backend_xmin) AS old
          FROM pg_catalog.pg_stat_replication
         WHERE backend_xmin IS NOT NULL
         UNION ALL
        SELECT pg_catalog.format('replication slot "%%s"', slot_name),
               pg_catalog.age(xmin)
          FROM pg_catalog.pg_replication_slots
         WHERE xmin IS NOT NULL) AS held
 WHERE old >= pg_catalog.age(%(since)s::text::xid)
 ORDER BY old DESC
 LIMIT 1
