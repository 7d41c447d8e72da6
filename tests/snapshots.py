"""What the catalogue says of a schema, to be compared before and after a change."""

import psycopg

# Each query gives the name of an object and what it is like. Names are spelt under an
# empty search path, so that they have their schemas.
QUERIES = {
    "relation": """
      SELECT c.oid::regclass, c.relkind, pg_get_userbyid(c.relowner), c.relpersistence,
             (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace),
             (SELECT amname FROM pg_am WHERE oid = c.relam),
             c.reloptions, t.reloptions, c.relreplident, c.relrowsecurity,
             c.relforcerowsecurity,
             obj_description(c.oid, 'pg_class'),
             (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a),
             CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END
        FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
       WHERE {here} AND c.relkind NOT IN ('i', 'I')""",
    "column": """
      SELECT c.oid::regclass || '.' || a.attname,
             format_type(a.atttypid, a.atttypmod), a.attnotnull,
             pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated,
             a.attstorage, a.attcompression, NULLIF(a.attstattarget, -1), a.attoptions,
             a.attcollation::regcollation, col_description(c.oid, a.attnum),
             (SELECT array_agg(g::text ORDER BY g::text) FROM unnest(a.attacl) g)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
       WHERE {here} AND c.relkind IN ('r', 'p', 'v', 'm')""",
    "index": """
      SELECT x.oid::regclass, pg_get_indexdef(x.oid), i.indisvalid, i.indisprimary,
             i.indisreplident, i.indisclustered, obj_description(x.oid, 'pg_class'),
             (SELECT spcname FROM pg_tablespace WHERE oid = x.reltablespace),
             x.reloptions,
             (SELECT array_agg(a.attnum || ':' || a.attstattarget ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0)
        FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
        JOIN pg_class x ON x.oid = i.indexrelid WHERE {here} AND c.relkind <> 't'""",
    # In 18 a NOT NULL is one; columns tell it for all versions.
    "constraint": """
      SELECT c.oid::regclass || ' ' || k.conname, pg_get_constraintdef(k.oid),
             k.convalidated, obj_description(k.oid, 'pg_constraint')
        FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid
       WHERE {here} AND k.contype <> 'n'""",
    # The names that a team gave to a NOT NULL, where the server knows any.
    "not null": """
      SELECT c.oid::regclass || ' ' || k.conname, pg_get_constraintdef(k.oid),
             k.convalidated, obj_description(k.oid, 'pg_constraint')
        FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid
       WHERE {here} AND k.contype = 'n' AND k.conname LIKE 'given%'""",
    "partition": """
      SELECT c.oid::regclass, i.inhparent::regclass, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE {here}""",
    "trigger": """
      SELECT c.oid::regclass || ' ' || t.tgname, pg_get_triggerdef(t.oid), t.tgenabled,
             obj_description(t.oid, 'pg_trigger')
        FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
       WHERE {here}""",
    "policy": """
      SELECT c.oid::regclass || ' ' || p.polname, p.polcmd, p.polpermissive,
             p.polroles::regrole[], pg_get_expr(p.polqual, c.oid),
             pg_get_expr(p.polwithcheck, c.oid), obj_description(p.oid, 'pg_policy')
        FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid WHERE {here}""",
    "rule": """
      SELECT c.oid::regclass || ' ' || r.rulename, pg_get_ruledef(r.oid), r.ev_enabled
        FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid
         AND r.rulename <> '_RETURN' WHERE {here}""",
    "sequence": """
      SELECT c.oid::regclass, format_type(s.seqtypid, NULL), s.seqstart,
             s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, d.deptype,
             d.refobjid::regclass || '.' || a.attname
        FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
         AND d.deptype IN ('a', 'i') LEFT JOIN pg_attribute a
          ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE {here}""",
    "statistics": """
      SELECT s.stxname, pg_get_statisticsobjdef(s.oid), pg_get_userbyid(s.stxowner),
             NULLIF(s.stxstattarget, -1), obj_description(s.oid, 'pg_statistic_ext')
        FROM pg_class c JOIN pg_statistic_ext s ON s.stxrelid = c.oid WHERE {here}""",
    "publication": """
      SELECT p.pubname || ' ' || c.oid::regclass, pg_get_expr(r.prqual, r.prrelid),
             (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs))
        FROM pg_class c JOIN pg_publication_rel r ON r.prrelid = c.oid
        JOIN pg_publication p ON p.oid = r.prpubid WHERE {here}""",
    # Of enums and domains.
    "type": """
      SELECT y.oid::regtype, pg_get_userbyid(y.typowner), y.typnotnull, y.typdefault,
             format_type(NULLIF(y.typbasetype, 0), y.typtypmod),
             obj_description(y.oid, 'pg_type'),
             (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(y.typacl) a),
             (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e
               WHERE e.enumtypid = y.oid),
             (SELECT array_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid),
                obj_description(k.oid, 'pg_constraint')) ORDER BY k.conname)
                FROM pg_constraint k WHERE k.contypid = y.oid)
        FROM pg_type y WHERE y.typtype IN ('e', 'd')
         AND y.typnamespace::regnamespace::text = ANY (ARRAY[{wanted}])""",
    "function of migrator": """
      SELECT p.proname FROM pg_proc p WHERE p.proname LIKE 'mirror%'
         AND p.pronamespace = to_regnamespace('migrator')""",
}
_HERE = "c.relnamespace::regnamespace::text = ANY (ARRAY[{}])"


def snapshot(sql: psycopg.Connection, *schemas: str) -> dict[str, str]:
    """
    Return what there is in schemas: the name of each object, with what it is like.

    Args:
        sql: a connection; in a transaction it sees what that did.
        schemas: "public" where none is given.
    """
    wanted = ", ".join(f"'{schema}'" for schema in schemas or ("public",))
    found: dict[str, str] = {}
    with sql.transaction():
        sql.execute("SET LOCAL search_path = ''")
        for kind, query in QUERIES.items():
            text = query.format(here=_HERE.format(wanted), wanted=wanted)
            for name, *like in sql.execute(text.encode()).fetchall():
                if kind == "sequence":
                    # How many numbers were tried and left is nobody's business.
                    stands = f"SELECT last_value FROM {name} WHERE NOT is_called"
                    like.append(sql.execute(stands.encode()).fetchone())
                found[f"{kind} {name}"] = ", ".join(map(str, like))
        sql.execute("RESET search_path")
    return found


def same(found: dict[str, str], wanted: dict[str, str]) -> None:
    """Assert that two snapshots are alike."""
    apart = [
        f"{name}:\n  found  {found.get(name)}\n  wanted {wanted.get(name)}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    assert not apart, "\n".join(apart)


def held(state: dict[str, str]) -> dict[str, str]:
    """Return the indexes and constraints of a snapshot, proved of rows or not."""
    return {
        name: like.replace(" NOT VALID, False", ", True")
        for name, like in state.items()
        if name.startswith(("index", "constraint"))
    }
