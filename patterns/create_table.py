"""Make a new table.

phase   statement      lock on the table
expand  CREATE TABLE   none; SHARE ROW EXCLUSIVE on tables that it refers to, no scan

Going back renames it out of sight with its rows (ACCESS EXCLUSIVE on the table, no
scan), and drops it after the hold; so does a table that is made again by the same
definition come back with them.

Source: PostgreSQL manual, CREATE TABLE; section 13.3.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Kind, Table
from migrator.kernels import direct
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Lock,
    Notice,
    Probe,
    Reach,
    State,
    Step,
    Steps,
    Transaction,
    render,
    type_name,
)

PRIVILEGES = (
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
    "ALL",
)


@dataclass(frozen=True, slots=True)
class CreateTable(Pattern):
    """
    Make `table`.

    Example:
        change = CreateTable("audit", "id bigint PRIMARY KEY, at date NOT NULL")

    Args:
        table: the table's name, without its schema.
        definition: what stands in the parentheses of CREATE TABLE.
        options: what follows them, e.g. `"PARTITION BY RANGE (at)"`.
        references: names of all tables that its foreign keys refer to; the definition
            spells them just so, without a schema.
        grants: privileges by role, e.g. `{"app": ["SELECT", "INSERT"]}`.
        schema: the table's schema; None means the first of the search path.
        assured: why hazards that need a person's word are none here.
    """

    kind: ClassVar[Kind] = Kind.NEW_TABLE

    table: str
    definition: str
    _: KW_ONLY
    options: str = ""
    references: Sequence[str] = ()
    grants: Mapping[str, Sequence[str]] = field(
        default_factory=dict[str, Sequence[str]]
    )
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'create table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, which makes it."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the tables that it refers to."""
        return tuple((name, None) for name in self.references)

    def beside(self) -> tuple[Reach, ...]:
        """Return the tables that it refers to."""
        return tuple(Reach(table=t, columns=frozenset()) for t in self.references)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the table, and those that may not go while it is made."""
        return (
            Footprint(table=facts.table.name, columns=None, made=True),
            *(Footprint(table=t, columns=frozenset()) for t in self._references(facts)),
        )

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken, and privileges that there are not."""
        table, parked = facts.table.name, self._parked(facts)
        names.checked(self.table, "table")
        if self.table in facts.relation_names:
            raise Refused(
                f'Schema "{table.schema}" has a relation "{self.table}" already.',
                next="choose another name, or rename that one first.",
            )
        for other in facts.relation_names:
            mine = other.startswith("_migrator_parked_") and other.endswith(facts.tag)
            if mine and other != parked.name:
                raise Refused(
                    f'{self.title}: a rollback parked it as "{other}", made by another'
                    " definition.",
                    next="drop that one, or put the definition back as it was.",
                )
        for role, given in self.grants.items():
            wrong = [p for p in given if p not in PRIVILEGES]
            if wrong or isinstance(given, str):
                raise Refused(
                    f'{self.title}: the grants of role "{role}" are {given!r}.',
                    next=f"give a list of these: {', '.join(PRIVILEGES)}.",
                )
        found = [
            Notice(text="Rolling back parks the table; it is dropped after the hold.")
        ]
        found += [
            Notice(
                text=f"From expand on, rows of the new release hold rows of table"
                f" {other}: a DELETE of the old release is refused, or takes them"
                " along, as the foreign key says. That goes for a parked table too.",
                needs_assurance=True,
            )
            for other in self._references(facts)
        ]
        return self.assure(tuple(found))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the definition, with stand-ins for what it refers to."""
        trial = TableName("pg_temp", self.table)
        stand_ins = (
            sql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING INDEXES)").format(
                sql.Identifier(other.name), other.identifier
            )
            for other in self._references(facts)
        )
        made = tuple(
            render(s) for s in (*stand_ins, self._create(trial), *self._granted(trial))
        )
        alone = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_inherits"
            " WHERE inhrelid = {}::pg_catalog.regclass)"
        ).format(sql.Literal(str(trial)))
        return (
            Probe(
                statements=made,
                question="SELECT true",
                otherwise="",
                failed=f"{self.title}: the server refuses it",
                next="correct it; a table that it refers to has to stand in"
                " `references`, and in the definition without its schema.",
            ),
            Probe(
                statements=made,
                question=render(alone),
                otherwise=f"{self.title}: it inherits from another table.",
                next="use plain SQL.",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the table, or its return from where a rollback parked it."""
        table, parked = facts.table.name, self._parked(facts)
        keys = self._references(facts)
        path = sql.SQL("SET LOCAL search_path = {}").format(
            sql.SQL(", ").join(
                map(sql.Identifier, dict.fromkeys((table.schema, *facts.path)))
            )
        )
        made = (path, self._create(table), *self._granted(table))
        if parked.name in facts.relation_names:
            work = direct.rename_table(parked, table)
        elif keys:
            lock = Lock.SHARE_ROW_EXCLUSIVE
            work = direct.catalogue_step(keys[0], *made, lock=lock, also=keys[1:])
        else:
            work = Transaction(statements=tuple(map(render, made)), table=table)
        gone = sql.SQL("DROP TABLE {}").format(parked.identifier)
        return (
            Step(
                name="create_table",
                work=work,
                reverse=(direct.rename_table(table, parked),),
                parked=direct.catalogue_step(parked, gone, also=keys),
            ),
        )

    def _create(self, table: TableName) -> sql.Composable:
        return sql.SQL("CREATE TABLE {} ({}) {}").format(
            table.identifier, type_name(self.definition), type_name(self.options)
        )

    def _granted(self, table: TableName) -> tuple[sql.Composable, ...]:
        return tuple(
            sql.SQL("GRANT {} ON {} TO {}").format(
                type_name(", ".join(given)), table.identifier, sql.Identifier(role)
            )
            for role, given in self.grants.items()
        )

    def _references(self, facts: Facts) -> tuple[TableName, ...]:
        asked = facts.others[: len(self.references)]
        return tuple(sorted(other.name for other in asked))

    def _parked(self, facts: Facts) -> TableName:
        """Return the name of the table while it is parked: one for each definition."""
        made_by = names.tag(self.definition, self.options)
        name = names.owned("parked", f"{made_by}_{self.table}", facts.tag)
        return replace(facts.table.name, name=name)
