"""What a view or a function is made again with: its text, and what hangs on it."""

from psycopg import sql

from migrator.facts import Attached, Facts
from migrator.plan import Refusal, render, type_name

# Characters of a definition in a message: its head and the first lines of its body.
_TOLD = 300
_WRITTEN = (
    "take back the later change that did so, or run the statement of this one's"
    " definition{} again, where the other text may go; then the same command again."
    " Where it has to stay, leave this change as it is."
)
#: What to do where somebody else has written what a way back would put aside. Names in
#: a text change with what they name, so that it may not run again by then.
IN_PLACE = _WRITTEN.format(", or of the one before it,")
#: The same of an object that was made beside another one.
BESIDE = _WRITTEN.format("")

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


def changed(
    what: str, found: sql.Composable, *known: str | None, next: str
) -> tuple[Refusal, ...]:
    """
    Return the condition that an object is as the change made it, or as it was.

    Args:
        what: the object, for the message.
        found: SQL that spells what is there, NULL where nothing is.
        known: what may be there, as that spells it, "" for nothing; the first is what
            the change made, None where it is not known.
        next: what to do where it is another one.
    """
    if known[0] is None:
        return ()
    asked = sql.SQL("SELECT (COALESCE({found}, '') NOT IN ({known}))::int").format(
        found=found,
        known=sql.SQL(", ").join(
            sql.Literal(text) for text in known if text is not None
        ),
    )
    listed = sql.SQL(
        "SELECT COALESCE(pg_catalog.left(text, {most}) || CASE WHEN"
        " pg_catalog.length(text) > {most} THEN ' …' ELSE '' END, 'it is gone')"
        " FROM (SELECT pg_catalog.regexp_replace({found}, '\\s+', ' ', 'g'))"
        " AS f (text)"
    ).format(found=found, most=sql.Literal(_TOLD))
    return (
        Refusal(
            count=render(asked),
            listed=render(listed),
            why=f"{what} is no more as this change wrote it: {{listed}}",
            next=next,
        ),
    )


def given_on(
    attached: tuple[Attached, ...], name: sql.Composable
) -> tuple[sql.Composable, ...]:
    """Return the statements that give what hangs on an object to another one."""
    return tuple(type_name(a.before) + name + type_name(a.after) for a in attached)
