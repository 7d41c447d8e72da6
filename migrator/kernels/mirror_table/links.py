"""The elements of an array kept in step with rows that link it to their values.

Three tables are written while both releases run: the one with the array, the one in
which each value is a row, and the one that links both. An array and links are in step
where they are the same set: the order of an array, what it repeats and the NULLs in it
are its own, and stay.

Who writes links locks the row with the array first, by a BEFORE trigger. Whoever has
that lock finds array and links in step, but for what itself is about to write.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.kernels import direct
from migrator.kernels.chunking import by_keys, compared, span
from migrator.kernels.mirror_table.link_functions import NEW, OLD, LinkFunctions
from migrator.kernels.mirror_table.linked import columns_of
from migrator.kernels.rows import Delete, Write, comparisons, named, writes
from migrator.names import TableName
from migrator.plan import (
    ChunkedUpdate,
    Chunking,
    Lock,
    Steps,
    Transaction,
    Upkeep,
    render,
    type_name,
)

_OF_ARRAY = ("insert", "update", "delete", "truncate")
_OF_LINKS = ("lock", "linked", "relinked", "unlinked", "emptied")
_OF_VALUES = ("remove", "removed", "renamed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(LinkFunctions):
    """The dual write of an array and of the rows that link it to its values."""

    # -- triggers --------------------------------------------------------

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the dual write on, both ways."""
        tables = sql.SQL("REFERENCING OLD TABLE AS {} NEW TABLE AS {}")
        both, old, new = (
            tables.format(OLD, NEW),
            sql.SQL("REFERENCING OLD TABLE AS {}").format(OLD),
            sql.SQL("REFERENCING NEW TABLE AS {}").format(NEW),
        )
        row = sql.SQL("FOR EACH ROW")
        each = sql.SQL("{} FOR EACH STATEMENT")
        links, values = self.links, self.values
        none = sql.SQL("FOR EACH STATEMENT")
        # What fills links has the array's row, and writes what that tells. What a
        # trigger of the application adds meanwhile, the verification finds.
        unfilled = sql.SQL(
            " WHEN (pg_catalog.current_setting({}, true) IS DISTINCT FROM 'on')"
        ).format(sql.Literal(self.filling))
        return (
            *self.define(),
            *self._function("fill", self.fill_function(), self._filled()),
            *self.on_array(),
            *self._trigger(
                links, "lock", "BEFORE INSERT OR UPDATE OR DELETE", row + unfilled
            ),
            *self._trigger(
                links, "linked", "AFTER INSERT", each.format(new) + unfilled
            ),
            *self._trigger(links, "relinked", "AFTER UPDATE", each.format(both)),
            *self._trigger(
                links, "unlinked", "AFTER DELETE", each.format(old) + unfilled
            ),
            *self._trigger(links, "emptied", "AFTER TRUNCATE", none),
            *self._trigger(values, "remove", "BEFORE DELETE", row),
            *self._trigger(values, "removed", "AFTER DELETE", row),
            *self._trigger(values, "renamed", "AFTER UPDATE", each.format(both)),
        )

    def on_array(self) -> tuple[sql.Composable, ...]:
        """Return the statements that have links follow the array."""
        given = sql.SQL("FOR EACH ROW WHEN (pg_catalog.cardinality(NEW.{}) > 0)")
        changed = sql.SQL("FOR EACH ROW WHEN (OLD.{a} IS DISTINCT FROM NEW.{a} OR {k})")
        a = sql.Identifier(self.array)
        table = self.table
        return (
            *self._function("array", self.array_function()),
            *self._trigger(table, "insert", "AFTER INSERT", given.format(a)),
            *self._trigger(
                table, "update", "AFTER UPDATE", changed.format(a=a, k=self.moved())
            ),
            *self._trigger(table, "delete", "AFTER DELETE", sql.SQL("FOR EACH ROW")),
            *self._trigger(
                table, "truncate", "AFTER TRUNCATE", sql.SQL("FOR EACH STATEMENT")
            ),
        )

    def define(self) -> tuple[sql.Composable, ...]:
        """Return the functions by which the array follows, or make them anew."""
        return (
            *self._function("lock", self.lock_function()),
            *self._function("links", self.links_function()),
            *self._function("values", self.values_function()),
        )

    def off_array(self) -> tuple[sql.Composable, ...]:
        """Return the statements after which links do not follow the array."""
        return (
            *self._untriggered(self.table, _OF_ARRAY),
            self._gone("array"),
        )

    def off_links(self) -> tuple[sql.Composable, ...]:
        """Return the statements after which the array does not follow."""
        return (
            *self._untriggered(self.links, _OF_LINKS),
            *self._untriggered(self.values, _OF_VALUES),
            *(self._gone(name) for name in ("lock", "links", "values")),
            self._gone("fill", self._filled()),
        )

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        found = [(self.links, _OF_LINKS), (self.values, _OF_VALUES)]
        if not self.retired:
            found.append((self.table, _OF_ARRAY))
        on = (
            direct.triggers_are_on(
                table,
                self._named(events[0]),
                on_top=tuple(map(self._named, events[1:])),
            ).removeprefix("SELECT ")
            for table, events in found
        )
        return f"SELECT {' AND '.join(on)}"

    def needs_on(self, work: Transaction) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        tables = f"{self.table}, {self.links} or {self.values}"
        why = (
            f"a dual-write trigger on {tables} is missing or not enabled ALWAYS, so"
            " that one side may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    def _filled(self) -> str:
        """Return the types that the function takes which fills links."""
        arrays = (*(k.type for k in self.key.values()), self.element)
        return ", ".join(("boolean", *(f"{t}[]" for t in arrays)))

    def _named(self, event: str) -> str:
        return names.trigger(f"{self.tag}_{event}")

    def _called(self, function: str) -> sql.Identifier:
        return names.function(f"{self.tag}_{function}")

    def _trigger(
        self, table: TableName, event: str, when: str, each: sql.Composable
    ) -> tuple[sql.Composable, ...]:
        name = sql.Identifier(self._named(event))
        function = {self.table: "array", self.links: "links", self.values: "values"}
        return (
            sql.SQL("CREATE TRIGGER {} {} ON {} {} EXECUTE FUNCTION {}()").format(
                name,
                type_name(when),
                table.identifier,
                each,
                self._called("lock" if event == "lock" else function[table]),
            ),
            sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                table.identifier, name
            ),
        )

    def _function(
        self, name: str, body: sql.Composable, takes: str = ""
    ) -> tuple[sql.Composable, ...]:
        """
        Return the statements that make a function, or make it anew.

        A trigger's has the owner's rights: the old release has none on the new tables,
        and the new one need have none on the array. Its plans are kept, whatever a
        later statement writes, so that they look rows up one by one. That of the
        backfill has its caller's rights, and plans anew each time: tables grow while it
        fills them.

        Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
        Safely.
        """
        function = self._called(name)
        made = sql.SQL(
            "CREATE OR REPLACE FUNCTION {}({}) RETURNS {} LANGUAGE plpgsql{}"
            " SET search_path = {}, pg_temp AS {}"
        ).format(
            function,
            type_name(takes),
            sql.SQL("void" if takes else "trigger"),
            sql.SQL(" SET plan_cache_mode = force_custom_plan")
            if takes
            else sql.SQL(
                " SECURITY DEFINER SET enable_seqscan = off SET enable_hashjoin = off"
                " SET enable_mergejoin = off"
            ),
            direct.pinned_path(self.path, self.table.schema),
            sql.Literal(render(body)),
        )
        if self.owner is None or takes:
            return (made,)
        return (
            made,
            sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                function, sql.Identifier(self.owner)
            ),
        )

    def _untriggered(
        self, table: TableName, events: Iterable[str]
    ) -> tuple[sql.Composable, ...]:
        return tuple(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                sql.Identifier(self._named(event)), table.identifier
            )
            for event in events
        )

    def _gone(self, function: str, takes: str = "") -> sql.Composable:
        return sql.SQL("DROP FUNCTION IF EXISTS {}({})").format(
            self._called(function), type_name(takes)
        )

    # -- rows ------------------------------------------------------------

    def fill(self, facts: Facts) -> Steps:
        """Return the links of the rows that are there."""
        return writes(
            facts,
            "fill_links",
            self._fill(self.given(), repairs=False),
            no_reverse="the links go with their table",
        )

    def verify(self, facts: Facts) -> Steps:
        """
        Return the comparison of arrays and links, and the count of what is lost.

        Args:
            facts: of the table.
        """
        kept = "nothing but rows out of step is changed"
        return (
            *comparisons(
                facts,
                "compare_arrays",
                self.apart(),
                shown=(self.array,),
                beside={"linked": self.values_by(self.value)},
                repair=self._fill(self.apart(), repairs=True),
                no_reverse=kept,
            ),
            *comparisons(
                facts.of(self.bare()),
                "find_links_without_row",
                self.orphaned(),
                shown=(self.reference,),
                key=(*self.key, self.reference),
                repair=Delete(
                    rows=self.orphaned(),
                    guard=self.is_on(),
                    guard_tables=self._written(),
                ),
                no_reverse=kept,
            ),
            *writes(
                facts,
                "count_repeats_and_nulls",
                _Count(guard=None, rows=self.repeats()),
                no_reverse="nothing is changed",
            ),
        )

    def _fill(self, rows: sql.Composable, *, repairs: bool) -> "_Fill":
        return _Fill(
            guard=self.is_on(),
            guard_tables=self._written(),
            links=self,
            rows=rows,
            repairs=repairs,
        )

    def _written(self) -> tuple[TableName, ...]:
        """Return the tables whose triggers `is_on` asks about."""
        return (*(() if self.retired else (self.table,)), self.links, self.values)

    def bare(self) -> Table:
        """Return what is known of the links before they are there."""
        columns = (
            *(
                Column(name=name, type=k.type, not_null=True, equal=k.equal)
                for name, k in self.key.items()
            ),
            Column(name=self.reference, type="bigint", not_null=True),
        )
        return Table(
            name=self.links,
            oid=0,
            columns=columns,
            indexes=(
                Index(
                    name=f"{self.links.name}_pkey",
                    method="btree",
                    keys=tuple(IndexColumn(name=c.name) for c in columns),
                    unique=True,
                    primary=True,
                    columns=tuple(c.name for c in columns),
                ),
            ),
        )

    def filled(self, rows: sql.Composable, *, repairs: bool) -> str:
        """
        Return the statement that fills the links of rows; it returns one for each.

        They are locked, by a query of their own, before they are read.

        Args:
            rows: from where, and which.
            repairs: whether they may have links too many.
        """
        columns = [*self.columns(), self.array]
        table = sql.Identifier(self.table.name)
        return render(
            sql.SQL(
                "WITH held AS MATERIALIZED (SELECT {} FROM {} FOR NO KEY UPDATE),"
                " filled AS MATERIALIZED (SELECT {}({}, {}, pg_catalog.array_agg(_e))"
                " FROM held LEFT JOIN LATERAL pg_catalog.unnest(held.{}) AS _u (_e)"
                " ON true) SELECT FROM held WHERE EXISTS (SELECT FROM filled)"
            ).format(
                columns_of(table, columns),
                rows,
                self._called("fill"),
                sql.Literal(repairs),
                sql.SQL(", ").join(
                    sql.SQL("pg_catalog.array_agg(held.{})").format(sql.Identifier(c))
                    for c in self.columns()
                ),
                sql.Identifier(self.array),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fill(Write):
    """Links made what arrays hold."""

    guard: str | None
    guard_tables: tuple[TableName, ...]
    links: Links
    rows: sql.Composable
    repairs: bool

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        # A trigger links what an event touched, not the rest of a row that is not
        # filled yet; so that row must not move to where rows are filled already.
        why = "an update may move a row to other blocks"
        chunking = chunking or by_keys(facts, why)
        statement = self.links.filled(
            sql.SQL("{} WHERE {} AND {}").format(
                named(facts), span(facts, chunking), self.rows
            ),
            repairs=self.repairs,
        )
        both = sql.SQL("{}, {}").format(
            self.links.links.identifier, self.links.values.identifier
        )
        analyze = sql.SQL("ANALYZE (SKIP_LOCKED) {}")
        return ChunkedUpdate(
            statement=statement,
            strided=statement,
            chunking=chunking,
            upkeep=Upkeep(
                statistics=render(analyze.format(facts.table.name.identifier)),
                analyze=render(analyze.format(both)),
            ),
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
            lock=Lock.ROW_SHARE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count(Write):
    """Rows counted, of which nothing is out of step."""

    guard: str | None
    rows: sql.Composable

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        chunking = chunking or compared(facts)
        statement = render(
            sql.SQL("SELECT FROM {} WHERE {} AND {}").format(
                named(facts), span(facts, chunking), self.rows
            )
        )
        return ChunkedUpdate(
            statement=statement,
            strided=statement,
            chunking=chunking,
            table=facts.table.name,
            guard=self.guard,
            lock=Lock.ACCESS_SHARE,
        )
