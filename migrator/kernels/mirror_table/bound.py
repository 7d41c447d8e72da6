"""What knows a table by its number, taken along by the one that gets its name.

A view, a rule of one and a publication stay with the table that they were made over,
whatever its name is. So in the transaction that exchanges names each is spelt while the
names are as they were, and that is run again once they name the other table. Both are
asked of the catalogue under the locks: what was made or changed since the plan was read
goes along, on the way back too.

A view keeps its owner, privileges, defaults, triggers, rules and comments when it is
replaced (manual, CREATE VIEW, Notes), and what reads it goes on reading it.
"""

from dataclasses import replace

from psycopg import sql

from migrator.facts import Table
from migrator.kernels import replaced
from migrator.names import TableName
from migrator.plan import Lock, Refusal, TableLock, Transaction, render, type_name

#: What to do with what is not made again over another table.
STAYS = (
    "drop what depends on it first, and make it again afterwards; in the place of a"
    " materialized view put a view meanwhile, which goes along."
)
# Rules of views that depend on the table; `_RETURN` is what makes a view.
_RULES = (
    "SELECT DISTINCT w.oid, w.ev_class, w.rulename FROM pg_catalog.pg_depend d"
    " JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
    " JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind = 'v'"
    " AND v.relpersistence <> 't'"
    " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.refobjid = {table}::pg_catalog.regclass"
)

# A view before those that it reads: its users lock them in that order.
_VIEWS = (
    f"WITH RECURSIVE rule AS ({_RULES}), under (view, reads) AS (SELECT ev_class,"
    " ev_class FROM rule UNION SELECT u.view, c.oid FROM under u"
    " JOIN pg_catalog.pg_rewrite w ON w.ev_class = u.reads"
    " JOIN pg_catalog.pg_depend d ON d.objid = w.oid"
    " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind = 'v')"
    " SELECT pg_catalog.format('ALTER VIEW %I.%I OWNER TO %I', n.nspname, v.relname,"
    " pg_catalog.pg_get_userbyid(v.relowner)) FROM under"
    " JOIN pg_catalog.pg_class v ON v.oid = under.view"
    " JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace"
    " GROUP BY v.oid, v.relname, v.relowner, n.nspname"
    " ORDER BY pg_catalog.count(*) DESC, n.nspname, v.relname"
)

_SPELT = (
    f"WITH rule AS ({_RULES}), made (place, statement) AS ("
    "SELECT 1, 'CREATE OR REPLACE VIEW '"
    " || pg_catalog.format('%I.%I', n.nspname, v.relname)"
    " || COALESCE((SELECT ' WITH (' || pg_catalog.string_agg("
    "pg_catalog.format('%I = %L', option_name, option_value), ', ') || ')'"
    " FROM pg_catalog.pg_options_to_table(v.reloptions)), '')"
    " || ' AS ' || pg_catalog.pg_get_viewdef(v.oid)"
    " FROM rule JOIN pg_catalog.pg_class v ON v.oid = rule.ev_class"
    " JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace"
    " WHERE rule.rulename = '_RETURN'"
    " UNION ALL SELECT 2, 'CREATE OR REPLACE'"
    " || pg_catalog.substr(pg_catalog.pg_get_ruledef(oid), 7)"
    " FROM rule WHERE rulename <> '_RETURN'"
    " UNION ALL SELECT m.place, pg_catalog.format('ALTER PUBLICATION %I ', p.pubname)"
    " || m.statement FROM pg_catalog.pg_publication_rel r"
    " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid CROSS JOIN LATERAL (VALUES"
    " (3, 'DROP TABLE ' || {away}), (4, 'ADD TABLE ' || {table}"
    " || COALESCE((SELECT ' (' || pg_catalog.string_agg(pg_catalog.quote_ident("
    "a.attname), ', ' ORDER BY a.attnum) || ')' FROM pg_catalog.pg_attribute a"
    " WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)), '')"
    " || COALESCE(' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', '')"
    ")) AS m (place, statement) WHERE r.prrelid = {table}::pg_catalog.regclass)"
    " SELECT pg_catalog.set_config('migrator.bound', COALESCE((SELECT"
    " pg_catalog.jsonb_agg(statement ORDER BY place, statement)::text FROM made),"
    " '[]'), true)"
)

_MADE_AGAIN = (
    "DECLARE _one text; BEGIN FOR _one IN SELECT e.value FROM"
    " pg_catalog.jsonb_array_elements_text(pg_catalog.current_setting("
    "'migrator.bound')::pg_catalog.jsonb) AS e (value) LOOP EXECUTE _one; END LOOP; END"
)

# What depends on a table or its row type, goes with neither, and is not made again.
_LEFT = (
    "SELECT DISTINCT CASE WHEN w.rulename = '_RETURN' THEN"
    " 'pg_catalog.pg_class'::pg_catalog.regclass::oid ELSE d.classid END AS class,"
    " CASE WHEN w.rulename = '_RETURN' THEN w.ev_class ELSE d.objid END AS oid,"
    " CASE WHEN w.rulename = '_RETURN' THEN 0 ELSE d.objsubid END AS part"
    " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.oid = c.reltype"
    " JOIN pg_catalog.pg_depend d ON d.deptype = 'n'"
    " AND (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.refobjid = c.oid"
    " OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
    " AND d.refobjid IN (t.oid, t.typarray))"
    " LEFT JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    " LEFT JOIN pg_catalog.pg_class v ON v.oid = w.ev_class"
    " WHERE c.oid = {table}::pg_catalog.regclass"
    " AND (v.relkind = 'v' AND v.relpersistence <> 't'"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) IS NOT TRUE"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid"
    " AND g.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass)"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid"
    " AND p.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass)"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r"
    " WHERE r.prrelid = c.oid AND r.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass)"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef a WHERE a.adrelid = c.oid"
    " AND a.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass)"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = d.objid"
    " AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass"
    " AND (k.contype = 'f' OR k.conrelid = c.oid))"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid"
    " AND i.indexrelid = d.objid"
    " AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)"
)


def rebound(
    work: Transaction,
    table: Table,
    away: TableName,
    *,
    may_be_gone: tuple[TableName, ...] = (),
) -> Transaction:
    """
    Return an exchange of names after which nothing is left with the former table.

    Args:
        work: the exchange; its first statement locks the table.
        table: the one that has the name before, and whose views are known.
        away: the name that it has afterwards.
        may_be_gone: those among the tables that it locks which somebody may have
            dropped or renamed by then; without them it goes on.
    """
    lock, *rest = work.statements
    views = tuple(v.name for v in table.views)
    locks: tuple[str, ...] = (lock,)
    if views:
        others = (a.table for a in work.also if a.table not in may_be_gone)
        locks = _locked(table.name, *others, gone=may_be_gone)
    return replace(
        work,
        statements=(
            *locks,
            *map(render, spelt(table.name, away)),
            *rest,
            render(MADE_AGAIN),
        ),
        also=(
            *(TableLock(table=v, lock=Lock.ACCESS_EXCLUSIVE) for v in views),
            *(replace(a, if_there=a.table in may_be_gone) for a in work.also),
        ),
        refusals=(*work.refusals, _nothing_left(table.name)),
    )


def spelt(table: TableName, away: TableName) -> tuple[sql.Composable, ...]:
    """Return the statements that note what `MADE_AGAIN` is to run; see `rebound`."""
    # Under this path all other names are spelt with their schemas.
    return (
        type_name(replaced.FULL_NAMES),
        sql.SQL(_SPELT).format(
            table=sql.Literal(str(table)), away=sql.Literal(str(away))
        ),
    )


#: The statement that runs what `spelt` has noted.
MADE_AGAIN = sql.SQL("DO {}").format(sql.Literal(_MADE_AGAIN))


def _locked(
    table: TableName, *others: TableName, gone: tuple[TableName, ...]
) -> tuple[str, str]:
    """
    Return the statements that lock the views over a table, then that one and others.

    Requests take them in this order: who reads a view locks it first, and a trigger of
    the table writes another one. Those that use the table before a view of it let the
    other order through, which every second try takes. LOCK TABLE would lock all that a
    view reads; the owner that it gets is the one that it has.
    """
    views = sql.SQL(
        "DECLARE _one text; BEGIN FOR _one IN {} LOOP EXECUTE _one; END LOOP; END"
    ).format(sql.SQL(_VIEWS).format(table=sql.Literal(str(table))))
    tables = sql.SQL("LOCK TABLE {} IN {} MODE").format(
        sql.SQL(", ").join(t.identifier for t in (table, *others)),
        sql.SQL(Lock.ACCESS_EXCLUSIVE.value),
    )
    if gone:
        block = sql.SQL("BEGIN {}; {} END").format(tables, _if_there(gone))
        tables = sql.SQL("DO {}").format(sql.Literal(render(block)))
    return render(sql.SQL("DO {}").format(sql.Literal(render(views)))), render(tables)


def _if_there(tables: tuple[TableName, ...]) -> sql.Composable:
    """Return the locks of tables, as far as these are there."""
    one = sql.SQL(
        "IF pg_catalog.to_regclass({}) IS NOT NULL THEN LOCK TABLE {} IN {} MODE;"
        " END IF;"
    )
    return sql.SQL(" ").join(
        one.format(
            sql.Literal(str(t)), t.identifier, sql.SQL(Lock.ACCESS_EXCLUSIVE.value)
        )
        for t in sorted(tables)
    )


def _nothing_left(table: TableName) -> Refusal:
    """Return the condition that nothing hangs on a table that would stay with it."""
    left = sql.SQL(_LEFT).format(table=sql.Literal(str(table)))
    return Refusal(
        count=render(sql.SQL("SELECT count(*) FROM ({}) AS l").format(left)),
        listed=render(
            sql.SQL(
                "SELECT pg_catalog.string_agg(pg_catalog.pg_describe_object("
                "class, oid, part), ', ') FROM ({}) AS l"
            ).format(left)
        ),
        why=f"{{listed}} would stay with the table that is {table} now",
        next=STAYS,
    )
