"""Rows written and rows counted, chunk by chunk, on each table that holds them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels.chunking import chosen, compared, kept, span, unique_index
from migrator.names import TableName
from migrator.plan import (
    ChunkedCheck,
    ChunkedUpdate,
    Chunking,
    Step,
    Steps,
    render,
)


class Write(ABC):
    """What is written for the rows of a chunk: by a backfill, or as a repair."""

    #: Query with one boolean that must be true in every chunk; None for none.
    guard: str | None
    #: The tables that it is about; none for the one gone over alone.
    guard_tables: tuple[TableName, ...] = ()

    @abstractmethod
    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        """
        Return the work on one table that holds rows.

        Args:
            facts: of that table.
            chunking: how to go over it; None where that is still to be chosen.
        """

    def repair(
        self,
        facts: Facts,
        chunking: Chunking,
        rows: sql.Composable,
        key: sql.Composable,
    ) -> str:
        """
        Return the statement that repairs the rows of a chunk.

        Args:
            facts: of the table that is gone over.
            chunking: how it is gone over.
            rows: the condition of rows that are out of step.
            key: what names a row.
        """
        return self.chunked(facts, chunking).statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Write):
    """
    Columns written in the rows themselves.

    Args:
        values: an expression for each written column.
        rows: the condition of rows to be written.
        guard: query with one boolean that must be true in every chunk.
        guard_tables: those that it is about; none for that of the rows alone.
    """

    values: Mapping[str, sql.Composable]
    rows: sql.Composable
    guard: str | None = None
    guard_tables: tuple[TableName, ...] = ()

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        """Return the update of one table's rows."""
        written = frozenset(self.values)
        chunking = chunking or chosen(facts, written)
        head, tail = self._parts(facts, chunking)
        return ChunkedUpdate(
            statement=render(head, tail),
            strided=render(head, in_stride(chunking), tail),
            chunking=chunking,
            upkeep=kept(facts, chunking, written),
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
            root=facts.table.root,
        )

    def repair(
        self,
        facts: Facts,
        chunking: Chunking,
        rows: sql.Composable,
        key: sql.Composable,
    ) -> str:
        """
        Return the update, which tells the rows that it leaves out of step elsewhere.

        A row whose page is full moves to another one, where who counts the chunk again
        does not see it. In `apart`, NULL for all others.
        """
        apart = sql.SQL(
            " RETURNING CASE WHEN ({}) AND NOT ({}) THEN {}::text END AS apart"
        ).format(rows, span(facts, chunking), key)
        return render(*self._parts(facts, chunking), apart)

    def _parts(
        self, facts: Facts, chunking: Chunking
    ) -> tuple[sql.Composable, sql.Composable]:
        assignment = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), value)
            for column, value in self.values.items()
        )
        return (
            sql.SQL("UPDATE {} SET {} WHERE {}").format(
                named(facts), assignment, span(facts, chunking)
            ),
            sql.SQL(" AND ({})").format(self.rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Write):
    """
    Rows removed.

    Args:
        rows: the condition of rows to be removed.
        guard: query with one boolean that must be true in every chunk.
        guard_tables: those that it is about; none for that of the rows alone.
    """

    rows: sql.Composable
    guard: str | None = None
    guard_tables: tuple[TableName, ...] = ()

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        """Return the removal of one table's rows."""
        chunking = chunking or compared(facts)
        statement = render(
            sql.SQL("DELETE FROM {} WHERE {} AND {}").format(
                named(facts), span(facts, chunking), self.rows
            )
        )
        return ChunkedUpdate(
            statement=statement,
            strided=statement,
            chunking=chunking,
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
            root=facts.table.root,
        )


def updates(
    facts: Facts,
    name: str,
    values: Mapping[str, sql.Composable],
    rows: sql.Composable,
    *,
    guard: str | None = None,
    no_reverse: str,
) -> Steps:
    """
    Return the updates of a table's rows: a step for each table that holds them.

    Args:
        facts: of the table; those of a leaf decide how to go over it.
        name: the step's.
        values: an expression for each written column.
        rows: the condition of rows to be updated.
        guard: query with one boolean that must be true in every chunk.
        no_reverse: why there is no way back.
    """
    write = Update(values=values, rows=rows, guard=guard)
    return writes(facts, name, write, no_reverse=no_reverse)


def writes(facts: Facts, name: str, write: Write, *, no_reverse: str) -> Steps:
    """
    Return a write's steps: one for each table that holds rows of the table.

    Args:
        facts: of the table.
        name: the step's.
        write: what is written.
        no_reverse: why there is no way back.
    """
    return tuple(
        Step(
            name=leaf.table.step(name),
            work=write.chunked(leaf),
            no_reverse=no_reverse,
        )
        for leaf in facts.leaves
    )


def comparisons(
    facts: Facts,
    name: str,
    rows: sql.Composable,
    *,
    shown: tuple[str, ...],
    key: tuple[str, ...] = (),
    beside: Mapping[str, sql.Composable] | None = None,
    repair: Write | None = None,
    no_reverse: str,
    wrong: str = "",
) -> Steps:
    """
    Return the counts of rows: a step for each table that holds them.

    Args:
        facts: of the table.
        name: the step's.
        rows: the condition of rows that should not be.
        shown: columns whose values are shown where a person asks for them.
        key: columns that name a row where no unique index does.
        beside: further values that are shown, of another table.
        repair: what brings them into step; None leaves them as they are.
        no_reverse: why there is no way back.
        wrong: what such a row is, for a person; empty where it is out of step.
    """

    def check(leaf: Facts) -> ChunkedCheck:
        chunking = compared(leaf)
        where = sql.SQL("FROM {} WHERE {} AND ({})").format(
            named(leaf), span(leaf, chunking), rows
        )
        index = unique_index(leaf)
        keys = [k.name for k in index.keys] if index else [*key, "ctid"]
        named_by = _object({c: sql.Identifier(c) for c in keys})
        values = {c: sql.Identifier(c) for c in shown} | dict(beside or {})
        listing = sql.SQL(
            "SELECT {}::text AS key, CASE WHEN $4::bool THEN {}::text END AS given "
        ).format(named_by, _object(values))
        return ChunkedCheck(
            count=render(sql.SQL("SELECT count(*) "), where),
            listing=render(listing, where, sql.SQL(" LIMIT $3::int")),
            repair=repair.repair(leaf, chunking, rows, named_by) if repair else None,
            table=leaf.table.name,
            chunking=chunking,
            guard=repair.guard if repair else None,
            guard_tables=repair.guard_tables if repair else (),
            root=leaf.table.root,
            wrong=wrong,
        )

    return tuple(
        Step(name=leaf.table.step(name), work=check(leaf), no_reverse=no_reverse)
        for leaf in facts.leaves
    )


def in_stride(chunking: Chunking) -> sql.Composable:
    """Return the further condition of the rows of one pass of several."""
    # Line pointers count from 1; their low byte spreads a page's rows evenly.
    return sql.SQL(
        " AND pg_catalog.get_byte(pg_catalog.tidsend(ctid), 5) % {} = $3"
    ).format(sql.Literal(chunking.stride))


def named(facts: Facts) -> sql.Composable:
    """Return a table as a statement over its rows names it."""
    table = facts.table
    if table.root is None:
        return table.name.identifier
    # Expressions may qualify columns, by the name that the change gives.
    return sql.SQL("{} AS {}").format(
        table.name.identifier, sql.Identifier(table.root.name)
    )


def _object(values: Mapping[str, sql.Composable]) -> sql.Composable:
    # As text: json has no number for NaN, and a person reads the server's spelling.
    pairs = (
        sql.SQL("{}, {}::text").format(sql.Literal(name), value)
        for name, value in values.items()
    )
    return sql.SQL("pg_catalog.json_build_object({})").format(sql.SQL(", ").join(pairs))
