"""What a role must be allowed for a change, besides owning its table."""

from collections.abc import Iterable

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts, Kind
from migrator.names import TableName
from migrator.plan import Autocommit, Step, Transaction

# How statements begin by which a relation, or its name, comes into a schema.
_MAKING = (
    "CREATE INDEX ",
    "CREATE UNIQUE INDEX ",
    "CREATE TABLE ",
    "CREATE SEQUENCE ",
    "CREATE VIEW ",
    "CREATE OR REPLACE VIEW ",
)
_NAMING = ("ALTER TABLE ", "ALTER INDEX ", "ALTER VIEW ")


def require_create(title: str, kind: Kind, facts: Facts, steps: Iterable[Step]) -> None:
    """
    Refuse a change by a role that may not create in the schema, where it has to.

    It would be met by an index in the midst of the change, or on the way back.

    Args:
        title: the change's, for the message.
        kind: what it is made on.
        facts: of it.
        steps: those of all phases.

    Raises:
        Refused: the privilege is missing.

    Source: PostgreSQL manual, CREATE INDEX, CREATE TABLE, ALTER TABLE (RENAME).
    """
    if facts.may_create or kind is Kind.SETTING:
        return
    needed = kind in (Kind.FUNCTION, Kind.VIEW) or any(
        text.startswith(_MAKING) or (text.startswith(_NAMING) and " RENAME TO " in text)
        for step in steps
        for action in (step.work, *step.reverse)
        for text in _texts(action)
    )
    if needed:
        schema = sql.Identifier(facts.table.name.schema).as_string(None)
        raise Refused(
            f"{title}: this role may not create in schema {schema}, which an index, a"
            " table or a new name there takes.",
            next=f"GRANT CREATE ON SCHEMA {schema} to it, or connect as a role that"
            " has that.",
        )


def nothing_by_default(
    grantees: Iterable[str | None],
    made: TableName,
    *,
    owner: str = "",
    sequence: bool = False,
) -> tuple[sql.Composable, ...]:
    """
    Return what takes from others what default privileges gave them.

    What stands for a table that is there is for those who may use that one.

    Args:
        grantees: as `Facts.default_grantees`.
        made: a relation that this role has made.
        owner: whose it is by then; this role's where it is not given to another yet.
        sequence: whether it is a sequence.

    Source: PostgreSQL manual, ALTER DEFAULT PRIVILEGES.
    """
    return tuple(
        sql.SQL("REVOKE ALL ON {} {} FROM {}").format(
            sql.SQL("SEQUENCE" if sequence else "TABLE"),
            made.identifier,
            sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
        )
        for role in grantees
        if role != owner
    )


def _texts(action: object) -> tuple[str, ...]:
    if isinstance(action, Transaction):
        return action.statements
    return (action.statement,) if isinstance(action, Autocommit) else ()
