"""A table that follows another one, row by row, and that no request touches."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.kernels import direct, images
from migrator.kernels.chunking import by_keys, compared, span
from migrator.kernels.mirror_table.columns import (
    KeyColumn,
    Value,
    changed,
    joined,
    matched,
    same,
    values_of,
)
from migrator.kernels.mirror_table.dual_write import trigger_function, triggers_off
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

# The shadow's name in statements: no table's, so that a column of the source that is
# qualified by its table's name is never taken for one of the shadow.
_SHADOW = sql.Identifier("_migrator_shadow")


def shadow_of(table: TableName, tag: str) -> TableName:
    """Return the name under which a table is filled that comes to be `table`."""
    return TableName(table.schema, names.owned("table", table.name, tag))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """
    The mirror of a table in another one.

    Args:
        source: the table that requests write.
        target: the one that follows.
        tag: the change's.
        key: the columns of a unique key of `target`; their values are the source's.
        values: the other columns of `target`.
        rows: the condition of rows of `source` that have a shadow; None for all.
        found_by: columns of `source` by which a trigger finds its row, each with the
            `=` of its type; empty for those of `key`.
        overriding: whether identity columns are among them.
        fixed: of `values` those that take no other value, identities that are GENERATED
            ALWAYS, each with the `=` of its type.
        late: deferrable constraints of `target`, checked at the transaction's end: of
            several rows that a statement changes each is mirrored by itself.
        path: schemas in which the expressions were tried out.
        owner: as whom the trigger writes; None for the role of the connection.
    """

    source: TableName
    target: TableName
    tag: str
    key: Mapping[str, KeyColumn]
    values: Mapping[str, Value]
    rows: sql.Composable | None = None
    found_by: Mapping[str, str] = field(default_factory=dict[str, str])
    overriding: bool = False
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    late: tuple[sql.Identifier, ...] = ()
    path: tuple[str, ...] = ()
    owner: str | None = None

    # -- the dual write --------------------------------------------------

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the dual write on."""
        function, table = names.function(self.tag), self.source.identifier
        row, truncate = map(sql.Identifier, self._triggers)
        return (
            *self.define(),
            sql.SQL(
                "CREATE TRIGGER {} AFTER INSERT OR UPDATE OR DELETE ON {}"
                " FOR EACH ROW EXECUTE FUNCTION {}()"
            ).format(row, table, function),
            sql.SQL(
                "CREATE TRIGGER {} AFTER TRUNCATE ON {}"
                " FOR EACH STATEMENT EXECUTE FUNCTION {}()"
            ).format(truncate, table, function),
            *(
                sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, one)
                for one in (row, truncate)
            ),
        )

    def define(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the function, or make it anew."""
        return trigger_function(
            names.function(self.tag),
            self._body(),
            path=self.path,
            schema=self.source.schema,
            owner=self.owner,
        )

    def off(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the dual write off."""
        return triggers_off(self.source, self._triggers, names.function(self.tag))

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        return direct.triggers_are_on(
            self.source, self._triggers[0], on_top=self._triggers[1:]
        )

    def needs_on(self, work: Transaction) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        why = (
            f"a dual-write trigger on {self.source} is missing or not enabled ALWAYS,"
            " so that the other table may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    @property
    def _triggers(self) -> tuple[str, str]:
        """The names of the triggers for rows and for TRUNCATE."""
        return names.after_trigger(self.tag), names.trigger(f"{self.tag}_truncate")

    def _body(self) -> sql.Composable:
        """
        Return the function's text.

        It reads the row as it is by then, not as the event has it: another AFTER
        trigger may have updated it again, and the event of that update came first.
        For the same reason a key is removed only where the source has it no longer.
        """

        def gone(row: str) -> sql.Composable:
            return sql.SQL(
                "DELETE FROM {target} AS {shadow} WHERE {theirs} AND NOT EXISTS"
                " (SELECT FROM {source} WHERE {ours});"
            ).format(
                target=self.target.identifier,
                shadow=_SHADOW,
                theirs=self._shadow_of(sql.Identifier(row)),
                source=self._source,
                ours=self._shown(self._row_of(sql.Identifier(row))),
            )

        moved = changed((k.column, k.equal) for k in self.key.values())

        def late(when: sql.SQL) -> sql.Composable:
            if not self.late:
                return sql.SQL("")
            listed = sql.SQL(", ").join(self.late)
            return sql.SQL("SET CONSTRAINTS {} {};").format(listed, when)

        anew = sql.SQL(
            "IF TG_OP = 'UPDATE' AND ({}) THEN DELETE FROM {} AS {} WHERE {}; END IF;"
        ).format(
            changed(self.fixed.items()),
            self.target.identifier,
            _SHADOW,
            self._shadow_of(sql.Identifier("new")),
        )
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    {checked}
    -- Empty already where a foreign key took it along.
    IF EXISTS (SELECT FROM {target}) THEN
      TRUNCATE {target};
    END IF;
    RETURN NULL;
  END IF;
  {late}
  IF TG_OP = 'DELETE' THEN
    {gone}
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' AND ({moved}) THEN
    {gone}
  END IF;
  {anew}
  {hidden}
  {written};
  RETURN NULL;
END
"""
        ).format(
            target=self.target.identifier,
            gone=gone("old"),
            moved=moved,
            # What is still to be checked would keep the table from it.
            checked=late(sql.SQL("IMMEDIATE")),
            late=late(sql.SQL("DEFERRED")),
            anew=anew if self.fixed else sql.SQL(""),
            hidden=gone("new") if self.rows is not None else sql.SQL(""),
            written=self._insert(
                self._source,
                sql.SQL("{} AND {}").format(self._given_row(), self._differs()),
                sql.SQL(""),
                self._overwrite(),
            ),
        )

    # -- rows ------------------------------------------------------------

    def copy(self, facts: Facts, *, name: str, guarded: bool = True) -> Steps:
        """
        Return the copies of the rows that are there: in chunks of the source.

        Args:
            facts: of the source.
            name: the step's.
            guarded: whether the dual write has to be on.
        """
        return writes(
            facts,
            name,
            _Copy(
                guard=self.is_on() if guarded else None,
                guard_tables=(self.source,),
                shadow=self,
                repairs=False,
            ),
            no_reverse="the rows go with the table that they were copied to",
        )

    def verify(self, facts: Facts, target: Table) -> Steps:
        """
        Return the comparisons of both tables, each with its repair.

        The rows of the source are looked up in the shadow, then those of the shadow in
        the source: of each chunk in one statement, and so in one snapshot.

        Args:
            facts: of the source.
            target: the shadow, as it is or will be.
        """
        return (
            *comparisons(
                facts,
                "compare_rows",
                self.apart(),
                shown=tuple(c.name for c in facts.table.columns),
                beside={"shadow": self._image(images.SHOWN)},
                repair=_Copy(
                    guard=self.is_on(),
                    guard_tables=(self.source,),
                    shadow=self,
                    repairs=True,
                ),
                no_reverse="nothing but rows out of step is changed",
            ),
            *comparisons(
                facts.of(target),
                "compare_copies",
                self._extra(),
                shown=tuple(self.key),
                key=tuple(self.key),
                repair=Delete(
                    rows=self._extra(), guard=self.is_on(), guard_tables=(self.source,)
                ),
                no_reverse="nothing but rows out of step is changed",
            ),
        )

    def bare(self) -> Table:
        """Return what is known of the shadow before it is there."""
        return Table(
            name=self.target,
            oid=0,
            columns=(
                *(
                    Column(name=c, type=k.type, not_null=True, equal=k.equal)
                    for c, k in self.key.items()
                ),
                *(Column(name=c, type=v.type) for c, v in self.values.items()),
            ),
            indexes=(
                Index(
                    name=f"{self.target.name}_pkey",
                    method="btree",
                    keys=tuple(IndexColumn(name=c) for c in self.key),
                    unique=True,
                    primary=True,
                    columns=tuple(self.key),
                ),
            ),
        )

    def apart(self) -> sql.Composable:
        """
        Return the condition of a row of the source whose shadow is not its image.

        Shadows of rows that have none any more are found from their side.
        """
        return self._shown(self._differs())

    def _shown(self, condition: sql.Composable) -> sql.Composable:
        """Return a condition of rows, of those that have a shadow."""
        if self.rows is None:
            return condition
        return sql.SQL("{} AND {}").format(condition, self.rows)

    def _differs(self) -> sql.Composable:
        # The expressions stand outside of the sub-select: in it, a bare column would be
        # one of the shadow.
        same = images.SAME.format(
            self._image(images.RECORD), images.record(self._values())
        )
        return sql.SQL("{} IS NOT TRUE").format(same)

    def _image(self, form: sql.SQL) -> sql.Composable:
        """Return the shadow of a row of the source, in the form of one value."""
        columns = values_of(_SHADOW, (*self.key, *self.values))
        return sql.SQL("(SELECT {} FROM {} AS {} WHERE {})").format(
            form.format(columns),
            self.target.identifier,
            _SHADOW,
            self._shadow_of(self._alias),
        )

    def _extra(self) -> sql.Composable:
        """Return the condition of a row of the shadow that has no source."""
        return sql.SQL("NOT EXISTS (SELECT FROM {} WHERE {})").format(
            self._source,
            self._shown(
                joined(self._alias, sql.Identifier(self.target.name), self.key)
            ),
        )

    @property
    def _alias(self) -> sql.Identifier:
        return sql.Identifier(self.source.name)

    @property
    def _source(self) -> sql.Composable:
        return sql.SQL("{} AS {}").format(self.source.identifier, self._alias)

    def _shadow_of(self, row: sql.Composable) -> sql.Composable:
        """Return the condition of the shadow of a row of the source."""
        columns = ((c, k.equal, k.column) for c, k in self.key.items())
        return matched(_SHADOW, row, columns)

    def _row_of(self, row: sql.Composable) -> sql.Composable:
        """Return the condition of the row that a trigger's row is now."""
        return same(self._alias, row, self.key)

    def _given_row(self) -> sql.Composable:
        """Return the condition of the row that a trigger was given, as it is now."""
        if not self.found_by:
            return self._row_of(sql.Identifier("new"))
        columns = ((c, equal, c) for c, equal in self.found_by.items())
        return matched(self._alias, sql.SQL("new"), columns)

    def _values(self) -> sql.Composable:
        keys = (
            sql.SQL("{}.{}::{}").format(
                self._alias, sql.Identifier(k.column), type_name(k.type)
            )
            for k in self.key.values()
        )
        values = (
            sql.SQL("{}::{}").format(v.expression, type_name(v.type))
            for v in self.values.values()
        )
        return sql.SQL(", ").join((*keys, *values))

    def _overwrite(self) -> sql.Composable:
        # An identity that is GENERATED ALWAYS takes no assignment.
        keys = (c for c, k in self.key.items() if not k.image_equal)
        written = [*keys, *(c for c in self.values if c not in self.fixed)]
        if not written:
            return sql.SQL("NOTHING")
        return sql.SQL("UPDATE SET ") + sql.SQL(", ").join(
            sql.SQL("{c} = EXCLUDED.{c}").format(c=sql.Identifier(c)) for c in written
        )

    def _insert(
        self,
        source: sql.Composable,
        rows: sql.Composable,
        lock: sql.Composable,
        otherwise: sql.Composable,
    ) -> sql.Composable:
        """Return the statement that writes the shadows of rows of the source."""
        return sql.SQL(
            "INSERT INTO {} ({}) {}SELECT {} FROM {} WHERE {}{} ON CONFLICT ({}) DO {}"
        ).format(
            self.target.identifier,
            sql.SQL(", ").join(map(sql.Identifier, (*self.key, *self.values))),
            sql.SQL("OVERRIDING SYSTEM VALUE " if self.overriding else ""),
            self._values(),
            source,
            self._shown(rows),
            lock,
            sql.SQL(", ").join(map(sql.Identifier, self.key)),
            otherwise,
        )

    def statement(self, facts: Facts, chunking: Chunking, *, repairs: bool) -> str:
        """
        Return the statement that copies a chunk's rows, or those that are apart.

        A shadow that is there was written by a trigger since, or is in step: a copy
        leaves it as it is. Its row must not be deleted before the copy commits, or it
        would come back; for a repair, it must not be updated either, since what was
        read would overwrite what the trigger wrote.

        Args:
            facts: of the table that is gone over.
            chunking: how it is gone over.
            repairs: whether rows that are apart are written, or those without a shadow.
        """
        rows = span(facts, chunking)
        if repairs:
            rows = sql.SQL("{} AND {}").format(rows, self._differs())
        return render(
            self._insert(
                self._source if facts.table.root is None else named(facts),
                rows,
                sql.SQL(" FOR SHARE" if repairs else " FOR KEY SHARE"),
                self._overwrite() if repairs else sql.SQL("NOTHING"),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy(Write):
    """Rows of the source written to the shadow."""

    guard: str | None
    guard_tables: tuple[TableName, ...]
    shadow: Shadow
    repairs: bool

    def chunked(self, facts: Facts, chunking: Chunking | None = None) -> ChunkedUpdate:
        if chunking is None and facts.chunking == "keys":
            chunking = by_keys(facts, "as asked for")
        chunking = chunking or compared(facts)
        statement = self.shadow.statement(facts, chunking, repairs=self.repairs)
        analyze = sql.SQL("ANALYZE (SKIP_LOCKED) {}")
        return ChunkedUpdate(
            statement=statement,
            strided=statement,
            chunking=chunking,
            upkeep=Upkeep(
                statistics=render(analyze.format(facts.table.name.identifier)),
                analyze=render(analyze.format(self.shadow.target.identifier)),
            ),
            table=facts.table.name,
            guard=self.guard,
            guard_tables=self.guard_tables,
            lock=Lock.ROW_SHARE,
            root=facts.table.root,
        )
