"""One column of a change's two shapes, and what it takes over from another one.

A new column may be another one's heir: it stands in its place after retire, and gets
its indexes, its look and its default.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import index_copies
from migrator.kernels.column_definition import looks
from migrator.kernels.mirror_columns import carried
from migrator.kernels.mirror_columns.carried import Carried
from migrator.plan import Probe, expression, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    One column of a shape, as a pattern declares it.

    Args:
        name: the column.
        value: the SQL expression that makes it from the other shape.
        type: in SQL; that of an old column may be left out, and is asked for by a
            downgrade after the drop alone.
        collation: of a new column, in SQL; None means its type's own.
        takes: the name that a new column takes at retire, and by which expressions
            of the old shape know it; None where it has that from the start.
        heir_of: the old column in whose place a new one stands: its NOT NULL, indexes,
            comment, statistics target and storage are carried over.
        privileges_of: the old columns whose privileges a new one gets that is no heir,
            as far as they have them in common.
        default: of an heir, from retire on; an SQL expression.
        bare_of_expressions: whether an heir goes without the indexes that read the
            old column by an expression or predicate, which stay with that one.
    """

    name: str
    value: str
    type: str | None = None
    collation: str | None = None
    takes: str | None = None
    heir_of: str | None = None
    privileges_of: tuple[str, ...] = ()
    default: str | None = None
    bare_of_expressions: bool = False

    @property
    def ddl(self) -> sql.Composable:
        """What follows the name where the column is added."""
        collate = f" COLLATE {self.collation}" if self.collation else ""
        return type_name(f"{self.type}{collate}")


def heir(facts: Facts, part: Part) -> Column | None:
    """Return the column in whose place a new one stands, under its name of today."""
    if part.heir_of is None:
        return None
    retired = names.owned("retired", part.heir_of, facts.tag)
    return facts.table.column(retired) or facts.table.column(part.heir_of)


def inherits(facts: Facts, part: Part) -> tuple[sql.Composable, ...]:
    """Return statements that try on a table in pg_temp what an heir will get."""
    column = heir(facts, part)
    if column is None:
        return ()
    trial = sql.Identifier("pg_temp", facts.table.name.name)
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} ").format(
        trial, sql.Identifier(part.name)
    )
    made = list(looks(trial, part.name, column))
    if part.default is not None:
        made.append(alter + sql.SQL("SET DEFAULT ") + expression(part.default))
    return tuple(made)


def index_spellings(
    facts: Facts, old: Iterable[Part], new: Iterable[Part]
) -> Mapping[str, Probe]:
    """Return the questions how indexes are spelt over heirs and retired columns."""
    retired = retired_names(facts, old)
    spelt = [p for p in new if not p.bare_of_expressions]
    return index_copies.asked(facts, _heirs(retired, spelt), retired)


def _heirs(retired: Mapping[str, str], new: Iterable[Part]) -> dict[str, str]:
    """Return the heirs of old columns, by those."""
    return {p.heir_of: p.name for p in new if p.heir_of and p.heir_of in retired}


def indexes_tried(
    title: str, facts: Facts, part: Part, trial: Iterable[sql.Composable]
) -> tuple[Probe, ...]:
    """
    Return trials of an heir's indexes on some rows.

    Args:
        title: the change's, for messages.
        facts: of the table.
        part: the heir.
        trial: statements that make a table in pg_temp like it, with the heir.
    """
    column = heir(facts, part)
    if column is None:
        return ()
    name = sql.Identifier("pg_temp", facts.table.name.name)
    made = (
        *map(render, trial),
        render(
            sql.SQL("UPDATE {} SET {} = {}").format(
                name, sql.Identifier(part.name), expression(part.value)
            )
        ),
    )
    likes = {
        index.definition: (index, like)
        for table in facts.table.leaves
        for index in index_copies.of_column(
            table, column.name, bare=part.bare_of_expressions
        )
        if (like := index_copies.over(facts, index, {column.name: part.name}))
    }
    return tuple(
        Probe(
            statements=(
                *made,
                render(
                    sql.SQL("CREATE INDEX ON {} {}").format(
                        name, type_name(replace(like, tablespace=None).definition)
                    )
                ),
            ),
            question="SELECT true",
            otherwise="",
            failed=f'{title}: the server refuses the like of index "{index.name}" on a'
            f" column of type {part.type}",
            next="drop it first (DropIndex), and build one that suits the new column"
            " afterwards (CreateIndex).",
        )
        for index, like in likes.values()
    )


def going_over(
    facts: Facts,
    old: Iterable[Part],
    new: Iterable[Part],
    keep: Collection[str] | None,
) -> tuple[Carried, ...]:
    """
    Return what old columns are held to until retire, by facts from before it.

    Args:
        facts: of the table.
        old: the old columns.
        new: the new ones, heirs among them.
        keep: names of what heirs are held to as well; None for all of it.
    """
    retired = retired_names(facts, old)
    if not retired:
        return ()
    parts = tuple(new)
    return carried.found(
        facts,
        retired,
        _heirs(retired, parts),
        type=", ".join(p.type or "" for p in parts if p.heir_of),
        keep=keep,
    )


def retired_names(facts: Facts, old: Iterable[Part]) -> Mapping[str, str]:
    """Return the names of old columns from retire on; none where that has been."""
    retired = {p.name: names.owned("retired", p.name, facts.tag) for p in old}
    there = facts.table.column
    is_before = all(there(name) and not there(to) for name, to in retired.items())
    return retired if is_before else {}


def require_heritable(facts: Facts, part: Part) -> None:
    """Refuse what hangs on an old column and cannot be carried to its heir."""
    if part.heir_of is None:
        return
    column = facts.table.require(part.heir_of)
    where = f'Column "{column.name}" of table {facts.table.name}'
    for table in (facts.table, *facts.table.partitions):
        for index in table.indexes:
            if part.bare_of_expressions:
                continue
            is_read = index.valid and column.name in index.columns
            given = {column.name: part.name}
            if is_read and index_copies.over(facts, index, given) is None:
                raise Refused(
                    f'{where} is in index "{index.name}", whose expression or'
                    " predicate the server does not spell for another column.",
                    next="drop it first, and build its like on the new column"
                    " afterwards.",
                )
    if column.default is not None and part.default is None:
        raise Refused(
            f"{where} has the default {column.default}, which an expression of the"
            " change does not translate.",
            next='write default="…" for the new column; default="NULL" for none.',
        )


def require_unread(facts: Facts, column: Column) -> None:
    """Refuse a column from which another one is generated."""
    if column.feeds:
        raise Refused(
            f'Column "{column.name}" of table {facts.table.name} is read by'
            f' generated column "{column.feeds[0]}", which would go with it.',
            next="drop that column first, and generate it from the new ones"
            " afterwards.",
        )


def require_loose(facts: Facts, column: Column, kept: Collection[str] = ()) -> None:
    """
    Refuse what the retired column could violate, or what reads it.

    Args:
        facts: of the table.
        column: the column of the old release.
        kept: constraints and indexes that go over to its heir.
    """
    require_unread(facts, column)
    where = f'Column "{column.name}" of table {facts.table.name}'
    identity = next((i for i in facts.table.indexes if i.replica_identity), None)
    if identity is not None and identity.name in column.unique_indexes:
        raise Refused(
            f'{where} is in index "{identity.name}", the table\'s replica identity,'
            " without which updates could not be replicated for a moment.",
            next="give the table another one first (ALTER TABLE … REPLICA IDENTITY"
            " FULL), and its own back afterwards.",
        )
    strict = [n for n in (*column.checks, *column.unique_indexes) if n not in kept]
    if strict:
        raise Refused(
            f'{where} is under "{strict[0]}", which values made from the new'
            " columns could violate.",
            next="drop it first, and put its like on the new columns afterwards.",
        )
    for part in facts.table.partitions:
        if part.require(column.name).not_null and not column.not_null:
            raise Refused(
                f"{where} is NOT NULL on partition {part.name} alone, where the"
                " retired column must be able to hold NULL.",
                next="make it NOT NULL on the parent, or lift it on the partition.",
            )


def require_type(facts: Facts, part: Part, column: Column) -> None:
    """Refuse a type that the pattern states and the column does not have."""
    if part.type not in (None, column.type, column.short_type):
        raise Refused(
            f'Column "{part.name}" of table {facts.table.name} is of type'
            f" {column.type}, the change says {part.type}.",
            next=f"write {column.type} there.",
        )
