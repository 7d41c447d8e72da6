"""Checks of tables, as models and database have them.

Alembic compares none. By name alone, as a plugin of its own does, an edit of the
condition stays unseen, and so does a check without a name. Compared here is what the
server makes of a condition, on an empty table of the same columns: it spells every
condition anew, with casts of its own.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.util.sqla_compat import (
    _get_constraint_final_name,
    all_table_check_constraints,
)
from psycopg import sql
from sqlalchemy.exc import InvalidRequestError

from migrator import names
from migrator.alembic.underway import target_of, told
from migrator.lint import operations as lint
from migrator.names import TableName
from migrator.plan import Probe, expression, render, type_name
from migrator.postgres import trials
from migrator.postgres.connection import RETRIED, Connection, connect
from migrator.postgres.queries import query

log = logging.getLogger(__name__)

# Milliseconds: a trial reads a table's columns, for which only ACCESS EXCLUSIVE has it
# wait.
_LOCK_MS = 2000
# A list of values takes two rounds to be spelt as the server leaves it; nothing known
# takes more.
_ROUNDS = 3

_KIND: Any = "check_constraint"


class CheckOp(ops.CreateCheckConstraintOp):
    """
    A check that comes.

    Args:
        instead: the name of one that goes and says the same; None where there is none.
        column: the column whose type it belongs to, if it does.
    """

    instead: str | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A table as the database has it, and as the models have it."""

    schema: str | None
    name: str
    there: sa.Table
    wanted: sa.Table

    @property
    def has_any(self) -> bool:
        """Whether there is a check on either side."""
        items = (*self.there.constraints, *all_table_check_constraints(self.wanted))
        return any(isinstance(c, sa.CheckConstraint) for c in items)


_noted: WeakKeyDictionary[AutogenContext, list[_Pair]] = WeakKeyDictionary()


def note(
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    there: sa.Table | None,
    wanted: sa.Table | None,
) -> None:
    """Take down a table that is compared; arguments as Alembic gives them."""
    if there is not None and wanted is not None:
        _noted.setdefault(context, []).append(_Pair(schema, name, there, wanted))


def compare(
    context: AutogenContext, upgrade: ops.UpgradeOps, schemas: Sequence[str | None]
) -> None:
    """Add what has to be done about checks; arguments as Alembic gives them."""
    pairs = [p for p in _noted.pop(context, []) if p.has_any]
    if not pairs:
        return
    assert context.connection is not None
    target = target_of(context.connection)
    with told(), connect(target, "migrator:alembic") as conn:
        rows = conn.execute(query("checks")).fetchall()
        for pair in pairs:
            mine = [
                row
                for row in rows
                if row["table"] == pair.name
                and (row["schema"] == pair.schema if pair.schema else row["visible"])
            ]
            if not mine:
                # Of a transaction that is open in env.py: not to be seen from here.
                continue
            _without_others(upgrade, pair)
            there = [row for row in mine if row["name"] is not None]
            found = list(_Comparison(context, conn, pair, there).operations())
            if found:
                upgrade.ops.append(
                    ops.ModifyTableOps(pair.name, found, schema=pair.schema)
                )


def _without_others(upgrade: ops.UpgradeOps, pair: _Pair) -> None:
    """Take out what Alembic's plugin found about the same table, by names alone."""
    for inner in list(upgrade.ops):
        if not isinstance(inner, ops.ModifyTableOps):
            continue
        if (inner.schema, inner.table_name) == (pair.schema, pair.name):
            inner.ops = [o for o in inner.ops if not _is_of_check(o)]
            if inner.is_empty():
                upgrade.ops.remove(inner)


def _is_of_check(operation: ops.MigrateOperation) -> bool:
    if isinstance(operation, ops.DropConstraintOp):
        return operation.constraint_type == "check"
    return isinstance(operation, ops.CreateCheckConstraintOp)


@dataclass(slots=True, eq=False)
class _Wanted:
    """A check of a model; `made` is what the server makes of it, None if nothing."""

    item: sa.CheckConstraint
    name: str | None
    condition: str
    made: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _There:
    """A check of the database; `own` tells one that is not a parent's alone."""

    item: sa.CheckConstraint
    name: str
    condition: str
    own: bool


@dataclass(slots=True)
class _Comparison:
    """The checks of one table."""

    context: AutogenContext
    conn: Connection
    pair: _Pair
    rows: Sequence[Any]
    _last: dict[str, str] = field(default_factory=dict[str, str])

    def operations(self) -> Iterator[ops.MigrateOperation]:
        """Return what has to be done, in Alembic's words."""
        there = {t.name: t for t in self._there()}
        taken = {row["name"] for row in self.rows}
        wanted = self._wanted(taken - there.keys())
        for one, made in zip(
            wanted, self._spelt([w.condition for w in wanted]), strict=True
        ):
            one.made = made
        new: list[_Wanted] = []
        for one in [w for w in wanted if w.name is not None]:
            other = there.pop(str(one.name), None)
            if other is None:
                new.append(one)
            elif self._differs(one, other):
                yield from self._changed(one, other)
        unnamed = [w for w in wanted if w.name is None]
        for one in list(unnamed):
            other = next((t for t in there.values() if self._is_same(one, t)), None)
            if other is not None:
                unnamed.remove(one)
                del there[other.name]
        blind = False
        for one in unnamed:
            if one.made is None or self._waits(one):
                # Which of those that are there it may be is not known.
                self._tell_left(one)
                blind = True
                continue
            name = self._given(one)
            other = there.pop(name, None)
            if other is not None:
                one.name = name
                yield from self._changed(one, other)
                continue
            one.name = _free(name, taken)
            taken.add(one.name)
            new.append(one)
        gone = [] if blind else [t for t in there.values() if t.own]
        yield from self._came_and_went(new, gone)

    def _came_and_went(
        self, new: Sequence[_Wanted], gone: Sequence[_There]
    ) -> Iterator[ops.MigrateOperation]:
        left = [g for g in gone if self._is_shown(g.item, g.name, reflected=True)]
        for one in new:
            if not self._is_shown(one.item, one.name) or self._comes_along(one):
                continue
            comes = self._comes(one)
            same = next((g for g in left if self._is_same(one, g)), None)
            if same is not None:
                comes.instead = same.name
            yield comes
        for other in left:
            yield ops.DropConstraintOp.from_constraint(other.item)

    # -- both sides ------------------------------------------------------

    def _there(self) -> Iterator[_There]:
        for row in self.rows:
            name = sa.schema.conv(row["name"])
            if self.context.run_name_filters(
                name,
                _KIND,
                {"table_name": self.pair.name, "schema_name": self.pair.schema},
            ):
                item = sa.CheckConstraint(
                    _text(row["condition"]), name=name, table=self.pair.there
                )
                yield _There(item, name, row["condition"], row["own"])

    def _wanted(self, left_out: set[str]) -> list[_Wanted]:
        """Return the checks of the model that this database is to have."""
        found: list[_Wanted] = []
        for item in self.pair.wanted.constraints:
            if not isinstance(item, sa.CheckConstraint) or not _is_made(item):
                continue
            name = self._name_of(item)
            if name is None or name not in left_out:
                found.append(_Wanted(item, name, lint.condition(item)))
        # A set has no order, and what is written is to be the same each time.
        return sorted(found, key=lambda w: (w.name or "", w.condition))

    def _name_of(self, item: sa.CheckConstraint) -> str | None:
        """Return a check's name by the naming convention, cut as SQLAlchemy does."""
        try:
            return _get_constraint_final_name(item, self.context.dialect)
        except InvalidRequestError:
            # The convention asks for a name, and a type that makes it has none.
            return None

    # -- what the server makes of a condition ----------------------------

    def _differs(self, one: _Wanted, other: _There) -> bool:
        """Tell whether a check has another condition under the same name."""
        if one.made is None or self._waits(one):
            self._tell_left(one)
            return False
        return not self._is_same(one, other)

    def _is_same(self, one: _Wanted, other: _There) -> bool:
        if one.made is None:
            return False
        if one.made == other.condition:
            return True
        # Spelt again, a list of values has other casts: so it is after a restore.
        return self._in_the_end(one.made) == self._in_the_end(other.condition)

    def _in_the_end(self, condition: str) -> str:
        if condition not in self._last:
            at = condition
            for _ in range(_ROUNDS):
                again = self._spelt([at])[0]
                if again is None or again == at:
                    break
                at = again
            self._last[condition] = at
        return self._last[condition]

    def _spelt(self, conditions: Sequence[str]) -> list[str | None]:
        """Return conditions as the server spells them; None for what is none."""
        if not conditions:
            return []
        found = self._tried(
            [
                sql.SQL("ADD CONSTRAINT {} CHECK {}").format(
                    sql.Identifier(f"c{number:05}"), expression(condition)
                )
                for number, condition in enumerate(conditions)
            ],
            conditions,
        )
        if found is not None:
            return [condition for _, condition in found]
        if len(conditions) == 1:
            return [None]
        return [self._spelt([condition])[0] for condition in conditions]

    def _given(self, one: _Wanted) -> str:
        """Return the name that the server gives to a check without one."""
        found = self._tried(
            [sql.SQL("ADD CHECK {}").format(expression(one.condition))],
            [one.condition],
        )
        return found[0][0] if found else names.fitted(self.pair.name, "_check")

    def _tried(
        self, added: Sequence[sql.Composable], conditions: Sequence[str]
    ) -> list[tuple[str, str]] | None:
        """
        Return names and conditions of checks as the server has them on an empty table.

        Args:
            added: what adds them.
            conditions: theirs.
        """
        # Of the columns that come, those that are read alone: the type of another one
        # need not be there yet.
        read = frozenset[str]().union(*map(names.mentioned, conditions))
        named = self.pair.name
        table = TableName("pg_temp", named)
        source = (
            TableName(self.pair.schema, named).identifier
            if self.pair.schema
            else (sql.Identifier(named))
        )
        new = [
            sql.SQL("ADD COLUMN {} {}").format(
                sql.Identifier(c.name), type_name(lint.type_sql(c.type))
            )
            for c in self._new_columns()
            if c.name in read
        ]
        question = sql.SQL(
            "SELECT pg_catalog.json_agg(pg_catalog.json_build_array(conname,"
            " pg_catalog.pg_get_expr(conbin, conrelid)) ORDER BY conname)"
            " FROM pg_catalog.pg_constraint"
            " WHERE contype = 'c' AND conrelid = {}::pg_catalog.regclass"
        ).format(sql.Literal(str(table)))
        probe = Probe(
            statements=(
                render(
                    # Bears the table's own name, which a condition may use.
                    sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                        sql.Identifier(named), source
                    )
                ),
                *(
                    render(sql.SQL("ALTER TABLE {} {}").format(table.identifier, one))
                    for one in (*new, *added)
                ),
            ),
            question=render(question),
            otherwise="",
        )
        try:
            found = trials.reads(self.conn, probe, lock_timeout_ms=_LOCK_MS)
        except RETRIED:
            found = None
        return None if not found else [(name, made) for name, made in found]

    def _new_columns(self) -> list["sa.Column[Any]"]:
        return [c for c in self.pair.wanted.columns if c.name not in self.pair.there.c]

    def _waits(self, one: _Wanted) -> bool:
        """Tell whether a check may be one that is there, once a column is renamed."""
        new = {c.name for c in self._new_columns()}
        gone = [c for c in self.pair.there.c if c.name not in self.pair.wanted.c]
        return bool(gone) and not new.isdisjoint(names.mentioned(one.condition))

    # -- what is said ----------------------------------------------------

    def _changed(self, one: _Wanted, other: _There) -> Iterator[ops.MigrateOperation]:
        if self._is_shown(one.item, one.name, other=other.item):
            yield ops.DropConstraintOp.from_constraint(other.item)
            yield self._comes(one)

    def _comes(self, one: _Wanted) -> CheckOp:
        made = CheckOp(
            sa.schema.conv(str(one.name)),
            self.pair.name,
            sa.text(_text(one.condition)),
            schema=self.pair.schema,
        )
        made.column = _typed(one.item)
        return made

    def _comes_along(self, one: _Wanted) -> bool:
        """Tell whether a column that comes makes a check, by a type of the models'."""
        name = _typed(one.item)
        # What Alembic writes of SQLAlchemy's own types can do without.
        return any(
            c.name == name and isinstance(c.type, sa.TypeDecorator)
            for c in self._new_columns()
        )

    def _is_shown(
        self,
        item: sa.CheckConstraint,
        name: str | None,
        *,
        reflected: bool = False,
        other: sa.CheckConstraint | None = None,
    ) -> bool:
        return self.context.run_object_filters(item, name, _KIND, reflected, other)

    def _tell_left(self, one: _Wanted) -> None:
        if not self._is_shown(one.item, one.name):
            return
        log.warning(
            'Check "%s" of table "%s" is not compared: %s',
            one.name or one.condition,
            self.pair.name,
            "it reads a column that comes, while one goes. Decide first whether that"
            " is a rename, run it, then compare again."
            if one.made is not None
            else "on a temporary table of the columns that are there the server could"
            " not make it.",
        )


def _typed(item: sa.CheckConstraint) -> str | None:
    """Return the column whose type a check belongs to, if it does."""
    return next((c.name for c in item.columns), None) if item._type_bound else None


def _is_made(item: sa.CheckConstraint) -> bool:
    """Tell whether SQLAlchemy makes a check here: that of a type, or `ddl_if`."""
    return item._should_create_for_compiler(lint.ddl())


def _text(condition: str) -> str:
    """Return a condition so that SQLAlchemy sees no parameter in it."""
    return condition.replace(":", "\\:")


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no check has, as the server numbers them."""
    stem, _, suffix = name.rpartition("_")
    found, number = name, 0
    while found in taken:
        number += 1
        found = names.fitted(f"{stem}_{suffix}", str(number))
    return found
