-- The value that a parameter has in a database, for a role, or for a role in one.
SELECT substr(one, strpos(one, '=') + 1) AS text
  FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
       unnest(s.setconfig) AS one
 WHERE lower(split_part(one, '=', 1)) = lower(%(name)s)
   AND concat_ws(' IN ', 'ROLE "' || replace(r.rolname, '"', '""') || '"',
                 'DATABASE "' || replace(d.datname, '"', '""') || '"') = %(scope)s
