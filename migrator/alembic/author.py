"""Writes the safe form of an operation, or the choice that it asks for."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError

from migrator.alembic import at_once
from migrator.alembic.writing import Way, Written
from migrator.errors import MigratorError, NotThere, Refused
from migrator.lint import operations
from migrator.lint import statements as st
from migrator.lint.linter import looked
from migrator.lint.rule import Rule, Safe
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.pattern import OPEN, Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    ChangePrimaryKey,
    CreateIndex,
    Custom,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    DropTable,
    SetDefault,
    SetNotNull,
)

_make: Any = postgresql.dialect
_DIALECT = _make()


@dataclass(slots=True, kw_only=True)
class Author:
    """
    Writes changes, from rules and what is known of the database and the model.

    Args:
        scene: the database, and the tables that come with the same changes.
        rules: which look for hazards.
        tables: the model's, by schema and name.
        try_out: plans a pattern on the database, and raises what refuses it.
        words: values of enums that changes have taken out of use, by table and column.
        refusal: tells why the database would refuse a pattern, by its facts alone.
        goes: names of what goes, or changes, with the same changes.
    """

    scene: Scene
    rules: Sequence[Rule]
    tables: Mapping[tuple[str | None, str], sa.Table]
    try_out: Callable[[Pattern], object]
    words: frozenset[tuple[str, str, str]] = frozenset()
    refusal: Callable[[Pattern], Refused | None] = lambda _: None
    goes: set[str] = field(default_factory=set[str])

    def safe(self, operation: ops.MigrateOperation) -> list[Written]:
        """Return the changes in place of an operation; none where it has no hazard."""
        for statement in operations.statements(operation):
            for finding in looked(statement, self.scene, self.rules):
                if finding.safe is None:
                    continue
                if _does_the_same(finding.safe, statement):
                    return list(self._written(finding.safe))
                if isinstance(operation, ops.AddColumnOp) and isinstance(
                    statement, st.AddColumn
                ):
                    asked = at_once.choice(operation, statement, finding, self.scene)
                    if asked is not None:
                        return [asked]
        return []

    def _written(self, safe: Safe) -> Iterator[Written]:
        patterns = [self.completed(p) for p in safe.patterns]
        if isinstance(patterns[0], AddColumn):
            # What the model has for new rows is meant for those that are there.
            patterns = [p for p in patterns if not _is_open(p)] or patterns
        if len(patterns) > 1:
            # A title with an open end says little.
            titles = sorted((OPEN in p.title, p.title) for p in patterns)
            yield Written(
                title=titles[0][1],
                ways=tuple(Way((p,), _when(p)) for p in patterns),
                choice=_clause(safe.decide) or "which of these it is",
            )
        else:
            yield self.decided(patterns[0], safe.decide)
        for pattern in map(self.completed, safe.then):
            yield self.decided(pattern, safe.decide if _is_open(pattern) else "")

    def decided(self, pattern: Pattern, decide: str = "") -> Written:
        """
        Return a change by one pattern, or the choice that is left.

        Args:
            pattern: as far as it is known.
            decide: what a person has to decide; where nothing is open in the pattern,
                that is a note for the review.
        """
        if pattern.assured == OPEN:
            # Whether it is needed, and why, the database says better.
            pattern = replace(pattern, assured="")  # type: ignore[type-var]
        asked, points = self._asked(pattern)
        choices: list[str] = []
        if _is_open(pattern):
            choices.append(_clause(decide) or "what is left open")
        if asked is not pattern:
            choices.append(
                "whether this is safe here; the reason goes into `assured`"
                if not choices
                else "whether it is safe here (`assured`)"
            )
        elif points and not choices:
            choices.append(
                _clause(decide) or "what becomes of what keeps it from working"
            )
        if not choices:
            # What refuses it otherwise may wait for a revision before it; and what the
            # model has for new rows needs no review.
            filled = isinstance(pattern, SetNotNull) or (
                isinstance(pattern, AddColumn) and pattern.computed is not None
            )
            note = "" if filled else _clause(decide)
            return Written(title=pattern.title, ways=(Way((pattern,)),), note=note)
        return Written(
            title=pattern.title,
            ways=(Way((asked,), points),),
            choice=", and ".join(choices),
        )

    def _asked(self, pattern: Pattern) -> tuple[Pattern, str]:
        """
        Return a pattern with `assured` to be given, where it needs a person's word.

        Returns:
            The pattern, and why the database refuses it as it is; "" where it does not,
            or where what comes or goes with the same changes may be in the way.
        """
        if not _is_open(pattern):
            asked, points = self.weighed(pattern)
            if asked is not pattern:
                return asked, points
        error = self.refusal(pattern)
        if error is None or isinstance(error, NotThere) or OPEN in error.what:
            return pattern, ""
        said = error.what.removeprefix(f"{pattern.title}: ")
        # Values that are left open are no matter of facts.
        assured: Pattern = replace(pattern, assured=OPEN)  # type: ignore[type-var]
        if not pattern.assured and self.refusal(assured) is None:
            return assured, said
        words = set(re.findall(r"\w+", said)) - {pattern.subject[0]}
        own = pattern.columns() or frozenset()
        return pattern, "" if (words - own) & self.goes else said

    def weighed(self, pattern: Pattern) -> tuple[Pattern, str]:
        """
        Return a pattern as the database would take it, and what it says about it.

        Returns:
            With `assured` to be given, where it needs a person's word; else the pattern
            itself, and why it is refused, if it is.
        """
        try:
            self.try_out(pattern)
        except Refused as error:
            said = error.what.removeprefix(f"{pattern.title}: ")
            given: Pattern = replace(pattern, assured="tried")  # type: ignore[type-var]
            try:
                self.try_out(given)
            except MigratorError:
                return pattern, said
            asked: Pattern = replace(pattern, assured=OPEN)  # type: ignore[type-var]
            return asked, said
        except MigratorError:
            # It did not answer in time.
            return pattern, ""
        return pattern, ""

    # -- what a rule does not know ---------------------------------------

    def completed(self, pattern: Pattern) -> Pattern:
        """Return a pattern with what the model and the database say about it."""
        known = self.scene.table(Ref(pattern.table, pattern.schema))
        match pattern:
            case SetNotNull(fill="…"):
                fill = self._fill(pattern)
                return replace(pattern, fill=fill) if fill else pattern
            case AddColumn(computed="…"):
                fill = self._fill(pattern)
                return replace(pattern, computed=fill) if fill else pattern
            case DropColumn(type=None) if known and (c := known.column(pattern.column)):
                return replace(pattern, type=c.type)
            case ChangeColumnType(old_type=None) if known and (
                c := known.column(pattern.column)
            ):
                return replace(pattern, old_type=c.type)
            case DropConstraint(touches=None) if known and (
                constraint := known.constraint(pattern.name)
            ):
                # Else it would wait for changes of every column of the table.
                return replace(pattern, touches=list(constraint.columns) or None)
            case AddForeignKey(index=True):
                # An index that the model does not have would be found next time.
                return replace(pattern, index=False)
            case _:
                return pattern

    def _fill(self, pattern: AddColumn | SetNotNull) -> str | None:
        """Return what rows to come get, by the model: so do those that hold NULL."""
        table = self.tables.get((pattern.schema, pattern.table))
        column = None if table is None else table.c.get(pattern.column)
        return None if column is None else default_of(column)


def default_of(column: "sa.Column[Any]") -> str | None:
    """Return what a column's default gives, as SQL; None where that is not known."""
    if column.server_default is not None:
        given = operations.statements(ops.AddColumnOp("t", column))[0]
        assert isinstance(given, st.AddColumn)
        return given.column.default
    default: Any = column.default
    if default is None or not default.is_scalar:
        return None
    try:
        return operations.spelt(sa.literal(default.arg, column.type))
    except (CompileError, NotImplementedError, LookupError, TypeError, ValueError):
        # A value of the application's own kind.
        return None


def create(table: sa.Table, indexes: Sequence[sa.Index] = ()) -> str:
    """Return the statements that make a table and its indexes, set for a revision."""
    name = _DIALECT.identifier_preparer.format_table(table)
    made = [f"CREATE TABLE {name} (", *(f"    {p}" for p in _parts(table)), ")"]
    for index in indexes:
        made[-1] += ";"
        made.append(str(sa.schema.CreateIndex(index).compile(dialect=_DIALECT)))
    return "\n".join(["", *(f"        {line}" for line in made), "    "])


def definition(table: sa.Table) -> str:
    """Return what stands in the parentheses of CREATE TABLE, set for a revision."""
    return "\n".join(["", *(f"        {line}" for line in _parts(table)), "    "])


def _parts(table: sa.Table) -> list[str]:
    made = str(sa.schema.CreateTable(table).compile(dialect=_DIALECT))
    inner = made[made.index("(") + 1 : made.rindex(")")]
    return [line.strip() for line in inner.strip().splitlines() if line.strip()]


def _clause(text: str) -> str:
    """Return a sentence as the end of another one."""
    plain = text.strip().rstrip(".")
    return plain[:1].lower() + plain[1:] if plain[1:2].islower() else plain


def _is_open(pattern: Pattern) -> bool:
    """Tell whether a value is still to be given."""
    return OPEN in str(pattern.parameters())


def _when(pattern: Pattern) -> str:
    """Return in which case one of several patterns is meant."""
    if isinstance(pattern, ChangeColumnType):
        if pattern.to is None:
            return "Under the same name the type changes for both releases at retire."
        return "Under a name of its own, also in the model, each release has its type."
    title = f"{pattern.title[:1].upper()}{pattern.title[1:]}"
    if isinstance(pattern, AddColumn) and pattern.default is not None:
        return f"{title}, with a default that the column keeps."
    if isinstance(pattern, AddColumn) and pattern.computed is not None:
        return f"{title}, computed of each row until contract, then by the application."
    return f"{title}."


#: By what a statement may be replaced: rules also advise on what is beside it.
_SAME: Mapping[type[st.Statement], tuple[type[Pattern], ...]] = {
    st.AddColumn: (AddColumn,),
    st.DropColumn: (DropColumn,),
    st.ChangeType: (ChangeColumnType, ChangePrimaryKey),
    st.SetNotNull: (SetNotNull,),
    st.DropNotNull: (DropNotNull,),
    st.SetDefault: (SetDefault,),
    st.DropDefault: (DropDefault,),
    st.AddIdentity: (Custom, SetNotNull),
    st.DropIdentity: (Custom,),
    st.SetGenerated: (Custom,),
    st.AddConstraint: (
        AddCheck,
        AddExclusion,
        AddForeignKey,
        AddPrimaryKey,
        AddUnique,
    ),
    st.DropConstraint: (DropConstraint,),
    st.CreateIndex: (CreateIndex,),
    st.DropIndex: (DropIndex,),
    st.DropTable: (DropTable,),
}


def _does_the_same(safe: Safe, statement: st.Statement) -> bool:
    """Tell whether a safe form ends where the model wants it."""
    kinds = _SAME.get(type(statement), ())
    if not safe.patterns or not all(isinstance(p, kinds) for p in safe.patterns):
        return False
    if isinstance(statement, st.AddColumn):
        # A generated column stays one: the comparison would find another.
        column = statement.column
        return not (column.generated or column.options) and all(
            isinstance(p, AddColumn) and p.type == statement.column.type
            for p in safe.patterns
        )
    return True
