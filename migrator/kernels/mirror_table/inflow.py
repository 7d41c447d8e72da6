"""Values of a table that flow into the rows which its rows belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts, Table
from migrator.kernels import direct, images
from migrator.kernels.chunking import chosen, compared, kept, span
from migrator.kernels.mirror_table.columns import (
    KeyColumn,
    Shown,
    changed,
    joined,
    same,
    values_of,
)
from migrator.kernels.mirror_table.dual_write import triggers_off
from migrator.kernels.rows import Write, comparisons, in_stride, named, writes
from migrator.names import TableName
from migrator.plan import (
    ChunkedUpdate,
    Chunking,
    Refusal,
    Steps,
    Transaction,
    present,
    render,
    type_name,
)

# Names in statements: no table's, so that a column that is qualified by its table's
# name is never taken for one of the other table.
_INTO = sql.Identifier("_migrator_into")
_FROM = sql.Identifier("_migrator_from")

# Rows that may be behind when a lock is held to bring them up: about 50 ms.
FEW_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflow:
    """
    The mirror of a table in columns of another one, until that one is written alone.

    Requests write both tables, and who writes one row of either takes its lock before
    any trigger runs. So a trigger never waits for the other table's row: where that is
    locked, it notes that the row is behind. Rows that are behind are brought up by
    whoever moves rows, from what the source holds by then.

    Args:
        source: the table whose values flow; each of its rows refers to one of `target`.
        target: the other one.
        behind: the table in which rows are noted.
        tag: the change's.
        key: the columns of `source` that name its row of `target`.
        columns: the other columns of `source`, each with the one of `target`.
        mark: the column of `target` that tells whether there is a row of `source`;
            None where a column that is never NULL there tells.
        owner: as whom the trigger writes; None for the role of the connection.
    """

    source: TableName
    target: TableName
    behind: TableName
    tag: str
    key: Mapping[str, KeyColumn]
    columns: Mapping[str, Shown]
    mark: str | None
    owner: str | None = None

    # -- the dual write --------------------------------------------------

    def on(self, owner: str) -> tuple[sql.Composable, ...]:
        """
        Return the statements that put the dual write on.

        Args:
            owner: of both tables.
        """
        source, behind = self.source.identifier, self.behind.identifier
        watched = (*self.key, *self.columns)
        differs = images.DIFFER.format(
            *(
                images.record(values_of(sql.Identifier(r), watched))
                for r in ("old", "new")
            )
        )
        triggers = zip(
            self._triggers,
            (
                sql.SQL("AFTER INSERT OR DELETE ON {} FOR EACH ROW").format(source),
                sql.SQL("AFTER UPDATE ON {} FOR EACH ROW WHEN ({})").format(
                    source, differs
                ),
                sql.SQL("AFTER TRUNCATE ON {} FOR EACH STATEMENT").format(source),
            ),
            strict=True,
        )
        return (
            sql.SQL("CREATE TABLE {} ({})").format(
                behind,
                sql.SQL(", ").join(
                    sql.SQL("{} {} NOT NULL").format(
                        sql.Identifier(k.column), type_name(k.type)
                    )
                    for k in self.key.values()
                ),
            ),
            # Not unique: who notes a row waits for nobody.
            sql.SQL("CREATE INDEX ON {} ({})").format(behind, self._noted()),
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(behind, sql.Identifier(owner)),
            *self._define(),
            *(
                statement
                for name, when in triggers
                for statement in (
                    sql.SQL("CREATE TRIGGER {} {} EXECUTE FUNCTION {}()").format(
                        sql.Identifier(name), when, self._function("inflow")
                    ),
                    sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                        source, sql.Identifier(name)
                    ),
                )
            ),
        )

    def off(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the dual write off."""
        return (
            *triggers_off(self.source, self._triggers),
            *(
                sql.SQL("DROP FUNCTION IF EXISTS {}").format(self._function(name))
                for name in ("inflow", "take")
            ),
            sql.SQL("DROP TABLE IF EXISTS {}").format(self.behind.identifier),
        )

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        first, *rest = self._triggers
        return direct.triggers_are_on(self.source, first, on_top=tuple(rest))

    def needs_on(self, work: Transaction) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        why = (
            f"a dual-write trigger on {self.source} is missing or not enabled ALWAYS,"
            f" so that {self.target} may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    def few(self) -> Refusal:
        """Return the condition that what is behind is brought up in a moment."""
        return Refusal(
            count=render(
                sql.SQL(
                    "SELECT CASE WHEN count(*) > {} THEN count(*) ELSE 0 END FROM {}"
                    " WHERE {}"
                ).format(sql.Literal(FEW_ROWS), self.behind.identifier, self._indexed())
            ),
            why=f"{{count:row of|rows of}} {self.target} have to be brought up to what"
            f" {self.source} holds first",
            next="run `migrator verify` again, which begins with them.",
        )

    def caught_up(self, rows: sql.Composable | None = None) -> sql.Composable:
        """
        Return the statement that brings up rows that are behind.

        Args:
            rows: a condition of those of `behind`; None for all.
        """
        noted = self._noted()
        return sql.SQL(
            "WITH noted AS (DELETE FROM {} WHERE {} RETURNING {}) SELECT {}({})"
            " FROM (SELECT DISTINCT {} FROM noted) AS one"
        ).format(
            self.behind.identifier,
            rows or self._indexed(),
            noted,
            self._function("take"),
            noted,
            noted,
        )

    @property
    def _triggers(self) -> tuple[str, str, str]:
        """The names of the triggers for rows that come or go, change, and TRUNCATE."""
        stem = names.trigger(self.tag)
        return f"{stem}_row", f"{stem}_update", f"{stem}_truncate"

    def _function(self, name: str) -> sql.Identifier:
        return names.function(f"{self.tag}_{name}")

    def _define(self) -> tuple[sql.Composable, ...]:
        """
        Return the functions: the triggers', and one that brings up one row.

        The second locks the row and then looks at the source by a statement of its own.
        So it reads what a request has committed that held the row until then; one that
        writes the source afterwards finds the row locked, and notes it.

        Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
        Safely; section 36.7 (VOLATILE).
        """
        path = direct.pinned_path((), self.source.schema)
        here = sql.SQL(" AND ").join(
            sql.SQL("{}.{} {} ${}").format(
                _INTO,
                sql.Identifier(k.column),
                type_name(k.equal),
                sql.Literal(number),
            )
            for number, k in enumerate(self.key.values(), 1)
        )
        taken = sql.SQL(
            """
#variable_conflict use_column
BEGIN
  PERFORM 1 FROM {target} AS {into} WHERE {here} FOR NO KEY UPDATE;
  {written};
END
"""
        ).format(
            target=self.target.identifier,
            into=_INTO,
            here=here,
            written=self._written(here),
        )
        text = sql.SQL(
            "CREATE FUNCTION {}({}) RETURNS {} LANGUAGE plpgsql{} SET search_path ="
            " {}, pg_temp AS {}"
        )
        types = sql.SQL(", ").join(type_name(k.type) for k in self.key.values())
        inflow = self._function("inflow")
        return (
            text.format(
                inflow,
                sql.SQL(""),
                sql.SQL("trigger"),
                sql.SQL(" SECURITY DEFINER"),
                path,
                sql.Literal(render(self._body())),
            ),
            text.format(
                self._function("take"),
                types,
                sql.SQL("void"),
                sql.SQL(""),
                path,
                sql.Literal(render(taken)),
            ),
            *(
                ()
                if self.owner is None
                else (
                    sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                        inflow, sql.Identifier(self.owner)
                    ),
                )
            ),
        )

    def _body(self) -> sql.Composable:
        """
        Return the triggers' function.

        It reads the row as it is by then, not as the event has it: another AFTER
        trigger may have updated it again, and the event of that update came first.
        """

        def taken(row: str) -> sql.Composable:
            here = self._joined(_INTO, sql.Identifier(row))
            return sql.SQL(
                """
    PERFORM 1 FROM {target} AS {into} WHERE {here}
      FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
      {written};
    ELSE
      INSERT INTO {behind} ({noted})
        SELECT {keys} FROM {target} AS {into} WHERE {here};
    END IF;"""
            ).format(
                target=self.target.identifier,
                into=_INTO,
                here=here,
                written=self._written(here),
                behind=self.behind.identifier,
                noted=self._noted(),
                keys=self._keys_of_target(),
            )

        moved = changed((name, k.equal) for name, k in self.key.items())
        filled = sql.SQL(" OR ").join(
            present(sql.SQL("{}.{}").format(_INTO, sql.Identifier(c)))
            for c in self._columns_of_target()
        )
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO {behind} ({noted})
      SELECT {keys} FROM {target} AS {into} WHERE {filled};
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND ({moved}) THEN{old}
  END IF;
  IF TG_OP <> 'DELETE' THEN{new}
  END IF;
  RETURN NULL;
END
"""
        ).format(
            behind=self.behind.identifier,
            noted=self._noted(),
            keys=self._keys_of_target(),
            target=self.target.identifier,
            into=_INTO,
            filled=filled,
            moved=moved,
            old=taken("old"),
            new=taken("new"),
        )

    def _written(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement that gives rows of the target what the source holds."""
        columns = sql.SQL(", ").join(map(sql.Identifier, self._columns_of_target()))
        return sql.SQL("UPDATE {} AS {} SET ({}) = {} WHERE {} AND {}").format(
            self.target.identifier,
            _INTO,
            columns,
            self._of_source(_INTO, sql.SQL("{}")),
            rows,
            self._apart(_INTO),
        )

    # -- rows ------------------------------------------------------------

    def copy(self, target: Facts) -> Steps:
        """Return the copy of the values; `target` as facts of that table."""
        return writes(
            target,
            "copy_values",
            _Take(guard=self.is_on(), guard_tables=(self.source,), inflow=self),
            no_reverse="the copied values go with the columns",
        )

    def verify(self, target: Facts) -> Steps:
        """Return the comparison of both tables, then what brings up what is behind."""
        noted = Table(
            name=self.behind,
            oid=0,
            columns=tuple(
                Column(name=k.column, type=k.type, not_null=True)
                for k in self.key.values()
            ),
        )
        return (
            *comparisons(
                target,
                "compare_values",
                # A row that is noted is to be brought up, and not out of step: between
                # two looks of a chunk, which holds the row, it may have been noted.
                sql.SQL("{} AND NOT {}").format(
                    self._apart(sql.Identifier(self.target.name)), self._is_noted()
                ),
                shown=self._columns_of_target(),
                beside={
                    "merged": self._of_source(
                        sql.Identifier(self.target.name),
                        images.SHOWN,
                    )
                },
                repair=_Take(
                    guard=self.is_on(), guard_tables=(self.source,), inflow=self
                ),
                no_reverse="nothing but rows out of step is changed",
            ),
            *writes(
                target.of(noted),
                "catch_up",
                _CatchUp(guard=self.is_on(), guard_tables=(self.source,), inflow=self),
                no_reverse="nothing but rows out of step is changed",
            ),
        )

    def take(self, facts: Facts, rows: sql.Composable) -> sql.Composable:
        """Return the statement that brings up rows of the target."""
        here = sql.Identifier(self.target.name)
        return sql.SQL("SELECT {}({}) FROM {} WHERE {} AND {}").format(
            self._function("take"),
            values_of(here, [k.column for k in self.key.values()]),
            named(facts),
            rows,
            self._apart(here),
        )

    def _apart(self, into: sql.Composable) -> sql.Composable:
        """Return the condition of a row of the target that is not in step."""
        return images.DIFFER.format(
            images.record(values_of(into, self._columns_of_target())),
            self._of_source(into, images.RECORD),
        )

    def _of_source(self, into: sql.Composable, form: sql.SQL) -> sql.Composable:
        """Return what a row of the target is to hold: NULLs where there is no row."""
        values = values_of(_FROM, self.columns)
        if self.mark is not None:
            values += sql.SQL(", CASE WHEN {}.{} IS NOT NULL THEN true END").format(
                _FROM, sql.Identifier(next(iter(self.key)))
            )
        return sql.SQL(
            "(SELECT {} FROM (SELECT) AS _one LEFT JOIN {} AS {} ON {})"
        ).format(
            form.format(values),
            self.source.identifier,
            _FROM,
            self._joined(into, _FROM),
        )

    def _joined(self, into: sql.Composable, row: sql.Composable) -> sql.Composable:
        """Return the condition that a row of the source belongs to the target's."""
        return joined(into, row, self.key)

    def _columns_of_target(self) -> tuple[str, ...]:
        marked = () if self.mark is None else (self.mark,)
        return (*(s.column for s in self.columns.values()), *marked)

    def _keys_of_target(self) -> sql.Composable:
        return values_of(_INTO, [k.column for k in self.key.values()])

    def _noted(self) -> sql.Composable:
        return sql.SQL(", ").join(sql.Identifier(k.column) for k in self.key.values())

    def _is_noted(self) -> sql.Composable:
        """Return the condition of a row of the target that is noted."""
        here = sql.Identifier(self.target.name)
        return sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {})").format(
            self.behind.identifier,
            _FROM,
            same(_FROM, here, self.key),
        )

    def _indexed(self) -> sql.Composable:
        """Return a condition that is true of each row that is noted."""
        # Under a strong lock nothing is planned but what an index answers.
        first = next(iter(self.key.values()))
        return sql.SQL("{} IS NOT NULL").format(sql.Identifier(first.column))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Take(Write):
    """Rows of the target that are brought up."""

    guard: str | None
    guard_tables: tuple[TableName, ...]
    inflow: Inflow

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        written = frozenset(s.column for s in self.inflow.columns.values())
        chunking = chunking or chosen(facts, written)
        rows = span(facts, chunking)
        return ChunkedUpdate(
            statement=render(self.inflow.take(facts, rows)),
            strided=render(self.inflow.take(facts, rows + in_stride(chunking))),
            chunking=chunking,
            upkeep=kept(facts, chunking, written),
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _CatchUp(Write):
    """Rows that are noted, brought up."""

    guard: str | None
    guard_tables: tuple[TableName, ...]
    inflow: Inflow

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        chunking = chunking or compared(facts)
        statement = render(self.inflow.caught_up(span(facts, chunking)))
        return ChunkedUpdate(
            statement=statement,
            strided=statement,
            chunking=chunking,
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
        )
