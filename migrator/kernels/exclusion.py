"""Exclusion constraints: their definition, and the rows that they would refuse.

Source: PostgreSQL manual, CREATE TABLE, EXCLUDE.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels.index_definition import Definition, Key
from migrator.kernels.unique_key import other_row
from migrator.plan import expression, type_name

# From this server on partitioned tables have them.
_ON_PARTITIONED = 170000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """
    An exclusion constraint: no two rows for which all operators say true.

    Args:
        definition: the index behind it, one key for each element.
        operators: those of the elements, as SQL.
    """

    definition: Definition
    operators: Sequence[str]

    def check(self, facts: Facts) -> None:
        """Refuse elements that are none; an index refuses the rest."""
        self.definition.check(facts)
        for operator in self.operators:
            if not operator:
                raise Refused(
                    f"{self.definition.title}: an element has no operator.",
                    next='write on=[("column", "&&")].',
                )

    def require_partition_key(self, facts: Facts) -> None:
        """
        Refuse a partitioned table of which no partition knows what conflicts.

        Source: PostgreSQL manual, section 5.12.2.3; CREATE TABLE, EXCLUDE.
        """
        title = self.definition.title
        if facts.server_version < _ON_PARTITIONED:
            raise Refused(
                f"Table {facts.table.name} is partitioned: PostgreSQL has exclusion"
                " constraints of such tables from 17 on.",
                next="add one to each partition, one by one.",
            )
        equal = {k.column for k, operator in self._elements() if operator == "="}
        for column in facts.table.columns:
            if column.partition_key and column.name not in equal:
                raise Refused(
                    f'{title}: column "{column.name}" decides on the partition of a'
                    " row, and is no element with =: each partition would know its own"
                    " rows only.",
                    next=f'add ("{column.name}", "=") to the elements.',
                )

    def render(self, when: sql.Composable) -> sql.Composable:
        """
        Return what follows the constraint's name in DDL.

        Args:
            when: the clause that says when it is checked.
        """
        elements = sql.SQL(", ").join(
            sql.SQL("{} WITH {}").format(key.render(), type_name(operator))
            for key, operator in self._elements()
        )
        text: sql.Composable = sql.SQL("EXCLUDE USING {} ({})").format(
            sql.Identifier(self.definition.method), elements
        )
        if self.definition.where is not None:
            text += sql.SQL(" WHERE ") + expression(self.definition.where)
        return text + when

    def violations(self, facts: Facts) -> sql.Composable:
        """
        Return the condition of rows that conflict with another row.

        Args:
            facts: of a table that holds the rows, which are told apart by their
                `ctid`.
        """
        table = facts.table.name
        # A leaf's rows go by the name of the whole.
        called = (facts.table.root or table).name
        # An expression of this row stands inside the look for the other one, so that
        # no column may bear the other one's names.
        known = {c.name for c in facts.table.columns}
        free = (n for n in (f"other_{i}" for i in count()) if n not in known)
        place, *names = (next(free) for _ in range(len(self.operators) + 1))
        other = sql.Identifier(other_row(called))
        made = [
            sql.SQL("{} AS {}").format(_value(key), sql.Identifier(name))
            for (key, _), name in zip(self._elements(), names, strict=True)
        ]
        where = self.definition.where
        same: list[sql.Composable] = [
            sql.SQL("{}.{} {} {}").format(
                other, sql.Identifier(name), type_name(operator), _value(key)
            )
            for (key, operator), name in zip(self._elements(), names, strict=True)
        ]
        found = sql.SQL(
            "EXISTS (SELECT FROM (SELECT {made}, ctid AS {place} FROM {table}{where})"
            " AS {other} WHERE {same} AND {other}.{place} <> {row}.ctid OFFSET 0)"
        ).format(
            made=sql.SQL(", ").join(made),
            place=sql.Identifier(place),
            table=table.identifier,
            where=sql.SQL("")
            if where is None
            else sql.SQL(" WHERE ") + expression(where),
            other=other,
            same=sql.SQL(" AND ").join(same),
            row=sql.Identifier(called),
        )
        if where is None:
            return found
        return sql.SQL("({} AND {})").format(expression(where), found)

    def _elements(self) -> Sequence[tuple[Key, str]]:
        return list(zip(self.definition.keys, self.operators, strict=True))


def _value(key: Key) -> sql.Composable:
    value = expression(key.expression) if key.expression else None
    text: sql.Composable = value or sql.Identifier(key.column)
    return (
        sql.SQL("({} COLLATE {})").format(text, type_name(key.collation))
        if key.collation
        else text
    )
