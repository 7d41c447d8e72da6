"""What a finished change leaves behind, as far as the catalogue tells it."""

from collections.abc import Iterator
from dataclasses import dataclass

from migrator.facts import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """
    A constraint or an index.

    Args:
        kind: "i" of an index, else as `facts.Constraint` has it.
        columns: in their order; None where they are not compared.
        unique: of an index.
    """

    name: str
    kind: str
    columns: tuple[str, ...] | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """
    What stands in a change's table once the change is finished.

    Args:
        there: whether the table is there.
        columns: that are there.
        gone: columns, constraints and indexes that are not.
        not_null: columns that are NOT NULL.
        nullable: columns that may hold NULL.
        no_default: columns without a default.
        keys: constraints and indexes that are there, proved and valid.
        besides: indexes that it made where there were none like them.
        untold: what the catalogue does not tell, as "whether …"; "" where it tells all.
    """

    there: bool = True
    columns: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()
    no_default: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    besides: tuple[str, ...] = ()
    untold: str = ""

    def differences(self, table: Table | None) -> list[str]:
        """Return what is otherwise, each as a clause; none where all is as it says."""
        if table is None:
            return ["the table is not there"] if self.there else []
        if not self.there:
            return ["the table is there"]
        return list(self._of(table))

    def _of(self, table: Table) -> Iterator[str]:
        wanted = (*self.columns, *self.not_null, *self.nullable, *self.no_default)
        for name in dict.fromkeys(wanted):
            column = table.column(name)
            if column is None:
                yield f'column "{name}" is not there'
                continue
            if name in self.not_null and not column.not_null:
                yield f'column "{name}" may hold NULL'
            if name in self.nullable and column.not_null:
                yield f'column "{name}" is NOT NULL'
            if name in self.no_default and column.default is not None:
                yield f'column "{name}" has a default'
        for name in self.gone:
            if table.column(name) is not None:
                yield f'column "{name}" is there'
            if table.constraint(name) is not None:
                yield f'constraint "{name}" is there'
            elif table.index(name) is not None:
                yield f'index "{name}" is there'
        for key in self.keys:
            yield from _key(table, key)


def _key(table: Table, key: Key) -> Iterator[str]:
    """Return what is otherwise about a constraint or an index."""
    if key.kind == "i":
        index = table.index(key.name)
        if index is None:
            yield f'index "{key.name}" is not there'
        elif not index.valid:
            yield f'index "{key.name}" is not valid'
        elif index.unique != key.unique:
            yield f'index "{key.name}" is {"" if index.unique else "not "}unique'
        elif key.columns is not None and key.columns != tuple(
            k.name for k in index.keys
        ):
            yield f'index "{key.name}" has other columns'
        return
    found = table.constraint(key.name)
    if found is None:
        yield f'constraint "{key.name}" is not there'
    elif found.kind != key.kind:
        yield f'constraint "{key.name}" is of another kind'
    elif not found.validated:
        yield f'constraint "{key.name}" is not validated'
    elif key.columns is not None and key.columns != found.columns:
        yield f'constraint "{key.name}" has other columns'
