-- A table's kind, size and what could make a change on it impossible.
SELECT c.oid::bigint AS oid,
       c.relkind::text AS kind,
       NOT c.relispartition
         AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS is_child,
       c.relkind <> 'p'
         AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid) AS has_children,
       c.relpersistence = 't' AS is_temporary,
       c.relpersistence = 'u' AS is_unlogged,
       pg_catalog.row_security_active(c.oid) AS row_security,
       -- Never analysed: a guess at 100 bytes a row.
       CASE WHEN c.reltuples >= 0 THEN c.reltuples
            ELSE pg_catalog.pg_relation_size(c.oid) / 100 END::bigint AS rows,
       pg_catalog.pg_total_relation_size(c.oid) AS size_bytes,
       COALESCE((SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                  WHERE option_name = 'fillfactor'), 100) AS fillfactor,
       -- Width of a row with its header and line pointer, against what its share
       -- of the pages is (manual, section 66.6).
       CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN
         (SELECT (sum(s.avg_width * (1 - s.null_frac)) + 28) * c.reltuples
                 / (c.relpages * current_setting('block_size')::float8)
            FROM pg_catalog.pg_stats s
           WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited)
       END AS filled,
       COALESCE((SELECT amname::text FROM pg_catalog.pg_am WHERE oid = c.relam), '') AS method,
       NULLIF(c.reloftype, 0)::pg_catalog.regtype::text AS of_type,
       (SELECT e.extname::text FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
           AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
           AND d.deptype = 'e') AS extension,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       ARRAY(
         SELECT s.prefix || pg_catalog.quote_ident(o.option_name) || ' = '
                || pg_catalog.quote_literal(o.option_value)
           FROM (SELECT '' AS prefix, c.reloptions AS options
                  UNION ALL
                 SELECT 'toast.', t.reloptions FROM pg_catalog.pg_class t
                  WHERE t.oid = c.reltoastrelid) s
          CROSS JOIN pg_catalog.pg_options_to_table(s.options) o
       ) AS options,
       (SELECT pg_catalog.quote_ident(spcname) FROM pg_catalog.pg_tablespace
         WHERE oid = c.reltablespace) AS tablespace,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       CASE c.relreplident WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL'
                           WHEN 'i' THEN 'INDEX' ELSE 'DEFAULT' END AS replica_identity,
       ARRAY(
         SELECT p.pubname::text FROM pg_catalog.pg_publication p
          WHERE c.relkind IN ('r', 'p') AND (p.puballtables
             OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel pr
                         WHERE pr.prpubid = p.oid AND (pr.prrelid = c.oid OR pr.prrelid IN
                           (SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid))))
             OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace pn
                         WHERE pn.pnpubid = p.oid AND pn.pnnspid = c.relnamespace))
          ORDER BY p.pubname
       ) AS publications,
       -- Type "2" is UPDATE; "O" and "A" is what counts for an ordinary session.
       COALESCE((
         SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                  'name', w.rulename,
                  'described', pg_catalog.pg_describe_object(
                    'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, 0),
                  'on_update', w.ev_type = '2' AND w.ev_enabled IN ('O', 'A'),
                  'instead', w.is_instead) ORDER BY w.rulename)
           FROM pg_catalog.pg_rewrite w
          WHERE w.ev_class = c.oid AND w.rulename <> '_RETURN'
       ), '[]') AS rules,
       EXISTS (SELECT FROM pg_catalog.pg_subscription_rel sr WHERE sr.srrelid = c.oid) AS subscribed,
       COALESCE((SELECT o.rolsuper OR o.rolbypassrls FROM pg_catalog.pg_roles o
                  WHERE o.oid = c.relowner), false) AS owner_bypasses,
       c.relrowsecurity AS policies,
       c.relforcerowsecurity AS forces_policies,
       COALESCE((
         SELECT pg_catalog.json_agg(g ORDER BY g.role)
           FROM (SELECT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END AS role,
                        pg_catalog.array_agg(a.privilege_type ORDER BY a.privilege_type) AS privileges,
                        COALESCE(pg_catalog.array_agg(a.privilege_type ORDER BY a.privilege_type)
                                 FILTER (WHERE a.is_grantable), '{}') AS passed_on
                   FROM pg_catalog.aclexplode(c.relacl) a
                  WHERE a.grantee <> c.relowner GROUP BY 1) g
       ), '[]') AS grants,
       -- Of MAINTAIN (17+) a table that is older may know nothing.
       ARRAY(
         SELECT privilege_type FROM pg_catalog.aclexplode(pg_catalog.acldefault('r', c.relowner))
          WHERE c.relacl IS NOT NULL AND privilege_type <> 'MAINTAIN'
         EXCEPT
         SELECT privilege_type FROM pg_catalog.aclexplode(c.relacl) WHERE grantee = c.relowner
          ORDER BY 1
       ) AS owner_lacks,
       rn.nspname AS root_schema,
       r.relname AS root_name,
       pn.nspname AS parent_schema,
       p.relname AS parent_name,
       COALESCE(pg_catalog.pg_get_partkeydef(c.oid), '') AS partition_by,
       COALESCE(pg_catalog.pg_get_expr(c.relpartbound, c.oid), '') AS bounds
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class r
    ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
  LEFT JOIN pg_catalog.pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
  LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
  LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(name)s
