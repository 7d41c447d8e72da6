"""An array, the rows that link it to its values, and what is in step of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.kernels.mirror_table.columns import KeyColumn
from migrator.names import TableName
from migrator.plan import type_name

# Names in statements: no table's, so that a column that is qualified by its table's
# name is never taken for one of another table.
ROW = sql.Identifier("_migrator_row")
LINK = sql.Identifier("_migrator_link")
VALUE = sql.Identifier("_migrator_value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """
    An array and the rows that link it to its values.

    Args:
        table: the table with the array.
        links: the one that links; its primary key is `key` and `reference`.
        values: the one of which each row is a value.
        tag: the change's.
        key: the columns of `links` that name a row of `table`.
        array: the array's name in `table`.
        element: the type of its elements.
        reference: the column of `links` that refers to a value.
        number: the key of `values`.
        value: the column of `values` that holds the value.
        foreign_key: the name of the foreign key from `links` to `table`.
        retired: whether only links are written.
        path: schemas in which names are looked up.
        owner: as whom triggers write; None for the role of the connection.
    """

    table: TableName
    links: TableName
    values: TableName
    tag: str
    key: Mapping[str, KeyColumn]
    array: str
    element: str
    reference: str
    number: str
    value: str
    foreign_key: str
    retired: bool = False
    path: tuple[str, ...] = ()
    owner: str | None = None

    def words(self) -> dict[str, sql.Composable]:
        """Return what nearly every text has: tables, their aliases and columns."""
        return {
            "table": self.table.identifier,
            "links": self.links.identifier,
            "values": self.values.identifier,
            "row": ROW,
            "link": LINK,
            "value": VALUE,
            "array": sql.Identifier(self.array),
            "key": listed(self.key),
            "reference": sql.Identifier(self.reference),
            "number": sql.Identifier(self.number),
            "v": sql.Identifier(self.value),
            "linked": sql.SQL("{}.{} = {}.{}").format(
                VALUE,
                sql.Identifier(self.number),
                LINK,
                sql.Identifier(self.reference),
            ),
        }

    def columns(self) -> list[str]:
        """Return the table's columns that name a row."""
        return [k.column for k in self.key.values()]

    def moved(self) -> sql.Composable:
        """Return the condition that an UPDATE gave a row another key."""
        return sql.SQL("NOT ({})").format(self.same(sql.SQL("OLD"), sql.SQL("NEW")))

    def same(self, one: sql.Composable, other: sql.Composable) -> sql.Composable:
        """Return the condition that two rows of the table have one key."""
        return sql.SQL(" AND ").join(
            sql.SQL("{one}.{c} {equal} {other}.{c}").format(
                one=one,
                other=other,
                c=sql.Identifier(k.column),
                equal=type_name(k.equal),
            )
            for k in self.key.values()
        )

    def joined(self, link: sql.Composable, row: sql.Composable) -> sql.Composable:
        """Return the condition that a link is one of a row."""
        return sql.SQL(" AND ").join(
            sql.SQL("{}.{} {} {}.{}").format(
                link,
                sql.Identifier(name),
                type_name(k.equal),
                row,
                sql.Identifier(k.column),
            )
            for name, k in self.key.items()
        )

    def is_linked(self, row: sql.Composable, value: sql.Composable) -> sql.Composable:
        """Return the condition that a row is linked to a value."""
        return sql.SQL(
            "EXISTS (SELECT FROM {links} AS {link} JOIN {values} AS {value} ON {linked}"
            " WHERE {joined} AND {value}.{v} = {wanted})"
        ).format(**self.words(), joined=self.joined(LINK, row), wanted=value)

    def apart(self) -> sql.Composable:
        """Return the condition of rows whose array is another set than their links."""
        return sql.SQL("{} IS DISTINCT FROM {}").format(
            self._set(), self.values_by(self.value)
        )

    def _set(self) -> sql.Composable:
        return sql.SQL(
            "(SELECT pg_catalog.array_agg(DISTINCT _u.e ORDER BY _u.e)"
            " FROM pg_catalog.unnest({}) AS _u (e) WHERE _u.e IS NOT NULL)"
        ).format(sql.Identifier(self.table.name, self.array))

    def values_by(self, order: str) -> sql.Composable:
        """Return the values to which a row is linked; NULL where there is none."""
        return sql.SQL(
            "(SELECT pg_catalog.array_agg({value}.{v} ORDER BY {value}.{order})"
            " FROM {links} AS {link} JOIN {values} AS {value} ON {linked}"
            " WHERE {joined})"
        ).format(
            **self.words(),
            order=sql.Identifier(order),
            joined=self.joined(LINK, sql.Identifier(self.table.name)),
        )

    def elements(self) -> sql.Composable:
        """Return what a row's array is by its links, in the order of their values."""
        return sql.SQL("COALESCE({}, '{{}}')").format(self.values_by(self.number))

    def given(self) -> sql.Composable:
        """Return the condition of rows whose array has elements."""
        return sql.SQL("pg_catalog.cardinality({}) > 0").format(
            sql.Identifier(self.table.name, self.array)
        )

    def repeats(self) -> sql.Composable:
        """Return the condition of rows whose array holds more than links can."""
        return sql.SQL(
            "pg_catalog.cardinality({}) <> (SELECT count(DISTINCT _u.e)"
            " FROM pg_catalog.unnest({}) AS _u (e))"
        ).format(*2 * [sql.Identifier(self.table.name, self.array)])

    def orphaned(self) -> sql.Composable:
        """Return the condition of links of no row."""
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
            self.table.identifier,
            ROW,
            self.joined(sql.Identifier(self.links.name), ROW),
        )


def listed(columns: Iterable[str]) -> sql.Composable:
    """Return columns by their names."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def columns_of(row: sql.Composable, columns: Iterable[str]) -> sql.Composable:
    """Return columns of a row."""
    return sql.SQL(", ").join(
        sql.SQL("{}.{}").format(row, sql.Identifier(column)) for column in columns
    )
