"""Views made, replaced, renamed and dropped, each under its own lock alone."""

from dataclasses import replace
from typing import LiteralString

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Attached, Facts
from migrator.kernels import replaced
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Probe,
    Refusal,
    TableLock,
    Transaction,
    render,
)

_TRIAL = "'pg_temp.migrator_trial'::pg_catalog.regclass"
# Columns of a view and of the trial, place by place; a dropped one there is not.
_COLUMNS = (
    "(SELECT * FROM pg_catalog.pg_attribute WHERE attrelid"
    " = pg_catalog.to_regclass({view}) AND attnum > 0) AS old FULL JOIN"
    " (SELECT * FROM pg_catalog.pg_attribute WHERE attrelid"
    f" = {_TRIAL} AND attnum > 0) AS new"
)
_SAME = (
    "(new.attname, new.atttypid, new.atttypmod, new.attcollation) IS NOT DISTINCT FROM"
    " (old.attname, old.atttypid, old.atttypmod, old.attcollation)"
)
# What the trial reads, through other views as well.
_READ = (
    "WITH RECURSIVE used (oid) AS (SELECT"
    f" {_TRIAL}::oid UNION SELECT d.refobjid FROM used"
    " JOIN pg_catalog.pg_rewrite w ON w.ev_class = used.oid"
    " JOIN pg_catalog.pg_depend d ON d.objid = w.oid"
    " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)"
    " SELECT pg_catalog.to_regclass({view}) NOT IN (SELECT oid FROM used)"
)

# A view reads as its owner, unless it is to do so as its reader.
_READABLE = (
    "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w"
    " JOIN pg_catalog.pg_depend d ON d.objid = w.oid"
    " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    f" WHERE w.ev_class = {_TRIAL} AND d.refobjid <> w.ev_class"
    " AND NOT pg_catalog.has_table_privilege({owner}, d.refobjid, 'SELECT')"
    " AND NOT pg_catalog.has_any_column_privilege({owner}, d.refobjid, 'SELECT'))"
    " OR EXISTS (SELECT FROM pg_catalog.pg_class c,"
    " pg_catalog.pg_options_to_table(c.reloptions)"
    " WHERE c.oid = pg_catalog.to_regclass({view})"
    " AND option_name = 'security_invoker' AND option_value::bool)"
)


def require_view(facts: Facts) -> None:
    """
    Refuse what is no view that the role can change.

    Raises:
        Refused: says what it is.
    """
    table = facts.table
    if table.kind == "m":
        raise Refused(
            f"{table.name} is a materialized view: it holds rows, and its definition"
            " does not change.",
            next="make one of another name, with its indexes, then drop this one.",
        )
    if table.kind != "v":
        raise Refused(f"{table.name} is no view.", next="name a view.")
    if table.is_temporary:
        raise Refused(
            f"View {table.name} is temporary: no other session sees it.",
            next="use plain SQL.",
        )
    if not table.owned:
        raise Refused(
            f"The role of this connection does not own view {table.name}.",
            next="connect as the owner, or as a member of the owner's role.",
        )


def questions(facts: Facts, definition: str) -> dict[str, Probe]:
    """
    Return what a definition is like, beside the view's.

    Keys: `defined` where the server takes it at all; `in_place` where the view's
    columns come first, as they are; `same_columns` where no others follow;
    `writable` where all can be written that can be through the view; `no_rules`
    where the view has none of its own; `column …` where it has what something
    hangs on.
    """
    view = sql.Literal(str(facts.table.name))

    def asked(text: LiteralString) -> Probe:
        question = render(sql.SQL(text).format(view=view))
        return Probe(
            statements=(_trial(definition),), question=question, otherwise="no"
        )

    found = {
        "defined": asked("SELECT true"),
        "in_place": asked(
            f"SELECT NOT EXISTS (SELECT FROM {_COLUMNS} USING (attnum)"
            f" WHERE old.attname IS NOT NULL AND NOT {_SAME})"
        ),
        "same_columns": asked(
            f"SELECT NOT EXISTS (SELECT FROM {_COLUMNS} USING (attnum)"
            f" WHERE NOT {_SAME})"
        ),
        "writable": asked(
            # What an INSTEAD OF trigger does is not lost. Bits: manual, section 9.27.
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger"
            " WHERE tgrelid = pg_catalog.to_regclass({view}) AND tgtype & 64 = 64)"
            " OR pg_catalog.pg_relation_is_updatable("
            "pg_catalog.to_regclass({view}), false)"
            f" & ~pg_catalog.pg_relation_is_updatable({_TRIAL}, false) = 0"
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute old"
            " WHERE old.attrelid = pg_catalog.to_regclass({view}) AND old.attnum > 0"
            " AND pg_catalog.pg_column_is_updatable(old.attrelid, old.attnum, false)"
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute new"
            f" WHERE new.attrelid = {_TRIAL} AND new.attname = old.attname"
            " AND pg_catalog.pg_column_is_updatable(new.attrelid, new.attnum, false)))"
        ),
        "no_rules": replace(
            asked(
                "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class"
                " = pg_catalog.to_regclass({view}) AND rulename <> '_RETURN')"
            ),
            statements=(),
        ),
    }
    for column in {a.column for a in facts.attached if a.column is not None}:
        found[f"column {column}"] = Probe(
            statements=(_trial(definition),),
            question=render(
                sql.SQL(
                    "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute"
                    f" WHERE attrelid = {_TRIAL} AND attname = {{}})"
                ).format(sql.Literal(column))
            ),
            otherwise="no",
        )
    return found


def reading(definition: str) -> Probe:
    """Return the question how the server spells a definition, with full names."""
    return Probe(
        statements=(_trial(definition), replaced.FULL_NAMES),
        question=f"SELECT pg_catalog.pg_get_viewdef({_TRIAL})",
        otherwise="no",
    )


def changed(view: TableName, *known: str | None) -> tuple[Refusal, ...]:
    """
    Return the condition that a view is as the change made it, or as it was.

    Args:
        view: the view.
        known: its definitions, with full names; see `replaced.changed`.
    """
    # Conditions are read behind the lock alone, and the path decides what is spelt.
    found = sql.SQL(
        "(WITH path AS MATERIALIZED (SELECT pg_catalog.set_config('search_path',"
        " 'pg_catalog', true)) SELECT pg_catalog.pg_get_viewdef("
        "pg_catalog.to_regclass({})) FROM path)"
    ).format(sql.Literal(str(view)))
    way_on = replaced.IN_PLACE if len(known) > 1 else replaced.BESIDE
    return replaced.changed(f"view {view}", found, *known, next=way_on)


def answer(facts: Facts, key: str) -> bool:
    """Return an answer; yes where the definition is refused, which a probe tells."""
    return not facts.answers.get("defined", True) or facts.answers.get(key, True)


# How long rows of a new definition are read for: one that sorts or sums up all rows of
# a large table is not waited for.
_TRIED_MS = 500
# No answer is none: by then it has not failed, or this role may not read what the
# view's owner may.
_TRIED = """
DO $$ BEGIN
  PERFORM pg_catalog.count(tried) FROM (
    SELECT one AS tried FROM pg_temp.migrator_trial AS one LIMIT 100) AS sampled;
EXCEPTION WHEN query_canceled OR insufficient_privilege THEN NULL;
END $$
"""


def probes(title: str, facts: Facts, view: TableName, given: str) -> tuple[Probe, ...]:
    """Return the trial of a definition under the view's options."""
    trial = sql.Identifier("pg_temp", "migrator_trial")
    lost = tuple(a for a in facts.attached if not a.stays)
    options = map(render, replaced.given_on(lost, trial))
    owner = facts.table.owner
    return (
        Probe(
            statements=(_trial(given), *options),
            question=render(sql.SQL(_READ).format(view=sql.Literal(str(view)))),
            otherwise=f"{title}: its definition reads the view itself, or one that"
            " does.",
            next="write out what the view reads.",
            failed=f"{title}: the server refuses its definition",
        ),
        Probe(
            statements=(_trial(given),),
            question=render(
                sql.SQL(_READABLE).format(
                    view=sql.Literal(str(facts.table.name)), owner=sql.Literal(owner)
                )
            ),
            otherwise=f'{title}: role "{owner}", which owns the view, may not read all'
            " that its definition reads.",
            next="grant it SELECT on that.",
        ),
        Probe(
            statements=(
                _trial(given),
                f"SET LOCAL statement_timeout = '{_TRIED_MS}ms'",
                _TRIED,
                "SET LOCAL statement_timeout = 0",
            ),
            question="SELECT true",
            otherwise="",
            failed=f"{title}: its definition fails for rows that are there",
            next="correct it: whoever reads the view would meet that.",
        ),
    )


def _trial(definition: str) -> str:
    return render(
        sql.SQL("CREATE TEMP VIEW migrator_trial AS {}").format(
            replaced.text(definition)
        )
    )


def carried(facts: Facts) -> tuple[Attached, ...]:
    """Return what hangs on the view and can hang on one of the new definition."""
    return tuple(
        a
        for a in facts.attached
        if a.column is None or answer(facts, f"column {a.column}")
    )


def create(view: TableName, text: str | None, *, again: bool = False) -> sql.Composed:
    """Return the statement that makes a view."""
    return sql.SQL("CREATE {}VIEW {} AS {}").format(
        sql.SQL("OR REPLACE " if again else ""), view.identifier, replaced.text(text)
    )


def drop(view: TableName) -> sql.Composed:
    """Return the drop of a view."""
    return sql.SQL("DROP VIEW {}").format(view.identifier)


def rename(given: TableName, wanted: TableName) -> sql.Composed:
    """Return the rename of a view; what reads it goes on reading it."""
    return sql.SQL("ALTER VIEW {} RENAME TO {}").format(
        given.identifier, sql.Identifier(wanted.name)
    )


# Whoever has a privilege on the one view gets it on the other one, where that has the
# column, and nobody else; what came while both stood there is not known when a step is
# written.
_SAME_PRIVILEGES = """
DECLARE one text; BEGIN FOR one IN
  WITH given AS (
    SELECT a.grantee, a.is_grantable, a.privilege_type AS what
      FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
     WHERE c.oid = pg_catalog.to_regclass({of}) AND a.grantee <> c.relowner
    UNION ALL
    SELECT a.grantee, a.is_grantable,
           pg_catalog.format('%s (%I)', a.privilege_type, t.attname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid,
           pg_catalog.aclexplode(t.attacl) a
     WHERE c.oid = pg_catalog.to_regclass({of}) AND a.grantee <> c.relowner
       AND t.attname IN (
       SELECT n.attname FROM pg_catalog.pg_attribute n
        WHERE n.attrelid = pg_catalog.to_regclass({to}))
  ), taken AS (
    SELECT a.grantee
      FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
     WHERE c.oid = pg_catalog.to_regclass({to}) AND a.grantee <> c.relowner
    UNION
    SELECT a.grantee
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid,
           pg_catalog.aclexplode(t.attacl) a
     WHERE c.oid = pg_catalog.to_regclass({to}) AND a.grantee <> c.relowner
  ), told (place, text, grantee, more) AS (
    SELECT 1, 'REVOKE ALL ON %s FROM %s', grantee, ' CASCADE' FROM taken
    UNION ALL
    SELECT 2, 'GRANT ' || pg_catalog.replace(what, '%', '%%') || ' ON %s TO %s',
           grantee, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
      FROM given
  )
  SELECT pg_catalog.format(text, {to}, CASE grantee WHEN 0 THEN 'PUBLIC'
           ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END)
         || more
    FROM told ORDER BY place
LOOP EXECUTE one; END LOOP; END
"""


def same_privileges(of: TableName, to: TableName) -> sql.Composed:
    """Return what gives one view the privileges that there are on another one."""
    body = sql.SQL(_SAME_PRIVILEGES).format(
        of=sql.Literal(str(of)), to=sql.Literal(str(to))
    )
    # In quotes, since a name may have whatever stands between dollar signs.
    return sql.SQL("DO {}").format(sql.Literal(render(body)))


def locked(view: TableName, owner: str) -> str:
    """
    Return the statement that takes a view's lock first, and changes nothing.

    LOCK TABLE would lock what the view reads as strongly (manual, LOCK, Description).
    """
    return render(
        sql.SQL("ALTER VIEW {} OWNER TO {}").format(
            view.identifier, sql.Identifier(owner)
        )
    )


def step(
    facts: Facts,
    view: TableName,
    *statements: sql.Composable,
    path: str = replaced.FULL_NAMES,
    also: tuple[TableName, ...] = (),
    refusals: tuple[Refusal, ...] = (),
) -> Transaction:
    """
    Return a transaction that locks a view, then changes it.

    Args:
        facts: with the owner.
        view: the view.
        statements: what is changed.
        path: the search path under which they are read.
        also: further views that they lock.
        refusals: conditions read under the first lock.
    """
    owner = facts.table.owner
    return Transaction(
        statements=(
            locked(view, owner),
            *(locked(other, owner) for other in also),
            path,
            *(render(s) for s in statements),
        ),
        lock=Lock.ACCESS_EXCLUSIVE,
        table=view,
        refusals=refusals,
        also=tuple(TableLock(table=t, lock=Lock.ACCESS_EXCLUSIVE) for t in also),
    )


def unused(view: TableName, next: str) -> Refusal:
    """Return the condition that nothing depends on a view or its row type."""
    users = sql.SQL(
        "SELECT DISTINCT d.classid, d.objid"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d"
        " ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND d.refobjid = c.oid"
        " OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
        " AND d.refobjid = c.reltype"
        " WHERE c.oid = pg_catalog.to_regclass({}) AND d.deptype = 'n'"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w"
        " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
        " AND w.oid = d.objid AND w.ev_class = c.oid)"
    ).format(sql.Literal(str(view)))
    return Refusal(
        count=render(sql.SQL("SELECT count(*) FROM ({}) AS used").format(users)),
        listed=render(
            sql.SQL(
                "SELECT pg_catalog.string_agg(what, '; ' ORDER BY what) FROM (SELECT"
                " DISTINCT CASE WHEN w.rulename = '_RETURN' THEN"
                " pg_catalog.pg_describe_object("
                "'pg_catalog.pg_class'::pg_catalog.regclass, w.ev_class, 0)"
                " ELSE pg_catalog.pg_describe_object(classid, objid, 0) END AS what"
                " FROM ({}) AS used LEFT JOIN pg_catalog.pg_rewrite w ON"
                " classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
                " AND w.oid = objid) AS told"
            ).format(users)
        ),
        why=f"{{count:other object depends|other objects depend}} on view {view}:"
        " {listed}",
        next=next,
    )
