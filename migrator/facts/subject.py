"""What a change is made on where that is no table."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from psycopg.sql import Identifier

from migrator.facts.table import Constraint
from migrator.names import TableName


class Kind(StrEnum):
    """What a change is made on; its name tells, with a schema, which."""

    #: A domain; tables have columns of it.
    DOMAIN = "domain"
    TABLE = "table"
    #: A function or procedure; its name is its signature, as "total(integer)".
    FUNCTION = "function"
    #: A table that the change makes; it may be there by now.
    NEW_TABLE = "new table"
    #: A parameter of the server; what stands for its schema is where it is set,
    #: as DDL says it: SYSTEM, DATABASE "a", ROLE "b", ROLE "b" IN DATABASE "a".
    SETTING = "setting"
    #: A view or materialized view.
    VIEW = "view"

    def shown(self, name: TableName) -> str:
        """Return what a name names, for a person."""
        if self is Kind.FUNCTION:
            return f"function {Identifier(name.schema).as_string(None)}.{name.name}"
        if self is Kind.SETTING:
            return f"setting {name.name} of {name.schema}"
        return f"{'view' if self is Kind.VIEW else 'table'} {name}"


@dataclass(frozen=True, slots=True)
class Attached:
    """
    What hangs on a view or function: SQL that gives it to another one.

    `before` and `after` stand around the other one's name.
    """

    before: str
    after: str
    _: KW_ONLY
    #: The column without which it cannot be.
    column: str | None = None
    #: Whether CREATE OR REPLACE leaves it.
    stays: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """
    One domain.

    A check's `definition` is its expression, over VALUE and with schemas.
    """

    #: What it is made of, with modifiers; it may be a domain itself.
    type: str
    default: str | None = None
    not_null: bool = False
    checks: tuple[Constraint, ...] = ()
    #: Columns of it, or of a domain over it, partitions' left out.
    columns: tuple[tuple[TableName, str], ...] = ()
    #: What else can hold its values: arrays, composite types, foreign tables.
    hidden: tuple[str, ...] = ()
    owned: bool = True

    def check(self, name: str) -> Constraint | None:
        """Return the check of that name, None where there is none."""
        return next((c for c in self.checks if c.name == name), None)
