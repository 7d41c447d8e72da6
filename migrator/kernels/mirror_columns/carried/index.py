"""A unique index of old columns, and its like on their heirs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from migrator.facts import Constraint, Index
from migrator.kernels import constraints, index_copies, indexes, unique_key
from migrator.kernels.direct import IF_EXISTS
from migrator.kernels.mirror_columns.carried.base import Carried
from migrator.plan import Action, Autocommit, Refusal, Step, Steps, render


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedIndex(Carried):
    """A unique index, and the key over it: built again over the other columns."""

    index: Index
    key: Constraint | None
    #: The same over the heirs, of which there may be none, and over retired columns.
    forth: Index | None
    back: Index

    @property
    def name(self) -> str:
        """The index's name, which is the key's."""
        return self.index.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns, also those that an expression or a predicate reads."""
        return self.index.columns

    def _built(self, index: Index) -> Step:
        step = f"build_unique_{self.number}"
        return indexes.build_as(step, self.place.table, self.made, index)

    def prepared(self) -> Steps:
        """Return the build over the heirs."""
        if not self.kept or self.forth is None:
            return ()
        return (
            self._built(self.forth),
            *indexes.analyzed(
                self.place.table.name,
                [(self.made, self.index)],
                named=lambda name: f"{name}_{self.number}",
                no_reverse="it goes with the index",
            ),
        )

    def freed(self) -> Iterator[sql.Composable]:
        """Yield the drop of the key, or of the index that is none."""
        yield self._dropped()

    def _dropped(self, *, if_there: bool = False) -> sql.Composable:
        if self.key is not None:
            return self.place.without(self.key.name, if_there=if_there)
        return sql.SQL("DROP INDEX {}{}").format(
            IF_EXISTS[if_there], self._at(self.name)
        )

    def _at(self, name: str) -> sql.Composable:
        return sql.Identifier(self.place.table.name.schema, name)

    def _renamed(self, given: str, wanted: str) -> sql.Composable:
        return sql.SQL("ALTER INDEX IF EXISTS {} RENAME TO {}").format(
            self._at(given), sql.Identifier(wanted)
        )

    @property
    def _copy(self) -> str:
        """The name of the heir's copy, which holds nobody to anything."""
        return index_copies.copy_name(self.place.table, self.index, self.place.tag)

    def freed_again(self) -> Iterator[sql.Composable]:
        """Yield the drop of the heirs', or give the copy its own name again."""
        if self.kept:
            yield self._dropped(if_there=True)
        elif self.forth is not None:
            yield self._renamed(self.name, self._copy)

    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield the name of the other with its looks; where none is, the copy's."""
        if self.kept:
            yield from self.given_back()
        elif self.forth is not None:
            yield self._renamed(self._copy, self.name)

    def given_back(self) -> Iterator[sql.Composable]:
        """Yield the same: by then the like is built over the old columns."""
        table = self.place.table.name
        if self.key is None:
            yield self._renamed(self.made, self.name)
        else:
            yield self.place.alter(
                sql.SQL("ADD CONSTRAINT {} ").format(sql.Identifier(self.key.name))
                + unique_key.over_index(
                    self.key.kind, self.made, constraints.timing(self.key)
                )
            )
            yield from constraints.comments(table, self.key)
        yield from indexes.index_looks(table, self.name, self.index)

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
