-- A table's triggers but for internal ones. Bits of tgtype: 1 row, 2 before,
-- 16 update. Enabled "O" and "A" is what fires for an ordinary session.
SELECT t.tgname::text AS name,
       (t.tgtype & 3) = 3 AS before_row,
       (t.tgtype & 16) = 16 AND t.tgenabled IN ('O', 'A') AS on_update,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr)
          ORDER BY a.attname
       ) AS update_of
  FROM pg_catalog.pg_trigger t
 WHERE t.tgrelid = %(table)s::oid AND NOT t.tgisinternal
 ORDER BY t.tgname
