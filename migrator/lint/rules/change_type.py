"""
ALTER COLUMN TYPE writes every row and every index anew.

Some casts are free: `types.effect` says which, and a test holds it against the server.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Iterator

from migrator.lint import casts, text, types
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.lint.types import Effect
from migrator.pattern import OPEN, Pattern
from migrator.patterns import ChangeColumnType, ChangePrimaryKey
from migrator.plan import Lock


class ChangeType(Rule):
    """A column of another type, whose rows have to be written for it."""

    code = "ZD116"
    title = "ALTER COLUMN TYPE writes every row anew while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            bad=("ALTER TABLE t ALTER COLUMN a TYPE bigint",),
            good=(
                "ALTER TABLE t ADD COLUMN a_big bigint",
                "UPDATE t SET a_big = a",
            ),
        ),
        Trial(
            before=("ALTER TABLE t ADD COLUMN c varchar(10)",),
            bad=("ALTER TABLE t ALTER COLUMN c TYPE varchar(5)",),
            good=("ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",),
        ),
        Trial(
            before=("ALTER TABLE t ADD COLUMN c timestamp",),
            bad=(
                "SET timezone = 'Europe/Paris'",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz",
            ),
            good=(
                "SET timezone = 'UTC'",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz",
            ),
        ),
        Trial(
            before=("ALTER TABLE t ADD COLUMN c timestamp",),
            bad=(
                "SET timezone = 'UTC'",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz"
                " USING c AT TIME ZONE 'UTC'",
            ),
            good=(
                "SET timezone = 'UTC'",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz",
            ),
        ),
        Trial(
            bad=("ALTER TABLE t ALTER COLUMN b TYPE varchar(100) USING lower(b)",),
            good=("ALTER TABLE t ALTER COLUMN b TYPE varchar USING b::varchar",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a cast that is not known to be free."""
        if not isinstance(statement, st.ChangeType):
            return
        cast = casts.cast(statement, scene)
        if cast.effect not in (None, Effect.REWRITE):
            return
        table, column = statement.table, statement.column
        why = "No request can read or write the table meanwhile."
        if cast.effect is None:
            why += (
                " The revision does not say what the type was (`existing_type`):"
                " where the server can leave the rows as they are, nothing is written."
            )
        if cast.loses:
            why += " A value that the new type does not take makes it fail."
        yield from self.found(
            table,
            scene,
            f"ALTER COLUMN {table}.{column} TYPE {cast.new} writes every row and every"
            " index anew under ACCESS EXCLUSIVE.",
            why,
            safe=_safe(statement, cast, scene),
        )


def _safe(statement: st.ChangeType, cast: casts.Cast, scene: Scene) -> Safe:
    found: list[Pattern] = []
    decide: list[str] = []
    key = _key(statement, cast, scene) if cast.is_integer else None
    if key is not None:
        found.append(key)
    if key is None or cast.column is None:
        found += [
            _by_second(statement, cast, to=OPEN),
            _by_second(statement, cast, assured=OPEN),
        ]
        decide.append(
            "a name of its own in the new release (`to`), or the same name, where a"
            " prepared statement fails until it is prepared anew (`assured` says why"
            " that is no harm)"
        )
    if key is not None and cast.column is None:
        decide.append("ChangePrimaryKey is for a key, and what refers to one")
    if statement.using is not None:
        decide.append("`down`, the expression that makes the old value of the new one")
    elif cast.loses:
        decide.append(
            "what becomes of values that the new type does not take or changes: `up`"
            " and `down`, where a plain cast does not do"
        )
    code = ""
    if _is_zoned(cast) and statement.using is None and not cast.indexes:
        code = text.execute(
            "SET LOCAL timezone = 'UTC'",
            f"ALTER TABLE {text.name(statement.table)} ALTER COLUMN"
            f" {text.name(statement.column)} TYPE {cast.new}",
        )
        decide.append(
            "whether the values are meant in UTC: then the server leaves the rows as"
            " they are, where no index holds the column"
        )
    return Safe(
        why="A second column is filled beside the old one and kept in step; they"
        " exchange places in a moment.",
        patterns=tuple(found),
        decide="; ".join(decide),
        code=code,
    )


def _is_zoned(cast: casts.Cast) -> bool:
    old = "" if cast.old is None else types.parsed(cast.old).name
    return (old, types.parsed(cast.new).name) == ("timestamp", "timestamptz")


def _by_second(
    statement: st.ChangeType,
    cast: casts.Cast,
    *,
    to: str | None = None,
    assured: str = "",
) -> ChangeColumnType:
    table, using = statement.table, statement.using
    return ChangeColumnType(
        table.name,
        statement.column,
        cast.new,
        to=to,
        up=using,
        down=None if using is None else OPEN,
        collation=(
            None if statement.collation is None else text.name(statement.collation)
        ),
        old_type=cast.old,
        schema=table.schema,
        assured=assured,
    )


def _key(
    statement: st.ChangeType, cast: casts.Cast, scene: Scene
) -> ChangePrimaryKey | None:
    """Return the change of a key with all that refers to it, where it may be one."""
    table, column = cast.table, cast.column
    if table is None or column is None:
        return ChangePrimaryKey(
            statement.table.name,
            statement.column,
            cast.new.lower(),
            old_type=cast.old,
            schema=statement.table.schema,
        )
    for key in table.foreign_keys:
        if key.table == table.name and column.name in key.columns and key.to_columns:
            referred = key.to_columns[key.columns.index(column.name)]
            # Told as the statement of the key itself would tell it.
            near = key.to.schema == table.name.schema
            schema = statement.table.schema if near else key.to.schema or None
            parent = scene.table(Ref(key.to.name, schema))
            known = None if parent is None else parent.column(referred)
            return ChangePrimaryKey(
                key.to.name,
                referred,
                cast.new.lower(),
                old_type=None if known is None else known.type,
                schema=schema,
            )
    if not any(
        column.name in c.columns for c in table.constraints if c.kind in ("p", "u")
    ):
        return None
    return ChangePrimaryKey(
        statement.table.name,
        column.name,
        cast.new.lower(),
        old_type=column.type,
        schema=statement.table.schema,
    )
