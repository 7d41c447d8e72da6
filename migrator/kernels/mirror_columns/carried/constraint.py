"""A check or foreign key of old columns, and its like on their heirs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator.facts import Constraint
from migrator.kernels import constraints, foreign_key
from migrator.kernels.direct import catalogue_step
from migrator.kernels.mirror_columns.carried.base import Carried
from migrator.kernels.mirror_columns.side import read_as
from migrator.names import TableName
from migrator.plan import Action, Refusal, Step, Steps, type_name


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
    def columns(self) -> tuple[str, ...]:
        """Its columns."""
        return self.found.columns

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

    def _violated(self, places: Mapping[str, str], why: str) -> Refusal | None:
        """Return the refusal of rows that violate it, by other columns in theirs."""
        if not self.found.validated:
            return None
        table = self.place.table.name
        given = {old: places[old] for old in self.columns if old in places}
        if self.found.condition is None:
            rows = foreign_key.refused_rows(self.place.table, self.found, given)
        else:
            there = {old: sql.Identifier(name) for old, name in given.items()}
            rows = read_as(f"NOT ({self.found.condition})", there, table)
        return constraints.refused_by_rows(table, self.name, rows, f" {why}")

    def counted(self, done: str) -> Steps:
        """
        Return the count of rows whose new values violate it.

        Args:
            done: the question whether the like is there, which refuses them itself.
        """
        why = f"by their values as {self.type}"
        refusal = self._violated(self.place.heirs, why)
        if refusal is None:
            return ()
        return (
            Step(
                name=f"count_constraint_{self.number}",
                work=constraints.counted(self.place.table.name, refusal, done=done),
                no_reverse="nothing is changed",
            ),
        )

    def prepared(self) -> Steps:
        """Return the constraint on the heirs, which binds no old release any more."""
        if not self.kept:
            return ()
        table, made = self.place.table.name, self.made
        (also,) = self.also or (None,)
        there = constraints.is_there(table, made)
        work = catalogue_step(
            table, *self.place.on_heirs(self._added(made)), also=self.also
        )
        steps = (
            *self.counted(there),
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

    def freed(self) -> Iterator[sql.Composable]:
        """Yield the drop of the constraint."""
        yield self.place.without(self.name)

    def freed_again(self) -> Iterator[sql.Composable]:
        """Yield the drop of the heirs', if nobody has dropped it since."""
        if self.kept:
            yield self.place.without(self.name, if_there=True)

    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield the name of the other."""
        if not self.kept:
            return
        table = self.place.table.name
        yield constraints.renamed(table, self.made, self.name)
        yield from constraints.comments(table, self.found)

    def given_back(self) -> Iterator[sql.Composable]:
        """Yield the constraint as it was, but for the proof."""
        yield self._added(self.name)
        yield from constraints.comments(self.place.table.name, self.found)

    def before_back(self, over: str, fits: Refusal) -> tuple[Action, ...]:
        """Return the count of rows whose old values violate it."""
        retired = self.place.retired
        named = ", ".join(f'"{retired[c]}"' for c in self.columns if c in retired)
        refusal = self._violated(retired, f"by the values of {named}")
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
