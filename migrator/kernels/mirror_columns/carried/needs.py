"""What has to be known of constraints and unique indexes before they go over."""

from collections.abc import Iterable

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels import foreign_key
from migrator.kernels.mirror_columns.carried.base import (
    Carried,
    CarriedConstraint,
    CarriedIndex,
)
from migrator.plan import Footprint, Notice, Probe, render, type_name


def checks_tried(over: Iterable[Carried]) -> tuple[sql.Composable, ...]:
    """Return statements that put checks on the heir, in the table's like in pg_temp."""
    return tuple(
        statement
        for one in over
        if isinstance(one, CarriedConstraint) and one.found.kind == "c"
        for statement in one.place.in_trial().on_heir(one.tried())
    )


def keys_tried(
    title: str, over: Iterable[Carried], facts: Facts, trial: Iterable[sql.Composable]
) -> tuple[Probe, ...]:
    """
    Return trials of foreign keys on empty tables: the server knows which types fit.

    Args:
        title: the change's, for the message.
        over: what goes over.
        facts: of the table.
        trial: statements that make a table in pg_temp like this one, with the heir.
    """
    keys = {k.name: k for k in facts.table.foreign_keys if k.table == facts.table.name}
    made = tuple(map(render, trial))
    probes: list[Probe] = []
    for one in over:
        if not isinstance(one, CarriedConstraint) or one.name not in keys:
            continue
        key, place = keys[one.name], one.place.in_trial()
        parent = sql.SQL(
            "CREATE TEMP TABLE migrator_parent (LIKE {} INCLUDING INDEXES)"
        ).format(key.to.identifier)
        add = place.alter(
            sql.SQL(
                "ADD FOREIGN KEY ({}) REFERENCES pg_temp.migrator_parent ({})"
            ).format(
                sql.SQL(", ").join(map(sql.Identifier, key.columns)),
                sql.SQL(", ").join(map(sql.Identifier, key.to_columns)),
            )
            + type_name(foreign_key.actions(one.found.definition))
        )
        probes.append(
            Probe(
                statements=(*made, render(parent), *map(render, place.on_heir(add))),
                question="SELECT true",
                otherwise="",
                failed=f'{title}: the server refuses foreign key "{one.name}" to'
                f" {key.to} by a column of type {one.type}",
                next="drop the foreign key first (DropConstraint). An integer key and"
                " all that refers to it become wider at once by ChangePrimaryKey.",
            )
        )
    return tuple(probes)


def footprints(over: Iterable[Carried]) -> tuple[Footprint, ...]:
    """Return the columns that stand beside the column, and those referred to."""
    beside: list[Footprint] = []
    for one in over:
        table = one.place.table
        columns = (
            one.index.columns
            if isinstance(one, CarriedIndex)
            else one.found.columns
            if isinstance(one, CarriedConstraint)
            else ()
        )
        beside.append(Footprint(table=table.name, columns=frozenset(columns)))
        beside += [
            Footprint(table=k.to, columns=frozenset(k.to_columns))
            for k in table.foreign_keys
            if k.table == table.name and k.name == one.name
        ]
    return tuple(beside)


def notices(over: Iterable[Carried], column: str, to: str | None) -> tuple[Notice, ...]:
    """
    Return what a reviewer should know of what goes over.

    Args:
        over: all of it.
        column: the old column.
        to: the heir's name, where that is another one.
    """
    known = [f'"{one.name}"' for one in over]
    unique = [f'"{one.name}"' for one in over if isinstance(one, CarriedIndex)]
    if not known:
        return ()
    told = [
        Notice(
            text=f'What "{column}" is held to ({", ".join(known)}) stays on it until'
            " retire, and binds both releases through the dual write. Retire proves its"
            " like on the new column before the exchange; values of the new type that"
            " violate it hold the change there."
        )
    ]
    if unique:
        told.append(
            Notice(
                text=f"While retire builds and exchanges {', '.join(unique)}, there are"
                " two of each: of two sessions that INSERT … ON CONFLICT the same new"
                " key at once, one may fail with a unique violation; one that is"
                " deferrable is checked at once.",
                needs_assurance=True,
            )
        )
    if unique and to is not None:
        told.append(
            Notice(
                text=f'ON CONFLICT ("{to}") works from retire on: until then no unique'
                " index is on the new column.",
                needs_assurance=True,
            )
        )
    return tuple(told)
