"""What autogenerate found, as pieces: what stays as it is, and what becomes a change.

A comparison sees two states, not what happened in between: a column that goes and one
that comes may be one column under another name. Where both could be meant, a person
chooses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alembic.operations import ops
from sqlalchemy.dialects import postgresql

from migrator.alembic import entities, enums, look
from migrator.alembic.author import Author, create, default_of, definition
from migrator.alembic.checks import CheckOp
from migrator.alembic.normal import leaves, normal
from migrator.alembic.order import Piece, Token
from migrator.alembic.ranks import rank_of
from migrator.alembic.writing import Way, Written
from migrator.lint import operations as lint
from migrator.lint import statements as st
from migrator.lint.statements import Ref
from migrator.pattern import OPEN, Pattern
from migrator.patterns import (
    AddColumn,
    AddForeignKey,
    ChangeColumnType,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropTable,
    RenameColumn,
    RenameConstraint,
    RenameTable,
    ReplaceCheck,
    ReplaceForeignKey,
    ReplaceIndex,
)

_make: Any = postgresql.dialect
_PREPARER = _make().identifier_preparer


@dataclass(slots=True)
class Rephrased:
    """
    Operations of one directive, as pieces.

    Args:
        author: writes the safe forms.
        found: Alembic's operations.
    """

    author: Author
    found: Sequence[ops.MigrateOperation]
    _left: list[Any] = field(default_factory=list[Any])
    _pieces: list[Piece] = field(default_factory=list[Piece])

    def pieces(self) -> list[Piece]:
        """Return all of them, those of operations in Alembic's order."""
        self._left = list(normal(self.found))
        self.author.goes |= {n for o in self._left for n in look.names(o)}
        self._renamed_tables()
        for operation in self._left:
            if isinstance(operation, ops.CreateTableOp):
                for statement in lint.statements(operation):
                    self.author.scene.passed(statement)
        self._without_checks()
        self._exchanged_checks()
        self._going_along()
        self._renamed_columns()
        self._enums()
        self._exchanged_keys()
        self._exchanged()
        for operation in self._left:
            for piece in self._of(operation):
                self._put(piece)
        return self._pieces

    def _put(self, piece: Piece) -> None:
        """Take in a piece; a change that is there already is found by its columns."""
        for number, other in enumerate(self._pieces):
            if piece.written is not None and piece.written == other.written:
                self._pieces[number] = replace(
                    other,
                    makes=other.makes | piece.makes,
                    needs=other.needs | piece.needs,
                )
                return
        self._pieces.append(piece)

    # -- operations that belong together ---------------------------------

    def _all(self, kind: type[Any]) -> list[Any]:
        return [o for o in self._left if isinstance(o, kind)]

    def _take(self, *taken: Any) -> None:
        self._left = [o for o in self._left if not any(o is t for t in taken)]

    def _renamed_tables(self) -> None:
        """Ask of a table that goes and one with the same columns that comes."""
        for gone in self._all(ops.DropTableOp):
            old = gone.to_table()
            for new in self._all(ops.CreateTableOp):
                table = new.to_table()
                same = {c.name for c in old.columns} == {c.name for c in table.columns}
                if same and gone.schema == new.schema:
                    self._renamed_table(gone, new)
                    break

    def _renamed_table(self, gone: ops.DropTableOp, new: ops.CreateTableOp) -> None:
        old, to = gone.table_name, new.table_name
        places = {(gone.schema, old), (gone.schema, to)}
        about = [
            o
            for o in self._left
            if look.place(o) in places or look.referred(o) in places
        ]
        indexes = [o.to_index() for o in about if look.is_drop_index(o, old)]
        comes = [
            CreateTable(
                to,
                definition(new.to_table()),
                references=sorted(
                    {
                        k.column.table.name
                        for k in new.to_table().foreign_keys
                        if k.column.table.name != to
                    }
                ),
                schema=gone.schema,
            ),
            *self._patterns(o for o in about if look.is_create_index(o, to)),
        ]
        goes = DropTable(
            old, create=create(gone.to_table(), indexes), schema=gone.schema
        )
        self._take(*about)
        renamed, points = self.author.weighed(RenameTable(old, to, schema=gone.schema))
        self._pieces.append(
            Piece(
                written=Written(
                    title=f'whether table "{old}" became "{to}"',
                    ways=(
                        Way(
                            (renamed,),
                            f"It is: it is renamed, and keeps its rows. {points}",
                        ),
                        Way(
                            (*comes, goes),
                            "It is not: one comes, and the other goes with its rows.",
                        ),
                    ),
                    choice=f'whether table "{to}" is "{old}" under another name',
                ),
                rank=rank_of(renamed),
                makes=frozenset(
                    {("table", gone.schema, to)}
                    | {("column", gone.schema, to, c.name) for c in new.to_table().c}
                ),
            )
        )

    def _patterns(self, operations: Any) -> list[Pattern]:
        """Return the safe form of operations that need nothing decided."""
        return [
            p
            for o in operations
            for w in self.author.safe(o)
            for p in w.ways[0].patterns
        ]

    def _going_along(self) -> None:
        """Leave out what goes with a table or a column that goes."""
        tables = {look.place(o) for o in self._all(ops.DropTableOp)}
        columns = {(*look.place(o), o.column_name) for o in self._all(ops.DropColumnOp)}
        again = {
            (look.place(o), str(o.index_name)) for o in self._all(ops.CreateIndexOp)
        }
        for o in list(self._left):
            place = look.place(o)
            if isinstance(o, ops.DropIndexOp):
                on = self._columns_of(o)
                along = any((*place, c) in columns for c in on)
                if place in tables or (along and (place, o.index_name) not in again):
                    self._take(o)
            elif isinstance(o, ops.DropConstraintOp):
                on = self._columns_of(o)
                if place in tables or any((*place, c) in columns for c in on):
                    self._take(o)

    def _columns_of(self, operation: Any) -> tuple[str, ...]:
        """Return the columns of an index or constraint, by the database."""
        table = self.author.scene.table(Ref(operation.table_name, operation.schema))
        if table is None:
            return ()
        if isinstance(operation, ops.DropIndexOp):
            index = table.index(str(operation.index_name))
            return index.columns if index else ()
        constraint = table.constraint(str(operation.constraint_name))
        return constraint.columns if constraint else ()

    def _renamed_columns(self) -> None:
        """Ask of a column that goes and one that comes in the same table."""
        pairs = [
            (gone, new)
            for gone in self._all(ops.DropColumnOp)
            for new in self._all(ops.AddColumnOp)
            if look.place(gone) == look.place(new)
            and look.may_be_one(gone.to_column(), new.column)
        ]
        pairs.sort(key=lambda pair: look.likeness(*pair), reverse=True)
        done: list[Any] = []
        for gone, new in pairs:
            if not any(o in (gone, new) for o in done):
                done += [gone, new]
                self._renamed_column(gone, new)

    def _renamed_column(self, gone: ops.DropColumnOp, new: ops.AddColumnOp) -> None:
        table, schema = gone.table_name, gone.schema
        old, to = gone.column_name, new.column.name
        about = [
            o
            for o in self._left
            if look.place(o) == look.place(gone) and to in look.columns(o)
        ]
        indexes: dict[str, str] = {}
        known = self.author.scene.table(Ref(table, schema))
        for o in about:
            if isinstance(o, ops.CreateIndexOp) and known is not None:
                before = [old if c == to else c for c in look.columns(o)]
                indexes |= {
                    i.name: str(o.index_name)
                    for i in known.indexes
                    if [k.name for k in i.keys] == before
                    and i.unique == bool(o.unique)
                    and i.name != o.index_name
                }
        same = look.type_of(gone.to_column()) == look.type_of(new.column)
        renamed: Pattern = (
            RenameColumn(table, old, to, indexes=indexes, schema=schema)
            if same
            else self.author.completed(
                ChangeColumnType(
                    table, old, look.type_of(new.column), to=to, schema=schema
                )
            )
        )
        renamed, points = self.author.weighed(renamed)
        title = f'whether column "{old}" of table "{table}" became "{to}"'
        comes, goes = self._added(new, about), self._goes(gone)
        self._take(gone, new, *about)
        self._commented(gone, new.column.comment)
        kept = "it is renamed, and keeps its values."
        if not same:
            kept = "it gets another name and type, and keeps its values."
        choice = (
            f'whether column "{to}" of table "{table}" is "{old}" under another name'
        )
        self._pieces.append(
            Piece(
                written=Written(
                    title=title,
                    ways=(
                        Way((renamed,), f"It is: {kept} {points}"),
                        Way(
                            (*comes, goes),
                            "It is not: one comes, and the other goes with its values.",
                        ),
                    ),
                    choice=choice,
                ),
                rank=rank_of(renamed),
                makes=frozenset(
                    {("column", schema, table, to), ("columns", schema, table)}
                ),
            )
        )

    def _commented(self, gone: ops.DropColumnOp, comment: str | None) -> None:
        """Set a comment on the old column, which keeps it under the new name."""
        column = gone.to_column()
        if column.comment == comment:
            return
        said = ops.AlterColumnOp(
            gone.table_name,
            gone.column_name,
            schema=gone.schema,
            existing_type=column.type,
            existing_nullable=column.nullable,
            existing_comment=column.comment,
            modify_comment=comment,
        )
        self._pieces.append(
            Piece(instead=True, operations=(said,), back=tuple(look.back(said)))
        )

    def _added(self, new: ops.AddColumnOp, about: Sequence[Any]) -> list[Pattern]:
        """Return a column that comes, with what it has, as changes."""
        table, schema, column = new.table_name, new.schema, new.column
        default = column.server_default
        value = default_of(column)
        comes = AddColumn(table, column.name, look.type_of(column), schema=schema)
        if default is not None:
            comes = replace(comes, default=value, not_null=not column.nullable)
        elif not column.nullable:
            comes = replace(comes, computed=value or OPEN, not_null=True)
        rest = [o for o in about if o is not new]
        found: list[Pattern] = [comes]
        found += self._patterns(o for o in rest if isinstance(o, ops.CreateIndexOp))
        found += self._patterns(o for o in rest if isinstance(o, ops.AddConstraintOp))
        return found

    def _goes(self, gone: ops.DropColumnOp) -> Pattern:
        written = self.author.safe(gone)
        if written:
            return written[0].ways[0].patterns[0]
        return DropColumn(gone.table_name, gone.column_name, schema=gone.schema)

    def _exchanged(self) -> None:
        """Join what goes and what comes in its place, under its name or as it is."""
        for gone in self._all(ops.DropIndexOp):
            for new in self._all(ops.CreateIndexOp):
                if look.place(gone) == look.place(new) and self._exchange_index(
                    gone, new
                ):
                    self._take(gone, new)
                    break
        for gone in self._all(ops.DropConstraintOp):
            for new in self._all(ops.CreateUniqueConstraintOp):
                if (
                    look.place(gone) != look.place(new)
                    or gone.constraint_type != "unique"
                ):
                    continue
                names = str(gone.constraint_name), str(new.constraint_name)
                if names[0] != names[1] and look.same_key(gone.to_constraint(), new):
                    self._take(gone, new)
                    self._add(
                        RenameConstraint(gone.table_name, *names, schema=gone.schema)
                    )
                    break

    def _without_checks(self) -> None:
        """Take checks of types off columns that come: each is a change of its own."""
        columns = {(look.place(o), o.column) for o in self._all(CheckOp)}
        for new in self._all(ops.AddColumnOp):
            kind = new.column.type
            if (look.place(new), new.column.name) in columns and hasattr(
                kind, "create_constraint"
            ):
                kind.create_constraint = False

    def _exchanged_checks(self) -> None:
        """Join a check that goes with one that comes under its name, or is the same."""
        for gone in self._all(ops.DropConstraintOp):
            old = str(gone.constraint_name)
            for new in self._all(ops.CreateCheckConstraintOp):
                if look.place(gone) != look.place(new):
                    continue
                to, (statement,) = str(new.constraint_name), lint.statements(new)
                if isinstance(new, CheckOp) and new.instead == old:
                    pattern: Pattern = RenameConstraint(
                        gone.table_name, old, to, schema=gone.schema
                    )
                elif old == to and isinstance(statement, st.AddConstraint):
                    condition = statement.constraint.expression or ""
                    pattern = ReplaceCheck(
                        gone.table_name, old, condition, schema=gone.schema
                    )
                else:
                    continue
                self._take(gone, new)
                self._add(pattern, {("columns", gone.schema, gone.table_name)})
                break

    def _exchanged_keys(self) -> None:
        """Join a foreign key that goes with one that comes under its name."""
        for gone in self._all(ops.DropConstraintOp):
            for new in self._all(ops.CreateForeignKeyOp):
                same = gone.constraint_name == new.constraint_name
                if not same or look.place(gone) != look.place(new):
                    continue
                for pattern in self._patterns([new]):
                    if isinstance(pattern, AddForeignKey):
                        given = {
                            f.name: getattr(pattern, f.name)
                            for f in fields(pattern)
                            if f.name != "index"
                        }
                        _, needs = look.tokens(new)
                        mine: Token = ("gone", *look.place(new), pattern.name)
                        self._take(gone, new)
                        self._add(ReplaceForeignKey(**given), {*needs} - {mine})
                break

    def _exchange_index(self, gone: ops.DropIndexOp, new: ops.CreateIndexOp) -> bool:
        """Tell whether an index is replaced, or renamed; then there is a piece."""
        old, to = str(gone.index_name), str(new.index_name)
        if old == to:
            for pattern in self._patterns([new]):
                if isinstance(pattern, CreateIndex):
                    given = {
                        f.name: getattr(pattern, f.name)
                        for f in fields(pattern)
                        if f.name not in ("table", "name", "on")
                    }
                    self._add(
                        ReplaceIndex(pattern.table, old, pattern.on, **given),
                        needs={("columns", new.schema, new.table_name)},
                    )
                    return True
            return False
        if not look.same_index(gone, new):
            return False
        place = f"{_PREPARER.quote_schema(gone.schema)}." if gone.schema else ""
        one, other = _PREPARER.quote(old), _PREPARER.quote(to)
        self._pieces.append(
            Piece(
                instead=True,
                # The lock is on the index alone, and lets queries and writes pass.
                operations=(
                    ops.ExecuteSQLOp(f"ALTER INDEX {place}{one} RENAME TO {other}"),
                ),
                back=(ops.ExecuteSQLOp(f"ALTER INDEX {place}{other} RENAME TO {one}"),),
            )
        )
        return True

    def _add(self, pattern: Pattern, needs: set[Token] | None = None) -> None:
        self._pieces.append(
            Piece(
                written=self.author.decided(pattern),
                rank=rank_of(pattern),
                needs=frozenset(needs or ()),
            )
        )

    def _enums(self) -> None:
        """Take over what was found about values of enums."""
        for operation in list(self._left):
            for one in enums.changes(operation, self.author):
                self._take(operation)
                pattern = one.ways[0].patterns[0]
                self._pieces.append(
                    Piece(
                        written=one,
                        rank=rank_of(pattern),
                        makes=frozenset({("values", operation.name)}),
                    )
                )

    # -- operations one by one -------------------------------------------

    def _of(self, operation: Any) -> Iterator[Piece]:
        makes, needs = look.tokens(operation)
        entity = entities.change(operation, self.author)
        written = [entity] if entity else self.author.safe(operation)
        if isinstance(operation, ops.DropTableOp):
            written = [self._dropped(operation, written)]
        if not written:
            yield Piece(
                operations=(operation,),
                back=tuple(look.back(operation)),
                makes=makes,
                needs=needs,
            )
        for number, one in enumerate(written):
            step: set[Token] = {("step", id(operation), number)}
            before: set[Token] = {("step", id(operation), number - 1)}
            yield Piece(
                written=one,
                rank=rank_of(one.ways[0].patterns[0]),
                makes=frozenset(makes | step),
                needs=frozenset(needs | (before if number else set())),
            )

    def _dropped(self, gone: ops.DropTableOp, written: list[Written]) -> Written:
        """Return the drop of a table, with what makes it again for a downgrade."""
        indexes = [
            o.to_index()
            for o in leaves(self.found)
            if look.is_drop_index(o, gone.table_name) and o.schema == gone.schema
        ]
        pattern = next(
            (
                p
                for w in written
                for p in w.ways[0].patterns
                if isinstance(p, DropTable)
            ),
            DropTable(gone.table_name, schema=gone.schema),
        )
        made = create(gone.to_table(), indexes)
        return self.author.decided(replace(pattern, create=made, assured=""))
