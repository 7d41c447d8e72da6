-- Publications that a table is part of: by its name, by its schema's, or as all are.
SELECT p.pubname::text AS name,
       p.puballtables OR pn.oid IS NOT NULL AS whole,
       pg_catalog.pg_describe_object('pg_catalog.pg_publication_rel'::pg_catalog.regclass, r.oid, 0) AS described,
       pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS owned,
       p.pubviaroot AS via_root,
       p.pubupdate OR p.pubdelete AS changes,
       ARRAY(
         SELECT a.attname::text FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs) ORDER BY a.attnum
       ) AS columns
  FROM pg_catalog.pg_class c
  CROSS JOIN pg_catalog.pg_publication p
  LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
  LEFT JOIN pg_catalog.pg_publication_namespace pn
    ON pn.pnpubid = p.oid AND pn.pnnspid = c.relnamespace
 WHERE c.oid = %(table)s::oid AND c.relkind IN ('r', 'p')
   AND (p.puballtables OR r.oid IS NOT NULL OR pn.oid IS NOT NULL)
 ORDER BY 1
