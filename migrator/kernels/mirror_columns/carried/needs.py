"""What has to be known of constraints and unique indexes before they go over."""

from collections.abc import Iterable

from psycopg import sql

from migrator.facts import Facts, ForeignKey
from migrator.kernels import foreign_key
from migrator.kernels.mirror_columns.carried.base import Carried
from migrator.kernels.mirror_columns.carried.constraint import CarriedConstraint
from migrator.kernels.mirror_columns.carried.index import CarriedIndex
from migrator.plan import Footprint, Notice, Probe, render, type_name


def tried(
    title: str, over: Iterable[Carried], facts: Facts, trial: Iterable[sql.Composable]
) -> tuple[Probe, ...]:
    """
    Return trials of checks and foreign keys on empty tables, by which types fit.

    Of a foreign key also whether this role can make it again, either way.

    Args:
        title: the change's, for the message.
        over: what goes over.
        facts: of the table.
        trial: statements that make a table in pg_temp like this one, with the heir.
    """
    keys = {k.name: k for k in facts.table.foreign_keys if k.table == facts.table.name}
    made = tuple(map(render, trial))
    return tuple(
        probe
        for one in over
        if isinstance(one, CarriedConstraint)
        for probe in (
            _key_tried(title, one, keys[one.name], made)
            if one.name in keys
            else (_check_tried(title, one, made),)
            if one.kept
            else ()
        )
    )


def _check_tried(title: str, one: CarriedConstraint, made: tuple[str, ...]) -> Probe:
    """Return the trial of a check on the heir."""
    return Probe(
        statements=(*made, *map(render, one.place.in_trial().on_heirs(one.tried()))),
        question="SELECT true",
        otherwise="",
        failed=f'{title}: the server refuses check "{one.name}" of a column of type'
        f" {one.type}",
        next="drop the check first (DropConstraint), and put its like on the new column"
        " afterwards (AddCheck).",
    )


def _key_tried(
    title: str, one: CarriedConstraint, key: ForeignKey, made: tuple[str, ...]
) -> tuple[Probe, ...]:
    """Return what this role has to be able to, and the trial of a key of the heir."""
    place, parent = one.place.in_trial(), sql.Literal(str(key.to))
    rights = sql.SQL(
        "SELECT pg_catalog.has_table_privilege({}, 'UPDATE, DELETE, TRUNCATE')"
    ).format(parent)
    rights += sql.SQL("").join(
        sql.SQL(" AND pg_catalog.has_column_privilege({}, {}, {})").format(
            parent, sql.Literal(column), sql.Literal(right)
        )
        for column in key.to_columns
        for right in ("SELECT", "REFERENCES")
    )
    like = sql.SQL(
        "CREATE TEMP TABLE migrator_parent (LIKE {} INCLUDING INDEXES)"
    ).format(key.to.identifier)
    add = place.alter(
        sql.SQL("ADD FOREIGN KEY ({}) REFERENCES pg_temp.migrator_parent ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, key.columns)),
            sql.SQL(", ").join(map(sql.Identifier, key.to_columns)),
        )
        + type_name(foreign_key.actions(one.found.definition))
    )
    trial = Probe(
        statements=(*made, render(like), *map(render, place.on_heirs(add))),
        question="SELECT true",
        otherwise="",
        failed=f'{title}: the server refuses foreign key "{one.name}" to {key.to}'
        f" by a column of type {one.type}",
        next="drop the foreign key first (DropConstraint). An integer key and all"
        " that refers to it become wider at once by ChangePrimaryKey.",
    )
    return (
        Probe(
            statements=(),
            question=render(rights),
            otherwise=f'{title}: foreign key "{one.name}" is made again by retire or'
            f" its way back, for which table {key.to} is locked and read; this role may"
            " not do that.",
            next=f"connect as a role that may, or GRANT SELECT, UPDATE, REFERENCES ON"
            f" {key.to} to this one.",
        ),
        Probe(
            statements=(),
            question=render(
                sql.SQL("SELECT NOT pg_catalog.row_security_active({})").format(parent)
            ),
            otherwise=f"{title}: row-level security applies to this role on table"
            f' {key.to}: rows of key "{one.name}" would seem to refer to nothing.',
            next="connect as a role with BYPASSRLS.",
        ),
        *([trial] if one.kept else []),
    )


def footprints(over: Iterable[Carried]) -> tuple[Footprint, ...]:
    """Return the columns that stand beside the column, and those referred to."""
    beside: list[Footprint] = []
    for one in over:
        table = one.place.table
        beside.append(Footprint(table=table.name, columns=frozenset(one.columns)))
        beside += [
            Footprint(table=k.to, columns=frozenset(k.to_columns))
            for k in table.foreign_keys
            if k.table == table.name and k.name == one.name
        ]
    return tuple(beside)


def notices(over: Iterable[Carried], to: str | None) -> tuple[Notice, ...]:
    """
    Return what a reviewer should know of what goes over, and of what goes.

    Args:
        over: all of it.
        to: the heir's name in the new release, where that is another one.
    """
    found = tuple(over)
    kept = [one for one in found if one.kept]
    lifted = [one for one in found if not one.kept]
    told: list[Notice] = []
    if kept:
        told.append(
            Notice(
                text=f"What {_old(kept)} is held to ({_named(kept)}) stays on it until"
                " retire, and binds both releases through the dual write. Retire proves"
                " its like on the new column before the exchange; values of the new"
                " type that violate it hold the change there."
            )
        )
    unique = [one for one in kept if isinstance(one, CarriedIndex)]
    if unique:
        told.append(
            Notice(
                text=f"While retire builds and exchanges {_named(unique)}, there are"
                " two of each: of two sessions that INSERT … ON CONFLICT the same new"
                " key at once, one may fail with a unique violation; one that is"
                " deferrable is checked at once.",
                needs_assurance=True,
            )
        )
    if unique and to is not None:
        told.append(
            Notice(
                text=f'ON CONFLICT ("{to}") works from retire on: before, and after a'
                " way back from there, no unique index is on the new column.",
                needs_assurance=True,
            )
        )
    if lifted:
        told.append(
            Notice(
                text=f"What {_old(lifted)} is held to ({_named(lifted)}) binds both"
                " releases through the dual write until retire, which lifts it: from"
                " then on no row is held to it. Put its like on the new columns by"
                " changes of their own (AddCheck, AddUnique, AddForeignKey). Going back"
                " puts it on again, and waits for rows that violate it.",
                needs_assurance=True,
            )
        )
    return tuple(told)


def _named(found: Iterable[Carried]) -> str:
    return ", ".join(f'"{one.name}"' for one in found)


def _old(found: Iterable[Carried]) -> str:
    old = dict.fromkeys(
        c for one in found for c in one.columns if c in one.place.retired
    )
    return ", ".join(f'"{name}"' for name in old)
