"""One constraint or unique index of a column, and its like on the heir."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Column, Constraint, Facts, ForeignKey, Index, Table
from migrator.kernels import (
    constraints,
    foreign_key,
    index_copies,
    indexes,
    unique_key,
)
from migrator.kernels.direct import catalogue_step, members
from migrator.kernels.mirror_columns.side import read_as
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Refusal,
    Step,
    Steps,
    render,
    type_name,
)

_IF_EXISTS = {False: sql.SQL(""), True: sql.SQL("IF EXISTS ")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    A column of a table and its heir, by all the names that they bear.

    Args:
        table: as facts have it before retire.
        tag: the change's.
        old: the column's name, until retire.
        retired: from then on.
        heir: the heir's name, until retire.
    """

    table: Table
    tag: str
    old: str
    retired: str
    heir: str

    def alter(self, what: sql.Composable) -> sql.Composable:
        """Return an ALTER TABLE."""
        return sql.SQL("ALTER TABLE {} {}").format(self.table.name.identifier, what)

    def without(self, constraint: str, *, if_there: bool) -> sql.Composable:
        """Return the drop of a constraint."""
        return self.alter(
            sql.SQL("DROP CONSTRAINT {}{}").format(
                _IF_EXISTS[if_there], sql.Identifier(constraint)
            )
        )

    def in_trial(self) -> "Place":
        """Return the same of the table's like in pg_temp."""
        name = TableName("pg_temp", self.table.name.name)
        return replace(self, table=replace(self.table, name=name))

    def renamed(self, given: str, wanted: str) -> sql.Composable:
        """Return the rename of a column."""
        return self.alter(
            sql.SQL("RENAME COLUMN {} TO {}").format(
                sql.Identifier(given), sql.Identifier(wanted)
            )
        )

    def on_heir(self, *statements: sql.Composable) -> tuple[sql.Composable, ...]:
        """
        Return statements that mean the heir where their texts name the column.

        For as long as they take, it bears that name: the server reads the text, and no
        text is edited. Nobody else sees it.
        """
        spare = names.owned("spare", self.old, self.tag)
        return (
            self.renamed(self.old, spare),
            self.renamed(self.heir, self.old),
            *statements,
            self.renamed(self.old, self.heir),
            self.renamed(spare, self.old),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(ABC):
    """
    One of them.

    Args:
        place: whose it is.
        number: of it among all, for the names of its steps.
    """

    place: Place
    number: int

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that it keeps."""

    @property
    def made(self) -> str:
        """The name of its like until that stands in its place."""
        return names.owned("like", self.name, self.place.tag)

    @property
    def also(self) -> tuple[TableName, ...]:
        """Further tables that are locked as strongly."""
        return ()

    @abstractmethod
    def prepared(self) -> Steps:
        """Return what is made and proved on the heir before the exchange."""

    @abstractmethod
    def freed(self, *, if_there: bool = False) -> sql.Composable:
        """
        Return the drop of what bears the name, before the columns' renames.

        Args:
            if_there: whether somebody may have dropped it: the way back brings it back.
        """

    @abstractmethod
    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield what makes the like take its place, behind the columns' renames."""

    @abstractmethod
    def given_back(self) -> Iterator[sql.Composable]:
        """Yield what gives it back to the old column, behind the columns' renames."""

    @abstractmethod
    def before_back(self, over: str, fits: Refusal) -> tuple[Action, ...]:
        """
        Return what the way back does before its exchange.

        Args:
            over: the question whether that has run.
            fits: the condition that all rows have values for the old column.
        """

    def after_back(self) -> tuple[Action, ...]:
        """Return what the way back proves behind its exchange."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedConstraint(Carried):
    """A check, or a foreign key of the column's: made again from its text."""

    found: Constraint
    #: The heir's type, for messages.
    type: str

    @property
    def name(self) -> str:
        """The constraint's name."""
        return self.found.name

    @property
    def also(self) -> tuple[TableName, ...]:
        """The table that a foreign key refers to."""
        found = self.found.references
        return () if found is None else (found,)

    def _added(self, name: str) -> sql.Composable:
        # The text of one that was not proved says so itself.
        unproved = " NOT VALID" if self.found.validated else ""
        return self.place.alter(
            sql.SQL("ADD CONSTRAINT {} ").format(sql.Identifier(name))
            + type_name(self.found.definition + unproved)
        )

    def tried(self) -> sql.Composable:
        """Return its addition to the table's like in a trial."""
        definition = type_name(self.found.definition)
        return self.place.in_trial().alter(sql.SQL("ADD ") + definition)

    def _violated(self, column: str, why: str) -> Refusal | None:
        """Return the refusal of rows that violate it, by the column in its place."""
        if not self.found.validated:
            return None
        old, table = self.place.old, self.place.table.name
        if self.found.condition is None:
            given = {old: column}
            rows = foreign_key.refused_rows(self.place.table, self.found, given)
        else:
            condition = f"NOT ({self.found.condition})"
            rows = read_as(condition, {old: sql.Identifier(column)}, table)
        return constraints.refused_by_rows(table, self.name, rows, f" {why}")

    def _counted(self, number: str, refusal: Refusal | None, done: str) -> Steps:
        if refusal is None:
            return ()
        return (
            Step(
                name=number,
                work=constraints.counted(self.place.table.name, refusal, done=done),
                no_reverse="nothing is changed",
            ),
        )

    def prepared(self) -> Steps:
        """Return the constraint on the heir, which binds no old release any more."""
        table, made = self.place.table.name, self.made
        (also,) = self.also or (None,)
        there = constraints.is_there(table, made)
        work = catalogue_step(
            table, *self.place.on_heir(self._added(made)), also=self.also
        )
        steps = (
            *self._counted(
                f"count_constraint_{self.number}",
                self._violated(self.place.heir, f"by their values as {self.type}"),
                there,
            ),
            Step(
                name=f"add_constraint_{self.number}",
                work=replace(work, done=there),
                reverse=(constraints.drop(table, made, also),),
            ),
        )
        if not self.found.validated:
            return steps
        proof = constraints.validate(table, made, also)
        return (*steps, replace(proof, name=f"validate_constraint_{self.number}"))

    def freed(self, *, if_there: bool = False) -> sql.Composable:
        """Return the drop of the constraint."""
        return self.place.without(self.name, if_there=if_there)

    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield the name of the other."""
        table = self.place.table.name
        yield constraints.renamed(table, self.made, self.name)
        yield from constraints.comments(table, self.found)

    def given_back(self) -> Iterator[sql.Composable]:
        """Yield the constraint as it was, but for the proof."""
        yield self._added(self.name)
        yield from constraints.comments(self.place.table.name, self.found)

    def before_back(self, over: str, fits: Refusal) -> tuple[Action, ...]:
        """Return the count of rows whose old values violate it."""
        why = f'by the values of "{self.place.retired}"'
        refusal = self._violated(self.place.retired, why)
        if refusal is None:
            return ()
        table = self.place.table.name
        return (constraints.counted(table, refusal, done=over),)

    def after_back(self) -> tuple[Action, ...]:
        """Return the proof."""
        if not self.found.validated:
            return ()
        (also,) = self.also or (None,)
        return (constraints.validated(self.place.table.name, self.name, also),)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedIndex(Carried):
    """A unique index, and the key over it: built again over the other column."""

    index: Index
    key: Constraint | None
    #: The same over the heir, and over the retired column.
    forth: Index
    back: Index

    @property
    def name(self) -> str:
        """The index's name, which is the key's."""
        return self.index.name

    def _built(self, index: Index) -> Step:
        step = f"build_unique_{self.number}"
        return indexes.build_as(step, self.place.table, self.made, index)

    def prepared(self) -> Steps:
        """Return the build over the heir."""
        return (
            self._built(self.forth),
            *indexes.analyzed(
                self.place.table.name,
                [(self.made, self.index)],
                named=lambda name: f"{name}_{self.number}",
                no_reverse="it goes with the index",
            ),
        )

    def freed(self, *, if_there: bool = False) -> sql.Composable:
        """Return the drop of the key, or of the index that is none."""
        if self.key is not None:
            return self.place.without(self.key.name, if_there=if_there)
        return sql.SQL("DROP INDEX {}{}").format(
            _IF_EXISTS[if_there],
            sql.Identifier(self.place.table.name.schema, self.name),
        )

    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield the name of the other, with its looks."""
        table = self.place.table.name
        if self.key is None:
            yield sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(table.schema, self.made), sql.Identifier(self.name)
            )
        else:
            yield self.place.alter(
                sql.SQL("ADD CONSTRAINT {} ").format(sql.Identifier(self.key.name))
                + unique_key.over_index(
                    self.key.kind, self.made, constraints.timing(self.key)
                )
            )
            yield from constraints.comments(table, self.key)
        yield from indexes.index_looks(table, self.name, self.index)

    def given_back(self) -> Iterator[sql.Composable]:
        """Yield the same: by then the like is built over the old column."""
        return self.exchanged()

    def before_back(self, over: str, fits: Refusal) -> tuple[Action, ...]:
        """Return the build over the old column, which holds rows to it from then on."""
        build = self._built(self.back).work
        assert isinstance(build, Autocommit)
        done = f"SELECT ({over}) OR ({build.done})"
        return (replace(build, done=done, refusals=(fits,)),)


def leaving_nothing(action: Action, over: Iterable[Carried]) -> Action:
    """Return an action of the way back that, refused, leaves no index of it."""
    built = [
        (one.place.table.name.schema, one.made)
        for one in over
        if isinstance(one, CarriedIndex)
    ]
    if not built:
        return action
    drop = sql.SQL("DROP INDEX IF EXISTS {}")
    there = sql.SQL("pg_catalog.to_regclass({}) IS NOT NULL")
    return replace(
        action,
        withdraw=tuple(render(drop.format(sql.Identifier(*name))) for name in built),
        withdrawable=render(
            sql.SQL("SELECT ")
            + sql.SQL(" OR ").join(
                there.format(sql.Literal(sql.Identifier(*name).as_string()))
                for name in built
            )
        ),
    )


def found(facts: Facts, column: Column, *, heir: str, type: str) -> tuple[Carried, ...]:
    """
    Return all that goes over from a column to its heir.

    Args:
        facts: of its table, before retire.
        column: the column.
        heir: its heir's name until retire.
        type: the heir's.
    """
    table, tag = facts.table, facts.tag
    place = Place(
        table=table,
        tag=tag,
        old=column.name,
        retired=names.owned("retired", column.name, tag),
        heir=heir,
    )
    keys = {k.index: k for k in table.constraints if k.kind == "u"}
    over: list[Carried] = []
    # First: on the way back their counts refuse before an index binds anybody.
    whole = table.kind == "p"
    for one in table.constraints:
        # Foreign keys and unique indexes of partitions are several, and no statement
        # exchanges them all.
        kinds = ("c",) if whole else ("c", "f")
        if one.kind not in kinds or column.name not in one.columns:
            continue
        # A key over periods needs an index of another method than the others.
        is_over_periods = one.kind == "f" and foreign_key.has_period(one.definition)
        if not is_over_periods and all(
            k.name != one.name for k in _referring(table, column)
        ):
            number = len(over) + 1
            over.append(
                CarriedConstraint(place=place, number=number, found=one, type=type)
            )
    for index in () if whole else table.indexes:
        key = keys.get(index.name)
        used = index.constraints if key is None else key.dependents
        # On the way back NOT NULL, which a replica identity needs, comes later.
        stays = used or index.primary or index.replica_identity
        # A key WITHOUT OVERLAPS is of another method.
        is_like = index.method == "btree" and index.valid
        if index.name not in column.unique_indexes or not is_like or stays:
            continue
        forth = index_copies.over(facts, index, {place.old: place.heir})
        back = index_copies.over(facts, index, {place.old: place.retired})
        if forth is not None and back is not None:
            over.append(
                CarriedIndex(
                    place=place,
                    number=len(over) + 1,
                    index=index,
                    key=key,
                    forth=forth,
                    back=back,
                )
            )
    return tuple(over)


def _referring(table: Table, column: Column) -> list[ForeignKey]:
    """Return the foreign keys that refer to a column."""
    return [
        k
        for k in table.foreign_keys
        if k.to == table.name and column.name in k.to_columns
    ]


def none_came(table: TableName, column: str, over: Iterable[Carried]) -> Refusal:
    """
    Refuse an exchange where something came that the hidden column would be held to.

    Args:
        table: the table.
        column: the one that is taken out of sight, by its name until then.
        over: what goes over.
    """
    known = sql.SQL("ARRAY[{}]::pg_catalog.name[]").format(
        sql.SQL(", ").join(sql.Literal(one.name) for one in over)
    )
    came = sql.SQL(
        " FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ("
        "SELECT k.conname AS name FROM pg_catalog.pg_constraint k"
        " WHERE k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey)"
        " AND k.contype IN ('c', 'f', 'u', 'x')"
        " UNION SELECT k.conname FROM pg_catalog.pg_constraint k"
        " WHERE k.confrelid = a.attrelid AND a.attnum = ANY (k.confkey)"
        " UNION SELECT c.relname FROM pg_catalog.pg_index i"
        " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = a.attrelid AND i.indisunique"
        " AND (a.attnum = ANY (i.indkey) OR EXISTS (SELECT FROM pg_catalog.pg_depend d"
        " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND d.objid = i.indexrelid AND d.refobjid = i.indrelid"
        " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND d.refobjsubid = a.attnum))) found"
        " WHERE a.attrelid IN ({members}) AND a.attname = {column}"
        " AND NOT a.attisdropped AND found.name <> ALL ({known})"
    ).format(members=members(table), column=sql.Literal(column), known=known)
    listed = (
        "SELECT pg_catalog.string_agg(DISTINCT"
        " pg_catalog.quote_ident(found.name), ', ')"
    )
    return Refusal(
        count=render(sql.SQL("SELECT count(DISTINCT found.name)") + came),
        listed=render(sql.SQL(listed) + came),
        why=f"{{count:constraint or unique index|constraints and unique indexes}} came"
        f' onto column "{column}" since retire began: {{listed}}',
        next="drop what came, then run the same command again; add it afterwards.",
    )
