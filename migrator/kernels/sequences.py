"""Where a sequence stands, carried through a transaction to another one.

Source: PostgreSQL manual, ALTER SEQUENCE (its lock waits for whoever draws a number);
section 9.17, setval.
"""

from collections.abc import Iterator

from psycopg import sql

from migrator import names
from migrator.facts import Sequence
from migrator.names import TableName
from migrator.plan import type_name


def noted(sequence: TableName, cache: int = 1) -> tuple[sql.Composable, sql.Composable]:
    """
    Return the statements that stop a sequence, and note where it stands.

    Args:
        sequence: its name.
        cache: the numbers that a session draws at once, as it is.
    """
    return (
        # Changes nothing, and lets nobody draw a number until the end.
        sql.SQL("ALTER SEQUENCE {} CACHE {}").format(
            sequence.identifier, sql.Literal(cache)
        ),
        sql.SQL(
            "SELECT pg_catalog.set_config({}, last_value::text, true),"
            " pg_catalog.set_config({}, is_called::text, true) FROM {}"
        ).format(*_settings(sequence), sequence.identifier),
    )


def goes_on(sequence: TableName) -> sql.Composable:
    """Return the statement that lets a new one of the name go on from there."""
    last, called = _settings(sequence)
    return sql.SQL(
        "SELECT pg_catalog.setval({}, pg_catalog.current_setting({})::bigint,"
        " pg_catalog.current_setting({})::boolean)"
    ).format(sql.Literal(str(sequence)), last, called)


def looks(counter: Sequence) -> Iterator[sql.Composable]:
    """Yield what a sequence has besides what makes it: privileges and comment."""
    at = counter.name.identifier
    for word, role, passed_on in counter.grants:
        yield sql.SQL("GRANT {} ON SEQUENCE {} TO {}{}").format(
            type_name(word),
            at,
            type_name(role),
            sql.SQL(" WITH GRANT OPTION" if passed_on else ""),
        )
    if counter.comment is not None:
        yield sql.SQL("COMMENT ON SEQUENCE {} IS {}").format(
            at, sql.Literal(counter.comment)
        )


def _settings(sequence: TableName) -> tuple[sql.Composable, sql.Composable]:
    tag = names.tag(str(sequence))
    return sql.Literal(f"migrator.last_{tag}"), sql.Literal(f"migrator.called_{tag}")
