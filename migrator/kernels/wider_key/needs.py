"""What a key, and what hangs on it, must be like to become wider."""

from dataclasses import replace

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Column, Index
from migrator.kernels import requirements
from migrator.kernels.mirror_columns import require_mirrorable
from migrator.kernels.mirror_columns.widened import BITS
from migrator.kernels.parts import require_unread
from migrator.kernels.wider_key.base import Part, WiderKey
from migrator.kernels.wider_key.exchange import again
from migrator.plan import Probe, render, type_name


def require(whole: WiderKey) -> None:
    """
    Refuse what could not be carried over to a wider column.

    Raises:
        Refused: on a table, column, index or foreign key, which it names.
    """
    for part in whole.parts():
        _require_table(part)
        for one in part.columns:
            _require_column(part, one.column)
        for index, _ in part.indexes():
            _require_index(part, index)
    wider = whole.columns()
    for key in whole.foreign_keys():
        for mine, theirs in zip(key.columns, key.to_columns, strict=True):
            if (key.table, mine) in wider and (key.to, theirs) not in wider:
                raise Refused(
                    f'Column "{mine}" of table {key.table} refers to "{theirs}" of'
                    f' table {key.to} as well, by foreign key "{key.name}"; that'
                    " one does not become wider.",
                    next="change the type of that key first, by a change of its"
                    " own, or drop the foreign key.",
                )


def _require_table(part: Part) -> None:
    table = part.table
    if table.kind == "p" or table.root is not None:
        raise Refused(
            f"Table {table.name} is partitioned, or a partition: PostgreSQL builds"
            " no unique index concurrently on all partitions.",
            next="make the change in a maintenance window.",
        )
    requirements.require_table(part.facts)
    requirements.require_all_rows_visible(part.facts)


def _require_column(part: Part, column: Column) -> None:
    where = f'Column "{column.name}" of table {part.table.name}'
    if column.type not in BITS:
        raise Refused(
            f"{where} is of type {column.type}; only smallint and integer become"
            " wider.",
            next="make a key of a further column of that type: AddColumn, AddUnique,"
            " DropConstraint and AddPrimaryKey, each a change of its own.",
        )
    require_mirrorable(
        part.facts, column, is_key=True, kept=(requirements.COLUMN_GRANTS,)
    )
    require_unread(part.facts, column)
    excluding = [
        k.name
        for k in part.table.constraints
        if k.kind == "x" and k.name in column.checks
    ]
    if excluding:
        raise Refused(
            f'{where} is under exclusion constraint "{excluding[0]}", whose index'
            " cannot be built while others write.",
            next="drop it first (DropConstraint), and add it again in a"
            " maintenance window.",
        )
    for one in column.counters:
        if one.always is not None and one.dependents:
            raise Refused(
                f"The sequence {one.name} of {where[0].lower()}{where[1:]}, an"
                f" identity, is used by {'; '.join(one.dependents)}.",
                next="give that a sequence of its own first.",
            )


def _require_index(part: Part, index: Index) -> None:
    where = f'Index "{index.name}" of table {part.table.name}'
    part.over(index, part.shadows)
    if index.nulls_not_distinct:
        raise Refused(
            f"{where} is NULLS NOT DISTINCT: values that the former type cannot"
            " hold would be the same there.",
            next="make it NULLS DISTINCT first, or change the key in a"
            " maintenance window.",
        )
    if index.unique and index.method != "btree":
        raise Refused(
            f"{where} is unique by {index.method} (WITHOUT OVERLAPS), and is not"
            " carried over.",
            next="change the key in a maintenance window.",
        )
    if index.replica_identity:
        raise Refused(
            f"{where} is the table's replica identity, which goes with its"
            " former column.",
            next="set another one first: ALTER TABLE … REPLICA IDENTITY.",
        )


def trials(whole: WiderKey) -> tuple[Probe, ...]:
    """Return trials of the indexes and checks over the wider type."""
    return tuple(_trial(whole, p) for p in whole.parts() if p.mirror)


def _trial(whole: WiderKey, part: Part) -> Probe:
    trial = sql.Identifier("pg_temp", "migrator_trial")
    statements = [
        sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
            part.table.name.identifier
        ),
        *(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
                trial, sql.Identifier(c.name), type_name(c.type)
            )
            for c in part.columns
        ),
        *(
            sql.SQL("CREATE INDEX ON {} {}").format(
                trial, type_name(replace(index, tablespace=None).definition)
            )
            for index, _ in part.indexes()
        ),
        *(
            again(trial, found)
            for table, found in whole.by_text()
            if found.kind == "c" and table == part.table.name
        ),
    ]
    return Probe(
        statements=tuple(render(s) for s in statements),
        question="SELECT true",
        otherwise="",
        failed=f"{whole.title}: an index or a check of table {part.table.name}"
        f" cannot be made over {whole.type}",
        next="drop it first, and make its like afterwards.",
    )
