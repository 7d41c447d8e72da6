"""One column of a side of two shapes, and expressions over the other side."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.facts import Column
from migrator.kernels.mirror_columns.base import distinct
from migrator.names import TableName
from migrator.plan import expression, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """
    One column of a side.

    Args:
        name: while both releases work.
        retired: the name that takes it out of sight: after retire for a column
            of the old side, after a rollback for one of the new side.
        type: with modifiers, as in DDL.
        value: the expression that makes it from the columns of the other side.
        collation: as DDL spells it; None for that of the type.
        image_equal: whether `=` of the type compares images already.
        not_null: whether it holds no NULL.
        takes: the name that a column of the new side takes at retire, and by which
            the other side's expressions know it; None where it has that already.
        heir_of: the old column in whose place it stands: it gets what hangs on it.
        privileges_of: the old columns whose privileges it gets, as far as they have
            them in common, where it is no heir.
        default: of an heir, from retire on; an SQL expression.
        bare_of_expressions: whether an heir goes without the indexes that read the
            old column by an expression or predicate.
    """

    name: str
    retired: str
    type: str
    value: str
    collation: str | None = None
    image_equal: bool = True
    not_null: bool = False
    takes: str | None = None
    heir_of: Column | None = None
    privileges_of: tuple[str, ...] = ()
    default: str | None = None
    bare_of_expressions: bool = False

    @property
    def final(self) -> str:
        """The name after retire of a column of the new side."""
        return self.takes or self.name

    @property
    def compared_as(self) -> str:
        """The type in which values are compared."""
        # A cast to varchar(n) cuts silently, where an assignment raises.
        return re.sub(r"^(character varying|varchar)\s*\(.*\)$", r"\1", self.type)

    @property
    def ddl(self) -> sql.Composable:
        """The type as DDL spells it."""
        return type_name(
            self.type + (f" COLLATE {self.collation}" if self.collation else "")
        )

    def differs(self, left: sql.Composable, right: sql.Composable) -> sql.Composable:
        """Return the condition that two values of the column differ."""
        return distinct(left, right, image_equal=self.image_equal)


def read_as(
    value: str, known: Mapping[str, sql.Composable], table: TableName
) -> sql.Composable:
    """
    Return an expression that finds columns under other names than they bear.

    Args:
        value: the expression; other columns it finds around it.
        known: for each name that it uses, what stands there.
        table: whose columns they are.
    """
    if not known:
        return expression(value)
    # A query within the query: its columns go before those around it.
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(given, sql.Identifier(name))
        for name, given in known.items()
    )
    return sql.SQL("(SELECT {} FROM (SELECT {}) AS {})").format(
        expression(value), columns, sql.Identifier(table.name)
    )
