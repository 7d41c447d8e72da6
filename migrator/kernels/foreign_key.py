"""A foreign key: its text, what it needs, the rows that it would refuse, its steps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator.errors import Misdeclared, Refused
from migrator.facts import Constraint, Facts, Table
from migrator.kernels import constraints, requirements
from migrator.kernels.unique_key import other_row, value_of
from migrator.names import TableName
from migrator.plan import Lock, Notice, Probe, Step, present, render, type_name

# From here on a foreign key of a partitioned table may be NOT VALID.
NOT_VALID_ON_PARTITIONED = 180000

_ACTIONS: dict[str, sql.SQL] = {
    "NO ACTION": sql.SQL("NO ACTION"),
    "RESTRICT": sql.SQL("RESTRICT"),
    "CASCADE": sql.SQL("CASCADE"),
    "SET NULL": sql.SQL("SET NULL"),
    "SET DEFAULT": sql.SQL("SET DEFAULT"),
}
_SET = re.compile(r"(?P<action>SET\s+(NULL|DEFAULT))\s*\((?P<columns>[^()]+)\)", re.I)
_MATCHES: dict[str, sql.SQL] = {
    "SIMPLE": sql.SQL("SIMPLE"),
    "FULL": sql.SQL("FULL"),
}
_NAME = re.compile(r'"(?:[^"]|"")*"')
_ACTIONS_AT = re.compile(r" ON (?:DELETE|UPDATE) ")
_DEFAULT_COLLATION = 'pg_catalog."default"'


def actions(definition: str) -> str:
    """Return what a foreign key, as the server spells it, says from its actions on."""
    bare = _NAME.sub('""', definition)
    found = _ACTIONS_AT.search(bare)
    return bare[found.start() :] if found else ""


def acts(definition: str) -> bool:
    """Tell whether a foreign key, as the server spells it, changes rows that refer."""
    said = actions(definition)
    return "CASCADE" in said or " SET " in said


def is_full(definition: str) -> bool:
    """Tell whether a foreign key, as the server spells it, is MATCH FULL."""
    return " MATCH FULL" in _NAME.sub("", definition)


def has_period(definition: str) -> bool:
    """Tell whether a foreign key, as the server spells it, is one over periods."""
    return " PERIOD " in _NAME.sub("", definition)


def unmatched(
    values: Sequence[sql.Composable], found: sql.Composable, *, full: bool
) -> sql.Composable:
    """
    Return the condition of rows that a foreign key refuses.

    Args:
        values: those of its columns.
        found: the condition that the other table has them.
        full: whether it is MATCH FULL: all of them are given, or none.

    Source: PostgreSQL manual, CREATE TABLE, REFERENCES (MATCH).
    """
    given = [present(value) for value in values]
    whole = sql.SQL(" AND ").join(given)
    if not full:
        return sql.SQL("{} AND NOT {}").format(whole, found)
    return sql.SQL("({}) AND NOT ({} AND {})").format(
        sql.SQL(" OR ").join(given), whole, found
    )


def refused_rows(
    table: Table, found: Constraint, instead: Mapping[str, str] | None = None
) -> sql.Composable:
    """
    Return the condition of rows that refer to none of the other table's.

    Args:
        table: with its foreign keys; the row has its name.
        found: one of them.
        instead: for a column of it, the one that is looked at in its place.
    """
    mine = (k for k in table.foreign_keys if k.table == table.name)
    key = next((k for k in mine if k.name == found.name), None)
    if key is None or has_period(found.definition):
        # Left to the server's own proof: no = tells that a range is covered.
        return sql.SQL("false")
    other, row = other_row(table.name.name), sql.Identifier(table.name.name)
    values = [value_of(row, (instead or {}).get(c, c)) for c in key.columns]
    same = (
        sql.SQL("{} {} {}").format(
            value_of(sql.Identifier(other), theirs),
            type_name(table.require(mine).equal),
            value,
        )
        for value, mine, theirs in zip(values, key.columns, key.to_columns, strict=True)
    )
    there = sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {})").format(
        key.to.identifier, sql.Identifier(other), sql.SQL(" AND ").join(same)
    )
    return unmatched(values, there, full=is_full(found.definition))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """
    A foreign key that is to be.

    Args:
        title: the change's, for messages.
        name: the constraint's.
        facts: of the referring table.
        parent: the referenced table.
        columns: the referring ones.
        referenced: the parent's, in the same order.
        match: how NULLs count; None leaves it to the server, as the next ones.
        on_delete: what becomes of rows whose parent goes.
        on_update: what becomes of rows whose parent's key changes.
        deferrable: as in `constraints.deferrable`.
    """

    title: str
    name: str
    facts: Facts
    parent: Table
    columns: tuple[str, ...]
    referenced: tuple[str, ...]
    match: str | None = None
    on_delete: str | None = None
    on_update: str | None = None
    deferrable: str | None = None

    def require(self) -> None:
        """
        Refuse a key that could not be.

        Raises:
            Refused: a column is not there, no unique index holds the referenced
                ones, or a word is not one of SQL.
        """
        for one in (self.facts, replace(self.facts, table=self.parent)):
            requirements.require_table(one)
            requirements.require_all_rows_visible(one)
        for column in self.columns:
            self.facts.table.require(column)
        constraints.require_free_name(self.facts, self.name)
        self.definition()
        if len(self.referenced) != len(self.columns):
            raise Refused(
                f"{self.title}: `referenced_columns` must be a list of as many columns"
                " as `on`.",
                next=f"name {len(self.columns)}, in the order of `on`.",
            )
        for column in self.referenced:
            self.parent.require(column)
        late = {k.index for k in self.parent.constraints if k.deferrable}
        keys = [
            {k.name for k in i.keys}
            for i in self.parent.indexes
            if i.unique and i.valid and i.plain and i.name not in late
        ]
        if set(self.referenced) not in keys:
            listed = ", ".join(f'"{c}"' for c in self.referenced)
            raise Refused(
                f"No unique index of table {self.parent.name} that is checked at once"
                f" is on exactly ({listed}): a foreign key cannot refer to these"
                " columns.",
                next="make them unique first, by a change of its own (AddUnique).",
            )

    def require_not_valid(self) -> None:
        """Refuse a partitioned table, where PostgreSQL could only scan for the key."""
        early = self.facts.server_version < NOT_VALID_ON_PARTITIONED
        if self.facts.table.kind == "p" and early:
            raise Refused(
                f"Table {self.facts.table.name} is partitioned: before PostgreSQL 18"
                " its foreign keys cannot be NOT VALID, so that adding one reads all"
                " rows while writers of both tables wait.",
                next="add the foreign key in a maintenance window, or use PostgreSQL"
                " 18.",
            )

    def definition(self, parent: sql.Composable | None = None) -> sql.Composable:
        """Return what follows the constraint's name; `parent` in a trial."""
        text = sql.SQL("FOREIGN KEY ({}) REFERENCES {} ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            parent or self.parent.name.identifier,
            sql.SQL(", ").join(map(sql.Identifier, self.referenced)),
        )
        if self.match is not None:
            text += sql.SQL(" MATCH ") + self._word(_MATCHES, self.match, "match")
        if self.on_delete is not None:
            text += sql.SQL(" ON DELETE ") + self._deletes(self.on_delete)
        if self.on_update is not None:
            action = self._word(_ACTIONS, self.on_update, "on_update")
            text += sql.SQL(" ON UPDATE ") + action
        return text + constraints.deferrable(self.title, self.deferrable)

    def _deletes(self, given: str) -> sql.Composable:
        """Return what a DELETE does, which may be to some of the columns (15+)."""
        found = _SET.fullmatch(given.strip())
        if found is None:
            return self._word(_ACTIONS, given, "on_delete")
        listed = [c.strip().strip('"') for c in found["columns"].split(",")]
        strange = [c for c in listed if c not in self.columns]
        if strange:
            mine = ", ".join(f'"{c}"' for c in self.columns)
            raise Misdeclared(
                f'{self.title}: on_delete sets "{strange[0]}", which is none of the'
                f" foreign key's columns ({mine}).",
                next="name some of them, or none for all.",
            )
        action = self._word(_ACTIONS, " ".join(found["action"].split()), "on_delete")
        columns = sql.SQL(", ").join(map(sql.Identifier, listed))
        return action + sql.SQL(" ({})").format(columns)

    def _word(self, known: dict[str, sql.SQL], given: str, what: str) -> sql.SQL:
        if given.upper() not in known:
            listed = ", ".join(f'"{word}"' for word in known)
            raise Misdeclared(
                f"{self.title}: {what} is {given!r}.", next=f"write one of {listed}."
            )
        return known[given.upper()]

    def trial(self) -> Probe:
        """
        Return a trial of the same foreign key on empty tables of that shape.

        The server knows which types have an = in common, and what actions the
        columns can take.
        """
        same = self.parent.name == self.facts.table.name
        parent = sql.Identifier("pg_temp", "migrator_parent")
        child = parent if same else sql.Identifier("pg_temp", "migrator_child")
        statements = [
            sql.SQL(
                "CREATE TEMP TABLE migrator_parent"
                " (LIKE {} INCLUDING GENERATED INCLUDING INDEXES)"
            ).format(self.parent.name.identifier)
        ]
        if not same:
            statements.append(
                sql.SQL(
                    "CREATE TEMP TABLE migrator_child (LIKE {} INCLUDING GENERATED)"
                ).format(self.facts.table.name.identifier)
            )
        statements.append(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                child, sql.Identifier(self.name), self.definition(parent)
            )
        )
        types = ", ".join(
            f'"{mine}" {ours} to "{theirs}" {key}'
            for mine, ours, theirs, key in self._types()
        )
        return Probe(
            statements=tuple(render(s) for s in statements),
            question="SELECT true",
            otherwise="",
            failed=f"{self.title}, {types}: the server refuses it",
            next="give the columns types that have an = in common, and actions that"
            " they can take; change a type by a change of its own first.",
        )

    def _types(self) -> list[tuple[str, str, str, str]]:
        """Return each column with its type, and the referenced one with its."""
        return [
            (
                mine,
                self.facts.table.require(mine).type,
                theirs,
                self.parent.require(theirs).type,
            )
            for mine, theirs in zip(self.columns, self.referenced, strict=True)
        ]

    def type_notices(self) -> tuple[Notice, ...]:
        """Return a note on each column of another type than the one it refers to."""
        return tuple(
            Notice(
                text=f'Column "{mine}" is {ours} and refers to "{theirs}", which is'
                f" {key}: what one of them cannot hold is refused, and joins convert."
            )
            for mine, ours, theirs, key in self._types()
            if ours != key
        )

    def orphans(self) -> sql.Composable:
        """Return the condition of rows that refer to none of the parent's."""
        name = self.facts.table.name.name
        row, other = sql.Identifier(name), sql.Identifier(other_row(name))
        # OFFSET: as in `unique_key.duplicates`.
        found = sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {} OFFSET 0)").format(
            self.parent.name.identifier,
            other,
            sql.SQL(" AND ").join(
                self._equal(value_of(row, mine), value_of(other, theirs), mine, theirs)
                for mine, theirs in zip(self.columns, self.referenced, strict=True)
            ),
        )
        values = [value_of(row, column) for column in self.columns]
        full = self.match is not None and self.match.upper() != "SIMPLE"
        return unmatched(values, found, full=full)

    def _equal(
        self, left: sql.Composable, right: sql.Composable, mine: str, theirs: str
    ) -> sql.Composable:
        column, key = self.facts.table.require(mine), self.parent.require(theirs)
        # The parent's collation counts; two that differ are an error otherwise.
        collation: sql.Composable = sql.SQL("")
        if column.collation != key.collation:
            collation = type_name(f" COLLATE {key.collation or _DEFAULT_COLLATION}")
        return sql.SQL("{} {} {}{}").format(
            right, type_name(key.equal), left, collation
        )


def steps(
    suffix: str,
    table: TableName,
    name: str,
    definition: sql.Composable,
    parent: TableName,
    comment: str | None = None,
) -> tuple[Step, Step]:
    """
    Return the steps that add a foreign key and prove it, both tables in use.

    Args:
        suffix: of the steps' names.
        table: the table that refers.
        name: the constraint's.
        definition: what follows the name, without NOT VALID.
        parent: the table that is referred to, or `table` itself.
        comment: on the constraint.
    """
    also = None if parent == table else parent
    return (
        Step(
            name=f"add_foreign_key{suffix}",
            work=constraints.with_comment(
                constraints.add(
                    table,
                    name,
                    definition + sql.SQL(" NOT VALID"),
                    lock=Lock.SHARE_ROW_EXCLUSIVE,
                    also=also,
                ),
                table,
                Constraint(name=name, kind="f", comment=comment),
            ),
            reverse=(constraints.drop(table, name, also),),
        ),
        Step(
            name=f"validate_foreign_key{suffix}",
            work=constraints.validated(table, name, also),
            no_reverse="the proof goes with the foreign key",
        ),
    )
