"""What goes along with a column that is dropped, made again behind its rebuild.

Rendered while the column still has its name, and kept in the ledger: after the drop
nobody else knows it. It runs only where no release does.
"""

from collections.abc import Collection
from dataclasses import replace

from psycopg import sql

from migrator.facts import Constraint, Facts
from migrator.kernels import constraints, indexes, unique_key
from migrator.plan import Action, Autocommit, Steps, type_name


def kept(
    steps: Steps, facts: Facts, *columns: str, without: Collection[str] = ()
) -> Steps:
    """Return the steps of retire, the last of which keeps it; see `made_again`."""
    *before, last = steps
    again = made_again(facts, *columns, without=without)
    return (*before, replace(last, along=again))


def made_again(
    facts: Facts, *columns: str, filled: bool = False, without: Collection[str] = ()
) -> tuple[Action, ...]:
    """
    Return what makes the indexes and constraints of columns again.

    Foreign keys and checks come back NOT VALID: the rows have other values by then.

    Args:
        facts: of the table, before the columns are out of sight.
        columns: their names.
        filled: whether every row gets the same value, so that none can be unique.
        without: columns that are not there by then, nor is what reads them.
    """
    table = facts.table
    if table.kind != "r":
        return ()
    found: list[Action] = []
    for index in table.indexes:
        if index.constraints or not _comes(index.columns, columns, without):
            continue
        if index.valid and not (index.unique and filled):
            made = indexes.build(
                index.name,
                table,
                index.name,
                type_name(index.definition),
                unique=index.unique,
            )
            assert isinstance(made.work, Autocommit)
            found.append(made.work)
    for constraint in table.constraints:
        if _comes(constraint.columns, columns, without):
            found += _constraint(facts, constraint, filled=filled)
    return tuple(found)


def _comes(
    read: Collection[str], columns: Collection[str], without: Collection[str]
) -> bool:
    return not set(columns).isdisjoint(read) and set(without).isdisjoint(read)


def _constraint(facts: Facts, found: Constraint, *, filled: bool) -> tuple[Action, ...]:
    match found.kind:
        case "u" if not filled:
            return unique_key.again(facts, found)
        case "c" | "f":
            definition = type_name(found.definition)
            if found.validated:
                definition += sql.SQL(" NOT VALID")
            also = found.references
            return (
                constraints.add(facts.table.name, found.name, definition, also=also),
            )
        case _:
            return ()
