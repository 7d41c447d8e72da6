"""A table whose columns go to the one that its rows belong to.

Until both tables are in step, requests write the columns where they always were, and
they flow to the other table, where nobody reads them yet. Then, before the new release
is let in, the table makes way for a view over the other one: from that instant on there
is one place where the columns are written, for either release. The table itself follows
out of sight until the drop, so that going back loses nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Index
from migrator.kernels import constraints, direct, foreign_key, indexes, unique_key
from migrator.kernels.column_definition import definition, granted, looks
from migrator.kernels.mirror_table.absorbed import Absorbed
from migrator.kernels.mirror_table.columns import Value
from migrator.kernels.mirror_table.shadow import Shadow
from migrator.kernels.privileges import nothing_by_default
from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    Lock,
    Refusal,
    Step,
    Steps,
    Transaction,
    missing,
    present,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Absorbed):
    """The phases of the merge."""

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the columns in the other table, and their dual write."""
        into, inflow = self.into.name, self.inflow()
        added: list[sql.Composable] = [
            sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
                into.identifier,
                definition(
                    replace(c, default=None, not_null=False), self.columns[name]
                ),
            )
            for name, c in self.going().items()
        ]
        kept = [
            statement
            for name, c in self.going().items()
            for statement in (
                *looks(into.identifier, self.columns[name], c),
                *granted(into, self.columns[name], c),
            )
        ]
        dropped: list[sql.Composable] = [
            sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                into.identifier, sql.Identifier(name)
            )
            for name in self.columns.values()
        ]
        if presence := self.presence():
            added.append(presence.add())
            dropped.append(presence.remove())
        return (
            Step(
                name="add_columns",
                work=direct.catalogue_step(into, *added, *kept),
                reverse=(direct.catalogue_step(into, *dropped),),
            ),
            Step(
                name="mirror_rows",
                work=direct.catalogue_step(
                    self.name,
                    *inflow.on(self.table.owner),
                    *self._noted_alone(),
                    lock=Lock.SHARE_ROW_EXCLUSIVE,
                ),
                reverse=(direct.catalogue_step(self.name, *inflow.off()),),
            ),
        )

    def backfill(self) -> Steps:
        """Return the copy of values, then of indexes: so that updates stay HOT."""
        return (
            *self.inflow().copy(self.facts.of(self.into)),
            *self._indexes(unique=False),
        )

    def verify(self) -> Steps:
        """
        Return the comparison, and behind it the exchange of the table for the view.

        After that it is the table that follows. A unique index of the other table
        waits for the exchange: a row that is behind could have another one's value.
        """
        into = self.facts.of(self.into)
        if self.is_exchanged:
            return self.shadow().verify(into, self.table)
        return (
            *self.inflow().verify(into),
            Step(
                name="exchange_for_view",
                work=self._exchange(),
                reverse=(self._exchange_back(),),
            ),
            *self._indexes(unique=True),
        )

    def retire(self) -> Steps:
        """Return the drop of the view: the old release is gone."""
        view = self.stand_in()
        again = direct.catalogue_step(
            self.into.name, self._path(), *view.create(), lock=Lock.ACCESS_SHARE
        )
        gone = direct.catalogue_step(self.into.name, *view.remove(), through=self.name)
        return (
            Step(
                name="drop_view",
                work=self.shadow().needs_on(
                    replace(gone, refusals=(view.unused("goes"),))
                ),
                reverse=(replace(again, refusals=(direct.name_taken(self.name),)),),
            ),
            *([self._lift_check()] if self.required else []),
            *self._rules(),
        )

    def drop(self) -> Steps:
        """Return the drop of the table that followed."""
        into, former = self.into.name, self.former_name
        presence = self.presence()
        work = direct.catalogue_step(
            former,
            *self.shadow().off(),
            sql.SQL("DROP TABLE {}").format(former.identifier),
            *((*presence.off(), presence.remove()) if presence else ()),
            *(s for index in self.carried() for s in self._named(index)),
            also=(into,),
        )
        return (
            Step(
                name="drop_table",
                work=self.shadow().needs_on(work),
                no_reverse="the table is gone",
                loses=True,
            ),
        )

    def rebuild(self) -> Steps:
        """Return the table, filled from the other one, where no release runs."""
        into, name = self.into.name, self.name
        columns = {c: self.into.require(to) for c, to in self.columns.items()}
        keys = {c: self.into.require(to) for c, to in self.key.items()}
        primary = sql.SQL(", ").join(map(sql.Identifier, self.key))
        shadow = Shadow(
            source=into,
            target=name,
            tag=self.facts.tag,
            key=self.keys(),
            values={
                c: Value(expression=sql.Identifier(into.name, to.name), type=to.type)
                for c, to in columns.items()
            },
            rows=sql.SQL("({})").format(
                sql.SQL(" OR ").join(
                    present(sql.Identifier(into.name, to.name))
                    for to in columns.values()
                )
            ),
        )
        return (
            Step(
                name="create_table",
                work=direct.catalogue_step(
                    into,
                    sql.SQL(
                        "CREATE TABLE {} ({}, PRIMARY KEY ({}), FOREIGN KEY ({})"
                        " REFERENCES {} ({}) ON UPDATE CASCADE ON DELETE CASCADE)"
                    ).format(
                        name.identifier,
                        sql.SQL(", ").join(
                            definition(replace(c, default=None), known)
                            for known, c in (keys | columns).items()
                        ),
                        primary,
                        primary,
                        into.identifier,
                        sql.SQL(", ").join(map(sql.Identifier, self.key.values())),
                    ),
                    sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                        name.identifier, sql.Identifier(self.into.owner)
                    ),
                ),
                no_reverse="upgrade again",
            ),
            *shadow.copy(self.facts.of(self.into), name="copy_rows", guarded=False),
            Step(
                name="drop_columns",
                work=direct.catalogue_step(
                    into,
                    *(
                        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                            into.identifier, sql.Identifier(to.name)
                        )
                        for to in columns.values()
                    ),
                ),
                no_reverse="upgrade again",
                loses=True,
            ),
        )

    # -- parts -----------------------------------------------------------

    def _path(self) -> sql.Composable:
        """Return the path under which defaults were written."""
        return sql.SQL("SET LOCAL search_path = {}").format(
            direct.pinned_path(self.facts.path, self.name.schema)
        )

    def _copy(self, index: Index) -> str:
        return names.owned("index", index.name, self.facts.tag)

    def _indexes(self, *, unique: bool) -> Steps:
        there = dict(self.columns) | dict(self.key)
        return tuple(
            indexes.build_like(
                f"copy_index_{number}", self.into, index, self._copy(index), there
            )
            for number, index in enumerate(self.carried(), 1)
            if index.unique is unique
        )

    def _rules(self) -> Steps:
        """Return the checks and foreign keys of the other table, each proved."""
        into = self.into.name
        found: list[Step] = []
        for number, c in enumerate(self.ruled("c"), 1):
            text = type_name(c.definition) + sql.SQL(" NOT VALID")
            found += (
                Step(
                    name=f"add_check_{number}",
                    work=constraints.with_comment(
                        constraints.add(into, c.name, text), into, c
                    ),
                    reverse=(constraints.drop(into, c.name),),
                ),
                Step(
                    name=f"validate_check_{number}",
                    work=constraints.validated(into, c.name),
                    no_reverse="the proof goes with the check",
                ),
            )
        for number, c in enumerate(self.ruled("f"), 1):
            found += foreign_key.steps(
                f"_{number}",
                into,
                c.name,
                type_name(c.definition),
                c.references or into,
                comment=c.comment,
            )
        return tuple(found)

    def _noted_alone(self) -> tuple[sql.Composable, ...]:
        """Return what leaves the rows that are behind to the owner."""
        return nothing_by_default(
            self.facts.default_grantees, self.inflow().behind, owner=self.table.owner
        )

    def _named(self, index: Index) -> Iterable[sql.Composable]:
        """Return what gives the copy of an index its name, and its constraint."""
        into, name = self.into.name, self.indexes.get(index.name, index.name)
        yield from indexes.named(into.schema, self._copy(index), index, name)
        if constraint := self.unique(index):
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                into.identifier,
                sql.Identifier(name),
                unique_key.over_index("u", name, constraints.timing(constraint)),
            )
            if constraint.comment is not None:
                yield constraints.comment(into, replace(constraint, name=name))

    def _exchange(self) -> Transaction:
        inflow, into, presence = self.inflow(), self.into.name, self.presence()
        done = direct.catalogue_step(
            self.name,
            # Few rows, and nobody writes either table now.
            inflow.caught_up(),
            self._path(),
            *inflow.off(),
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                self.name.identifier, sql.Identifier(self.former_name.name)
            ),
            *self._referring(self.former_name, "DEFERRABLE INITIALLY DEFERRED"),
            *([self._add_check()] if self.required else []),
            *(presence.on() if presence else ()),
            *self.stand_in().create(),
            *self.shadow().on(),
            also=(into,),
        )
        return inflow.needs_on(
            replace(done, refusals=(inflow.few(),), shows_copies=True)
        )

    def _exchange_back(self) -> Transaction:
        view, into, former = self.stand_in(), self.into.name, self.former_name
        presence = self.presence()
        done = direct.catalogue_step(
            former,
            *view.remove(),
            *(presence.off() if presence else ()),
            *self.shadow().off(),
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                into.identifier, sql.Identifier(self._check)
            ),
            *self._referring(former, "NOT DEFERRABLE"),
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                former.identifier, sql.Identifier(self.name.name)
            ),
            *self.inflow().on(self.table.owner),
            *self._noted_alone(),
            also=(into,),
            through=self.name,
        )
        unused = view.unused("makes way for the table")
        return self.shadow().needs_on(replace(done, refusals=(unused,)))

    def _referring(self, table: TableName, when: str) -> Iterable[sql.Composable]:
        """
        Return what says when the foreign keys to the other table are checked.

        A row of the other table is deleted before that of the one that follows it.
        """
        return (
            sql.SQL("ALTER TABLE {} ALTER CONSTRAINT {} {}").format(
                table.identifier, sql.Identifier(c.name), type_name(when)
            )
            for c in self.references()
        )

    @property
    def _check(self) -> str:
        return names.owned("check", self.name.name, self.facts.tag)

    def _add_check(self) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
            self.into.name.identifier, sql.Identifier(self._check), self._together()
        )

    def _together(self) -> sql.Composable:
        """Return the condition that a row has what it must have, or nothing."""
        return sql.SQL("{} OR {}").format(
            sql.SQL(" AND ").join(present(sql.Identifier(c)) for c in self.required),
            sql.SQL(" AND ").join(
                missing(sql.Identifier(c)) for c in self.columns.values()
            ),
        )

    def _lift_check(self) -> Step:
        """Return the step that lets the new release write what columns it likes."""
        into = self.into.name
        alone = Refusal(
            count=render(
                sql.SQL("SELECT count(*) FROM {} WHERE NOT ({})").format(
                    into.identifier, self._together()
                )
            ),
            why="{count:row has|rows have} values in columns that"
            f" {self.name} had, and none in {', '.join(self.required)}",
            next="give them one, or none at all, then run the same command again; or"
            " keep the new release.",
        )
        again = Autocommit(
            statement=render(self._add_check()),
            lock=Lock.ACCESS_EXCLUSIVE,
            table=into,
            done=constraints.is_there(into, self._check),
            refusals=(alone,),
        )
        # Those that came between the count and the check are counted once more.
        proved = replace(constraints.validated(into, self._check), refusals=(alone,))
        return Step(
            name="lift_check",
            work=constraints.drop(into, self._check),
            reverse=(again, proved),
        )
