"""A key of a wider type under the same name, with all that refers to it.

Each table gets wider columns behind those of the key (`Widened`). At retire, indexes
over them are built concurrently and NOT NULL is proved by a check; then one
catalogue-only transaction over all tables exchanges the columns' names, with what
hangs on them. Going back is the same exchange with the sides swapped: what it needs
is built on the former columns first.

Source: PostgreSQL manual, ALTER TABLE, Notes; ALTER SEQUENCE.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import (
    Column,
    Constraint,
    Facts,
    ForeignKey,
    Index,
    Sequence,
    Table,
)
from migrator.kernels import constraints, direct, indexes, requirements
from migrator.kernels.mirror_columns import Widened, Widening, require_mirrorable
from migrator.kernels.mirror_columns.widened import BITS, holds
from migrator.kernels.not_null import not_null_by_check, set_not_null
from migrator.kernels.two_shapes import require_unread
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Footprint,
    Probe,
    Refusal,
    Step,
    Steps,
    Transaction,
    expression,
    render,
    type_name,
)


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

    def indexes(self) -> tuple[tuple[Index, Constraint | None], ...]:
        """Return the valid indexes over the columns, with the keys over these."""
        mine = {c.name for c in self.columns}
        keys = {k.index: k for k in self.table.constraints if k.kind in ("p", "u")}
        return tuple(
            (index, keys.get(index.name))
            for index in self.table.indexes
            if index.valid and not mine.isdisjoint(index.columns)
        )


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

    # -- what it is made on ----------------------------------------------

    @property
    def _tables(self) -> dict[TableName, Table]:
        return {t.name: t for t in (self.facts.table, *self.facts.others)}

    def _retired(self, name: str) -> str:
        return names.owned("retired", name, self.facts.tag)

    def _wider(self) -> set[tuple[TableName, str]]:
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

    def _all_keys(self) -> set[ForeignKey]:
        return {k for t in self._tables.values() for k in t.foreign_keys}

    def _is_narrow(self, table: TableName, name: str) -> bool:
        given = self._tables[table]
        if self.facts.table.column(self._retired(self.column)):
            # What came to refer to the key since retire has no part in it.
            return given.column(self._retired(name)) is not None
        return BITS.get(given.require(name).type, 0) < BITS[self.type]

    def keys(self) -> tuple[ForeignKey, ...]:
        """Return the foreign keys with a wider column on either end."""
        wider = self._wider()
        return tuple(
            sorted(
                (
                    key
                    for key in self._all_keys()
                    if any((key.table, c) in wider for c in key.columns)
                    or any((key.to, c) in wider for c in key.to_columns)
                ),
                key=lambda k: (k.table, k.name),
            )
        )

    def parts(self) -> tuple[Part, ...]:
        """Return the tables: the change's own, then the others by name."""
        wider = self._wider()
        touched = {t for t, _ in wider} | {k.table for k in self.keys()}
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

    def footprints(self) -> tuple[Footprint, ...]:
        """Return the columns on either end of each key."""
        found = {(p.table.name, c.name) for p in self.parts() for c in p.columns}
        for key in self.keys():
            found |= {(key.table, c) for c in key.columns}
            found |= {(key.to, c) for c in key.to_columns}
        return tuple(
            Footprint(table=table, columns=frozenset(c for t, c in found if t == table))
            for table in dict.fromkeys(
                (self.facts.table.name, *sorted(t for t, _ in found))
            )
        )

    # -- what cannot be --------------------------------------------------

    def require(self) -> None:
        """
        Refuse what could not be carried over to a wider column.

        Raises:
            Refused: on a table, column, index or foreign key, which it names.
        """
        for part in self.parts():
            self._require_table(part)
            for one in part.columns:
                self._require_column(part, one.column)
            for index, _ in part.indexes():
                self._require_index(part, index)
        wider = self._wider()
        for key in self.keys():
            for mine, theirs in zip(key.columns, key.to_columns, strict=True):
                if (key.table, mine) in wider and (key.to, theirs) not in wider:
                    raise Refused(
                        f'Column "{mine}" of table {key.table} refers to "{theirs}" of'
                        f' table {key.to} as well, by foreign key "{key.name}"; that'
                        " one does not become wider.",
                        next="change the type of that key first, by a change of its"
                        " own, or drop the foreign key.",
                    )

    def _require_table(self, part: Part) -> None:
        table = part.table
        if table.kind == "p" or table.root is not None:
            raise Refused(
                f"Table {table.name} is partitioned, or a partition: PostgreSQL builds"
                " no unique index concurrently on all partitions.",
                next="make the change in a maintenance window.",
            )
        requirements.require_table(part.facts)
        requirements.require_all_rows_visible(part.facts)

    def _require_column(self, part: Part, column: Column) -> None:
        where = f'Column "{column.name}" of table {part.table.name}'
        if column.type not in BITS:
            raise Refused(
                f"{where} is of type {column.type}; only smallint and integer become"
                " wider.",
                next="use ChangeColumnType, after its foreign keys are dropped.",
            )
        require_mirrorable(part.facts, column, is_key=True)
        require_unread(part.facts, column)
        excluding = [
            k.name
            for k in part.table.constraints
            if k.kind == "x" and k.name in column.checks
        ]
        if excluding:
            raise Refused(
                f'{where} is under exclusion constraint "{excluding[0]}", whose index'
                " cannot be built while others write.",
                next="drop it first (DropConstraint), and add it again in a"
                " maintenance window.",
            )
        for one in column.counters:
            if one.always is not None and one.dependents:
                raise Refused(
                    f"The sequence {one.name} of {where[0].lower()}{where[1:]}, an"
                    f" identity, is used by {'; '.join(one.dependents)}.",
                    next="give that a sequence of its own first.",
                )

    def _require_index(self, part: Part, index: Index) -> None:
        where = f'Index "{index.name}" of table {part.table.name}'
        has_expression = not all(k.name for k in index.keys)
        read = {c.name for c in part.columns}.intersection(index.mentions)
        if has_expression or read:
            raise Refused(
                f"{where} holds a column that becomes wider, and has an expression or"
                " a predicate that reads it, which cannot be carried over.",
                next="drop it first (DropIndex), and build it again afterwards.",
            )
        if index.nulls_not_distinct:
            raise Refused(
                f"{where} is NULLS NOT DISTINCT: values that the former type cannot"
                " hold would be the same there.",
                next="make it NULLS DISTINCT first, or change the key in a"
                " maintenance window.",
            )
        if index.unique and index.method != "btree":
            raise Refused(
                f"{where} is unique by {index.method} (WITHOUT OVERLAPS), and is not"
                " carried over.",
                next="change the key in a maintenance window.",
            )
        if index.replica_identity:
            raise Refused(
                f"{where} is the table's replica identity, which goes with its"
                " former column.",
                next="set another one first: ALTER TABLE … REPLICA IDENTITY.",
            )

    def trials(self) -> tuple[Probe, ...]:
        """Return trials of the indexes and checks over the wider type."""
        return tuple(self._trial(p) for p in self.parts() if p.mirror)

    def _trial(self, part: Part) -> Probe:
        trial = sql.Identifier("pg_temp", "migrator_trial")
        statements = [
            sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
                part.table.name.identifier
            ),
            *(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
                    trial, sql.Identifier(c.name), type_name(c.type)
                )
                for c in part.columns
            ),
            *(
                sql.SQL("CREATE INDEX ON {} USING {} ({}) WHERE {}").format(
                    trial,
                    sql.Identifier(index.method),
                    indexes.index_keys(index, "", ""),
                    expression(index.predicate or "true"),
                )
                for index, _ in part.indexes()
            ),
            *(
                _again(trial, found)
                for table, found in self._by_text()
                if found.kind == "c" and table == part.table.name
            ),
        ]
        return Probe(
            statements=tuple(render(s) for s in statements),
            question="SELECT true",
            otherwise="",
            failed=f"{self.title}: an index or a check of table {part.table.name}"
            f" cannot be made over {self.type}",
            next="drop it first, and make its like afterwards.",
        )

    # -- the steps -------------------------------------------------------

    def expand(self) -> Steps:
        """Return the wider columns with their dual write, table by table."""
        return tuple(m.expand(f"add_columns{p.suffix}") for p, m in self._mirrors())

    def backfill(self) -> Steps:
        """Return the copies of existing rows."""
        self._require_shadows()
        return tuple(
            step
            for p, m in self._mirrors()
            for step in m.backfill(
                p.facts,
                name=f"copy_rows{p.suffix}",
                no_reverse="the values go with the wider columns",
            )
        )

    def verify(self) -> Steps:
        """Return the comparisons."""
        self._require_shadows()
        return tuple(
            replace(step, name=f"{step.name}{p.suffix}")
            for p, m in self._mirrors()
            for step in m.verify(p.facts)
        )

    def retire(self) -> Steps:
        """Return what is proved and built, the exchange, and the keys' proofs."""
        self._require_shadows()
        first, *prepared = (
            replace(step, name=f"{step.name}{part.suffix}")
            for part, mirror in self._mirrors()
            for step in self._prepared(part, mirror)
        )
        # The key's index, before anything is locked.
        assert isinstance(first.work, Autocommit)
        return (
            replace(first, work=replace(first.work, refusals=(self._left_behind(),))),
            *prepared,
            Step(
                name="exchange_columns",
                work=self._exchange(back=False),
                reverse=self._way_back(),
            ),
            *(
                Step(
                    name=f"validate_constraint_{number}",
                    work=work,
                    no_reverse="the proof goes with the constraint",
                )
                for number, work in enumerate(self._proofs(), 1)
            ),
        )

    def drop(self) -> Steps:
        """Return the drop of the former columns, table by table."""
        return tuple(m.drop(f"drop_columns{p.suffix}") for p, m in self._mirrors())

    def _mirrors(self) -> Iterator[tuple[Part, Widened]]:
        return ((p, p.mirror) for p in self.parts() if p.mirror)

    def _require_shadows(self) -> None:
        """Refuse a table that came to refer to the key after expand."""
        ready = {
            part.table.name: all(part.table.column(c.shadow) for c in part.columns)
            for part, _ in self._mirrors()
        }
        late = [str(name) for name, there in ready.items() if not there]
        if ready[self.facts.table.name] and late:
            raise Refused(
                f"{self.title}: table {late[0]} refers to the key since the change was"
                " expanded, and has no wider column.",
                next="drop that foreign key until the change is through, or roll the"
                " change back and expand it again.",
            )

    def _left_behind(self) -> Refusal:
        """Refuse to go on where a table has ceased to refer to the key."""
        tables = (sql.Literal(str(p.table.name)) for p, _ in self._mirrors())
        end = f"_{self.facts.tag}"
        count = sql.SQL(
            "SELECT count(DISTINCT attrelid) FROM pg_catalog.pg_attribute"
            " WHERE pg_catalog.starts_with(attname, {}) AND NOT attisdropped"
            " AND pg_catalog.right(attname, {}) = {}"
            " AND attrelid <> ALL (ARRAY[{}]::pg_catalog.regclass[])"
        ).format(
            sql.Literal("_migrator_shadow_"),
            sql.Literal(len(end)),
            sql.Literal(end),
            sql.SQL(", ").join(tables),
        )
        return Refusal(
            count=render(count),
            why="{count} tables have a wider column from the expand, and refer to the"
            " key no longer",
            next="roll the change back and expand it again.",
        )

    def _later_keys(self) -> Refusal:
        """Refuse the exchange where a foreign key came that it does not know."""
        known = [(str(k.table), k.name) for k in self.keys()]
        count = sql.SQL(
            "SELECT count(*) FROM pg_catalog.pg_constraint k"
            " WHERE k.contype = 'f' AND ({}) AND (k.conrelid, k.conname)"
            " NOT IN ({})"
        ).format(
            sql.SQL(" OR ").join(
                sql.SQL(
                    "k.confrelid = {table} AND (SELECT attnum FROM"
                    " pg_catalog.pg_attribute WHERE attrelid = {table}"
                    " AND attname = {column}) = ANY (k.confkey)"
                ).format(
                    table=sql.SQL("{}::pg_catalog.regclass").format(
                        sql.Literal(str(m.table))
                    ),
                    column=sql.Literal(c.name),
                )
                for _, m in self._mirrors()
                for c in m.columns
            ),
            sql.SQL(", ").join(
                sql.SQL("({}::pg_catalog.regclass, {})").format(
                    sql.Literal(table), sql.Literal(name)
                )
                for table, name in known
            )
            if known
            else sql.SQL("SELECT 0::pg_catalog.oid, ''::pg_catalog.name"),
        )
        return Refusal(
            count=render(count),
            why="{count} foreign keys came to refer to the key since",
            next="drop them, then run the same command again; add them afterwards.",
        )

    def _prepared(self, part: Part, mirror: Widened) -> Iterator[Step]:
        """Yield what is built and proved on the wider columns of a table."""
        shadows = {c.name: c.shadow for c in part.columns}
        for number, (index, _) in enumerate(part.indexes(), 1):
            copy = self._copy(part, index)
            name = f"build_index_{number}"
            yield indexes.build_like(name, part.table, index, copy, shadows)
        yield mirror.index_marks(part.table, "index_marks")
        strict = (c for c in part.columns if c.column.not_null)
        for number, one in enumerate(strict, 1):
            check = self._check(one)
            add, validate, _ = not_null_by_check(part.table.name, one.shadow, check)
            yield replace(add, name=f"add_check_{number}")
            yield replace(validate, name=f"validate_check_{number}")

    def _copy(self, part: Part, index: Index) -> str:
        return names.owned("index", index.name, part.facts.tag)

    def _check(self, one: Widening) -> str:
        return names.owned("check", one.name, self.facts.tag)

    def _way_back(self) -> tuple[Action, ...]:
        """Return the same on the former columns; each action knows whether it ran."""
        over, later = self._is_back(), self._later_keys()
        actions: list[Action] = []
        for part, mirror in self._mirrors():
            retired = {c.name: c.retired for c in part.columns}
            for index, _ in part.indexes():
                copy = self._copy(part, index)
                build = indexes.build_like("", part.table, index, copy, retired).work
                assert isinstance(build, Autocommit)
                actions.append(
                    replace(
                        build,
                        done=_either(over, build.done or ""),
                        refusals=(later, mirror.fits()),
                    )
                )
        for part, mirror in self._mirrors():
            for one in part.columns:
                if not one.column.not_null:
                    continue
                # From here on a value that does not fit is refused, as before.
                check = self._check(one)
                add, validate, _ = not_null_by_check(
                    part.table.name, one.retired, check
                )
                assert isinstance(add.work, Transaction)
                assert isinstance(validate.work, Autocommit)
                there = constraints.is_there(part.table.name, check)
                proved = constraints.is_there(part.table.name, check, validated=True)
                actions += [
                    replace(
                        add.work,
                        done=_either(over, there),
                        refusals=(mirror.fits(),),
                    ),
                    replace(validate.work, done=_either(over, proved)),
                ]
        back = self._exchange(back=True)
        return (*actions, replace(back, done=over), *self._proofs())

    def _is_back(self) -> str:
        """Return the question whether the former columns have their names."""
        first = self.parts()[0]
        return render(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute"
                " WHERE attrelid = {}::pg_catalog.regclass AND attname = {}"
                " AND NOT attisdropped)"
            ).format(
                sql.Literal(str(first.table.name)),
                sql.Literal(first.columns[0].shadow),
            )
        )

    def _proofs(self) -> tuple[Autocommit, ...]:
        """Return the proofs of the constraints that were proved before."""
        return tuple(
            constraints.validated(table, found.name, also=found.references)
            for table, found in self._by_text()
            if found.validated
        )

    def _by_text(self) -> tuple[tuple[TableName, Constraint], ...]:
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
        for key in self.keys():
            found = self._tables[key.table].constraint(key.name)
            assert found is not None
            checks.append((key.table, found))
        return tuple(checks)

    # -- the exchange ----------------------------------------------------

    def _exchange(self, *, back: bool) -> Transaction:
        """
        Return the exchange of names, with all that hangs on the columns.

        Nothing scans: NOT NULL is proved by then, the indexes are there, foreign
        keys are added NOT VALID.
        """
        parts = self.parts()
        own, *others = (p.table.name for p in parts)
        path = sql.SQL("SET LOCAL search_path = {}").format(
            sql.SQL(", ").join(map(sql.Identifier, ("pg_catalog", *self.facts.path)))
        )
        work = direct.catalogue_step(
            own,
            path,
            # Sessions that draw numbers lock a sequence until their end: it comes
            # next, before anything is changed.
            *(s for p in parts for s in self._counters_locked(p, back=back)),
            *(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    table.identifier, sql.Identifier(found.name)
                )
                for table, found in self._by_text()
            ),
            *(s for p, m in self._mirrors() for s in _freed(p, m)),
            *(s for p, m in self._mirrors() for s in self._renamed(p, m, back=back)),
            *(s for p, m in self._mirrors() for s in self._indexed(p, m)),
            *(s for _, m in self._mirrors() for s in m.on(retired=not back)),
            *(
                _again(table.identifier, found, " NOT VALID")
                for table, found in self._by_text()
            ),
            *(s for p in parts for s in self._remarks(p)),
            also=tuple(others),
        )
        work = replace(work, refusals=(self._later_keys(),))
        if back:
            refusals = (m.fits() for _, m in self._mirrors())
            counters = (r for p in parts for r in _counters_fit(p))
            work = replace(work, refusals=(*work.refusals, *refusals, *counters))
        for _, mirror in self._mirrors():
            why = (
                f"the dual-write trigger on {mirror.table} is missing or not enabled"
                " ALWAYS, so that one side may have missed writes"
            )
            work = mirror.needs_on(work, why)
        return work

    def _counters_locked(self, part: Part, *, back: bool) -> Iterator[sql.Composable]:
        for one in part.columns:
            coming = one.retired if back else one.shadow
            kind = one.column.type if back else one.type
            for counter in one.column.counters:
                alter = sql.SQL("ALTER SEQUENCE {} ").format(counter.name.identifier)
                if counter.always is None:
                    is_wide = BITS[counter.type] >= BITS[one.type]
                    given = type_name("" if is_wide else f"AS {kind} ")
                    yield (
                        alter
                        + given
                        + sql.SQL("OWNED BY {}.{}").format(
                            part.table.name.identifier, sql.Identifier(coming)
                        )
                    )
                    continue
                # Changes nothing, and lets nobody draw a number until the end.
                yield alter + sql.SQL("CACHE {}").format(sql.Literal(counter.cache))
                yield sql.SQL(
                    "SELECT pg_catalog.set_config({}, last_value::text, true),"
                    " pg_catalog.set_config({}, is_called::text, true) FROM {}"
                ).format(*_kept(part), counter.name.identifier)

    def _renamed(
        self, part: Part, mirror: Widened, *, back: bool
    ) -> Iterator[sql.Composable]:
        table = part.table.name
        for one in part.columns:
            for given, wanted in (
                (one.name, one.shadow if back else one.retired),
                (one.retired if back else one.shadow, one.name),
            ):
                yield sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                    table.identifier, sql.Identifier(given), sql.Identifier(wanted)
                )
            if one.column.not_null:
                yield from set_not_null(table, one.name, self._check(one))
            if one.column.default is not None:
                yield mirror.alter("ALTER COLUMN {} SET DEFAULT ", one.name) + (
                    expression(one.column.default)
                )
            for counter in one.column.counters:
                if counter.always is not None:
                    yield from _identity(part, mirror, one, counter, back=back)

    def _remarks(self, part: Part) -> Iterator[sql.Composable]:
        """Yield the comments on what was made again."""
        own = part.table.name
        made = [found for table, found in self._by_text() if table == own]
        for index, key in part.indexes():
            made += [key] if key else []
            if index.comment is not None:
                yield sql.SQL("COMMENT ON INDEX {} IS {}").format(
                    sql.Identifier(own.schema, index.name), sql.Literal(index.comment)
                )
        for found in made:
            if found.comment is not None:
                yield sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                    sql.Identifier(found.name),
                    own.identifier,
                    sql.Literal(found.comment),
                )

    def _indexed(self, part: Part, mirror: Widened) -> Iterator[sql.Composable]:
        for index, key in part.indexes():
            copy = self._copy(part, index)
            if key is None:
                yield sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(mirror.table.schema, copy),
                    sql.Identifier(index.name),
                )
                continue
            yield mirror.alter("ADD CONSTRAINT {} ", key.name) + constraints.over_index(
                key.kind, copy, constraints.checked_when(key)
            )


def _again(
    table: sql.Composable, found: Constraint, unproved: str = ""
) -> sql.Composable:
    """Return the addition of a constraint like one that was there."""
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
        table,
        sql.Identifier(found.name),
        # The text of one that was not proved says so itself.
        type_name(found.definition + (unproved if found.validated else "")),
    )


def _either(one: str, other: str) -> str:
    """Return the question whether one of two questions is answered by yes."""
    return f"SELECT ({one}) OR ({other})"


def _kept(part: Part) -> tuple[sql.Composable, sql.Composable]:
    """Return the settings in which a transaction keeps where an identity stands."""
    # A table has one identity column at most (manual, CREATE TABLE).
    return (
        sql.Literal(f"migrator.last_{part.facts.tag}"),
        sql.Literal(f"migrator.called_{part.facts.tag}"),
    )


def _freed(part: Part, mirror: Widened) -> Iterable[sql.Composable]:
    """Yield what takes from the columns all that the others are to get."""
    yield from mirror.remove()
    for index, key in part.indexes():
        if key is not None:
            yield mirror.alter("DROP CONSTRAINT {}", key.name)
        else:
            yield sql.SQL("DROP INDEX {}").format(
                sql.Identifier(mirror.table.schema, index.name)
            )
    for one in part.columns:
        if one.column.default is not None:
            yield mirror.alter("ALTER COLUMN {} DROP DEFAULT", one.name)
        if one.column.identity:
            yield mirror.alter("ALTER COLUMN {} DROP IDENTITY", one.name)
        if one.column.not_null:
            yield mirror.alter("ALTER COLUMN {} DROP NOT NULL", one.name)


def _identity(
    part: Part, mirror: Widened, one: Widening, counter: Sequence, *, back: bool
) -> Iterator[sql.Composable]:
    """Yield what gives a column an identity that goes on where the former stood."""
    # The sequence is of the column's type; what was the limit of the former is not
    # one of its own.
    least, greatest = holds(counter.type)
    low = "" if counter.min == least else f" MINVALUE {counter.min}"
    high = "" if counter.max == greatest else f" MAXVALUE {counter.max}"
    cycle = " CYCLE" if counter.cycle else ""
    yield (
        mirror.alter("ALTER COLUMN {} ADD GENERATED ", one.name)
        + sql.SQL("{} AS IDENTITY (SEQUENCE NAME {} ").format(
            sql.SQL("ALWAYS" if counter.always else "BY DEFAULT"),
            counter.name.identifier,
        )
        + type_name(
            f"INCREMENT BY {counter.increment}{low}{high}"
            f" START WITH {counter.start} CACHE {counter.cache}{cycle})"
        )
    )
    last, called = _kept(part)
    yield sql.SQL(
        "SELECT pg_catalog.setval({}, pg_catalog.current_setting({})::bigint,"
        " pg_catalog.current_setting({})::boolean)"
    ).format(sql.Literal(counter.name.identifier.as_string(None)), last, called)
    for word, role, passed_on in counter.grants:
        yield sql.SQL("GRANT {} ON SEQUENCE {} TO {}{}").format(
            type_name(word),
            counter.name.identifier,
            type_name(role),
            sql.SQL(" WITH GRANT OPTION" if passed_on else ""),
        )


def _counters_fit(part: Part) -> Iterator[Refusal]:
    """Yield the conditions under which the former columns take the next number."""
    for one in part.columns:
        least, greatest = map(sql.Literal, holds(one.column.type))
        for counter in one.column.counters:
            name = counter.name
            yield Refusal(
                count=render(
                    sql.SQL(
                        "SELECT count(*) FROM {} WHERE last_value NOT BETWEEN {} AND {}"
                    ).format(name.identifier, least, greatest)
                ),
                why=f"sequence {name} has left what {one.column.type} holds, so that"
                " the old release could insert no row",
                next=f"set it back (setval) to a number that {one.column.type} holds,"
                " then run it again; or keep the new type.",
            )
