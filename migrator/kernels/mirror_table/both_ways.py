"""Columns that stand in two tables, row by row, and are written in either."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels import direct
from migrator.kernels.mirror_columns.base import SETTINGS
from migrator.kernels.mirror_table.facade import Shown
from migrator.kernels.mirror_table.shadow import KeyColumn
from migrator.kernels.rows import Update, comparisons, writes
from migrator.names import TableName
from migrator.plan import Steps, Transaction, render, type_name

# Names in statements: no table's, so that a column that is qualified by its table's
# name is never taken for one of the other table.
_PARENT = sql.Identifier("_migrator_parent")
_CHILD = sql.Identifier("_migrator_child")

_IMAGE = sql.SQL("ROW({})::pg_catalog.record")
_DIFFER = sql.SQL("{} OPERATOR(pg_catalog.*<>) {}")
_SAME = sql.SQL("{} OPERATOR(pg_catalog.*=) {}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BothWays:
    """
    The mirror of columns between a table and one whose rows belong to its rows.

    Until retire either side is written, and what a statement wrote wins; a row of the
    parent without one of the child keeps what it holds. From retire on the child is
    written alone, and a parent without a child is at rest.

    Args:
        parent: the table whose key the other one refers to.
        child: the other table; each of its rows has a parent.
        tag: the change's.
        key: the child's columns that name its parent.
        columns: the mirrored columns by their names in the child, each with the
            parent's column and what that holds where nobody wrote it.
        retired: whether the child is written alone.
        path: schemas in which defaults are looked up.
        owner: as whom triggers write; None for the role of the connection.
    """

    parent: TableName
    child: TableName
    tag: str
    key: Mapping[str, KeyColumn]
    columns: Mapping[str, Shown]
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

        Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
        Safely.
        """
        found: list[sql.Composable] = []
        pinned = sql.SQL("").join(
            sql.SQL(f" SET {name} FROM CURRENT") for name in SETTINGS
        )
        bodies = {
            "child": self._child_retired() if self.retired else self._child(),
            "parent": self._parent_retired() if self.retired else self._parent(),
        }
        for side in sides:
            function = self._function(side)
            found.append(
                sql.SQL(
                    "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
                    " SECURITY DEFINER SET search_path = {}, pg_temp{} AS {}"
                ).format(
                    function,
                    direct.pinned_path(self.path, self.parent.schema),
                    pinned,
                    sql.Literal(render(bodies[side])),
                )
            )
            if self.owner is not None:
                found.append(
                    sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                        function, sql.Identifier(self.owner)
                    )
                )
        return tuple(found)

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
                _DIFFER.format(_of("old", watched), _of("new", watched))
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
        return (
            *(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                    sql.Identifier(self._named(event)), table.identifier
                )
                for event in events
            ),
            sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function(side)),
        )

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
    PERFORM 1 FROM {parent} AS {p} WHERE {owned} FOR NO KEY UPDATE;
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
            parent=self.parent.identifier,
            p=_PARENT,
            owned=self._owner_of("new"),
            moved=self._moved(),
            empty=_SAME.format(_of("new", self.columns), self._rest(known=False)),
            same=_SAME.format(_of("old", self.columns), _of("new", self.columns)),
            down=self._down(self._owner_of("new")),
            up=self._up(self._owner_of("new")),
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
            resting=self._is(_of("new", columns)),
            up=self._up(self._same_parent("new")),
            down=self._down(self._same_parent("new")),
        )

    def _child_retired(self) -> sql.Composable:
        """Return the function of the child from retire on."""
        rest = sql.SQL("UPDATE {} AS {} SET {} WHERE {} AND {}").format(
            self.parent.identifier,
            _PARENT,
            self._assigned({n: s.at_rest for n, s in self.columns.items()}),
            self._orphaned(_PARENT),
            _DIFFER.format(self._of_parent(_PARENT), self._rest()),
        )
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
            rest=rest,
            moved=self._moved(),
            former=self._owner_of("old"),
            up=self._up(self._owner_of("new")),
        )

    def _parent_retired(self) -> sql.Composable:
        """Return the function of the parent from retire on."""
        return sql.SQL(
            "\n#variable_conflict use_column\nBEGIN\n  {};\n  RETURN NULL;\nEND\n"
        ).format(self._up(self._same_parent("new")))

    def _down(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement that takes values from parents to their children."""
        return sql.SQL(
            "UPDATE {} AS {} SET {} FROM {} AS {} WHERE {} AND {} AND {}"
        ).format(
            self.child.identifier,
            _CHILD,
            sql.SQL(", ").join(
                sql.SQL("{} = {}.{}").format(
                    sql.Identifier(name), _PARENT, sql.Identifier(s.column)
                )
                for name, s in self.columns.items()
            ),
            self.parent.identifier,
            _PARENT,
            rows,
            self._joined(_PARENT, _CHILD),
            self._apart(),
        )

    def _up(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement that takes values from children to their parents."""
        return sql.SQL(
            "UPDATE {} AS {} SET {} FROM {} AS {} WHERE {} AND {} AND {}"
        ).format(
            self.parent.identifier,
            _PARENT,
            self._assigned(
                {n: sql.SQL("{}.{}").format(_CHILD, _name(n)) for n in self.columns}
            ),
            self.child.identifier,
            _CHILD,
            rows,
            self._joined(_PARENT, _CHILD),
            self._apart(),
        )

    def _assigned(self, values: Mapping[str, sql.Composable]) -> sql.Composable:
        return sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(s.column), values[name])
            for name, s in self.columns.items()
        )

    # -- conditions --------------------------------------------------------

    def _apart(self) -> sql.Composable:
        return _DIFFER.format(self._of_parent(_PARENT), self._of_child(_CHILD))

    def _of_parent(self, row: sql.Composable) -> sql.Composable:
        return _image(row, [s.column for s in self.columns.values()])

    def _of_child(self, row: sql.Composable) -> sql.Composable:
        return _image(row, self.columns)

    def _rest(self, *, known: bool = True) -> sql.Composable:
        """Return what columns hold that nobody wrote; NULLs where no default is."""
        values = (
            s.at_rest if known else Shown(column=s.column, type=s.type).at_rest
            for s in self.columns.values()
        )
        return _IMAGE.format(sql.SQL(", ").join(values))

    def _is(self, image: sql.Composable) -> sql.Composable:
        """Return the condition that an image of the parent's holds no one's values."""
        return sql.SQL(" OR ").join(
            (
                _SAME.format(image, self._rest()),
                _SAME.format(image, self._rest(known=False)),
            )
        )

    def _moved(self) -> sql.Composable:
        """Return the condition that an UPDATE gave a child another parent."""
        return sql.SQL("TG_OP = 'UPDATE' AND ({})").format(
            sql.SQL(" OR ").join(
                sql.SQL("NOT (old.{c} {equal} new.{c})").format(
                    c=sql.Identifier(name), equal=type_name(k.equal)
                )
                for name, k in self.key.items()
            )
        )

    def _owner_of(self, row: str) -> sql.Composable:
        """Return the condition of the parent of a row of the child."""
        return self._joined(_PARENT, sql.Identifier(row))

    def _same_parent(self, row: str) -> sql.Composable:
        """Return the condition of the row that a trigger of the parent was given."""
        return sql.SQL(" AND ").join(
            sql.SQL("{p}.{c} {equal} {row}.{c}").format(
                p=_PARENT,
                c=sql.Identifier(k.column),
                equal=type_name(k.equal),
                row=sql.Identifier(row),
            )
            for k in self.key.values()
        )

    def _joined(self, parent: sql.Composable, child: sql.Composable) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{}.{} {} {}.{}").format(
                parent,
                sql.Identifier(k.column),
                type_name(k.equal),
                child,
                sql.Identifier(name),
            )
            for name, k in self.key.items()
        )

    def _orphaned(self, parent: sql.Composable) -> sql.Composable:
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
            self.child.identifier, _CHILD, self._joined(parent, _CHILD)
        )

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
                self._parent_apart(),
                shown=tuple(s.column for s in self.columns.values()),
                beside={"child": self._child_image("pg_catalog.to_json(ROW({}))")},
                repair=self._repair_parents(),
                no_reverse=kept,
            )
        here = sql.Identifier(self.parent.name)
        return (
            *comparisons(
                child,
                "compare_rows",
                self._child_apart(),
                shown=tuple(self.columns),
                beside={"parent": self._parent_image("pg_catalog.to_json(ROW({}))")},
                repair=self._repair(),
                no_reverse=kept,
            ),
            *comparisons(
                parent,
                "find_values_without_row",
                sql.SQL("NOT ({}) AND {}").format(
                    self._is(self._of_parent(here)), self._orphaned(here)
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
                name: self._from_parent(
                    sql.SQL("{}.{}").format(_PARENT, _name(s.column)), hold=True
                )
                for name, s in self.columns.items()
            },
            rows=self._child_apart(),
            guard=self.is_on(),
        )

    def _repair_parents(self) -> Update:
        def value(name: str, rest: sql.Composable) -> sql.Composable:
            found = self._from_child(
                sql.SQL("{}.{}").format(_CHILD, _name(name)), hold=True
            )
            orphaned = self._orphaned(sql.Identifier(self.parent.name))
            return sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
                orphaned, rest, found
            )

        return Update(
            values={s.column: value(n, s.at_rest) for n, s in self.columns.items()},
            rows=self._parent_apart(),
            guard=self.is_on(),
        )

    def _child_apart(self) -> sql.Composable:
        # The child's columns stand outside of the sub-select: in it, a bare one would
        # be the parent's.
        return sql.SQL("({}) IS TRUE").format(
            _DIFFER.format(
                self._parent_image("ROW({})::pg_catalog.record"),
                self._of_child(sql.Identifier(self.child.name)),
            )
        )

    def _parent_apart(self) -> sql.Composable:
        here = sql.Identifier(self.parent.name)
        return sql.SQL("CASE WHEN {} THEN NOT ({}) ELSE {} END").format(
            self._orphaned(here),
            self._is(self._of_parent(here)),
            _DIFFER.format(
                self._child_image("ROW({})::pg_catalog.record"), self._of_parent(here)
            ),
        )

    def _parent_image(self, form: str) -> sql.Composable:
        columns = sql.SQL(", ").join(
            sql.SQL("{}.{}").format(_PARENT, _name(s.column))
            for s in self.columns.values()
        )
        return self._from_parent(_formed(form, columns))

    def _child_image(self, form: str) -> sql.Composable:
        columns = sql.SQL(", ").join(
            sql.SQL("{}.{}").format(_CHILD, _name(n)) for n in self.columns
        )
        return self._from_child(_formed(form, columns))

    def _from_parent(
        self, value: sql.Composable, *, hold: bool = False
    ) -> sql.Composable:
        """Return a value of the parent of the child's row that is gone over."""
        return sql.SQL("(SELECT {} FROM {} AS {} WHERE {}{})").format(
            value,
            self.parent.identifier,
            _PARENT,
            self._joined(_PARENT, sql.Identifier(self.child.name)),
            sql.SQL(" FOR NO KEY UPDATE" if hold else ""),
        )

    def _from_child(
        self, value: sql.Composable, *, hold: bool = False
    ) -> sql.Composable:
        """Return a value of the child of the parent's row that is gone over."""
        return sql.SQL("(SELECT {} FROM {} AS {} WHERE {}{})").format(
            value,
            self.child.identifier,
            _CHILD,
            self._joined(sql.Identifier(self.parent.name), _CHILD),
            sql.SQL(" FOR NO KEY UPDATE" if hold else ""),
        )

    def from_child(self, name: str) -> sql.Composable:
        """Return a column of the child as a value of the parent's row."""
        return self._from_child(sql.SQL("{}.{}").format(_CHILD, _name(name)))

    def has_child(self) -> sql.Composable:
        """Return the condition of a parent's row that has a child."""
        return sql.SQL("NOT ({})").format(
            self._orphaned(sql.Identifier(self.parent.name))
        )


def _name(column: str) -> sql.Identifier:
    return sql.Identifier(column)


def _formed(form: str, columns: sql.Composable) -> sql.Composable:
    before, _, after = form.partition("{}")
    return type_name(before) + columns + type_name(after)


def _of(row: str, columns: Iterable[str]) -> sql.Composable:
    return _image(sql.Identifier(row), columns)


def _image(row: sql.Composable, columns: Iterable[str]) -> sql.Composable:
    return _IMAGE.format(
        sql.SQL(", ").join(
            sql.SQL("{}.{}").format(row, sql.Identifier(column)) for column in columns
        )
    )
