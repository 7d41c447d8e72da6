"""What a table must be like for an array of it to become links, and what to know."""

from collections.abc import Sequence
from dataclasses import replace

from migrator import names
from migrator.errors import Refused
from migrator.facts import Table
from migrator.kernels import dropping, mentions, requirements, row_types
from migrator.kernels.mirror_table.extract_many import ExtractMany
from migrator.kernels.mirror_table.extractable import (
    require_apart,
    require_movable,
    require_names,
)
from migrator.names import TRIGGER_PREFIXES, TableName
from migrator.plan import Notice


def primary_key(table: Table) -> tuple[str, ...]:
    """Return the columns of a table's primary key, none where it has none."""
    found = next((i for i in table.indexes if i.primary), None)
    return () if found is None else tuple(k.name for k in found.keys)


def named_after(table: TableName, column: str) -> str:
    """Return the name of a column that refers to one of a table: "post_id"."""
    name = table.name
    if name.endswith("ies"):
        name = name.removesuffix("ies") + "y"
    elif not name.endswith("ss"):
        name = name.removesuffix("s")
    return f"{name}_{column}"


def referring(
    table: Table, given: str | Sequence[str] | None
) -> tuple[tuple[str, str], ...]:
    """
    Return the columns that refer to a table, each with one of its primary key.

    Args:
        table: the table.
        given: their names; None for those by default.

    Raises:
        Refused: they are not as many as the key has.
    """
    key = primary_key(table)
    if given is None:
        given = [named_after(table.name, column) for column in key]
    wanted = [given] if isinstance(given, str) else list(given)
    if key and len(wanted) != len(key):
        raise Refused(
            f"The primary key of table {table.name} is ({', '.join(key)}):"
            " `back_reference` does not name one column for each of these.",
            next="name as many, in the order of the key.",
        )
    return tuple(zip(wanted, key, strict=False))


def check(title: str, extract: ExtractMany) -> tuple[Notice, ...]:
    """
    Refuse an array whose move would break what hangs on it.

    Args:
        title: the change's, for messages.
        extract: it.

    Returns:
        What a reviewer should know, the hazards first.

    Raises:
        Refused: it cannot work on these facts.
    """
    facts = extract.facts
    requirements.require_table(facts)
    requirements.require_all_rows_visible(facts)
    requirements.require_mirrored(facts)
    requirements.require_logged(facts)
    _require_key(extract)
    if len(extract.columns) != 1:
        raise Refused(
            f"{title}: by `through` goes one column, an array.",
            next="make a change of each array; or leave `through` out.",
        )
    # Refuses what is no array.
    extract.new_columns()
    links = [*(name for name, _ in extract.referring), extract.reference]
    require_apart(title, links)
    for name in links:
        names.checked(name, "column")
    mine = () if extract.links_back else (extract.primary, extract.index)
    require_names(
        title, extract, (extract.through.name, *mine), (extract.parked_links,)
    )
    column = extract.column
    require_movable(facts, replace(column, image_equal=column.element_image_equal))
    if column.grants:
        raise Refused(
            f'Column "{column.name}" of table {facts.table.name} has grants of its own:'
            " what an UPDATE of it does is to insert and delete links, which no"
            " privilege on columns allows.",
            next="grant the table instead; the new tables take its grants.",
        )
    return (
        *_notices(extract),
        *dropping.goes_along(facts, column),
        *requirements.publication_notices(facts, extract.into, extract.through),
        *row_types.goes(facts),
        *mentions.trigger_notices(facts, extract.array),
        *mentions.function_notices(facts, [extract.array]),
    )


def _require_key(extract: ExtractMany) -> None:
    """Refuse a table that has no key for links to refer to."""
    table = extract.table
    if not primary_key(table):
        raise Refused(
            f"Table {table.name} has no primary key for links to refer to.",
            next="add one first, by AddPrimaryKey.",
        )
    for c in table.constraints:
        if c.kind == "p" and c.deferrable:
            raise Refused(
                f'The primary key "{c.name}" of table {table.name} is deferrable: no'
                " foreign key can refer to it.",
                next="make it again as one that is not.",
            )


def _notices(extract: ExtractMany) -> tuple[Notice, ...]:
    """Return what a reviewer should know, the hazards first."""
    table, values, links = (
        t.name for t in (extract.table.name, extract.into, extract.through)
    )
    array, value = extract.array, extract.value
    hazards = (
        f"Each value is one row of table {values}, kept so by a unique constraint: the"
        f" new release has to get or create it (INSERT … ON CONFLICT ({value}) DO"
        " NOTHING, then SELECT), and an UPDATE that makes two alike is refused.",
        f"Until the drop, who writes a row of table {links} updates and locks the row"
        f" of table {table} that it belongs to; who renames or deletes a row of table"
        f" {values} all those linked to it, in the order of their key.",
        "These may deadlock because of it (40P01 for one of the two, to be tried"
        f" again): requests that write links of several rows of table {table}, or these"
        " rows, in different order; a request that removes a link, and at the same"
        " instant one that removes it by the array, or deletes the row; one that"
        f" creates or renames a row of table {values} and writes links, and one of the"
        " old release that writes this value.",
        "Until retire, the old release's requests create rows of table"
        f" {values}: two that write the same new values in different order, within"
        " one transaction, may deadlock.",
    )
    found = [
        f'Array "{array}" and links are in step where they are the same set. Until the'
        " drop, the array keeps its order, what it repeats, its NULLs, and whether it"
        " is NULL or empty; they end with it. The verification counts rows with"
        " repeats or NULLs (step count_repeats_and_nulls).",
        f"Rows of table {values} that nothing is linked to any more stay.",
        "A value that is too long for an index, about 2700 bytes, is in the array"
        " alone, and holds the change at its verification.",
        "Rolling back parks both new tables with their rows; they are dropped after"
        " the hold. Links that come back are those that the arrays tell.",
    ]
    column = extract.column
    if column.not_null and column.default is None:
        found.append(
            f'Column "{array}" is NOT NULL: from expand on it has the default'
            " '{}', or the new release could insert no row."
        )
    elif column.default is not None:
        found.append(
            f'Column "{array}" has a default: before retire, a row that the new'
            " release inserts has it, and the links that it tells."
        )
    found += [
        f'Trigger "{t.name}" fires where the array follows links that the new release'
        " writes."
        for t in requirements.triggers(extract.table)
        if t.on_update and not t.name.startswith(TRIGGER_PREFIXES)
    ]
    return (
        *(Notice(text=text, needs_assurance=True) for text in hazards),
        *(Notice(text=text) for text in found),
    )
