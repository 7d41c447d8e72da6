-- What hangs on a function or procedure, as SQL around the name of another one:
-- privileges, comment, owner. What everybody has by default comes off first.
WITH function AS (
  SELECT p.* FROM pg_catalog.pg_proc p
   WHERE p.oid = pg_catalog.to_regprocedure(%(function)s)
), found (place, before, after) AS (
  SELECT 1, 'REVOKE ALL ON ROUTINE ', ' FROM PUBLIC' FROM function
  UNION ALL
  SELECT DISTINCT 1, 'REVOKE ALL ON ROUTINE ',
         ' FROM ' || quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
    FROM function, pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
   WHERE d.defaclobjtype = 'f' AND d.defaclrole = current_user::pg_catalog.regrole
     AND d.defaclnamespace IN (0, function.pronamespace)
     AND a.grantee NOT IN (0, d.defaclrole)
  UNION ALL
  SELECT 2, 'GRANT EXECUTE ON ROUTINE ', ' TO ' || CASE a.grantee WHEN 0 THEN 'PUBLIC'
           ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
         || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM function, pg_catalog.aclexplode(
           COALESCE(proacl, pg_catalog.acldefault('f', proowner))) a
   WHERE a.grantee <> proowner
  UNION ALL
  SELECT 3, 'COMMENT ON ROUTINE ', ' IS ' || quote_literal(d.description)
    FROM function JOIN pg_catalog.pg_description d ON d.objoid = function.oid
     AND d.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION ALL
  SELECT 4, 'ALTER ROUTINE ', ' OWNER TO ' || quote_ident(pg_catalog.pg_get_userbyid(proowner))
    FROM function WHERE proowner <> current_user::pg_catalog.regrole
)
SELECT before, after, NULL::text AS "column", true AS stays
  FROM found ORDER BY place, before, after
