"""What a revision asks an inspector for, told by statements and facts, not a server.

Many revisions look for a table or a column before they make it. What is known of tables
answers them, so that they are followed; what nobody knows is an error, and said.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.types import NullType, TypeEngine

from migrator.facts import ForeignKey, Table
from migrator.lint import types
from migrator.lint.run import USUAL, Run
from migrator.lint.statements import Ref

#: What is said of a revision that asks for more.
UNSEEN = "it asks the database for more than rows, as an inspector or a session does"

# What SQLAlchemy calls types that have a shorter name.
_NAMES = {
    "char": "character",
    "float4": "real",
    "float8": "double precision",
    "timestamptz": "timestamp with time zone",
    "timetz": "time with time zone",
    "varbit": "bit varying",
    "varchar": "character varying",
}

# The name under which a connection on paper has its inspector.
_INSPECTOR = "_migrator_inspector"


class UnseenError(Exception):
    """A revision asks for what is known on a server only."""

    def __init__(self) -> None:
        super().__init__(UNSEEN)


class Names(Sequence[str]):
    """
    Names of tables, of which those of a database cannot be listed.

    Args:
        known: those that revisions made.
        has: tells of any.
        whole: whether there are no others; then they can be listed.
        unseen: is called where they cannot, and raises.
    """

    def __init__(
        self,
        known: list[str],
        has: Callable[[str], bool],
        unseen: Callable[[], Any],
        *,
        whole: bool,
    ) -> None:
        self._known, self._has, self._unseen = known, has, unseen
        self._whole = whole

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a table of that name."""
        return isinstance(name, str) and self._has(name)

    def _all(self) -> list[str]:
        if not self._whole:
            self._unseen()
        return self._known

    def __iter__(self) -> Iterator[str]:
        """Give all."""
        return iter(self._all())

    def __getitem__(self, index: Any) -> Any:
        """Return one, or some."""
        return self._all()[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all())


class Inspector:
    """
    Answers as SQLAlchemy's inspector does, as far as anything tells.

    Args:
        bind: the connection on paper.
        run: what revisions did, up to the statement that is next.
        asked: is called where nothing tells, before the error.
    """

    def __init__(
        self, bind: MockConnection, run: Run, asked: Callable[[], None]
    ) -> None:
        self.bind = self.engine = bind
        self.dialect = bind.dialect
        self._run, self._asked = run, asked

    def _unseen(self, *_: Any, **__: Any) -> Any:
        self._asked()
        raise UnseenError

    def __getattr__(self, name: str) -> Any:
        """Return what says that nobody knows, in place of any other question."""
        return self._unseen

    default_schema_name = USUAL

    @contextmanager
    def _inspection_context(self) -> Iterator["Inspector"]:
        yield self

    def _get_reflection_info(self, **_: Any) -> None:
        """Return that nothing was read beforehand."""

    def reflect_table(self, table: sa.Table, *_: Any, **__: Any) -> None:
        """Give a table its columns and its primary key."""
        found = self._table(table.name, table.schema)
        keys = {n for c in found.constraints if c.kind == "p" for n in c.columns}
        for c in found.columns:
            column: sa.Column[Any] = sa.Column(
                c.name,
                type_of(c.type),
                primary_key=c.name in keys,
                nullable=not c.not_null,
                autoincrement=False,
            )
            table.append_column(column, replace_existing=True)
        for k in found.foreign_keys:
            if k.table == found.name:
                to = (self._referred(k, table.schema), k.to.name)
                ends = [".".join(filter(None, (*to, c))) for c in k.to_columns]
                key = sa.ForeignKeyConstraint(k.columns, ends, name=k.name)
                table.append_constraint(key)

    def has_table(self, table_name: str, schema: str | None = None, **_: Any) -> bool:
        """Tell whether there is a table."""
        return self._run.is_there(Ref(table_name, schema))

    def get_table_names(self, schema: str | None = None, **_: Any) -> Sequence[str]:
        """Return the names of tables; of a database's, only that one is there."""
        return Names(
            sorted(self._run.names(schema)),
            lambda name: self.has_table(name, schema),
            self._unseen,
            whole=self._run.is_whole,
        )

    def has_index(
        self, table_name: str, index_name: str, schema: str | None = None, **_: Any
    ) -> bool:
        """Tell whether a table has an index."""
        return self._table(table_name, schema).index(index_name) is not None

    def get_columns(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return the columns of a table."""
        return [
            {
                "name": c.name,
                "type": type_of(c.type),
                "nullable": not c.not_null,
                "default": c.default,
                "autoincrement": False,
                "comment": c.comment,
            }
            for c in self._table(table_name, schema).columns
        ]

    def get_indexes(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return the indexes of a table, but for that of its primary key."""
        return [
            {
                "name": i.name,
                "column_names": [k.name or None for k in i.keys],
                "unique": i.unique,
                "include_columns": list(i.include),
                "dialect_options": {},
            }
            | ({"duplicates_constraint": i.name} if i.constraints else {})
            for i in self._table(table_name, schema).indexes
            if not i.primary
        ]

    def get_unique_constraints(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return the unique constraints of a table."""
        return [
            {"name": c.name, "column_names": list(c.columns), "comment": c.comment}
            for c in self._table(table_name, schema).constraints
            if c.kind == "u"
        ]

    def get_check_constraints(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return the checks of a table."""
        return [
            {"name": c.name, "sqltext": c.condition or c.definition}
            for c in self._table(table_name, schema).constraints
            if c.kind == "c"
        ]

    def get_pk_constraint(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Return the primary key of a table."""
        for c in self._table(table_name, schema).constraints:
            if c.kind == "p":
                return {"name": c.name, "constrained_columns": list(c.columns)}
        return {"name": None, "constrained_columns": []}

    def get_foreign_keys(
        self, table_name: str, schema: str | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return the foreign keys that a table has."""
        table = self._table(table_name, schema)
        return [
            {
                "name": k.name,
                "constrained_columns": list(k.columns),
                "referred_schema": self._referred(k, schema),
                "referred_table": k.to.name,
                "referred_columns": list(k.to_columns),
                "options": {},
            }
            for k in table.foreign_keys
            if k.table == table.name
        ]

    def _referred(self, key: ForeignKey, schema: str | None) -> str | None:
        """Return where the other end is; None where names go without a schema."""
        usual = self.default_schema_name
        found = key.to.schema or usual
        return None if found == usual != schema else found

    def _table(self, name: str, schema: str | None) -> Table:
        found = self._run.table(Ref(name, schema))
        if found is None or found.name.name != name:
            self._unseen()
        assert found is not None
        return found


def type_of(text: str) -> TypeEngine[Any]:
    """Return a type as SQLAlchemy has it; one without a name for what it has none."""
    parsed = types.parsed(text)
    named: Any = postgresql.base.ischema_names
    kind = named.get(_NAMES.get(parsed.name, parsed.name))
    if kind is None:
        return NullType()
    if parsed.name in {"varchar", "char", "numeric"}:
        made = kind(*(int(n) for n in parsed.limits if re.fullmatch(r"\d+", n)))
    elif parsed.name in {"timestamptz", "timetz"}:
        made = kind(timezone=True)
    else:
        made = kind()
    return postgresql.ARRAY(made) if parsed.array else made


def give_inspector(bind: MockConnection, run: Run, asked: Callable[[], None]) -> None:
    """Let `sa.inspect()` of a connection on paper be answered."""
    setattr(bind, _INSPECTOR, Inspector(bind, run, asked))


def _inspected(bind: MockConnection) -> Any:
    # Without one, SQLAlchemy says that there is none.
    return getattr(bind, _INSPECTOR, None)


_inspection: Any = sa.inspection
_inspection._inspects(MockConnection)(_inspected)
# SQLAlchemy reflects a table by an inspector, which it inspects in turn.
_inspection._inspects(Inspector)(lambda inspector: inspector)
