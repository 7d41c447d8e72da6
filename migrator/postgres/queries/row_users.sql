-- What may depend on the number of a table's columns, or a view's, without the catalogue
-- knowing where: the functions of its triggers that take OLD or NEW apart, functions
-- that return its rows, and those that cast to them. Comparisons of whole rows, and
-- calls of functions with one, take a further column as it comes. `whole` tells that a
-- function's text has a star, and so may return rows as they are.
WITH RECURSIVE part (oid) AS (
  SELECT %(table)s::oid
  UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i
    JOIN part ON part.oid = i.inhparent
   WHERE NOT i.inhdetachpending
), row_type (oid, word) AS (
  SELECT c.reltype, pg_catalog.regexp_replace(c.relname, '([^[:alnum:]_])', '\\\1', 'g')
    FROM part JOIN pg_catalog.pg_class c USING (oid)
)
SELECT t.tgname::text AS trigger, p.oid::pg_catalog.regprocedure::text AS function,
       false AS whole
  FROM pg_catalog.pg_trigger t
  JOIN part ON part.oid = t.tgrelid
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 WHERE NOT t.tgisinternal AND t.tgparentid = 0
   AND NOT t.tgname::text OPERATOR(pg_catalog.^@) ANY (%(own)s::text[])
   AND (pg_catalog.regexp_replace(pg_catalog.regexp_replace(p.prosrc,
          '\m(old|new)\s*\.\s*\*\s*\)?\s*(is\s+(not\s+)?distinct\s+from|=|<>|!=)'
            '\s*(row\s*)?\(?\s*(old|new)\s*\.\s*\*', '', 'gi'),
          '\m(?!(values|select|row|distinct|all)\M)\w+\s*\(\s*(old|new)\s*\.\s*\*\s*\)',
          '', 'gi') ~* '\m(old|new)\s*\)?\s*\.\s*\*'
        OR (t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL)
           AND p.prosrc ~* '(\mselect\s+|\.\s*)\*')
UNION ALL
SELECT NULL, p.oid::pg_catalog.regprocedure::text, p.prosrc ~* '(\mselect\s+|\.\s*)\*'
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', %(ledger)s)
   AND l.lanname NOT IN ('internal', 'c')
   AND EXISTS (SELECT FROM row_type r
                WHERE p.prorettype = r.oid
                   OR EXISTS (SELECT FROM ROWS FROM (
                                pg_catalog.unnest(p.proallargtypes),
                                pg_catalog.unnest(p.proargmodes)) AS a (type, mode)
                               WHERE a.type = r.oid AND a.mode <> 'i')
                   OR p.prosrc ~* ('\)\s*::\s*("?\w+"?\s*\.\s*)?"?' || r.word || '\M'))
 ORDER BY 2, 1
