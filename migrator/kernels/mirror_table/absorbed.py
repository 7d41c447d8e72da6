"""What a table is like that goes into another one, and what goes along with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Constraint, Facts, Index, Table
from migrator.kernels import dropping, foreign_key, requirements, trials
from migrator.kernels.column_definition import carried, definition
from migrator.kernels.mirror_table.columns import KeyColumn, Shown, Value
from migrator.kernels.mirror_table.facade import viewed
from migrator.kernels.mirror_table.inflow import Inflow
from migrator.kernels.mirror_table.presence import Presence
from migrator.kernels.mirror_table.shadow import Shadow
from migrator.kernels.mirror_table.stand_in import StandIn
from migrator.names import TableName
from migrator.plan import Probe, missing, present, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Absorbed:
    """
    A table that goes into another one, to whose rows its rows belong.

    Args:
        facts: of the table that goes, in any phase.
        into: the other table.
        key: the columns that refer to the other table, each with the one referred to.
        columns: its other columns, each with its name in the other table.
        indexes: new names of indexes that go along.
    """

    facts: Facts
    into: Table
    key: Mapping[str, str]
    columns: Mapping[str, str]
    indexes: Mapping[str, str]

    @property
    def table(self) -> Table:
        """The table that goes, under whichever name."""
        return self.facts.table

    @property
    def name(self) -> TableName:
        """The name that it had, and that the view has."""
        return self.facts.known_as

    @property
    def former_name(self) -> TableName:
        """The name that it has once the view stands for it."""
        return names.retired(self.name, self.facts.tag)

    @property
    def is_exchanged(self) -> bool:
        """Whether the view stands for it."""
        return self.table.name == self.former_name

    @property
    def required(self) -> tuple[str, ...]:
        """Columns of the other table without which there is no row of this one."""
        return tuple(
            name for c, name in self.columns.items() if self.table.require(c).not_null
        )

    @property
    def mark(self) -> str | None:
        """The column that tells a row of this one where none of the others has to."""
        if self.required:
            return None
        return names.owned("row", self.name.name, self.facts.tag)

    def keys(self) -> dict[str, KeyColumn]:
        """Return the key, by the names of its columns here."""
        return {n: KeyColumn.of(self.into.require(c)) for n, c in self.key.items()}

    def going(self) -> dict[str, Column]:
        """Return the columns that go."""
        return {name: self.table.require(name) for name in self.columns}

    def _given(self, row: sql.Composable) -> sql.Composable:
        """Return the condition of rows of the other table that have one of this one."""

        def given(columns: Iterable[str]) -> list[sql.Composable]:
            return [
                present(sql.SQL("{}.{}").format(row, sql.Identifier(c)))
                for c in columns
            ]

        if self.mark is None:
            return sql.SQL(" AND ").join(given(self.required))
        return sql.SQL("({})").format(
            sql.SQL(" OR ").join(given((*self.columns.values(), self.mark)))
        )

    @property
    def _owner(self) -> str | None:
        return self.table.owner if self.facts.superuser else None

    def presence(self) -> Presence | None:
        """Return the mark, and what sets it; None where none is needed."""
        if self.mark is None:
            return None
        return Presence(
            table=self.into.name,
            column=self.mark,
            values=tuple(self.columns.values()),
            tag=self.facts.tag,
            owner=self._owner,
        )

    def inflow(self) -> Inflow:
        """Return the mirror of the table in the other one, before the exchange."""
        return Inflow(
            source=self.name,
            target=self.into.name,
            behind=TableName(
                self.name.schema, names.owned("behind", self.name.name, self.facts.tag)
            ),
            tag=self.facts.tag,
            key=self.keys(),
            columns={
                name: Shown(column=self.columns[name], type=c.type)
                for name, c in self.going().items()
            },
            mark=self.mark,
            owner=self._owner,
        )

    def shadow(self) -> Shadow:
        """Return the mirror of the other table in this one, after the exchange."""
        return Shadow(
            source=self.into.name,
            target=self.former_name,
            tag=self.facts.tag,
            key=self.keys(),
            values={
                name: Value(
                    expression=sql.Identifier(self.into.name.name, self.columns[name]),
                    type=c.type,
                )
                for name, c in self.going().items()
            },
            rows=self._given(sql.Identifier(self.into.name.name)),
            path=self.facts.path,
            owner=self._owner,
        )

    def stand_in(self) -> StandIn:
        """Return the view."""
        return StandIn(
            table=self.into.name,
            view=self.name,
            tag=self.facts.tag,
            key=self.keys(),
            columns={
                name: Shown(column=self.columns[name], type=c.type, rest=c.default)
                for name, c in self.going().items()
            },
            rows=self._given(sql.Identifier(self.into.name.name)),
            path=self.facts.path,
            grants=viewed(self.table.grants),
            default_grantees=self.facts.default_grantees,
            granted={c.name: c for c in self.table.columns if c.grants},
            owner=self.table.owner,
            order=tuple(c.name for c in self.table.columns),
            given=self._given(sql.Identifier("_row")),
            required=tuple(name for name, c in self.going().items() if c.not_null),
            mark=self.mark,
            definer=self._owner,
        )

    def references(self) -> tuple[Constraint, ...]:
        """Return the foreign keys by which its rows belong to the other table's."""
        named = {
            k.name
            for k in self.table.foreign_keys
            if k.table == self.table.name
            and k.to == self.into.name
            and dict(zip(k.columns, k.to_columns, strict=True)) == dict(self.key)
        }
        return tuple(
            c for c in self.table.constraints if c.kind == "f" and c.name in named
        )

    def ruled(self, kind: str) -> tuple[Constraint, ...]:
        """
        Return the constraints that go along: those whose columns all do.

        Until the drop they hold for the table that follows, and so for both releases;
        a foreign key that changes rows there would change them nowhere else.

        Args:
            kind: c for checks, f for foreign keys.
        """
        return tuple(
            c
            for c in self.table.constraints
            if c.kind == kind
            and c.columns
            and c.validated
            and not c.deferrable
            and c.references != self.into.name
            and not foreign_key.acts(c.definition)
            and all(self.columns.get(name) == name for name in c.columns)
        )

    def unique(self, index: Index) -> Constraint | None:
        """Return the unique constraint that an index was made by."""
        found = self.table.constraint(index.name)
        return found if found and found.kind == "u" and not found.deferrable else None

    def carried(self) -> tuple[Index, ...]:
        """
        Return the indexes that go along: those that a column that goes is in.

        Rows of the other table that have none of this one are all NULLs.
        """
        bare = (
            replace(i, constraints=()) if self.unique(i) else i
            for i in self.table.indexes
            if not i.nulls_not_distinct
        )
        table = replace(self.table, indexes=tuple(bare))
        return carried(table, self.columns, self.key)

    def probes(self) -> tuple[Probe, ...]:
        """Return the trials of checks by a row that has nothing, and of any loss."""
        return (*self._checks_pass(), *self._left_out())

    def _left_out(self) -> tuple[Probe, ...]:
        """Return the trial how many rows are none after the drop."""
        if self.mark is None:
            return ()
        own = sql.Identifier(self.table.name.name)
        nothing = sql.SQL(" AND ").join(
            missing(sql.SQL("{}.{}").format(own, sql.Identifier(name)))
            for name in self.columns
        )
        return trials.of_a_sample(
            self.facts,
            nothing,
            f"{{found}} rows of a sample of {self.table.name} hold nothing but NULLs."
            " That they are there is known up to the drop, and nowhere afterwards.",
        )

    def _checks_pass(self) -> tuple[Probe, ...]:
        columns = sql.SQL(", ").join(
            definition(replace(c, default=None, not_null=False), name)
            for name, c in self.going().items()
        )
        return tuple(
            Probe(
                statements=(
                    render(
                        sql.SQL("CREATE TEMP TABLE migrator_trial ({}, {})").format(
                            columns, type_name(c.definition)
                        )
                    ),
                    "INSERT INTO migrator_trial DEFAULT VALUES",
                ),
                question="SELECT true",
                otherwise="",
                failed=f'Constraint "{c.name}" of table {self.table.name} refuses'
                f" NULLs, which a row of {self.into.name} has that has none of it",
                next="drop it by a change of its own first, and add another one to"
                f" {self.into.name} afterwards.",
            )
            for c in self.ruled("c")
        )


def require_mergeable(merge: Absorbed, title: str) -> None:
    """
    Refuse a table whose columns could not stand in the other one.

    Args:
        merge: the table, and where it goes.
        title: the change's, for messages.

    Raises:
        Refused: something would be lost, or hold for rows that have none of it.
    """
    _require_keys(merge)
    for column, name in merge.columns.items():
        names.checked(name, "column")
        requirements.require_free_column(merge.facts.of(merge.into), name)
        _require_column(merge, merge.table.require(column))
    _require_whole(merge, title)
    _require_constraints(merge)
    _require_unused(merge)
    _require_indexes(merge, title)


def require_still_mergeable(merge: Absorbed, title: str) -> None:
    """
    Refuse what came onto the table since, and would stay behind.

    Args:
        merge: the table, under whichever name.
        title: the change's, for messages.

    Raises:
        Refused: a column, view, rule, policy, publication, trigger or constraint did.
    """
    requirements.require_mirrored(merge.facts)
    _require_whole(merge, title)
    _require_known(merge)
    _require_unused(merge)


def _require_keys(merge: Absorbed) -> None:
    facts, into = merge.facts, merge.into
    for here, there in merge.key.items():
        mine, other = facts.table.require(here).type, into.require(there).type
        if mine != other:
            raise Refused(
                f'Column "{here}" of table {facts.table.name} is of type {mine},'
                f' column "{there}" of table {into.name} of type {other}.',
                next="give both one type by a change of its own first.",
            )
    for c in merge.references():
        acts = foreign_key.actions(c.definition)
        if "RESTRICT" in acts or " SET " in acts:
            raise Refused(
                f'Foreign key "{c.name}" of table {facts.table.name} says'
                f"{acts}: the new release could not delete a row of"
                f" {merge.into.name}.",
                next="make it ON DELETE CASCADE, or NO ACTION, by a change of its"
                " own first.",
            )


def _require_column(merge: Absorbed, column: Column) -> None:
    facts = merge.facts
    requirements.require_plain(facts, column)
    where = f'Column "{column.name}" of table {facts.table.name}'
    if column.base is not None:
        raise Refused(
            f"{where} is of domain {column.type}, whose default and checks would"
            f" hold for rows of {merge.into.name} that have none.",
            next=f"change its type to {column.base} first.",
        )
    if column.name in merge.key:
        raise Refused(
            f"{where} both goes and is in the key.", next="leave it out of `move`."
        )


def _require_whole(merge: Absorbed, title: str) -> None:
    """Refuse columns that are left out, and what hangs on any."""
    facts, table = merge.facts, merge.table
    for column in table.columns:
        where = f'Column "{column.name}" of table {table.name}'
        if column.name not in {*merge.columns, *merge.key}:
            raise Refused(
                f"{where} is neither in `move` nor in `key`: it would be lost.",
                next="name it, or drop it by a change of its own first.",
            )
        dropping.require_droppable(facts, column)
    names_there = list(merge.columns.values())
    for name in names_there:
        if names_there.count(name) > 1:
            raise Refused(
                f'{title}: two columns would be named "{name}".',
                next="give them different names in `move`.",
            )


def _require_constraints(merge: Absorbed) -> None:
    into = merge.into
    for c in _going_along(merge):
        if into.constraint(c.name) is not None:
            raise Refused(
                f'Table {into.name} has a constraint "{c.name}" already.',
                next="rename one of them first (RenameConstraint).",
            )
    _require_known(merge)


def _going_along(merge: Absorbed) -> tuple[Constraint, ...]:
    keys = (merge.unique(i) for i in merge.carried())
    return (*merge.ruled("c"), *merge.ruled("f"), *filter(None, keys))


def _require_known(merge: Absorbed) -> None:
    table = merge.table
    own = {c.name for c in (*merge.references(), *_going_along(merge))}
    for c in table.constraints:
        keyed = c.kind in ("p", "u") and {*c.columns} == {*merge.key}
        if not (keyed or c.kind == "n" or c.name in own):
            raise Refused(
                f'Constraint "{c.name}" of table {table.name} cannot go along.',
                next="drop it by a change of its own first, and add it to"
                f" {merge.into.name} afterwards.",
            )


def _require_unused(merge: Absorbed) -> None:
    """Refuse what would have to be there for a view."""
    table = merge.table
    requirements.require_no_member(table)
    used = [
        *table.dependents,
        *(rule.described for rule in table.rules),
        *(f"publication {p}" for p in table.publications),
    ]
    if used:
        raise Refused(
            f"Table {table.name} is used by {'; '.join(used)}.",
            next="drop what depends on it first, and make it again over"
            f" {merge.into.name} afterwards.",
        )
    for t in requirements.triggers(table):
        if t.name.startswith(names.TRIGGER_PREFIXES):
            continue
        raise Refused(
            f'Table {table.name} has a trigger "{t.name}", which a view would not'
            " fire.",
            next=f"drop it first, or let a trigger of {merge.into.name} do its work.",
        )


def _require_indexes(merge: Absorbed, title: str) -> None:
    facts, table = merge.facts, merge.table
    going = [i.name for i in merge.carried()]
    for i in table.indexes:
        if i.unique and i.name not in going and {*i.columns} != {*merge.key}:
            raise Refused(
                f'Unique index "{i.name}" of table {table.name} cannot go along.',
                next="drop it by a change of its own first, and create it on"
                f" {merge.into.name} afterwards.",
            )
    for index, new in merge.indexes.items():
        names.checked(new, "index")
        if index not in going:
            known = ", ".join(going) or "none"
            raise Refused(
                f'{title}: index "{index}" does not go along.',
                next=f"correct `indexes`; there go {known}.",
            )
        if new in facts.relation_names:
            raise Refused(
                f'The name "{new}" is taken in schema "{table.name.schema}".',
                next="choose another name for the index.",
            )
