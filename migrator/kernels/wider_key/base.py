"""What a key is made wider on: its tables, their columns, and what hangs on these."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts, ForeignKey, Index, Table
from migrator.kernels import index_copies
from migrator.kernels.mirror_columns import Widened, Widening
from migrator.kernels.mirror_columns.widened import BITS
from migrator.names import TableName
from migrator.plan import Footprint


def linked(known: tuple[Table, ...], column: str) -> set[tuple[TableName, str]]:
    """
    Return the columns that hold values of a column of the first table.

    Args:
        known: the table, and those that refer to it as far as they are known.
        column: the column.
    """
    found = {(known[0].name, column)}
    keys = {key for table in known for key in table.foreign_keys}
    while True:
        further = {
            (key.table, mine)
            for key in keys
            for mine, theirs in zip(key.columns, key.to_columns, strict=True)
            if (key.to, theirs) in found
        }
        if further <= found:
            return found
        found |= further


def referring(known: tuple[Table, ...], column: str) -> tuple[TableName, ...]:
    """Return the further tables with such columns, in the order of their names."""
    tables = {table for table, _ in linked(known, column)}
    return tuple(sorted(tables - {known[0].name}))


@dataclass(frozen=True, slots=True)
class Part:
    """One table of the change: its facts, and its wider columns if it has any."""

    facts: Facts
    mirror: Widened | None
    #: Of a table other than the change's own: what its steps' names end with.
    suffix: str

    @property
    def table(self) -> Table:
        """The table."""
        return self.facts.table

    @property
    def columns(self) -> tuple[Widening, ...]:
        """The columns that become wider."""
        return self.mirror.columns if self.mirror else ()

    @property
    def shadows(self) -> dict[str, str]:
        """For each of these, the column behind it."""
        return {c.name: c.shadow for c in self.columns}

    @property
    def retired(self) -> dict[str, str]:
        """For each of these, the name of the former one after the exchange."""
        return {c.name: c.retired for c in self.columns}

    def over(self, index: Index, columns: Mapping[str, str]) -> Index:
        """
        Return an index as it is over other columns.

        Raises:
            Refused: its expression or predicate cannot be carried over.
        """
        like = index_copies.over(self.facts, index, columns)
        if like is None:
            raise Refused(
                f'Index "{index.name}" of table {self.table.name} holds a column that'
                " becomes wider, and has an expression or a predicate that the server"
                " does not spell for another column.",
                next="drop it first (DropIndex), and build it again afterwards.",
            )
        return like

    def indexes(self) -> tuple[tuple[Index, Constraint | None], ...]:
        """Return the valid indexes over the columns, with the keys over these."""
        mine = {c.name for c in self.columns}
        keys = {k.index: k for k in self.table.constraints if k.kind in ("p", "u")}
        return tuple(
            (index, keys.get(index.name))
            for index in self.table.indexes
            if index.valid and not mine.isdisjoint(index.columns)
        )

    def copy(self, index: Index) -> str:
        """Return the name of an index that will stand in another one's place."""
        return names.owned("index", index.name, self.facts.tag)

    def check(self, one: Widening) -> str:
        """Return the name of the check that proves a column to be NOT NULL."""
        return names.owned("check", one.name, self.facts.tag)


@dataclass(frozen=True, slots=True)
class WiderKey:
    """
    A column of a primary key, and the columns that refer to it.

    Args:
        title: the change's, for messages.
        facts: of the table and those that refer to it, whatever phase they are of.
        column: the key's column.
        type: the wider type, as the catalogue spells it.
    """

    title: str
    facts: Facts
    column: str
    type: str

    @property
    def _tables(self) -> dict[TableName, Table]:
        return {t.name: t for t in (self.facts.table, *self.facts.others)}

    def _retired(self, name: str) -> str:
        return names.owned("retired", name, self.facts.tag)

    def columns(self) -> set[tuple[TableName, str]]:
        """Return the columns that become wider: of what they refer to, one does."""
        found = {(self.facts.table.name, self.column)}
        while True:
            further = {
                (key.table, mine)
                for key in self._all_keys()
                for mine, theirs in zip(key.columns, key.to_columns, strict=True)
                if (key.to, theirs) in found and self._is_narrow(key.table, mine)
            }
            if further <= found:
                return found
            found |= further

    def _all_keys(self) -> tuple[ForeignKey, ...]:
        # Those of a table to another one are in the order in which they were made.
        keys = (k for t in self._tables.values() for k in t.foreign_keys)
        return tuple(dict.fromkeys(keys))

    def _is_narrow(self, table: TableName, name: str) -> bool:
        given = self._tables[table]
        if self.facts.table.column(self._retired(self.column)):
            # What came to refer to the key since retire has no part in it.
            return given.column(self._retired(name)) is not None
        return BITS.get(given.require(name).type, 0) < BITS[self.type]

    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """
        Return the foreign keys with a wider column on either end.

        Of a table they are in the order in which they were made, which is that of their
        actions: a NO ACTION before a CASCADE refuses what that would take along.
        """
        wider = self.columns()
        return tuple(
            sorted(
                (
                    key
                    for key in self._all_keys()
                    if any((key.table, c) in wider for c in key.columns)
                    or any((key.to, c) in wider for c in key.to_columns)
                ),
                key=lambda k: k.table,
            )
        )

    def parts(self) -> tuple[Part, ...]:
        """Return the tables: the change's own, then the others by name."""
        wider = self.columns()
        touched = {t for t, _ in wider} | {k.table for k in self.foreign_keys()}
        own = self.facts.table.name
        return tuple(
            self._part(self._tables[name], wider)
            for name in (own, *sorted(touched - {own}))
        )

    def _part(self, table: Table, wider: set[tuple[TableName, str]]) -> Part:
        tag, own, suffix = self.facts.tag, self.facts.table.name, ""
        if table.name != own:
            tag = names.tag(tag, table.name.schema, table.name.name)
            # Quoted, so that no name can look like another one with its schema.
            near = table.name.schema == own.schema
            called = sql.Identifier(table.name.name).as_string(None)
            suffix = f" {called if near else table.name}"
        columns = tuple(
            self._widening(table, column.name)
            for column in table.columns
            if (table.name, column.name) in wider
        )
        facts = replace(self.facts, table=table, tag=tag)
        mirror = Widened(table=table.name, tag=tag, path=facts.path, columns=columns)
        return Part(facts, mirror if columns else None, suffix)

    def _widening(self, table: Table, name: str) -> Widening:
        retired = self._retired(name)
        former = table.column(retired) or table.require(name)
        return Widening(
            column=replace(former, name=name),
            shadow=names.owned("shadow", name, self.facts.tag),
            retired=retired,
            type=self.type,
        )

    def mirrors(self) -> Iterator[tuple[Part, Widened]]:
        """Yield the tables that have wider columns, with these."""
        return ((p, p.mirror) for p in self.parts() if p.mirror)

    def by_text(self) -> tuple[tuple[TableName, Constraint], ...]:
        """
        Return the constraints that are made again from their text.

        The columns bear the same names before and after. Foreign keys come last, as
        what they refer to has to be a key by then.
        """
        checks = [
            (part.table.name, found)
            for part in self.parts()
            for found in part.table.constraints
            if found.kind == "c"
            and not {c.name for c in part.columns}.isdisjoint(found.columns)
        ]
        for key in self.foreign_keys():
            found = self._tables[key.table].constraint(key.name)
            assert found is not None
            checks.append((key.table, found))
        return tuple(checks)

    def footprints(self) -> tuple[Footprint, ...]:
        """Return the columns, and those beside them in what is made again."""
        found = {(p.table.name, c.name) for p in self.parts() for c in p.columns}
        for part in self.parts():
            beside = (c for index, _ in part.indexes() for c in index.columns)
            found |= {(part.table.name, c) for c in beside}
        for table, made in self.by_text():
            found |= {(table, c) for c in made.columns}
        for key in self.foreign_keys():
            found |= {(key.table, c) for c in key.columns}
            found |= {(key.to, c) for c in key.to_columns}
        return tuple(
            Footprint(table=table, columns=frozenset(c for t, c in found if t == table))
            for table in dict.fromkeys(
                (self.facts.table.name, *sorted(t for t, _ in found))
            )
        )
