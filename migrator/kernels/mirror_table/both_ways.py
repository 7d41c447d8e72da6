"""Columns that stand in two tables, row by row, and are written in either."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels import direct, images
from migrator.kernels.mirror_table.dual_write import trigger_function, triggers_off
from migrator.kernels.mirror_table.related import Related, image
from migrator.kernels.rows import Update, comparisons, writes
from migrator.plan import Steps, Transaction, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class BothWays(Related):
    """
    The mirror of columns between a table and one whose rows belong to its rows.

    Until retire either side is written, and what a statement wrote wins; a row of the
    parent without one of the child keeps what it holds. From retire on the child is
    written alone, and a parent without a child is at rest.

    Args:
        parent, child, key, columns: as of `Related`.
        tag: the change's.
        retired: whether the child is written alone.
        path: schemas in which defaults are looked up.
        owner: as whom triggers write; None for the role of the connection.
    """

    tag: str
    retired: bool = False
    path: tuple[str, ...] = ()
    owner: str | None = None

    # -- the dual write --------------------------------------------------

    def on_child(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the triggers on the child."""
        return (
            *self.define("child"),
            *self._trigger("child", "insert", "AFTER INSERT OR DELETE"),
            *self._trigger(
                "child", "update", "AFTER UPDATE", (*self.key, *self.columns)
            ),
            *self._trigger("child", "truncate", "AFTER TRUNCATE"),
        )

    def on_parent(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the triggers on the parent."""
        watched = (
            *(k.column for k in self.key.values()),
            *(s.column for s in self.columns.values()),
        )
        return (
            *self.define("parent"),
            *self._trigger("parent", "insert", "AFTER INSERT"),
            *self._trigger("parent", "update", "AFTER UPDATE", watched),
        )

    def off_child(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the child's triggers off."""
        return self._off("child", "insert", "update", "truncate")

    def off_parent(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the parent's triggers off."""
        return self._off("parent", "insert", "update")

    def define(self, *sides: str) -> tuple[sql.Composable, ...]:
        """
        Return the statements that make functions, or make them anew.

        Args:
            sides: of whose triggers, "child" or "parent".
        """
        bodies = {
            "child": self._child_retired() if self.retired else self._child(),
            "parent": self._parent_retired() if self.retired else self._parent(),
        }
        return tuple(
            statement
            for side in sides
            for statement in trigger_function(
                self._function(side),
                bodies[side],
                path=self.path,
                schema=self.parent.schema,
                owner=self.owner,
            )
        )

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        on = (
            direct.triggers_are_on(
                table,
                self._named(events[0]),
                on_top=tuple(map(self._named, events[1:])),
            ).removeprefix("SELECT ")
            for table, events in (
                (self.parent, ("insert", "update")),
                (self.child, ("insert", "update", "truncate")),
            )
        )
        return f"SELECT {' AND '.join(on)}"

    def needs_on(self, work: Transaction) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        why = (
            f"a dual-write trigger on {self.parent} or {self.child} is missing or not"
            " enabled ALWAYS, so that one side may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    def _named(self, event: str) -> str:
        return names.trigger(f"{self.tag}_{event}")

    def _function(self, side: str) -> sql.Identifier:
        return names.function(f"{self.tag}_{side}")

    def _trigger(
        self, side: str, event: str, when: str, watched: tuple[str, ...] = ()
    ) -> tuple[sql.Composable, ...]:
        """Return a trigger, which an UPDATE fires where it changes an image."""
        table = (self.child if side == "child" else self.parent).identifier
        name = sql.Identifier(self._named(event))
        changed: sql.Composable = sql.SQL("")
        if watched:
            changed = sql.SQL(" WHEN ({})").format(
                images.DIFFER.format(_event("old", watched), _event("new", watched))
            )
        return (
            sql.SQL(
                "CREATE TRIGGER {} {} ON {} FOR EACH {}{} EXECUTE FUNCTION {}()"
            ).format(
                name,
                type_name(when),
                table,
                sql.SQL("STATEMENT" if event == "truncate" else "ROW"),
                changed,
                self._function(side),
            ),
            sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, name),
        )

    def _off(self, side: str, *events: str) -> tuple[sql.Composable, ...]:
        table = self.child if side == "child" else self.parent
        return triggers_off(table, map(self._named, events), self._function(side))

    # -- what triggers do --------------------------------------------------

    def _child(self) -> sql.Composable:
        """
        Return the function of the child until retire.

        Rows are read as they are by then, not as the event has them: another AFTER
        trigger may have updated one again, and the event of that update came first.

        A row that comes without a value takes that of its parent, and so does one that
        goes to another parent: whose values they are, the old release says. The parent
        is held, since what a request writes there just now finds no child.
        """
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'INSERT' OR {moved} THEN
    {held};
  END IF;
  IF TG_OP = 'INSERT' AND {empty} OR TG_OP = 'UPDATE' AND {moved} AND {same} THEN
    {down};
  ELSE
    {up};
  END IF;
  RETURN NULL;
END
"""
        ).format(
            held=self.held(self.owner_of("new")),
            moved=self.moved(),
            empty=images.SAME.format(
                _event("new", self.columns), self.rest(known=False)
            ),
            same=images.SAME.format(
                _event("old", self.columns), _event("new", self.columns)
            ),
            down=self.down(self.owner_of("new")),
            up=self.up(self.owner_of("new")),
        )

    def _parent(self) -> sql.Composable:
        """
        Return the function of the parent until retire.

        Within a statement a parent may come back to its child.
        """
        columns = [s.column for s in self.columns.values()]
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'INSERT' AND ({resting}) THEN
    {up};
  ELSE
    {down};
  END IF;
  RETURN NULL;
END
"""
        ).format(
            resting=self.is_rest(_event("new", columns)),
            up=self.up(self.same_parent("new")),
            down=self.down(self.same_parent("new")),
        )

    def _child_retired(self) -> sql.Composable:
        """Return the function of the child from retire on."""
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    {rest};
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' OR {moved} THEN
    {rest} AND {former};
  END IF;
  IF TG_OP <> 'DELETE' THEN
    {up};
  END IF;
  RETURN NULL;
END
"""
        ).format(
            rest=self.rested(),
            moved=self.moved(),
            former=self.owner_of("old"),
            up=self.up(self.owner_of("new")),
        )

    def _parent_retired(self) -> sql.Composable:
        """Return the function of the parent from retire on."""
        return sql.SQL(
            "\n#variable_conflict use_column\nBEGIN\n  {};\n  RETURN NULL;\nEND\n"
        ).format(self.up(self.same_parent("new")))

    # -- rows ------------------------------------------------------------

    def fill(self, facts: Facts, name: str) -> Steps:
        """
        Return the updates that give the child's rows what their parents hold.

        Args:
            facts: of the child.
            name: the step's.
        """
        return writes(
            facts, name, self._repair(), no_reverse="the copied values go with the copy"
        )

    def verify(self, parent: Facts, child: Facts) -> Steps:
        """
        Return the comparison of both tables, each chunk in one statement.

        Args:
            parent: facts of the parent.
            child: facts of the child.
        """
        kept = "nothing but rows out of step is changed"
        if self.retired:
            return comparisons(
                parent,
                "compare_parents",
                self.parent_apart(),
                shown=tuple(s.column for s in self.columns.values()),
                beside={"child": self.child_image(images.SHOWN)},
                repair=self._repair_parents(),
                no_reverse=kept,
            )
        here = sql.Identifier(self.parent.name)
        return (
            *comparisons(
                child,
                "compare_rows",
                self.child_apart(),
                shown=tuple(self.columns),
                beside={"parent": self.parent_image(images.SHOWN)},
                repair=self._repair(),
                no_reverse=kept,
            ),
            *comparisons(
                parent,
                "find_values_without_row",
                sql.SQL("NOT ({}) AND {}").format(
                    self.is_rest(self.of_parent(here)), self.orphaned(here)
                ),
                shown=tuple(s.column for s in self.columns.values()),
                no_reverse="nothing is changed",
            ),
        )

    def _repair(self) -> Update:
        """
        Return what gives children the values of their parents.

        The parent is held, and so read as it is by then: what the statement's snapshot
        has of it may be older than what a trigger wrote to the child since.
        """
        return Update(
            values={
                name: self.from_parent(s.column, hold=True)
                for name, s in self.columns.items()
            },
            rows=self.child_apart(),
            guard=self.is_on(),
            guard_tables=(self.parent, self.child),
        )

    def _repair_parents(self) -> Update:
        def value(name: str, rest: sql.Composable) -> sql.Composable:
            found = self.from_child(name, hold=True)
            orphaned = self.orphaned(sql.Identifier(self.parent.name))
            return sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
                orphaned, rest, found
            )

        return Update(
            values={s.column: value(n, s.at_rest) for n, s in self.columns.items()},
            rows=self.parent_apart(),
            guard=self.is_on(),
            guard_tables=(self.parent, self.child),
        )


def _event(row: str, columns: Iterable[str]) -> sql.Composable:
    """Return columns of a row that a trigger was given, as one value."""
    return image(sql.Identifier(row), columns)
