-- The query that lists the keys of which a unique index would find several rows. It
-- is text to be run by a person: keys are data, and data stays out of messages.
WITH keys AS (
  SELECT i.indrelid, i.indnullsnotdistinct,
         pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
         pg_catalog.pg_get_indexdef(i.indexrelid, k, true) AS key, k
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN LATERAL pg_catalog.generate_series(1, i.indnkeyatts) AS k
   WHERE n.nspname = %(schema)s AND c.relname = %(name)s
)
SELECT 'SELECT ' || pg_catalog.string_agg(key, ', ' ORDER BY k) || ', count(*) FROM '
       || indrelid::pg_catalog.regclass
       || COALESCE(' WHERE ' || NULLIF(pg_catalog.concat_ws(' AND ',
            '(' || predicate || ')',
            pg_catalog.string_agg(key || ' IS NOT NULL', ' AND ' ORDER BY k)
              FILTER (WHERE NOT indnullsnotdistinct)), ''), '')
       || ' GROUP BY ' || pg_catalog.string_agg(key, ', ' ORDER BY k)
       || ' HAVING count(*) > 1' AS query
  FROM keys
 GROUP BY indrelid, indnullsnotdistinct, predicate
