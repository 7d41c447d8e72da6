"""A foreign key of a partitioned table, and its like on the heirs, leaf by leaf.

Before PostgreSQL 18 no foreign key of a partitioned table is NOT VALID. Each leaf may
have one that is; where all of them are proved, the key of the whole table takes them as
its parts and reads no row. Leaves are those that are there by then: partitions come and
go between retire and its way back.

Source: PostgreSQL manual, CREATE TABLE, PARTITION BY; ALTER TABLE, Notes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator.facts import Constraint
from migrator.kernels import constraints
from migrator.kernels.direct import catalogue_step, members
from migrator.kernels.mirror_columns.carried.constraint import CarriedConstraint
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Refusal,
    Step,
    Steps,
    TableLock,
    Transaction,
    render,
    type_name,
)

# Leaves that have no like yet, and the likes that there are.
_BARE = sql.SQL(
    " FROM pg_catalog.pg_class c WHERE c.oid IN ({members}) AND c.relkind <> 'p'"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k"
    " WHERE k.conrelid = c.oid AND k.conname = {made}{proved})"
)
_LIKES = sql.SQL(
    " FROM pg_catalog.pg_constraint k WHERE k.conrelid IN ({members})"
    " AND k.conname = {made}"
)
_FOR_EACH = sql.SQL(
    """
DECLARE
  leaf pg_catalog.regclass;
BEGIN
  FOR leaf IN {leaves} LOOP
    EXECUTE pg_catalog.format({statement}, leaf, {made}, {definition});
  END LOOP;
END
"""
)
# Each leaf's proof ends its transaction: no lock is held while the next one is read.
_PROVE_EACH = sql.SQL(
    """
DECLARE
  leaf pg_catalog.regclass;
BEGIN
  LOOP
    SELECT k.conrelid INTO leaf{likes} AND NOT k.convalidated
      ORDER BY k.conrelid LIMIT 1;
    EXIT WHEN NOT FOUND;
    EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', leaf, {made});
    COMMIT;
  END LOOP;
END
"""
)
_NAME_EACH = sql.SQL(
    """
DECLARE
  one record;
BEGIN
  FOR one IN
    WITH RECURSIVE part (oid, of, name) AS (
      SELECT k.oid, k.conrelid, k.conname FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_constraint whole ON whole.oid = k.conparentid
       WHERE whole.conrelid = {table}::pg_catalog.regclass AND whole.conname = {name}
      UNION ALL
      SELECT k.oid, k.conrelid, k.conname FROM part
        JOIN pg_catalog.pg_constraint k ON k.conparentid = part.oid
    )
    SELECT part.of::pg_catalog.regclass AS of, part.name AS given,
           CASE WHEN known.name IS NOT NULL THEN known.name
                -- One that came since may have another constraint of the name.
                WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k
                              WHERE k.conrelid = part.of AND k.conname = {name}
                                AND k.oid <> part.oid)
                THEN pg_catalog.left({name}, 40) || '_' || part.of::pg_catalog.oid
                ELSE {name} END AS wanted,
           known.comment
      FROM part
      LEFT JOIN pg_catalog.jsonb_to_recordset({known})
             AS known (of text, name text, comment text)
        ON pg_catalog.to_regclass(known.of) = part.of
  LOOP
    IF one.given <> one.wanted THEN
      EXECUTE pg_catalog.format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
        one.of, one.given, one.wanted);
    END IF;
    IF one.comment IS NOT NULL THEN
      EXECUTE pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L',
        one.wanted, one.of, one.comment);
    END IF;
  END LOOP;
END
"""
)
_ANEW = "run `migrator rollback --to verified`, then the same command again."
_AGAIN = "run the same command again, which proves it there, too."


@dataclass(frozen=True, slots=True, kw_only=True)
class PartedForeignKey(CarriedConstraint):
    """A foreign key with a part on each partition, which may have another name."""

    parts: tuple[tuple[TableName, Constraint], ...]

    @property
    def names(self) -> frozenset[str]:
        """Its name, and those of its parts."""
        return frozenset({self.name, *(part.name for _, part in self.parts)})

    def prepared(self) -> Steps:
        """Return a key of each leaf's heirs, and its proof."""
        if not self.kept:
            return ()
        add = self._added_each(*self.place.on_heirs(self._add_each()))
        return (
            *self.counted(add.done or ""),
            Step(
                name=f"add_constraint_{self.number}",
                work=add,
                reverse=(self._step(self._drop_each()),),
            ),
            Step(
                name=f"validate_constraint_{self.number}",
                work=self._proved_each(),
                no_reverse="the proof goes with the constraint",
            ),
        )

    def unproved(self) -> tuple[Refusal, ...]:
        """Return the condition that rows of a leaf were not looked up."""
        return (self._unproved(_ANEW),) if self.kept else ()

    def freed(self) -> Iterator[sql.Composable]:
        """Yield the drop of the key, and that of the heirs, which takes the leaves'."""
        yield self.place.without(self.name)
        if self.kept:
            yield from self.place.on_heirs(self._whole())

    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield the names of its parts."""
        if self.kept:
            yield from self._named()

    def given_back(self) -> Iterator[sql.Composable]:
        """Yield a key of each leaf."""
        yield self._add_each()

    def after_back(self) -> tuple[Action, ...]:
        """Return the proof, and the key that takes the leaves'."""
        done = constraints.is_there(self.place.table.name, self.name)
        # A partition that came behind the exchange has none.
        add = self._added_each(self._add_each())
        take = self._step(self._whole(), *self._named())
        return (
            replace(add, done=f"{add.done} OR ({done})"),
            self._proved_each(),
            replace(take, done=done, refusals=(self._unproved(_AGAIN),)),
        )

    def _step(self, *statements: sql.Composable) -> Transaction:
        return catalogue_step(self.place.table.name, *statements, also=self.also)

    def _added_each(self, *statements: sql.Composable) -> Transaction:
        done = sql.SQL("SELECT NOT EXISTS (SELECT{})").format(self._bare())
        return replace(self._step(*statements), done=render(done))

    def _proved_each(self) -> Autocommit:
        done = sql.SQL("SELECT NOT EXISTS (SELECT{} AND NOT k.convalidated)")
        prove = _PROVE_EACH.format(likes=self._likes(), made=sql.Literal(self.made))
        return Autocommit(
            statement=render(_do(prove)),
            lock=Lock.SHARE_UPDATE_EXCLUSIVE,
            table=self.place.table.name,
            done=render(done.format(self._likes())),
            scans=True,
            also=tuple(TableLock(table=t, lock=Lock.ROW_SHARE) for t in self.also),
        )

    def _unproved(self, then: str) -> Refusal:
        bare = self._bare(" AND k.convalidated")
        return Refusal(
            count=render(sql.SQL("SELECT count(*)") + bare),
            why=f'{{count:partition has|partitions have}} no proved foreign key "'
            f'{self.name}" of its own, so that its rows would be read under the lock',
            next=then,
        )

    def _add_each(self) -> sql.Composable:
        statement = "ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID"
        leaves = sql.SQL("SELECT c.oid") + self._bare()
        return self._for_each(leaves, statement)

    def _drop_each(self) -> sql.Composable:
        statement = "ALTER TABLE %s DROP CONSTRAINT %I"
        leaves = sql.SQL("SELECT k.conrelid") + self._likes()
        return self._for_each(leaves, statement)

    def _for_each(self, leaves: sql.Composable, statement: str) -> sql.Composable:
        return _do(
            _FOR_EACH.format(
                leaves=leaves,
                statement=sql.Literal(statement),
                made=sql.Literal(self.made),
                definition=sql.Literal(self.found.definition),
            )
        )

    def _whole(self) -> sql.Composable:
        return self.place.alter(
            sql.SQL("ADD CONSTRAINT {} ").format(sql.Identifier(self.name))
            + type_name(self.found.definition)
        )

    def _named(self) -> Iterator[sql.Composable]:
        known = [
            {"of": str(table), "name": part.name, "comment": part.comment}
            for table, part in self.parts
            if part.name != self.name or part.comment is not None
        ]
        table = self.place.table.name
        yield _do(
            _NAME_EACH.format(
                table=sql.Literal(str(table)),
                name=sql.Literal(self.name),
                known=sql.Literal(json.dumps(known)),
            )
        )
        yield from constraints.comments(table, self.found)

    def _bare(self, proved: LiteralString = "") -> sql.Composable:
        return _BARE.format(
            members=members(self.place.table.name),
            made=sql.Literal(self.made),
            proved=sql.SQL(proved),
        )

    def _likes(self) -> sql.Composable:
        return _LIKES.format(
            members=members(self.place.table.name), made=sql.Literal(self.made)
        )


def _do(body: sql.Composable) -> sql.Composable:
    return sql.SQL("DO {}").format(sql.Literal(render(body)))
