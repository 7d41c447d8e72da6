-- What else depends on a table, its partitions, the sequences that go with it or its
-- row type, and would not go with it: views, functions, defaults and columns of other
-- tables. Foreign keys stand apart.
WITH RECURSIVE part (oid) AS (
  SELECT %(table)s::oid
  UNION ALL
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i
    JOIN part ON part.oid = i.inhparent
   WHERE NOT i.inhdetachpending
), own (class, oid) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid FROM part
  UNION
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, s.oid
    FROM pg_catalog.pg_depend d
    JOIN part ON part.oid = d.refobjid
    JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     AND d.deptype IN ('a', 'i')
  UNION
  SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::oid, t.oid
    FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    JOIN part ON part.oid = t.typrelid OR part.oid = e.typrelid
)
SELECT DISTINCT CASE WHEN v.oid IS NULL
         THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
         ELSE pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, v.ev_class, 0)
       END AS what
  FROM pg_catalog.pg_depend d
  JOIN own ON own.class = d.refclassid AND own.oid = d.refobjid
  LEFT JOIN pg_catalog.pg_rewrite v
    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND v.oid = d.objid
   AND v.rulename = '_RETURN'
 WHERE d.deptype = 'n'
   AND NOT EXISTS (SELECT FROM own o WHERE o.class = d.classid AND o.oid = d.objid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN part ON part.oid = t.tgrelid
                    WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN part ON part.oid = p.polrelid
                    WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w JOIN part ON part.oid = w.ev_class
                    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef a JOIN part ON part.oid = a.adrelid
                    WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                    WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
                      AND (k.contype = 'f' OR k.conrelid IN (SELECT oid FROM part)))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN part ON part.oid = i.indrelid
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = d.objid)
 ORDER BY 1
