"""A column as DDL makes it again elsewhere, with what hangs on it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from psycopg import sql

from migrator.facts import Column, Index, Table
from migrator.names import TableName
from migrator.plan import Probe, expression, render, type_name


def definition(
    column: Column, name: str, *, required: str | None = None
) -> sql.Composable:
    """
    Return a column's DDL under another name.

    Args:
        column: the one that it is like.
        name: the other name.
        required: the name of its NOT NULL; None for the server's choice.
    """
    collation = f" COLLATE {column.collation}" if column.collation else ""
    text = sql.SQL("{} {}").format(
        sql.Identifier(name), type_name(column.type + collation)
    )
    if column.default is not None:
        text += sql.SQL(" DEFAULT ") + expression(column.default)
    if not column.not_null:
        return text
    if required is not None:
        text += sql.SQL(" CONSTRAINT {}").format(sql.Identifier(required))
    return text + sql.SQL(" NOT NULL")


def looks(
    table: sql.Composable, name: str, column: Column
) -> tuple[sql.Composable, ...]:
    """Return what else hangs on a column, but for who may use it."""
    at = (table, sql.Identifier(name))
    found: list[sql.Composable] = []
    if column.comment is not None:
        found.append(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                *at, sql.Literal(column.comment)
            )
        )
    if column.storage is not None:
        found.append(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STORAGE {}").format(
                *at, type_name(column.storage)
            )
        )
    if column.statistics is not None:
        found.append(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STATISTICS {}").format(
                *at, sql.Literal(column.statistics)
            )
        )
    if column.compression is not None:
        found.append(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET COMPRESSION {}").format(
                *at, type_name(column.compression)
            )
        )
    if column.options:
        found.append(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET ({})").format(
                *at, type_name(", ".join(column.options))
            )
        )
    return tuple(found)


def granted(table: TableName, name: str, column: Column) -> tuple[sql.Composable, ...]:
    """
    Return the statements that give a column the privileges that another one has.

    Args:
        table: the one that gets them is of.
        name: the one that gets them.
        column: the one that has them.
    """
    return tuple(
        sql.SQL("GRANT {} ({}) ON {} TO {}{}").format(
            type_name(word),
            sql.Identifier(name),
            table.identifier,
            type_name(role),
            sql.SQL(" WITH GRANT OPTION" if passed_on else ""),
        )
        for word, role, passed_on in column.grants
    )


def granted_on_parts(
    table: Table, name: str, *columns: str
) -> tuple[sql.Composable, ...]:
    """
    Return what `granted` does, on a table and on each of its partitions.

    Args:
        table: of all of the columns.
        name: the one that gets privileges.
        columns: those that have them; of several it gets what they have in common.
    """
    return tuple(
        statement
        for part in (table, *table.partitions)
        if (found := [c for c in map(part.column, columns) if c is not None])
        for statement in granted(
            part.name, name, replace(found[0], grants=in_common(found))
        )
    )


def in_common(columns: Sequence[Column]) -> tuple[tuple[str, str, bool], ...]:
    """Return the privileges that a role has on each of some columns by itself."""
    known = [{(word, role): may for word, role, may in c.grants} for c in columns]
    return tuple(
        (word, role, all(one[word, role] for one in known))
        for word, role, _ in columns[0].grants
        if all((word, role) in one for one in known)
    )


def carried(
    table: Table, columns: Iterable[str], key: Iterable[str]
) -> tuple[Index, ...]:
    """
    Return the indexes that can go along with columns.

    Args:
        table: the table.
        columns: the columns that go, by the names that they have now.
        key: further columns that stand beside them in the other table.
    """
    gone = frozenset(columns)
    known = gone.union(key)
    return tuple(
        i
        for i in table.indexes
        if i.plain
        and i.valid
        and not i.constraints
        and known.issuperset(i.columns)
        and not gone.isdisjoint(i.columns)
    )


def constant_default(table: Table, column: Column) -> Probe:
    """Return the trial that a default is the same in each row."""
    return Probe(
        statements=(
            "CREATE TEMP TABLE migrator_trial (trial int)",
            render(
                # Some types have no order, and so no index of their values.
                sql.SQL("CREATE INDEX ON migrator_trial (((({})::{}) IS NULL))").format(
                    type_name(column.default or "NULL"), type_name(column.type)
                )
            ),
        ),
        question="SELECT true",
        otherwise="",
        failed=f'The default of column "{column.name}" of table {table.name}'
        " differs from row to row, so that a row that nobody wrote cannot be"
        " told",
        next="drop the default by a change of its own first.",
    )
