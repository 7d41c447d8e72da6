"""Marks on rows whose new side has no counterpart, for which un-retire looks."""

from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Table
from migrator.kernels.direct import catalogue_step
from migrator.kernels.indexes import build_index, table_tag
from migrator.names import TableName
from migrator.plan import Refusal, Step, render

# Rows that an index finds and that are counted while a lock is held, or by who asks how
# a change stands: some 10 ms. Of more than that the number does not matter.
MOST_COUNTED = 100_000


def few_of(table: TableName, rows: sql.Composable) -> str:
    """
    Return the query that counts rows of a table, up to `MOST_COUNTED`.

    Args:
        table: the table.
        rows: the condition, which an index answers.
    """
    counted = sql.SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT {}) AS few")
    return render(counted.format(table.identifier, rows, sql.Literal(MOST_COUNTED)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """
    The column in which rows are marked, and its indexes: a count needs no scan.

    Args:
        table: the table.
        tag: the change's.
    """

    table: TableName
    tag: str

    @property
    def column(self) -> str:
        """The column's name: true in a row that is marked, else NULL."""
        return names.owned("mark", "no_counterpart", self.tag)

    def add(self, table: Table) -> Step:
        """Return the step that adds the column; `table` as facts of the table."""
        return Step(
            name="add_mark",
            work=catalogue_step(
                self.table,
                sql.SQL("ALTER TABLE {} ADD COLUMN {} boolean").format(
                    self.table.identifier, sql.Identifier(self.column)
                ),
                *self._index_of_later_ones(table),
            ),
            reverse=(
                catalogue_step(
                    self.table,
                    sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                        self.table.identifier, sql.Identifier(self.column)
                    ),
                ),
            ),
        )

    def index(self, leaf: Table) -> Step:
        """Return the build of a leaf's partial index, empty where nothing is marked."""
        mark = sql.Identifier(self.column)
        step = build_index(
            "index_marks",
            leaf,
            names.owned("marks", leaf.name.name, table_tag(leaf, self.tag)),
            method="btree",
            keys=mark,
            where=mark.as_string(None),
        )
        if leaf.root is None:
            return step
        # An index of the parent may have taken it over, and would hold it.
        return replace(step, reverse=(), no_reverse="the index goes with the mark")

    def none(self) -> Refusal:
        """Return the condition that no row is marked."""
        return Refusal(
            count=few_of(self.table, sql.Identifier(self.column)),
            most=MOST_COUNTED,
            why="{count:row holds|rows hold} values of the new release that do"
            " not fit the old side",
            next=f'correct these rows (they have "{self.column}" set), then run it'
            " again; or keep the new release.",
        )

    def _index_of_later_ones(self, table: Table) -> tuple[sql.Composable, ...]:
        """
        Return the indexes by which partitions that come later get theirs.

        Those of the leaves are not attached to them, and nothing needs that.

        Source: PostgreSQL manual, CREATE INDEX, Parameters (ONLY).
        """
        mark = sql.Identifier(self.column)
        return tuple(
            sql.SQL("CREATE INDEX {} ON ONLY {} ({}) WHERE {}").format(
                sql.Identifier(
                    names.owned("marks", part.name.name, table_tag(part, self.tag))
                ),
                part.name.identifier,
                mark,
                mark,
            )
            for part in (table, *table.partitions)
            if part.kind == "p"
        )
