"""What meets a table's rows as wholes, and so each change of its columns.

A function that returns rows of a table, or a trigger that copies OLD.* elsewhere,
counts on as many columns as it has: it breaks with the statement that adds one, or
drops one.

Source: PostgreSQL manual, sections 38.5.4 (SQL Functions on Composite Types) and
41.6.1 (RETURN QUERY).
"""

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels.direct import members
from migrator.names import TableName
from migrator.plan import Notice, render

# Statements whose columns are those that the table has by then.
_ALL = "Prepared SELECT *, INSERT … SELECT * and COPY without a column list"
_UNTIL = (
    "in each session until it is prepared anew"
    ' ("cached plan must not change result type").'
)


def not_stored(facts: Facts) -> str:
    """
    Return the condition that no column holds rows of the table, or of a partition.

    Where one does, the server refuses each ALTER TABLE that gives rows other values:
    another type, or a column with a default, be it free or not.
    """
    return render(
        sql.SQL(
            "NOT EXISTS (WITH RECURSIVE held (type) AS ("
            "SELECT c.reltype FROM pg_catalog.pg_class c WHERE c.oid IN ({})"
            " UNION SELECT made.type FROM held CROSS JOIN LATERAL ("
            # Its arrays, domains and ranges, and rows of other types with such columns.
            "SELECT t.oid FROM pg_catalog.pg_type t"
            " WHERE held.type IN (t.typelem, t.typbasetype)"
            " UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r"
            " WHERE r.rngsubtype = held.type"
            " UNION ALL SELECT c.reltype FROM pg_catalog.pg_attribute a"
            " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
            " WHERE c.relkind = 'c' AND a.atttypid = held.type) AS made (type))"
            " SELECT FROM pg_catalog.pg_attribute a"
            " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
            " JOIN held ON held.type = a.atttypid"
            " WHERE c.relkind IN ('r', 'm', 'p', 'i', 'I') AND NOT a.attisdropped)"
        ).format(members(facts.table.name))
    )


def compiled_anew(*tables: TableName) -> sql.Composable:
    """
    Return what lets sessions compile the functions of tables' triggers anew.

    PL/pgSQL keeps an expression with the types that a row's columns had when it first
    ran in a session: one that reads a column whose type has changed under its name
    fails from then on, and with it each write that fires the trigger. A function is
    compiled anew where its catalogue entry is another one. Looked for is what is there
    by then, since triggers come and go; functions of other roles are left.

    Args:
        tables: those with a column that changes its type.

    Source: PostgreSQL manual, section 41.11.2 (Plan Caching).
    """
    body = sql.SQL(
        """
DECLARE
  statement text;
  before text := pg_catalog.current_setting('lock_timeout');
BEGIN
  -- The table is locked: who makes a function anew just now is not waited for.
  PERFORM pg_catalog.set_config('lock_timeout', '10ms', true);
  FOR statement IN
    SELECT DISTINCT pg_catalog.format('ALTER FUNCTION %s COST %s',
             p.oid::pg_catalog.regprocedure, p.procost)
      FROM ({members}) AS part
      JOIN pg_catalog.pg_trigger t ON t.tgrelid = part.oid
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang
     WHERE NOT t.tgisinternal AND l.lanname = 'plpgsql'
       AND pg_catalog.pg_has_role(p.proowner, 'USAGE')
       AND pg_catalog.has_schema_privilege(p.pronamespace, 'USAGE')
     ORDER BY 1
  LOOP
    EXECUTE statement;
  END LOOP;
  PERFORM pg_catalog.set_config('lock_timeout', before, true);
EXCEPTION WHEN internal_error THEN
  -- Another session changes the same function ("tuple concurrently updated"), as a
  -- change of another table with that trigger does: all is tried again.
  RAISE serialization_failure USING MESSAGE = SQLERRM;
END
"""
    ).format(
        members=sql.SQL(" UNION ").join(
            sql.SQL("({})").format(members(table)) for table in tables
        )
    )
    return sql.SQL("DO {}").format(sql.Literal(render(body)))


#: What a reviewer should know of a type that changes under a column's name.
RETYPED = (
    "PL/pgSQL functions of the table's triggers are compiled anew with it, as far as"
    " this role owns them; any other one that reads the column of a row fails in each"
    ' session that ran it before, until that connects anew ("type of parameter … does'
    ' not match that when preparing the plan").'
)


def comes(facts: Facts, *, until: str = "") -> tuple[Notice, ...]:
    """
    Return what a reviewer should know of a table that gets a column at expand.

    Args:
        facts: of the table.
        until: when a column goes again; empty where none does.
    """
    when = f" until {until}" if until else ""
    return (
        Notice(
            text=f"{_ALL} see more columns of table {facts.table.name}{when}: a"
            f" prepared SELECT * fails {_UNTIL}"
        ),
        *breaks(facts),
    )


def goes(facts: Facts) -> tuple[Notice, ...]:
    """Return what a reviewer should know of a table that loses a column at the drop."""
    return (
        Notice(
            text=f"{_ALL} see a column of table {facts.table.name} under another name"
            " from retire on, and one less from the drop on: after either a prepared"
            f" SELECT * fails {_UNTIL}"
        ),
        *breaks(facts, "drop"),
    )


def breaks(facts: Facts, at: str = "expand") -> tuple[Notice, ...]:
    """
    Return a note on what may break with a table's number of columns.

    Args:
        facts: of the table, or the view.
        at: the phase in which that changes.
    """
    when = "the drop" if at == "drop" else at
    found: list[Notice] = []
    for user in facts.table.row_users:
        if user.trigger is not None:
            text = (
                f'The function of trigger "{user.trigger}", {user.function}, takes rows'
                " apart (OLD.*, NEW.*): where these fill another table or are listed,"
                f" every write that fires it breaks at {when}. Let it name columns"
                " first: INSERT INTO … (a, b) VALUES (OLD.a, OLD.b)."
            )
        else:
            text = (
                f"Function {user.function} returns rows of {facts.table.name}, or casts"
                " to them: where it lists their columns, it breaks at"
                f" {when}. Let it return them whole first (SELECT t.* FROM … t), or"
                " RETURNS TABLE (…)."
            )
        if at == "expand":
            text += " A column that a rollback parks counts until it is dropped."
        found.append(Notice(text=text, needs_assurance=not user.whole))
    return tuple(found)
