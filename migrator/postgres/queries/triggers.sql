-- A table's triggers but for internal ones, under an empty search path, so that
-- definitions name every schema. Bits of tgtype: 1 row, 2 before,
-- 16 update, 64 instead. Enabled "O" and "A" is what fires for an ordinary session.
-- What a function reads is known to nobody but itself; the words of its text are a hint.
-- Each argument ends with a byte of zero.
SELECT t.tgname::text AS name,
       (t.tgtype & 3) = 3 AS before_row,
       (t.tgtype & 16) = 16 AND t.tgenabled IN ('O', 'A') AS on_update,
       (t.tgtype & 1) = 1
         AND p.prosrc ~* '\mtg_(table_name|relname|relid)\M' AS names_table,
       (t.tgtype & 67) = 1 AND t.tgenabled IN ('O', 'A')
         AND t.tgname < %(mirror)s::name
         AND (p.prosrc ~* ('(^|[^[:alnum:]_])'
                || pg_catalog.regexp_replace(c.relname, '([^[:alnum:]_])', '\\\1', 'g')
                || '([^[:alnum:]_]|$)')
              OR p.prosrc ~* '\mtg_(table_name|relname|relid)\M'
                AND p.prosrc ~* '\mexecute\M') AS early,
       t.tgenabled::text AS enabled,
       pg_catalog.pg_get_triggerdef(t.oid) AS definition,
       pg_catalog.obj_description(t.oid, 'pg_trigger') AS comment,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr)
          ORDER BY a.attname
       ) AS update_of,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = t.tgrelid AND a.attnum > 0 AND NOT a.attisdropped
            AND p.prosrc ~* ('(^|[^[:alnum:]_])'
                || pg_catalog.regexp_replace(a.attname, '([^[:alnum:]_])', '\\\1', 'g')
                || '([^[:alnum:]_]|$)')
          ORDER BY a.attname
       ) AS mentions,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = t.tgrelid AND a.attnum > 0 AND NOT a.attisdropped
            AND pg_catalog.position('\x00'::bytea || t.tgargs, '\x00'::bytea
                || pg_catalog.convert_to(a.attname, pg_catalog.getdatabaseencoding())
                || '\x00'::bytea) > 0
          ORDER BY a.attname
       ) AS arguments
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
 WHERE t.tgrelid = %(table)s::oid AND NOT t.tgisinternal
 ORDER BY t.tgname
