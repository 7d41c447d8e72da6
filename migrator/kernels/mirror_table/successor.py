"""What a table is like that takes another one's place: all that hangs on it, anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts, Index, Table
from migrator.kernels import indexes, requirements
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import looks
from migrator.kernels.mirror_table.shadow import shadow_of
from migrator.names import TableName
from migrator.plan import type_name

_LIKE = (
    "LIKE {} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING CONSTRAINTS INCLUDING"
    " DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STATISTICS INCLUDING"
    " STORAGE"
)


def former(table: TableName, tag: str) -> TableName:
    """Return the name that a table has once another one took its place."""
    return TableName(table.schema, names.owned("former", table.name, tag))


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """
    A table that another one takes the place of, and what that one is like.

    Args:
        facts: of the table, or of its successor once it has the name.
        key: columns of a unique key that both have.
        primary: the columns of the successor's primary key; None leaves it as it is.
        partition_by: what `PARTITION BY` says; None for none.
        made: further statements that give the successor its shape, each about the
            table that it is given the name of.
    """

    facts: Facts
    key: Sequence[str]
    primary: Sequence[str] | None = None
    partition_by: str | None = None
    made: tuple[sql.Composable, ...] = ()

    @property
    def name(self) -> TableName:
        """The name that both have, one after the other."""
        return self.facts.table.name

    @property
    def shadow_name(self) -> TableName:
        """The successor's name before."""
        return shadow_of(self.name, self.facts.tag)

    @property
    def former_name(self) -> TableName:
        """The former table's name afterwards."""
        return former(self.name, self.facts.tag)

    @property
    def old(self) -> Table:
        """The former table, whichever name it has."""
        return self.facts.made.get(self.former_name, self.facts.table)

    def create(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the successor, empty."""
        table, old = self.shadow_name.identifier, self.facts.table
        by = f" PARTITION BY {self.partition_by}" if self.partition_by else ""
        space = f" TABLESPACE {old.tablespace}" if old.tablespace else ""
        alter = sql.SQL("ALTER TABLE {} ").format(table)
        found: list[sql.Composable] = [
            sql.SQL("CREATE TABLE {} (").format(table)
            + sql.SQL(_LIKE).format(old.name.identifier)
            + sql.SQL("){}{}").format(type_name(by), type_name(space)),
            alter + sql.SQL("OWNER TO {}").format(sql.Identifier(old.owner)),
        ]
        if old.options and not self.partition_by:
            found.append(
                alter + sql.SQL("SET ({})").format(type_name(", ".join(old.options)))
            )
        if old.comment is not None:
            found.append(
                sql.SQL("COMMENT ON TABLE {} IS {}").format(
                    table, sql.Literal(old.comment)
                )
            )
        found += [s for c in old.columns for s in looks(table, c.name, c)]
        found += self.made
        found += [
            alter
            + sql.SQL("ADD CONSTRAINT {} {}").format(
                sql.Identifier(self.copy_of(index)), self._constraint(constraint)
            )
            for index, constraint in self.keyed()
        ]
        if self.partition_by:
            found += [
                indexes.created_as(self.shadow_name, self.copy_of(i), i)
                for i in self.later()
            ]
            found += [
                alter
                + sql.SQL("ADD CONSTRAINT {} {}").format(
                    sql.Identifier(c.name), type_name(c.definition)
                )
                for c in self.foreign_keys()
            ]
        found += self._replica_identity()
        return tuple(found)

    def _replica_identity(self) -> list[sql.Composable]:
        old = self.facts.table
        alter = sql.SQL("ALTER TABLE {} REPLICA IDENTITY ").format(
            self.shadow_name.identifier
        )
        if old.replica_identity in ("FULL", "NOTHING"):
            return [alter + type_name(old.replica_identity)]
        return [
            alter + sql.SQL("USING INDEX {}").format(sql.Identifier(self.copy_of(i)))
            for i, _ in self.keyed()
            if i.replica_identity
        ]

    def keyed(self) -> list[tuple[Index, Constraint]]:
        """Return indexes that constraints rest on, with these."""
        table = self.facts.table
        return [
            (index, c)
            for c in table.constraints
            if c.kind in ("p", "u") and (index := table.index(c.index or c.name))
        ]

    def _constraint(self, constraint: Constraint) -> sql.Composable:
        if constraint.kind == "p" and self.primary is not None:
            columns = sql.SQL(", ").join(map(sql.Identifier, self.primary))
            return sql.SQL("PRIMARY KEY ({})").format(columns)
        return type_name(constraint.definition)

    def later(self) -> list[Index]:
        """Return indexes that no constraint rests on."""
        keyed = {i.name for i, _ in self.keyed()}
        return [i for i in self.facts.table.indexes if i.name not in keyed]

    def copy_of(self, index: Index) -> str:
        """Return the name of the successor's index before it takes this one's."""
        return names.owned("index", index.name, self.facts.tag)

    def refers_to_itself(self, constraint: Constraint) -> bool:
        """Tell whether a foreign key is to the table itself."""
        return constraint.kind == "f" and constraint.references in (
            self.name,
            self.former_name,
        )

    def foreign_keys(self) -> list[Constraint]:
        """Return foreign keys to other tables."""
        return [
            c
            for c in self.facts.table.constraints
            if c.kind == "f" and not self.refers_to_itself(c)
        ]


def require_swappable(facts: Facts, title: str) -> None:
    """
    Refuse a table that no other one could take the place of.

    Raises:
        Refused: something hangs on it that stays with the former table.
    """
    requirements.require_table(facts)
    table = facts.table
    if table.policies and table.forces_policies:
        raise Refused(
            f"Table {table.name} forces its row-level security on its owner, who"
            " writes the table that follows.",
            next="ALTER TABLE … NO FORCE ROW LEVEL SECURITY until the drop, where that"
            " may be.",
        )
    # Policies go over, and all that stays is named at once below.
    requirements.require_mirrored(facts.of(replace(table, policies=False, rules=())))
    requirements.require_all_rows_visible(facts)
    used = [
        *table.dependents,
        *(
            d
            for c in table.columns
            for d in c.dependents
            # These go over.
            if d != requirements.COLUMN_GRANTS
            and not any(d.startswith(f"trigger {t.name} on ") for t in table.triggers)
            and not any(
                d.startswith(f"policy {p.name} on ") for p in table.row_policies
            )
        ),
        *(rule.described for rule in table.rules),
        *(f"publication {p}" for p in table.publications),
    ]
    if used:
        raise Refused(
            f"{title}: table {table.name} is used by {'; '.join(dict.fromkeys(used))},"
            " which would stay with the former table.",
            next="drop what depends on it first, and make it again afterwards.",
        )
    for c in table.constraints:
        if c.kind not in ("p", "u", "f", "c", "n") or not c.validated:
            raise Refused(
                f'{title}: constraint "{c.name}" of table {table.name}'
                + (" cannot go over." if c.validated else " is not valid."),
                next="drop it by a change of its own first."
                if c.validated
                else "validate it first.",
            )
    if unique_index(facts) is None:
        raise Refused(
            f"{title}: table {table.name} has no unique index over NOT NULL columns, by"
            " which a row could be found in the new table.",
            next="give it a primary key first.",
        )
