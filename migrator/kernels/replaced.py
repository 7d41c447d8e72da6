"""What a view or a function is made again with: its text, and what hangs on it."""

from psycopg import sql

from migrator.facts import Attached, Facts
from migrator.plan import render, type_name

#: The path under which a text with full names is read.
FULL_NAMES = "SET LOCAL search_path = pg_catalog"


def path(facts: Facts) -> str:
    """Return the statement after which a text is read as the connection reads it."""
    # A function without a schema is made in the first of them.
    names: list[sql.Composable] = [sql.Identifier(name) for name in facts.path]
    return render(
        sql.SQL("SET LOCAL search_path = {}").format(
            sql.SQL(", ").join(names or [sql.Literal("")])
        )
    )


def text(given: str | None) -> sql.Composable:
    """Take a definition of the user's or the catalogue's."""
    return type_name((given or "").strip().rstrip(";"))


def given_on(
    attached: tuple[Attached, ...], name: sql.Composable
) -> tuple[sql.Composable, ...]:
    """Return the statements that give what hangs on an object to another one."""
    return tuple(type_name(a.before) + name + type_name(a.after) for a in attached)
