-- What hangs on a view, as SQL around the name of another one: privileges, options,
-- defaults, triggers, comments, the owner. What the role grants by default comes off
-- first. The text of a trigger is known up to the name: no event of one on a view
-- names columns.
WITH view AS (
  SELECT c.*, n.oid AS schema
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'v'
), grants AS (
  SELECT a.grantee, a.is_grantable, NULL::text AS "column",
         string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS what
    FROM view, pg_catalog.aclexplode(view.relacl) a
   WHERE a.grantee <> view.relowner GROUP BY 1, 2
  UNION ALL
  SELECT a.grantee, a.is_grantable, t.attname::text,
         string_agg(a.privilege_type || ' (' || quote_ident(t.attname) || ')', ', '
                    ORDER BY a.privilege_type)
    FROM view JOIN pg_catalog.pg_attribute t ON t.attrelid = view.oid,
         pg_catalog.aclexplode(t.attacl) a
   GROUP BY 1, 2, 3
), found (place, before, after, "column", stays) AS (
  SELECT DISTINCT 1, 'REVOKE ALL ON ', ' FROM ' || CASE a.grantee WHEN 0 THEN 'PUBLIC'
           ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, NULL, true
    FROM view, pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
   WHERE d.defaclobjtype = 'r' AND d.defaclrole = current_user::pg_catalog.regrole
     AND d.defaclnamespace IN (0, view.schema) AND a.grantee <> d.defaclrole
  UNION ALL
  SELECT 2, 'GRANT ' || what || ' ON ', ' TO ' || CASE grantee WHEN 0 THEN 'PUBLIC'
           ELSE quote_ident(pg_catalog.pg_get_userbyid(grantee)) END
         || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, "column", true
    FROM grants
  UNION ALL
  -- What the owner took from itself; the one who makes the view is it until the end.
  SELECT 2, 'REVOKE ' || string_agg(lacks.what, ', ' ORDER BY lacks.what) || ' ON ',
         ' FROM CURRENT_USER', NULL, true
    FROM (SELECT d.privilege_type AS what
            FROM view, pg_catalog.aclexplode(pg_catalog.acldefault('r', view.relowner)) d
           WHERE view.relacl IS NOT NULL
          EXCEPT
          SELECT a.privilege_type FROM view, pg_catalog.aclexplode(view.relacl) a
           WHERE a.grantee = view.relowner) AS lacks
  HAVING count(*) > 0
  UNION ALL
  SELECT 3, 'ALTER VIEW ', ' SET (' || string_agg(quote_ident(o.option_name) || ' = '
         || quote_literal(o.option_value), ', ' ORDER BY o.place) || ')', NULL, false
    FROM view, pg_catalog.pg_options_to_table(view.reloptions)
         WITH ORDINALITY AS o (option_name, option_value, place)
  HAVING count(*) > 0
  UNION ALL
  SELECT 4, 'ALTER VIEW ', ' ALTER COLUMN ' || quote_ident(t.attname) || ' SET DEFAULT '
         || pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.attname, true
    FROM view JOIN pg_catalog.pg_attrdef d ON d.adrelid = view.oid
    JOIN pg_catalog.pg_attribute t ON t.attrelid = view.oid AND t.attnum = d.adnum
  UNION ALL
  SELECT 5, 'CREATE TRIGGER ' || quote_ident(g.tgname) || ' '
         || substr(rest, 1, strpos(rest, ' ON ') + 3),
         substr(rest, strpos(rest, ' ON ') + 4 + length(view.oid::pg_catalog.regclass::text)),
         NULL, true
    FROM view JOIN pg_catalog.pg_trigger g ON g.tgrelid = view.oid AND NOT g.tgisinternal,
         substr(pg_catalog.pg_get_triggerdef(g.oid),
                length('CREATE TRIGGER ' || quote_ident(g.tgname) || ' ') + 1) AS rest
  UNION ALL
  SELECT 6, CASE d.objsubid WHEN 0 THEN 'COMMENT ON VIEW ' ELSE 'COMMENT ON COLUMN ' END,
         COALESCE('.' || quote_ident(t.attname), '') || ' IS ' || quote_literal(d.description),
         t.attname, true
    FROM view JOIN pg_catalog.pg_description d ON d.objoid = view.oid
     AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = view.oid AND t.attnum = d.objsubid
     AND d.objsubid > 0
  UNION ALL
  SELECT 6, 'COMMENT ON TRIGGER ' || quote_ident(g.tgname) || ' ON ',
         ' IS ' || quote_literal(d.description), NULL, true
    FROM view JOIN pg_catalog.pg_trigger g ON g.tgrelid = view.oid AND NOT g.tgisinternal
    JOIN pg_catalog.pg_description d ON d.objoid = g.oid
     AND d.classoid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  UNION ALL
  SELECT 7, 'ALTER VIEW ', ' OWNER TO ' || quote_ident(pg_catalog.pg_get_userbyid(relowner)),
         NULL, true
    FROM view WHERE relowner <> current_user::pg_catalog.regrole
)
SELECT before, after, "column"::text, stays FROM found ORDER BY place, before, after
