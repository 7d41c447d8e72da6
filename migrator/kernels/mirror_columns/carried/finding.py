"""Which constraints and unique indexes go over, or go."""

from collections.abc import Collection, Iterable, Mapping

from migrator.facts import Constraint, Facts, ForeignKey, Table
from migrator.kernels import foreign_key, index_copies
from migrator.kernels.mirror_columns.carried.base import Carried, Place
from migrator.kernels.mirror_columns.carried.constraint import CarriedConstraint
from migrator.kernels.mirror_columns.carried.index import CarriedIndex


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
            over.append(
                CarriedConstraint(
                    place=place,
                    number=len(over) + 1,
                    kept=_kept(place, one.name, one.columns, keep),
                    found=one,
                    type=type,
                )
            )
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
    # A foreign key of partitions is several, and no statement exchanges them all.
    kinds = ("c",) if table.kind == "p" else ("c", "f")
    if one.kind not in kinds or retired.keys().isdisjoint(one.columns):
        return False
    # A key over periods needs an index of another method than the others.
    if one.kind == "f" and foreign_key.has_period(one.definition):
        return False
    return all(k.name != one.name for k in _referring(table, retired))


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
