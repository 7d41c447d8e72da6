"""What a table is like that takes another one's place: all that hangs on it, anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, ExtendedStatistics, Facts, Index, Table
from migrator.kernels import indexes, requirements
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import looks
from migrator.kernels.foreign_key import NOT_VALID_ON_PARTITIONED, acts
from migrator.kernels.mirror_table.bound import STAYS
from migrator.kernels.mirror_table.shadow import shadow_of
from migrator.kernels.privileges import nothing_by_default
from migrator.names import TableName
from migrator.plan import Notice, type_name

_LIKE = (
    "LIKE {} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING CONSTRAINTS INCLUDING"
    " DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STORAGE"
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
        # Its partitions hold the rows.
        method = "" if by else accessed(old)
        space = f" TABLESPACE {old.tablespace}" if old.tablespace else ""
        alter = sql.SQL("ALTER TABLE {} ").format(table)
        found: list[sql.Composable] = [
            sql.SQL("CREATE TABLE {} (").format(table)
            + sql.SQL(_LIKE).format(old.name.identifier)
            + sql.SQL("){}{}{}").format(*map(type_name, (by, method, space))),
            *nothing_by_default(self.facts.default_grantees, self.shadow_name),
            alter + sql.SQL("OWNER TO {}").format(sql.Identifier(old.owner)),
        ]
        options = _options(old)
        if options and not self.partition_by:
            found.append(
                alter + sql.SQL("SET ({})").format(type_name(", ".join(options)))
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
                sql.Identifier(self.copy_of(index)),
                self._constraint(index, constraint),
            )
            for index, constraint in self.keyed()
        ]
        found += [
            indexes.created_as(self.shadow_name, self.copy_of(i), i)
            for i in (self.loose() if self.partition_by else self._arbiters())
        ]
        found += self.targets() if self.partition_by else []
        if self.partition_by:
            found += [
                alter
                + sql.SQL("ADD CONSTRAINT {} {}").format(
                    sql.Identifier(c.name), type_name(c.definition)
                )
                for c in self.foreign_keys()
            ]
        found += self._replica_identity()
        found += self.create_statistics()
        return tuple(found)

    def create_statistics(self) -> list[sql.Composable]:
        """Return the statements that make extended statistics, where there are none."""
        found: list[sql.Composable] = []
        for one in self.facts.table.statistics:
            name = self.copy_of_statistics(one).identifier
            found += [
                sql.SQL("CREATE STATISTICS IF NOT EXISTS {}{} ON {} FROM {}").format(
                    name,
                    type_name(one.kinds),
                    type_name(one.columns),
                    self.shadow_name.identifier,
                ),
                sql.SQL("ALTER STATISTICS {} OWNER TO {}").format(
                    name, sql.Identifier(one.owner)
                ),
            ]
            if one.target is not None:
                found.append(
                    sql.SQL("ALTER STATISTICS {} SET STATISTICS {}").format(
                        name, sql.Literal(one.target)
                    )
                )
            if one.comment is not None:
                found.append(
                    sql.SQL("COMMENT ON STATISTICS {} IS {}").format(
                        name, sql.Literal(one.comment)
                    )
                )
        return found

    def copy_of_statistics(self, one: ExtendedStatistics) -> TableName:
        """Return the name of the successor's before it takes this one's."""
        name = names.owned("statistics", one.name.name, self.facts.tag)
        return TableName(one.name.schema, name)

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
            if c.kind in ("p", "u", "x") and (index := table.index(c.index or c.name))
        ]

    def _constraint(self, index: Index, constraint: Constraint) -> sql.Composable:
        if constraint.kind == "p" and self.primary is not None:
            columns = sql.SQL(", ").join(map(sql.Identifier, self.primary))
            return sql.SQL("PRIMARY KEY ({})").format(columns) + _placed(index)
        return type_name(constraint.definition)

    def loose(self) -> list[Index]:
        """Return indexes that no constraint rests on."""
        keyed = {i.name for i, _ in self.keyed()}
        return [i for i in self.facts.table.indexes if i.name not in keyed]

    def _arbiters(self) -> list[Index]:
        """Return those of them by which the dual write finds a row: needed at once."""
        return [
            i
            for i in self.loose()
            if i.unique and i.plain and [k.name for k in i.keys] == list(self.key)
        ]

    def later(self) -> list[Index]:
        """Return indexes that are built behind the rows."""
        return [i for i in self.loose() if i not in self._arbiters()]

    def targets(self) -> list[sql.Composable]:
        """Return what gives expressions of indexes their statistics targets."""
        schema = self.shadow_name.schema
        return [
            statement
            for i in self.loose()
            for statement in indexes.targets(schema, self.copy_of(i), i)
        ]

    def copy_of(self, index: Index) -> str:
        """Return the name of the successor's index before it takes this one's."""
        return names.owned("index", index.name, self.facts.tag)

    def refers_to_itself(self, constraint: Constraint) -> bool:
        """Tell whether a foreign key is to the table itself."""
        return constraint.kind == "f" and constraint.references in (
            self.name,
            self.former_name,
        )

    def goes_over(self, constraint: Constraint) -> bool:
        """
        Tell whether a foreign key to another table is there once, as those to it are.

        It is one that changes rows, or stands beside one, since the order in which they
        were made is that in which they act. That of the table out of sight would change
        its rows too, after the exchange before those of the one that has the name,
        since it is older: in the other order than a request that writes a row, and so
        they would deadlock. A partitioned table gets its own while it is empty, before
        18; so there they may deadlock after a way back.
        """
        early = self.facts.server_version < NOT_VALID_ON_PARTITIONED
        return constraint in going_over(self.facts.table) and not (
            self.partition_by and early
        )

    def foreign_keys(self) -> list[Constraint]:
        """
        Return foreign keys to other tables that both have.

        In the order in which they were made.
        """
        table = self.facts.table
        made = [k.name for k in table.foreign_keys if k.table == table.name]
        found = [
            c
            for c in table.constraints
            if c.kind == "f" and not self.refers_to_itself(c) and not self.goes_over(c)
        ]
        return sorted(found, key=lambda c: c.name in made and made.index(c.name))


def going_over(table: Table) -> list[Constraint]:
    """Return foreign keys to other tables by which rows there change rows here."""
    own = [
        c
        for c in table.constraints
        if c.kind == "f" and c.references not in (None, table.name)
    ]
    acting = {c.references for c in own if acts(c.definition)}
    return [c for c in own if c.references in acting]


def _placed(index: Index) -> sql.Composable:
    """Return what a key says of its index, as another one's has it."""
    with_ = f" WITH ({', '.join(index.storage)})" if index.storage else ""
    space: sql.Composable = sql.SQL("")
    if index.tablespace is not None:
        space = sql.SQL(" USING INDEX TABLESPACE {}").format(
            sql.Identifier(index.tablespace)
        )
    return type_name(with_) + space


def accessed(table: Table) -> str:
    """Return how DDL says that another table has the access method of one's leaves."""
    methods = {t.method for t in table.leaves or (table,)}
    if len(methods) > 1 or methods <= {"", "heap"}:
        return ""
    return f" USING {sql.Identifier(*methods).as_string(None)}"


def _options(table: Table) -> tuple[str, ...]:
    """Return storage parameters, of a partitioned table those of all its leaves."""
    first, *others = table.leaves or (table,)
    return tuple(o for o in first.options if all(o in t.options for t in others))


def require_swappable(facts: Facts, title: str) -> None:
    """
    Refuse a table that no other one could take the place of.

    Raises:
        Refused: something hangs on it that stays with the former table.
    """
    requirements.require_table(facts)
    requirements.require_no_member(facts.table)
    requirements.require_logged(facts)
    table = facts.table
    # Policies go over, and all that stays is named at once below.
    requirements.require_mirrored(facts.of(replace(table, policies=False, rules=())))
    requirements.require_all_rows_visible(facts)
    _require_writable(facts)
    requirements.require_mirror_first(facts, title)
    _require_published(facts, title)
    _require_views(facts, title)
    _require_referring(facts, title)
    for c in table.constraints:
        if c.kind not in ("p", "u", "x", "f", "c", "n") or not c.validated:
            raise Refused(
                f'{title}: constraint "{c.name}" of table {table.name}'
                + (" cannot go over." if c.validated else " is not valid."),
                next="validate it first."
                if not c.validated and c.definition.endswith(" NOT VALID")
                else "drop it by a change of its own first.",
            )
    index = unique_index(facts)
    if index is None:
        raise Refused(
            f"{title}: table {table.name} has no unique index over NOT NULL columns, by"
            " which a row could be found in the new table.",
            next="give it a primary key first.",
        )
    for c in table.constraints:
        if c.deferrable and c.kind in ("p", "u") and (c.index or c.name) == index.name:
            raise Refused(
                f'{title}: constraint "{c.name}" of table {table.name}, by which a row'
                " is found in the new table, is deferrable: ON CONFLICT takes none.",
                next="make it NOT DEFERRABLE by a change of its own first.",
            )


def _require_writable(facts: Facts) -> None:
    """Refuse policies that bind whose rights the triggers have."""
    table = facts.table
    if table.owner_lacks:
        lacks, owner = ", ".join(table.owner_lacks), sql.Identifier(table.owner)
        raise Refused(
            f"Table {table.name} has an owner who took {lacks} on it from itself, and"
            " writes both tables until the drop.",
            next=f"GRANT {lacks} ON {table.name} TO {owner.as_string(None)}, and take"
            " it back after the drop.",
        )
    # The owner's where the connection is a superuser's, else the connection's own.
    forced = table.policies and table.forces_policies
    if forced and facts.superuser and not table.owner_bypasses:
        raise Refused(
            f"Table {table.name} forces its row-level security on its owner, who"
            " writes the table that follows.",
            next="connect as a role with BYPASSRLS that is a member of the owner's, or"
            " ALTER TABLE … NO FORCE ROW LEVEL SECURITY until the drop.",
        )


def _require_published(facts: Facts, title: str) -> None:
    """Refuse what a subscriber could not follow, and a table that is one's."""
    table = facts.table
    if table.subscribed:
        raise Refused(
            f"{title}: a subscription fills table {table.name}, and would pass over"
            " what it gets for the one that takes its place.",
            next="make the change where the rows come from, or end the subscription"
            " first.",
        )
    for one in table.published:
        if one.whole:
            raise Refused(
                f'{title}: publication "{one.name}" has all tables, of the database or'
                " of the schema, and so the one that follows as soon as it is there; a"
                " subscriber that has none of that name stops.",
                next="publish tables by their names, until the drop at least: CREATE"
                " PUBLICATION … FOR TABLE …, then ALTER SUBSCRIPTION … SET PUBLICATION"
                " … WITH (copy_data = false) while nothing is written.",
            )
        if not one.owned:
            raise Refused(
                f"{title}: the role of this connection does not own publication"
                f' "{one.name}", in which the new table is to take the place of'
                f" {table.name}.",
                next="connect as a member of its owner's role.",
            )


def _require_referring(facts: Facts, title: str) -> None:
    """Refuse foreign keys of other tables that could not be added to the new one."""
    table = facts.table
    for key in table.foreign_keys:
        if key.to != table.name or key.table == table.name:
            continue
        if not key.validated:
            raise Refused(
                f'{title}: foreign key "{key.name}" of table {key.table} is not valid.',
                next="validate it first.",
            )
        if key.partitioned and facts.server_version < NOT_VALID_ON_PARTITIONED:
            raise Refused(
                f'{title}: foreign key "{key.name}" of the partitioned table'
                f" {key.table} refers to it. PostgreSQL adds one to a partitioned table"
                " without a scan under a strong lock from 18 on.",
                next="drop it by a change of its own first, and add it again after the"
                " drop of this one, in a maintenance window.",
            )


def _require_views(facts: Facts, title: str) -> None:
    """Refuse what depends on the table and cannot be made again over another one."""
    table = facts.table
    for view in table.views:
        if not view.owned:
            raise Refused(
                f"{title}: the role of this connection cannot make view {view.name}"
                " again, which reads the table: it does not own it, or may not create"
                " in its schema.",
                next="connect as a member of its owner's role, with CREATE on the"
                " schema.",
            )
    known = {d for view in table.views for d in view.described}
    known |= {p.described for p in table.published if p.described is not None}
    rules = (rule.described for rule in table.rules)
    used = [d for d in (*table.dependents, *rules) if d not in known]
    if used:
        raise Refused(
            f"{title}: table {table.name} is used by {'; '.join(dict.fromkeys(used))},"
            " which would stay with the former table.",
            next=STAYS,
        )


def swap_notices(facts: Facts, *, partitions: bool = False) -> tuple[Notice, ...]:
    """
    Return what a reviewer should know of what is bound to the new table.

    Args:
        facts: of the table.
        partitions: whether the new one is partitioned.
    """
    found: list[Notice] = []
    table = facts.table
    keys = [
        f'"{k.name}" of {k.table}' for k in table.foreign_keys if k.to == table.name
    ]
    own = [
        c
        for c in table.constraints
        if c.kind == "f" and c.references not in (None, table.name)
    ]
    early = partitions and facts.server_version < NOT_VALID_ON_PARTITIONED
    moved = [] if early else going_over(table)
    keys += [f'"{c.name}" to {c.references}' for c in moved]
    if keys:
        found.append(
            Notice(
                text=f"Foreign keys go over in the exchange ({', '.join(keys)}): it"
                " locks their tables too, on the way back as well, and each is proved"
                " behind it."
            )
        )
    out = [f'"{c.name}" to {c.references}' for c in own if c not in moved]
    if out:
        found.append(
            Notice(
                text="The table that is out of sight has the foreign keys too"
                f" ({', '.join(out)}): until the drop TRUNCATE of {table.name} and of"
                " what it refers to, in one statement, is refused. Say CASCADE, as the"
                " owner of both, or DELETE.",
                needs_assurance=True,
            )
        )
    if table.views:
        listed = ", ".join(str(v.name) for v in table.views)
        found.append(
            Notice(
                text=f"What reads the table through a view ({listed}) waits as well at"
                " retire, and on the way back: the view is made again, as it is, over"
                " the table that has the name."
            )
        )
    if table.published:
        listed = ", ".join(f'"{p.name}"' for p in table.published)
        found.append(
            Notice(
                text=f"At retire the new table takes the place of {table.name} in"
                f" publication {listed}. A subscriber knows tables by name and goes on;"
                " other readers of a slot that tell tables by OID meet another one.",
                needs_assurance=True,
            )
        )
    return tuple(found)
