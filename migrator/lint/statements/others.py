"""What is done to types, views and rows, and to the session."""

from dataclasses import dataclass

from migrator.lint.statements.parts import OnTable, Ref, Statement
from migrator.pattern import Pattern

# -- types, views, functions


@dataclass(frozen=True, slots=True, kw_only=True)
class AddEnumValue(Statement):
    """A value that an enum gets."""

    type: Ref
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameEnumValue(Statement):
    """A value of an enum under another word."""

    type: Ref
    value: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDomain(Statement):
    """
    A domain that changes.

    `how` is ADD CONSTRAINT, VALIDATE CONSTRAINT, DROP CONSTRAINT, SET NOT NULL,
    DROP NOT NULL, SET DEFAULT or DROP DEFAULT; `name` is the constraint's, and
    `expression` its condition or the default, as SQL.
    """

    domain: Ref
    how: str
    not_valid: bool = False
    name: str | None = None
    expression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameSchema(Statement):
    """A schema under another name."""

    name: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameObject(Statement):
    """
    A type, sequence, function or such, under another name or in another schema.

    `of` is TYPE, SEQUENCE and so on; either `to` or `schema` is given.
    """

    of: str
    name: Ref
    to: str | None = None
    schema: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropObject(Statement):
    """A view, type, sequence, function or such that goes; `of` says which."""

    of: str
    name: Ref
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateView(Statement):
    """A view that comes; `replaces` is CREATE OR REPLACE."""

    view: Ref
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshView(Statement):
    """A materialized view that is filled anew."""

    view: Ref
    concurrently: bool = False


# -- rows and transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRows(OnTable):
    """Rows that are written: `how` is INSERT, UPDATE, DELETE, MERGE or COPY."""

    how: str
    #: Whether it says which rows.
    where: bool = False
    #: Rows that an INSERT names by their values; None where a query gives them.
    values: int | None = None
    #: The table that an INSERT reads first, where it is named.
    reads: Ref | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Statement):
    """Code that runs by itself: a DO block, or a call of a function or procedure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParameter(Statement):
    """A setting of the session; `local` ends with the transaction."""

    name: str
    value: str
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(Statement):
    """BEGIN, COMMIT or ROLLBACK in the text itself: `how` says which."""

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTable(Statement):
    """Tables that are locked by the revision itself, in a mode as SQL spells it."""

    tables: tuple[Ref, ...]
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(Statement):
    """A change that the toolkit carries: `zd.upgrade(…)`; `title` names it."""

    title: str
    #: What it is made by; None where that is not known.
    pattern: Pattern | None = None
