"""What columns must be like to become rows of a new table, and what to know."""

from collections.abc import Iterable, Sequence

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import constraints, dropping, mentions, requirements, row_types
from migrator.kernels.mirror_columns.base import require_last_trigger
from migrator.kernels.mirror_table.extract import Extract
from migrator.kernels.mirror_table.extraction import Extraction
from migrator.names import OWNED, TableName
from migrator.plan import Notice


def check(title: str, extract: Extract) -> tuple[Notice, ...]:
    """
    Refuse columns whose move would break what hangs on them.

    Args:
        title: the change's, for messages.
        extract: it.

    Returns:
        What a reviewer should know, the hazards first.

    Raises:
        Refused: it cannot work on these facts.
    """
    facts = extract.facts
    _require_table(facts)
    require_names(title, extract)
    names.checked(extract.reference, "column")
    requirements.require_free_column(facts, extract.reference)
    constraints.require_free_name(facts, extract.foreign_key)
    constraints.require_free_index(facts, extract.index)
    moved = extract.moved().values()
    for column in moved:
        require_movable(facts, column)
    require_last_trigger(facts)
    return (
        *_hazards(extract),
        *_smaller(extract),
        *(n for c in moved for n in dropping.goes_along(facts, c, granted=True)),
        *requirements.publication_notices(facts, extract.into),
        *row_types.comes(facts),
        *mentions.trigger_notices(facts, *extract.columns),
        *mentions.function_notices(facts, extract.columns),
        *requirements.backfill_notices(facts, extract.reference),
    )


def _require_table(facts: Facts) -> None:
    requirements.require_table(facts)
    requirements.require_logged(facts)
    requirements.require_all_rows_visible(facts)
    table = facts.table
    if table.kind == "p":
        raise Refused(
            f"Table {table.name} is partitioned: its foreign key could not be added"
            " without a scan on each server that is supported.",
            next="make the change with plain SQL, in a maintenance window.",
        )
    if table.policies:
        raise Refused(
            f"Table {table.name} has row-level security: its policies would not"
            " hold for the new table.",
            next="make the change with plain SQL, in a maintenance window.",
        )
    requirements.require_unruled(facts)


def require_names(
    title: str,
    extract: Extraction,
    others: Iterable[str] = (),
    parked: Iterable[TableName] = (),
) -> None:
    """
    Refuse names of the new table and of its columns that cannot be given.

    Args:
        title: the change's, for messages.
        extract: it.
        others: further names of relations that have to be free.
        parked: further tables that its own rollback may have parked.

    Raises:
        Refused: one is taken, given twice, or none that the server keeps.
    """
    taken = extract.facts.relation_names
    columns = [extract.key, *extract.columns.values()]
    require_apart(title, columns)
    for name in columns:
        names.checked(name, "column")
    mine = {t.name for t in (extract.parked, *parked)}
    for other in sorted(taken - mine):
        kept = other.startswith(f"{OWNED}parked_")
        if kept and other.endswith(extract.facts.tag):
            raise Refused(
                f'{title}: a rollback parked the table as "{other}", made of other'
                " columns.",
                next="drop that one, or put `move` and `key` back as they were.",
            )
    keys = () if extract.comes_back else extract.keys
    for name in (extract.into.name, *keys, *others):
        names.checked(name, "table")
        if name in taken:
            raise Refused(
                f'Schema "{extract.into.schema}" has a relation "{name}" already.',
                next="choose another name, or drop it first.",
            )


def require_apart(title: str, columns: Sequence[str]) -> None:
    """Refuse two columns of one name."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise Refused(
            f'{title}: "{twice[0]}" is the name of two of its columns.',
            next="give one of them another name, by `move` or `key`.",
        )


def require_movable(facts: Facts, column: Column) -> None:
    """
    Refuse a column whose values no other table could hold for it.

    Args:
        facts: of the table.
        column: the column; of an array, `image_equal` as of its elements.

    Raises:
        Refused: something hangs on it, or on how its values look.
    """
    requirements.require_plain(facts, column)
    dropping.require_droppable(facts, column)
    where = f'Column "{column.name}" of table {facts.table.name}'
    if not column.image_equal:
        raise Refused(
            f"{where} is of a type with values that are equal and look different:"
            " rows that share one would lose their own look.",
            next="extract a column made of it, e.g. its text, by TransformColumn.",
        )
    for c in facts.table.constraints:
        if column.name in c.columns and c.kind != "n":
            raise Refused(
                f'{where} is in constraint "{c.name}", which cannot go along.',
                next="drop it by a change of its own first, and add it to the new"
                " table afterwards.",
            )
    if column.unique_indexes:
        raise Refused(
            f'{where} is in unique index "{column.unique_indexes[0]}": rows would'
            " not share what they refer to.",
            next="take the columns out by SplitTable; or drop the index first.",
        )


def _hazards(extract: Extract) -> tuple[Notice, ...]:
    """Return what nobody can know but who knows the application."""
    table, into = extract.table.name, extract.into.name
    listed = ", ".join(extract.columns.values())
    found = (
        f"Each combination of ({listed}) is one row of table {into}, kept so"
        " by a unique constraint: the new release has to get or create it (INSERT"
        " … ON CONFLICT … DO NOTHING, then SELECT), and an UPDATE that makes two"
        " rows alike is refused.",
        f"Until the drop, an UPDATE of a row of table {into} updates and locks"
        f" all rows of table {table} that refer to it, in the order of their key;"
        " it waits for requests that wrote one of them, and they for it.",
        "These may deadlock because of it (40P01 for one of the two, to be tried"
        " again): it and a request that updates several of these rows in another"
        " order; it and a request that updated one of them and then writes the"
        " combination that is changed, before or after.",
        "Until retire, the old release's requests create rows of table"
        f" {into}: two that write the same new combinations in different"
        " order, within one transaction, may deadlock.",
    )
    return tuple(Notice(text=text, needs_assurance=True) for text in found)


def _smaller(extract: Extract) -> tuple[Notice, ...]:
    moved = extract.moved().values()
    strict = [c.name for c in moved if c.not_null]
    given = [c.name for c in moved if c.default is not None]
    found = [
        "Rows that nothing refers to any more stay; so do those of an INSERT that"
        " ON CONFLICT passed over.",
        "A combination that is too long for an index, about 2700 bytes, is stored"
        " with no reference, and holds the change at its verification.",
        "Rolling back parks the new table with its rows; it is dropped after the hold.",
    ]
    if strict:
        found.append(
            f'Since column "{strict[0]}" is NOT NULL, each row has to refer to one'
            " of the new table: before retire by that column, from retire on by"
            " NOT NULL of its own."
        )
    if given:
        found.append(
            f'Column "{given[0]}" has a default: before retire, a row that the new'
            " release inserts without a reference gets one by it."
        )
    return tuple(Notice(text=text) for text in found)
