-- What a change owned for a while and is still there: kind and name of each.
SELECT owned.kind || ' ' || owned.place AS what FROM (
  SELECT CASE c.relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index'
      WHEN 'v' THEN 'view' ELSE 'table' END,
    pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relname
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  UNION ALL
  SELECT 'column', pg_catalog.format('%%I.%%I.%%I', n.nspname, c.relname, a.attname),
    a.attname
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT a.attisdropped AND a.attnum > 0
  UNION ALL
  SELECT 'constraint',
    pg_catalog.format('%%I.%%I.%%I', n.nspname, c.relname, k.conname), k.conname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  UNION ALL
  SELECT 'trigger', pg_catalog.format('%%I.%%I.%%I', n.nspname, c.relname, t.tgname),
    t.tgname
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
) AS owned (kind, place, name)
WHERE pg_catalog.right(owned.name::text, pg_catalog.length(%(tag)s)) = %(tag)s
  AND (pg_catalog.starts_with(owned.name::text, %(owned)s)
    OR owned.name::text OPERATOR(pg_catalog.^@) ANY (%(triggers)s::text[]))
ORDER BY 1
