"""Which constraints and unique indexes go over, or go."""

from collections.abc import Collection, Iterable, Mapping

from migrator.facts import Constraint, Facts, ForeignKey, Table
from migrator.kernels import foreign_key, index_copies
from migrator.kernels.mirror_columns.carried.base import Carried, Place
from migrator.kernels.mirror_columns.carried.constraint import CarriedConstraint
from migrator.kernels.mirror_columns.carried.index import CarriedIndex
from migrator.kernels.mirror_columns.carried.parted import PartedForeignKey


def found(
    facts: Facts,
    retired: Mapping[str, str],
    heirs: Mapping[str, str],
    *,
    type: str,
    keep: Collection[str] | None,
) -> tuple[Carried, ...]:
    """
    Return all that old columns are held to until retire, and then no more.

    Args:
        facts: of their table, before retire.
        retired: see `Place`.
        heirs: see `Place`.
        type: the heirs', for messages.
        keep: names of those whose like heirs get; None for all.
    """
    table = facts.table
    place = Place(table=table, tag=facts.tag, retired=retired, heirs=heirs)
    over: list[Carried] = []
    # First: on the way back their counts refuse before an index binds anybody.
    for one in table.constraints:
        if _goes(table, one, retired):
            given = CarriedConstraint(
                place=place,
                number=len(over) + 1,
                kept=_kept(place, one.name, one.columns, keep),
                found=one,
                type=type,
            )
            over.append(_parted(given) if table.kind == "p" else given)
    keys = {k.index: k for k in table.constraints if k.kind == "u"}
    for index in table.indexes:
        key = keys.get(index.name)
        used = index.constraints if key is None else key.dependents
        # On the way back NOT NULL, which a replica identity needs, comes later.
        stays = used or index.primary or index.replica_identity or table.kind == "p"
        # A key WITHOUT OVERLAPS is of another method.
        is_like = index.unique and index.method == "btree" and index.valid
        if retired.keys().isdisjoint(index.columns) or not is_like or stays:
            continue
        has_heir = not heirs.keys().isdisjoint(index.columns)
        forth = index_copies.over(facts, index, heirs) if has_heir else None
        back = index_copies.over(facts, index, retired)
        kept = _kept(place, index.name, index.columns, keep)
        if back is not None and (forth is not None or not kept):
            over.append(
                CarriedIndex(
                    place=place,
                    number=len(over) + 1,
                    kept=kept,
                    index=index,
                    key=key,
                    forth=forth,
                    back=back,
                )
            )
    return tuple(over)


def _goes(table: Table, one: Constraint, retired: Mapping[str, str]) -> bool:
    """Tell whether retire can take a constraint off the old columns, and back."""
    if one.kind not in ("c", "f") or retired.keys().isdisjoint(one.columns):
        return False
    if one.kind == "f" and not _refers_plainly(table, one, retired):
        return False
    return all(k.name != one.name for k in _referring(table, retired))


def _refers_plainly(table: Table, one: Constraint, retired: Mapping[str, str]) -> bool:
    """Tell whether a foreign key is one that can be made anew, with all its parts."""
    # One to a partitioned table is several, and no statement exchanges them all. One
    # over periods needs an index of another method than the others.
    if one.to_partitioned or foreign_key.has_period(one.definition):
        return False
    if table.kind != "p":
        return True
    # What a partition has for itself would stay on the old column.
    partitions = {part.name for part in table.partitions}
    return one.validated and not any(
        k.table in partitions and not retired.keys().isdisjoint(k.columns)
        for k in table.foreign_keys
    )


def _parted(given: CarriedConstraint) -> CarriedConstraint:
    """Return a constraint of a partitioned table; its foreign key has parts."""
    if given.found.kind != "f":
        return given
    return PartedForeignKey(
        place=given.place,
        number=given.number,
        kept=given.kept,
        found=given.found,
        type=given.type,
        parts=tuple(
            (part.name, own)
            for part in given.place.table.partitions
            for own in part.constraints
            if own.root == given.name
        ),
    )


def _kept(
    place: Place, name: str, columns: Iterable[str], keep: Collection[str] | None
) -> bool:
    theirs = place.retired.keys() & set(columns)
    return (keep is None or name in keep) and theirs <= place.heirs.keys()


def _referring(table: Table, columns: Mapping[str, str]) -> list[ForeignKey]:
    """Return the foreign keys that refer to one of some columns."""
    return [
        k
        for k in table.foreign_keys
        if k.to == table.name and not columns.keys().isdisjoint(k.to_columns)
    ]
