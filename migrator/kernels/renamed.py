"""A table that goes to another name, or schema, while both names are in use.

At one name stands the table, at the other a view over it; retire exchanges them in one
transaction. There is one copy of the rows, so that nothing is mirrored and nothing can
be lost. The view is of the kind that the server updates by itself, with the rights of
whoever uses it: what the table grants, and its row-level security, decide; the view's
own grants let everybody through to them.

Source: PostgreSQL manual, CREATE VIEW, Updatable Views; section 41.5 (rights).
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import direct, requirements
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Lock,
    Notice,
    Probe,
    Reach,
    Refusal,
    State,
    Step,
    Steps,
    Transaction,
    render,
)

# From this version on MERGE writes through a view (release notes of 17).
MERGES = 170000


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """
    A table with its old name and its new one.

    Args:
        title: the change's, for messages.
        old: the name in the old release.
        new: the name in the new release.
        columns: the table's, in order.
    """

    title: str
    old: TableName
    new: TableName
    columns: tuple[str, ...]

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """
        Return what a reviewer should know.

        Raises:
            Refused: the table cannot be renamed while it is used.
        """
        requirements.require_table(facts)
        names.checked(self.new.name, "table")
        names.checked(self.new.schema, "schema")
        if self.new == self.old:
            raise Refused(f"{self.title}: that is its name.", next="give another one.")
        found = [
            Notice(
                text=f"Until retire {self.new} is a view, from retire to the drop"
                f" {self.old} is one. What a view does not do fails for the release"
                f" that uses it: {', '.join(_not_through_views(facts))}."
            ),
            Notice(
                text=f"Rights are those of the table: grant on {self.old} until retire,"
                f" on {self.new} from then on. What is granted on the view goes with"
                " it."
            ),
        ]
        if any(requirements.COLUMN_GRANTS in c.dependents for c in facts.table.columns):
            found.append(
                Notice(
                    text="The view asks for the right to read all columns of the table:"
                    " a role that has rights on some of them alone cannot read through"
                    " it.",
                    needs_assurance=True,
                )
            )
        if facts.table.triggers:
            found.append(
                Notice(
                    text="Triggers of the table read its new name in TG_TABLE_NAME and"
                    " TG_TABLE_SCHEMA from retire on, whichever name a release writes"
                    " to."
                )
            )
        if not facts.answers.get("unnamed", True):
            found.append(
                Notice(
                    text=f'The text of a function has the word "{self.old.name}": one'
                    f" that means {self.old} fails from the drop on.",
                    needs_assurance=True,
                )
            )
        if not facts.answers.get("unpublished", True):
            found.append(
                Notice(
                    text=f"Table {self.old} is published: from retire on a subscriber"
                    f" stops that has no table {self.new}.",
                    needs_assurance=True,
                )
            )
        return tuple(found)

    def questions(self) -> Mapping[str, Probe]:
        """Return what the catalogue is asked for the notices."""
        functions = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_proc p"
            " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', {})"
            " AND p.prosrc ~* ('(^|[^[:alnum:]_])' || pg_catalog.regexp_replace("
            "{}, '([^[:alnum:]_])', '\\\\\\1', 'g') || '([^[:alnum:]_]|$)'))"
        ).format(sql.Literal(names.LEDGER_SCHEMA), sql.Literal(self.old.name))
        published = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables"
            " WHERE schemaname IN ({}, {}) AND tablename IN ({}, {}))"
        ).format(
            *(sql.Literal(t.schema) for t in (self.old, self.new)),
            *(sql.Literal(t.name) for t in (self.old, self.new)),
        )
        return {
            "unnamed": _asked(render(functions)),
            "unpublished": _asked(render(published)),
        }

    def probes(self) -> tuple[Probe, ...]:
        """Return the trial that the new name, and what moves along, can be had."""
        schema = sql.Literal(self.new.schema)
        may = sql.SQL(
            "SELECT COALESCE(pg_catalog.bool_or(pg_catalog.has_schema_privilege("
            "oid, 'CREATE')), false) FROM pg_catalog.pg_namespace WHERE nspname = {}"
        ).format(schema)
        # Names of array types make room by themselves.
        free = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = s"
            " AND relname IN (SELECT name FROM wanted)) AND NOT EXISTS (SELECT FROM"
            " pg_catalog.pg_type t WHERE t.typnamespace = s AND t.typcategory <> 'A'"
            " AND t.typname = {}) FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL"
            " (SELECT n.oid) AS o (s) WHERE n.nspname = {}"
        ).format(sql.Literal(self.new.name), schema)
        wanted = sql.SQL("WITH wanted (name) AS (SELECT {}::name{}) ").format(
            sql.Literal(self.new.name),
            sql.SQL("") if self.new.schema == self.old.schema else self._moves_along,
        )
        return (
            Probe(
                statements=(),
                question=render(may),
                otherwise=f"{self.title}: there is no schema"
                f' "{self.new.schema}" in which this role may create.',
                next="create it, or grant CREATE on it.",
            ),
            Probe(
                statements=(),
                question=render(wanted, free),
                otherwise=f'{self.title}: schema "{self.new.schema}" has a relation or'
                f" type of the name {self.new}, or of an index or sequence that goes"
                " along.",
                next="choose another name, or rename that one first.",
            ),
        )

    @property
    def _moves_along(self) -> sql.Composable:
        """The names of indexes and sequences that follow to another schema."""
        return sql.SQL(
            " UNION SELECT c.relname FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_depend d ON d.objid = c.oid"
            " AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
            " AND d.deptype IN ('a', 'i') WHERE c.relkind = 'S' AND d.refobjid ="
            " {table}::pg_catalog.regclass UNION SELECT x.relname FROM"
            " pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
            " WHERE i.indrelid = {table}::pg_catalog.regclass"
        ).format(table=sql.Literal(str(self.old)))

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """Both names; the new one is a table in the end."""
        return (
            Footprint(table=self.old, columns=None),
            Footprint(table=self.new, columns=None, made=True),
        )

    def expand(self) -> Step:
        """Return the view under the new name."""
        return Step(
            name="create_view",
            work=direct.catalogue_step(
                self.old, *self._view(self.new, self.old), lock=Lock.ACCESS_SHARE
            ),
            reverse=(_drop(self.new),),
        )

    def retire(self) -> Step:
        """Return the exchange of table and view."""
        return Step(
            name="exchange_names",
            work=self._exchange(self.old, self.new),
            reverse=(self._exchange(self.new, self.old),),
        )

    def drop(self) -> Step:
        """Return the drop of the view under the old name."""
        again = direct.catalogue_step(
            self.new, *self._view(self.old, self.new), lock=Lock.ACCESS_SHARE
        )
        return Step(
            name="drop_view",
            work=_drop(self.old),
            reverse=(replace(again, refusals=(direct.name_taken(self.old),)),),
        )

    def _view(self, name: TableName, table: TableName) -> tuple[sql.Composable, ...]:
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return (
            sql.SQL(
                "CREATE VIEW {} WITH (security_invoker = true) AS SELECT {} FROM {}"
            ).format(name.identifier, columns, table.identifier),
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO PUBLIC").format(
                name.identifier
            ),
        )

    def _exchange(self, table: TableName, view: TableName) -> Transaction:
        """Return the exchange of a table's name and that of the view over it."""
        if table.schema == view.schema:
            move = sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                table.identifier, sql.Identifier(view.name)
            )
        else:
            move = sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                table.identifier, sql.Identifier(view.schema)
            )
        done = direct.catalogue_step(
            table,
            sql.SQL("DROP VIEW {}").format(view.identifier),
            move,
            *self._view(table, view),
            through=view,
        )
        return replace(done, refusals=(_used(view),))


class Renaming(Pattern):
    """A table that goes to another name or schema: a pattern but for its words."""

    __slots__ = ()

    reversible: ClassVar[str] = "always"

    @abstractmethod
    def renamed(self, table: TableName) -> TableName:
        """Return the name that a table has in the new release."""

    @property
    def admission(self) -> State:
        """From expanded, which makes the view."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def beside(self) -> tuple[Reach, ...]:
        """Return the new name."""
        new = self.renamed(TableName(self.schema or "", self.table))
        return (Reach(table=new.name, schema=new.schema or None),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return both names."""
        return self._renamed(facts).footprints

    def places(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new name, then the old one."""
        return (self.renamed(table), table)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what cannot be renamed; tell what a view does not do."""
        return self.assure((*self._renamed(facts).check(facts), *self.remarks(facts)))

    @abstractmethod
    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Return what else a reviewer of the one pattern should know."""

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """Return what the catalogue is asked."""
        return self._renamed(facts).questions()

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that the new name, and what goes along, can be had."""
        return self._renamed(facts).probes()

    def expand(self, facts: Facts) -> Steps:
        """Return the view under the new name."""
        return (self._renamed(facts).expand(),)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of table and view."""
        return (self._renamed(facts).retire(),)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the view under the old name."""
        return (self._renamed(facts).drop(),)

    def _renamed(self, facts: Facts) -> Renamed:
        old = facts.known_as
        return Renamed(
            title=self.title,
            old=old,
            new=self.renamed(old),
            columns=tuple(c.name for c in facts.table.columns),
        )


def _drop(view: TableName) -> Transaction:
    # LOCK TABLE would lock the table under it as well, which nothing here needs.
    statement = sql.SQL("DROP VIEW IF EXISTS {}").format(view.identifier)
    return Transaction(
        statements=(render(statement),), lock=Lock.ACCESS_EXCLUSIVE, table=view
    )


def _used(view: TableName) -> Refusal:
    """Return the condition that nothing else depends on a view."""
    return Refusal(
        count=render(
            sql.SQL(
                "SELECT count(DISTINCT (d.classid, d.objid)) FROM pg_catalog.pg_class c"
                " JOIN pg_catalog.pg_type t ON t.oid = c.reltype"
                " JOIN pg_catalog.pg_depend d ON d.deptype = 'n'"
                " AND (d.refobjid IN (t.oid, t.typarray)"
                " AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
                " OR d.refobjid = c.oid"
                " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)"
                # Its own rule does, before version 16.
                " LEFT JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
                " AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
                " WHERE c.oid = pg_catalog.to_regclass({})"
                " AND w.ev_class IS DISTINCT FROM c.oid"
            ).format(sql.Literal(str(view)))
        ),
        why="{count:object was|objects were} made over view " + f"{view}, which goes",
        next="drop them, run the same command again, and make them again over the"
        " table.",
    )


def _asked(question: str) -> Probe:
    return Probe(statements=(), question=question, otherwise="")


def _not_through_views(facts: Facts) -> tuple[str, ...]:
    """Return what works on a table, and not on a view over it."""
    return (
        "TRUNCATE",
        "COPY, but of a query",
        *(("MERGE",) if facts.server_version < MERGES else ()),
        "ON CONFLICT ON CONSTRAINT",
        "GROUP BY of the key alone",
        "ctid and other system columns",
        "WHERE CURRENT OF",
        "TABLESAMPLE",
        "pg_get_serial_sequence",
        "a foreign key, an index or a trigger on it",
        "a function of the table's row type",
    )
