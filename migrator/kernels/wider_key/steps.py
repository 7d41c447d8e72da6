"""The steps that make a key wider, phase by phase."""

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from migrator.errors import Refused
from migrator.kernels import constraints, indexes
from migrator.kernels.foreign_key import ForeignKey
from migrator.kernels.mirror_columns import Widened
from migrator.kernels.not_null import not_null_by_check
from migrator.kernels.rows import comparisons
from migrator.kernels.wider_key.base import Part, WiderKey
from migrator.kernels.wider_key.exchange import counted, exchange, since
from migrator.plan import (
    Action,
    Autocommit,
    Refusal,
    Step,
    Steps,
    Transaction,
    render,
)


def expand(whole: WiderKey) -> Steps:
    """Return the wider columns with their dual write, table by table."""
    return tuple(m.expand(f"add_columns{p.suffix}") for p, m in whole.mirrors())


def backfill(whole: WiderKey) -> Steps:
    """Return the copies of existing rows."""
    _require_shadows(whole)
    return tuple(
        step
        for p, m in whole.mirrors()
        for step in m.backfill(
            p.facts,
            name=f"copy_rows{p.suffix}",
            no_reverse="the values go with the wider columns",
        )
    )


def verify(whole: WiderKey) -> Steps:
    """Return the comparisons, and the counts of what the keys' proofs would refuse."""
    _require_shadows(whole)
    compared = (
        replace(step, name=f"{step.name}{p.suffix}")
        for p, m in whole.mirrors()
        for step in m.verify(p.facts)
    )
    return (*compared, *_orphans(whole))


def _orphans(whole: WiderKey) -> Iterator[Step]:
    """
    Yield the counts of rows that refer to nothing, past a key that counts as proved.

    Replication and dumps write them (session_replication_role). Behind the exchange
    neither way would come to its end.
    """
    parts = {p.table.name: p for p in whole.parts()}
    for number, key in enumerate(whole.foreign_keys(), 1):
        part, parent = parts[key.table], parts[key.to].table
        # What refers to a period is held to another condition than `=`.
        if not key.validated or "PERIOD" in key.definition:
            continue
        wanted = ForeignKey(
            title=whole.title,
            name=key.name,
            facts=part.facts,
            parent=parent,
            columns=key.columns,
            referenced=key.to_columns,
            match="FULL" if " MATCH FULL" in key.definition else None,
        )
        yield from comparisons(
            part.facts,
            f"count_orphans_{number}{part.suffix}",
            wanted.orphans(),
            shown=key.columns,
            no_reverse="nothing is changed",
            wrong=f"a reference to no row of {parent.name}",
        )


def retire(whole: WiderKey) -> Steps:
    """Return what is proved and built, the exchange, and the keys' proofs."""
    _require_shadows(whole)
    first, *prepared = (
        replace(step, name=f"{step.name}{part.suffix}")
        # A second unique index is in the way of upserts: for as short as may be.
        for made in (_prepared, _unique)
        for part, mirror in whole.mirrors()
        for step in made(part, mirror)
    )
    # A build, before anything is locked.
    assert isinstance(first.work, Autocommit)
    return (
        replace(first, work=replace(first.work, refusals=(_left_behind(whole),))),
        *prepared,
        Step(
            name="exchange_columns",
            work=exchange(whole, back=False),
            reverse=_way_back(whole),
        ),
        *(
            Step(
                name=f"validate_constraint_{number}",
                work=work,
                no_reverse="the proof goes with the constraint",
            )
            for number, work in enumerate(_proofs(whole), 1)
        ),
    )


def drop(whole: WiderKey) -> Steps:
    """Return the drop of the former columns, table by table."""
    return tuple(m.drop(f"drop_columns{p.suffix}") for p, m in whole.mirrors())


def _require_shadows(whole: WiderKey) -> None:
    """Refuse a table that came to refer to the key after expand."""
    ready = {
        part.table.name: all(part.table.column(c.shadow) for c in part.columns)
        for part, _ in whole.mirrors()
    }
    late = [str(name) for name, there in ready.items() if not there]
    if ready[whole.facts.table.name] and late:
        raise Refused(
            f"{whole.title}: table {late[0]} refers to the key since the change was"
            " expanded, and has no wider column.",
            next="drop that foreign key until the change is through, or roll the"
            " change back and expand it again.",
        )


def _left_behind(whole: WiderKey) -> Refusal:
    """Refuse to go on where a table has ceased to refer to the key."""
    tables = (sql.Literal(str(p.table.name)) for p, _ in whole.mirrors())
    end = f"_{whole.facts.tag}"
    count = sql.SQL(
        "SELECT count(DISTINCT attrelid) FROM pg_catalog.pg_attribute"
        " WHERE pg_catalog.starts_with(attname, {}) AND NOT attisdropped"
        " AND pg_catalog.right(attname, {}) = {}"
        " AND attrelid <> ALL (ARRAY[{}]::pg_catalog.regclass[])"
    ).format(
        sql.Literal("_migrator_shadow_"),
        sql.Literal(len(end)),
        sql.Literal(end),
        sql.SQL(", ").join(tables),
    )
    return Refusal(
        count=render(count),
        why="{count:table has|tables have} a wider column from the expand, and no"
        " reference to the key",
        next="roll the change back and expand it again.",
    )


def _prepared(part: Part, mirror: Widened) -> Iterator[Step]:
    """Yield what is built and proved on the wider columns of a table."""
    yield from _builds(part, unique=False)
    yield mirror.index_marks(part.table, "index_marks")
    strict = (c for c in part.columns if c.column.not_null)
    for number, one in enumerate(strict, 1):
        check = part.check(one)
        add, validate, _ = not_null_by_check(part.table.name, one.shadow, check)
        yield replace(add, name=f"add_check_{number}")
        yield replace(validate, name=f"validate_check_{number}")


def _unique(part: Part, _: Widened) -> Iterator[Step]:
    """Yield the builds of a table's unique indexes."""
    yield from _builds(part, unique=True)


def _builds(part: Part, *, unique: bool) -> Iterator[Step]:
    for number, (index, _) in enumerate(part.indexes(), 1):
        if index.unique is unique:
            name, copy = f"build_index_{number}", part.copy(index)
            like = part.over(index, part.shadows)
            yield indexes.build_as(name, part.table, copy, like)
    yield from indexes.analyzed(
        part.table.name,
        [(part.copy(i), i) for i, _ in part.indexes() if i.unique is unique],
        named=lambda name: f"{name}_{'unique' if unique else 'plain'}",
        no_reverse="it goes with the indexes",
    )


def _way_back(whole: WiderKey) -> tuple[Action, ...]:
    """Return the same on the former columns; each action knows whether it ran."""
    over, held = _is_back(whole), (*since(whole), *counted(whole))
    actions: list[Action] = []
    for part, mirror in whole.mirrors():
        for index, _ in part.indexes():
            copy = part.copy(index)
            like = part.over(index, part.retired)
            build = indexes.build_as("", part.table, copy, like).work
            assert isinstance(build, Autocommit)
            actions.append(
                replace(
                    build,
                    done=_either(over, build.done or ""),
                    refusals=(*held, mirror.fits()),
                )
            )
    for part, mirror in whole.mirrors():
        for one in part.columns:
            if not one.column.not_null:
                continue
            # From here on a value that does not fit is refused, as before.
            check = part.check(one)
            add, validate, _ = not_null_by_check(part.table.name, one.retired, check)
            assert isinstance(add.work, Transaction)
            assert isinstance(validate.work, Autocommit)
            there = constraints.is_there(part.table.name, check)
            proved = constraints.is_there(part.table.name, check, validated=True)
            actions += [
                replace(
                    add.work,
                    done=_either(over, there),
                    refusals=(*held, mirror.fits()),
                ),
                replace(validate.work, done=_either(over, proved)),
            ]
    back = exchange(whole, back=True)
    return (*actions, replace(back, done=over), *_proofs(whole))


def _is_back(whole: WiderKey) -> str:
    """Return the question whether the former columns have their names."""
    first = whole.parts()[0]
    return render(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute"
            " WHERE attrelid = {}::pg_catalog.regclass AND attname = {}"
            " AND NOT attisdropped)"
        ).format(
            sql.Literal(str(first.table.name)),
            sql.Literal(first.columns[0].shadow),
        )
    )


def _proofs(whole: WiderKey) -> tuple[Autocommit, ...]:
    """Return the proofs of the constraints that were proved before."""
    return tuple(
        constraints.validated(table, found.name, also=found.references)
        for table, found in whole.by_text()
        if found.validated
    )


def _either(one: str, other: str) -> str:
    """Return the question whether one of two questions is answered by yes."""
    return f"SELECT ({one}) OR ({other})"
