"""The exchange of columns, with all that hangs on them, in one transaction.

Nothing in it scans: NOT NULL is proved by then, the indexes are there, foreign keys
and checks are added NOT VALID. The way back is the same with the sides swapped.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index; ALTER
SEQUENCE.
"""

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from migrator.facts import Constraint, Sequence
from migrator.kernels import constraints, direct, indexes, sequences, unique_key
from migrator.kernels.came import none_came
from migrator.kernels.mirror_columns import Widened, Widening
from migrator.kernels.mirror_columns.widened import BITS, holds
from migrator.kernels.not_null import set_not_null
from migrator.kernels.privileges import nothing_by_default
from migrator.kernels.row_types import compiled_anew
from migrator.kernels.wider_key.base import Part, WiderKey
from migrator.plan import Refusal, Transaction, expression, render, type_name


def exchange(whole: WiderKey, *, back: bool) -> Transaction:
    """
    Return the exchange of names, with all that hangs on the columns.

    Args:
        whole: before it, whichever way it goes.
        back: whether the former columns come back.
    """
    parts = whole.parts()
    own, *others = (p.table.name for p in parts)
    path = sql.SQL("SET LOCAL search_path = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, ("pg_catalog", *whole.facts.path)))
    )
    work = direct.catalogue_step(
        own,
        path,
        # Sessions that draw numbers lock a sequence until their end: it comes
        # next, before anything is changed.
        *(s for p in parts for s in _counters_locked(p, back=back)),
        *(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}{}").format(
                table.identifier, direct.IF_EXISTS[back], sql.Identifier(found.name)
            )
            for table, found in whole.by_text()
        ),
        *(s for p, m in whole.mirrors() for s in _freed(p, m, back=back)),
        *(s for p, m in whole.mirrors() for s in _renamed(p, m, back=back)),
        *(s for p, m in whole.mirrors() for s in _indexed(p, m)),
        *(s for _, m in whole.mirrors() for s in m.on(retired=not back)),
        *(
            again(table.identifier, found, " NOT VALID")
            for table, found in whole.by_text()
        ),
        *(s for p in parts for s in _remarks(whole, p)),
        compiled_anew(*(m.table for _, m in whole.mirrors())),
        also=tuple(others),
    )
    work = replace(work, refusals=since(whole))
    if back:
        refusals = (m.fits() for _, m in whole.mirrors())
        work = replace(work, refusals=(*work.refusals, *refusals, *counted(whole)))
    for _, mirror in whole.mirrors():
        why = (
            f"the dual-write trigger on {mirror.table} is missing or not enabled"
            " ALWAYS, so that one side may have missed writes"
        )
        work = mirror.needs_on(work, why)
    return work


def since(whole: WiderKey) -> tuple[Refusal, ...]:
    """Refuse the exchange behind what came onto the columns that it does not know."""
    by_text = whole.by_text()
    referring = [k.name for k in whole.foreign_keys()]
    return (
        later_keys(whole),
        *(
            none_came(
                part.table.name,
                [one.name],
                constraints=[
                    found.name
                    for table, found in by_text
                    if table == part.table.name and one.name in found.columns
                ]
                + [k.name for i, k in part.indexes() if k and one.name in i.columns],
                indexes=[i.name for i, _ in part.indexes() if one.name in i.columns],
                others=[i.name for i in part.table.indexes],
                referring=referring,
                goes=True,
                nullable=[] if one.column.not_null else [one.name],
            )
            for part in whole.parts()
            for one in part.columns
        ),
    )


def later_keys(whole: WiderKey) -> Refusal:
    """Refuse the exchange where a foreign key came that it does not know."""
    known = [(str(k.table), k.name) for k in whole.foreign_keys()]
    count = sql.SQL(
        "SELECT count(*) FROM pg_catalog.pg_constraint k"
        " WHERE k.contype = 'f' AND ({}) AND (k.conrelid, k.conname)"
        " NOT IN ({})"
    ).format(
        sql.SQL(" OR ").join(
            sql.SQL(
                "k.confrelid = {table} AND (SELECT attnum FROM"
                " pg_catalog.pg_attribute WHERE attrelid = {table}"
                " AND attname = {column}) = ANY (k.confkey)"
            ).format(
                table=sql.SQL("{}::pg_catalog.regclass").format(
                    sql.Literal(str(m.table))
                ),
                column=sql.Literal(c.name),
            )
            for _, m in whole.mirrors()
            for c in m.columns
        ),
        sql.SQL(", ").join(
            sql.SQL("({}::pg_catalog.regclass, {})").format(
                sql.Literal(table), sql.Literal(name)
            )
            for table, name in known
        )
        if known
        else sql.SQL("SELECT 0::pg_catalog.oid, ''::pg_catalog.name"),
    )
    return Refusal(
        count=render(count),
        why="{count:foreign key|foreign keys} came to refer to the key since",
        next="drop them, then run the same command again; add them afterwards.",
    )


def _counters_locked(part: Part, *, back: bool) -> Iterator[sql.Composable]:
    """Yield what moves a serial's sequence, and notes where an identity's stands."""
    for one in part.columns:
        coming = one.retired if back else one.shadow
        kind = one.column.type if back else one.type
        for counter in one.column.counters:
            alter = sql.SQL("ALTER SEQUENCE {} ").format(counter.name.identifier)
            if counter.always is None:
                is_wide = BITS[counter.type] >= BITS[one.type]
                given = type_name("" if is_wide else f"AS {kind} ")
                yield (
                    alter
                    + given
                    + sql.SQL("OWNED BY {}.{}").format(
                        part.table.name.identifier, sql.Identifier(coming)
                    )
                )
                continue
            yield from sequences.noted(counter.name, counter.cache)


def _freed(part: Part, mirror: Widened, *, back: bool) -> Iterator[sql.Composable]:
    """
    Yield what takes from the columns all that the others are to get.

    What somebody dropped since comes back with the rest.
    """
    yield from mirror.remove()
    for index, key in part.indexes():
        if key is not None:
            yield sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}{}").format(
                mirror.table.identifier,
                direct.IF_EXISTS[back],
                sql.Identifier(key.name),
            )
        else:
            yield sql.SQL("DROP INDEX {}{}").format(
                direct.IF_EXISTS[back], sql.Identifier(mirror.table.schema, index.name)
            )
    for one in part.columns:
        if one.column.default is not None:
            yield mirror.alter("ALTER COLUMN {} DROP DEFAULT", one.name)
        if one.column.identity:
            yield mirror.alter("ALTER COLUMN {} DROP IDENTITY", one.name)
        if one.column.not_null:
            yield mirror.alter("ALTER COLUMN {} DROP NOT NULL", one.name)


def _renamed(part: Part, mirror: Widened, *, back: bool) -> Iterator[sql.Composable]:
    """Yield the renames, and what the columns that come get under their names."""
    table = part.table.name
    for one in part.columns:
        for given, wanted in (
            (one.name, one.shadow if back else one.retired),
            (one.retired if back else one.shadow, one.name),
        ):
            yield sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                table.identifier, sql.Identifier(given), sql.Identifier(wanted)
            )
        if one.column.not_null:
            like = part.table.not_null(one.name)
            yield from set_not_null(table, one.name, part.check(one), like)
        if one.column.default is not None:
            yield mirror.alter("ALTER COLUMN {} SET DEFAULT ", one.name) + (
                expression(one.column.default)
            )
        for counter in one.column.counters:
            if counter.always is not None:
                yield from _identity(part, mirror, one, counter)


def _identity(
    part: Part, mirror: Widened, one: Widening, counter: Sequence
) -> Iterator[sql.Composable]:
    """Yield what gives a column an identity that goes on where the former stood."""
    # The sequence is of the column's type; what was the limit of the former is not
    # one of its own.
    least, greatest = holds(counter.type)
    low = "" if counter.min == least else f" MINVALUE {counter.min}"
    high = "" if counter.max == greatest else f" MAXVALUE {counter.max}"
    cycle = " CYCLE" if counter.cycle else ""
    yield (
        mirror.alter("ALTER COLUMN {} ADD GENERATED ", one.name)
        + sql.SQL("{} AS IDENTITY (SEQUENCE NAME {} ").format(
            sql.SQL("ALWAYS" if counter.always else "BY DEFAULT"),
            counter.name.identifier,
        )
        + type_name(
            f"INCREMENT BY {counter.increment}{low}{high}"
            f" START WITH {counter.start} CACHE {counter.cache}{cycle})"
        )
    )
    yield sequences.goes_on(counter.name)
    yield from nothing_by_default(
        part.facts.default_grantees,
        counter.name,
        owner=part.table.owner,
        sequence=True,
    )
    yield from sequences.looks(counter)


def _indexed(part: Part, mirror: Widened) -> Iterator[sql.Composable]:
    """Yield what gives the indexes that were built their names, and makes them keys."""
    for index, key in part.indexes():
        copy = part.copy(index)
        if key is None:
            yield sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(mirror.table.schema, copy),
                sql.Identifier(index.name),
            )
            continue
        yield mirror.alter("ADD CONSTRAINT {} ", key.name) + unique_key.over_index(
            key.kind, copy, constraints.timing(key)
        )


def _remarks(whole: WiderKey, part: Part) -> Iterator[sql.Composable]:
    """Yield the comments on what was made again."""
    own = part.table.name
    made = [found for table, found in whole.by_text() if table == own]
    for index, key in part.indexes():
        made += [key] if key else []
        yield from indexes.index_looks(own, index.name, index)
    for found in made:
        if found.comment is not None:
            yield sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                sql.Identifier(found.name),
                own.identifier,
                sql.Literal(found.comment),
            )


def again(
    table: sql.Composable, found: Constraint, unproved: str = ""
) -> sql.Composable:
    """Return the addition of a constraint like one that was there."""
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
        table,
        sql.Identifier(found.name),
        # The text of one that was not proved says so itself.
        type_name(found.definition + (unproved if found.validated else "")),
    )


def counted(whole: WiderKey) -> tuple[Refusal, ...]:
    """Refuse the way back while the former columns do not take the next number."""
    return tuple(r for part in whole.parts() for r in _counters_fit(part))


def _counters_fit(part: Part) -> Iterator[Refusal]:
    """Yield the conditions under which the former columns take the next number."""
    for one in part.columns:
        least, greatest = map(sql.Literal, holds(one.column.type))
        for counter in one.column.counters:
            name = counter.name
            yield Refusal(
                count=render(
                    sql.SQL(
                        "SELECT count(*) FROM {} WHERE last_value NOT BETWEEN {} AND {}"
                    ).format(name.identifier, least, greatest)
                ),
                why=f"sequence {name} has left what {one.column.type} holds, so that"
                " the old release could insert no row",
                next=f"set it back (setval) to a number that {one.column.type} holds,"
                " then run it again; or keep the new type.",
            )
