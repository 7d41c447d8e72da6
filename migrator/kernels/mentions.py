"""Who has the name of what goes in a text that the server does not read before.

Triggers and functions keep their bodies as text: nothing depends on a column there.
"""

from collections.abc import Collection, Mapping

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels import requirements, trigger_arguments
from migrator.names import TableName
from migrator.plan import Notice, Probe, render

# The key of what functions may read a column.
_FUNCTIONS = "functions"

# That a function lists no columns of a table's rows, which it returns.
_LISTED = sql.SQL(
    " AND (p.prosrc ~* '(\\mselect\\s+|\\.\\s*)\\*' OR p.prorettype IS DISTINCT FROM"
    " (SELECT c.reltype FROM pg_catalog.pg_class c"
    " WHERE c.oid = pg_catalog.to_regclass({})))"
)


def trigger_notices(
    facts: Facts, *columns: str, to: str | None = None
) -> tuple[Notice, ...]:
    """
    Return a note on each trigger that may read columns that go.

    Args:
        facts: of the table.
        columns: those that go at retire.
        to: the name that the one column has from then on; None where it has none.
    """
    way = "Change the function first."
    if to is not None:
        way = f'Let it read "{to}" between verified and retire.'
    read = tuple(
        Notice(
            text=f'The function of trigger "{t.name}" has the word "{column}" in it:'
            " where that is this column, every write fails from retire on."
            f" {way}",
            needs_assurance=True,
        )
        for t in requirements.triggers(facts.table)
        for column in columns
        if column in t.mentions and not t.name.startswith(names.TRIGGER_PREFIXES)
    )
    return (*read, *trigger_arguments.notices(facts, *columns, to=to))


def functions_that_read(
    table: TableName, columns: Collection[str] = (), *, comes: bool = False
) -> Mapping[str, Probe]:
    """
    Return the question which functions may read what goes, by their texts.

    Those of the table's own triggers are known from it. One whose body is in SQL's own
    form holds columns by their numbers.

    Args:
        table: whose name has to be in the text.
        columns: of which one has to be there as well; none where the table goes.
        comes: whether the table gets a column before. Then functions that return its
            rows by a list of columns are left out: they break there, as
            `row_types.breaks` says.
    """
    words = sql.SQL(" OR ").join(map(_has_word, columns))
    question = sql.SQL(
        "SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', '"
        " ORDER BY p.oid::pg_catalog.regprocedure::text) FROM pg_catalog.pg_proc p"
        " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', {})"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = p.oid"
        " AND t.tgrelid = pg_catalog.to_regclass({}))"
        " AND p.prosqlbody IS NULL AND {} AND ({}){}"
    ).format(
        sql.Literal(names.LEDGER_SCHEMA),
        sql.Literal(str(table)),
        _has_word(table.name),
        words if columns else sql.SQL("true"),
        _LISTED.format(sql.Literal(str(table))) if comes else sql.SQL(""),
    )
    return {
        _FUNCTIONS: Probe(statements=(), question=render(question), otherwise="none")
    }


def _has_word(name: str) -> sql.Composable:
    return sql.SQL(
        "p.prosrc ~* ('(^|[^[:alnum:]_])' || pg_catalog.regexp_replace("
        "{}, '([^[:alnum:]_])', '\\\\\\1', 'g') || '([^[:alnum:]_]|$)')"
    ).format(sql.Literal(name))


def function_notices(facts: Facts, columns: Collection[str] = ()) -> tuple[Notice, ...]:
    """Return a note on the functions that `functions_that_read` found."""
    if _FUNCTIONS not in facts.texts:
        return ()
    found, word = facts.texts[_FUNCTIONS], f'"{facts.known_as.name}"'
    known = " or ".join(f'"{column}"' for column in columns)
    text = (
        f"The text of {found} has the words {word} and {known} in it: where that is"
        " this column, it fails from retire on. Let it read the new shape between"
        " verified and retire."
        if known
        else f"The text of {found} has the word {word} in it: where that is this table,"
        " it fails from retire on. Let it do without before."
    )
    return (Notice(text=text, needs_assurance=True),)
