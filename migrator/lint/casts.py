"""What a change of a column's type would do to its table, as far as that is known."""

import re
from dataclasses import dataclass

from migrator.facts import Column, Index, Table
from migrator.lint import statements as st
from migrator.lint import text, types
from migrator.lint.added import ref
from migrator.lint.scene import Scene
from migrator.lint.types import Effect, SqlType

# Names under which a session's time zone is UTC all the year.
_UTC = frozenset({"utc", "etc/utc", "gmt", "etc/gmt", "zulu", "universal", "uct", "0"})


@dataclass(frozen=True, slots=True)
class Cast:
    """
    A change of type.

    Args:
        old: the type before, as it is spelt; None where nothing tells it.
        new: the type after, without a collation.
        effect: on rows and plain indexes; None where the type before is not known.
        recollated: whether values are sorted in another order afterwards.
        table: the table's facts, None without a database.
        column: the column's.
    """

    old: str | None
    new: str
    effect: Effect | None
    recollated: bool
    table: Table | None
    column: Column | None

    @property
    def is_integer(self) -> bool:
        """Whether it makes an integer wider."""
        if self.old is None:
            return types.parsed(self.new).name == "bigint"
        pair = (types.parsed(self.old).name, types.parsed(self.new).name)
        return pair in _WIDER_INTEGERS

    @property
    def loses(self) -> bool:
        """Whether a value may be refused, or come out as another."""
        return self.old is None or types.loses(
            types.parsed(self.old), types.parsed(self.new)
        )

    @property
    def checks(self) -> tuple[str, ...]:
        """CHECK constraints that are tested again, by their names."""
        if self.table is None or self.column is None or self.effect is Effect.REWRITE:
            return ()
        found = map(self.table.constraint, self.column.checks)
        return tuple(c.name for c in found if c is not None and c.kind == "c")

    @property
    def indexes(self) -> tuple[Index, ...]:
        """Indexes that are built anew though the rows stay."""
        if self.table is None or self.column is None:
            return ()
        every = self.recollated or self.effect is Effect.INDEXES
        return tuple(
            i
            for i in self.table.indexes
            # The server does not look into expressions: it takes them for changed.
            if self.column.name in i.columns and (every or not i.plain)
        )


_WIDER_INTEGERS = frozenset(
    {("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint")}
)


def cast(statement: st.ChangeType, scene: Scene) -> Cast:
    """Return what a change of type is."""
    table = scene.table(statement.table)
    column = None if table is None else table.column(statement.column)
    new = types.uncollated(statement.type)
    old = statement.old_type
    if column is not None:
        # What a domain is made of is the same values.
        old = column.type if column.base is None else column.base
    if old is not None and types.parsed(old).name == "null":
        old = None
    return Cast(
        old=old,
        new=new,
        effect=_effect(statement, scene, old, new),
        recollated=_recollated(statement, column),
        table=table,
        column=column,
    )


def _effect(
    statement: st.ChangeType, scene: Scene, old: str | None, new: str
) -> Effect | None:
    if not _is_plain(statement, new):
        return Effect.REWRITE
    after = _below(types.parsed(new), scene)
    if after is None:
        return Effect.REWRITE
    if old is not None:
        return types.effect(types.parsed(old), after, utc=in_utc(scene))
    return None if after.name in types.GAINABLE else Effect.REWRITE


def _below(type_: SqlType, scene: Scene) -> SqlType | None:
    """Return a type, or the one below a domain that refuses nothing."""
    if type_.known:
        return type_
    domain = scene.domain(ref(type_.name))
    if domain is None:
        return type_
    return None if domain.checks or domain.not_null else types.parsed(domain.type)


def _is_plain(statement: st.ChangeType, new: str) -> bool:
    """Tell whether USING says no more than the cast does."""
    if statement.using is None:
        return True
    column, colons, given = statement.using.strip().strip("()").partition("::")
    name = re.fullmatch(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+)', column.strip())
    if name is None:
        return False
    if (name["quoted"] or name["plain"].lower()) != statement.column:
        return False
    return not colons or types.parsed(given) == types.parsed(new)


def _recollated(statement: st.ChangeType, column: Column | None) -> bool:
    if statement.collation is None:
        # The type's own: that of a column which has none of its own stays.
        return column is not None and column.collation is not None
    if column is None or column.collation is None:
        return statement.collation != "default"
    return ref(column.collation).name != ref(statement.collation).name


def clause(statement: st.ChangeType) -> str:
    """Return the change as it stands behind ALTER TABLE."""
    found = f"ALTER COLUMN {text.name(statement.column)} TYPE {statement.type}"
    if statement.collation and "COLLATE" not in statement.type:
        found += f" COLLATE {text.name(statement.collation)}"
    return found


def in_utc(scene: Scene) -> bool:
    """Tell whether the revision's session is known to be in UTC."""
    zone = scene.parameter("timezone") or scene.time_zone or ""
    return zone.strip("'\" ").lower() in _UTC
