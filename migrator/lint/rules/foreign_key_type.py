"""
A foreign key of another type than its parent finds rows by no index, or runs out.

The lookup of a parent's rows compares by the parent's type: where the column has to be
cast to it, no index on the column serves.

Source: PostgreSQL manual, section 11.10 (operator families), and the trial.
"""

import re
from collections.abc import Iterator

from migrator.lint import foreign_keys
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.patterns import ChangeColumnType
from migrator.plan import Lock

_ALIASES = {
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "smallserial": "smallint",
    "serial": "integer",
    "bigserial": "bigint",
    "varchar": "character varying",
    "char": "character",
    "decimal": "numeric",
    "float": "double precision",
    "float4": "real",
    "float8": "double precision",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
# Narrowest first: one runs out before the next.
_INTEGERS = ("smallint", "integer", "bigint")
# Types that are compared with each other by an index.
_FAMILIES = (
    frozenset(_INTEGERS),
    frozenset({"text", "character varying", "name"}),
    frozenset({"real", "double precision"}),
    frozenset({"date", *(t for t in _ALIASES.values() if t.startswith("timestamp"))}),
    frozenset({"inet", "cidr"}),
)
_ADD = "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES p ON DELETE CASCADE NOT VALID"


class ForeignKeyType(Rule):
    """A foreign key whose column is of another type than what it refers to."""

    code = "ZD207"
    title = "A foreign key of another type than its parent: no index, or an overflow"
    harm = Harm.STALL
    lock = Lock.ROW_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            before=(
                "CREATE TABLE p (n numeric PRIMARY KEY)",
                "INSERT INTO p SELECT generate_series(0, 99)",
                "CREATE INDEX i ON t (a)",
            ),
            bad=(_ADD, "SET enable_seqscan = off", "DELETE FROM p WHERE n = 1"),
            good=(
                "DROP TABLE p",
                "CREATE TABLE p (n bigint PRIMARY KEY)",
                "INSERT INTO p SELECT generate_series(0, 99)",
                _ADD,
                "DELETE FROM p WHERE n = 2",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that no index serves, or that is narrower than its parent."""
        for table, key in foreign_keys.added(statement):
            assert key.to is not None
            parent = key.to.table
            ends = foreign_keys.parent_columns(key, scene)
            for column, end in zip(key.columns, ends, strict=False):
                one = _type(table, column, scene, statement)
                other = _type(parent, end, scene, None)
                why = _differs(one, other, parent)
                if not why:
                    continue
                yield from self.found(
                    table,
                    scene,
                    f"{table}.{column} is {one}, and refers to {parent}.{end}, which is"
                    f" {other}.",
                    why,
                    safe=Safe(
                        why="The column gets its parent's type first, beside the"
                        " traffic; then the foreign key is added.",
                        patterns=(
                            ChangeColumnType(
                                table.name, column, other, to="…", schema=table.schema
                            ),
                        ),
                        decide="what the column is called from then on: `to`.",
                    ),
                    severity=Severity.WARNING,
                )


def _type(ref: Ref, column: str, scene: Scene, now: st.Statement | None) -> str:
    """Return a column's type without its modifiers; "" where it is not known."""
    for s in (now, *reversed(scene.earlier)):
        if (
            isinstance(s, st.AddColumn)
            and s.column.name == column
            and scene.is_same(s.table, ref)
        ):
            return _spelt(s.column.type)
    known = scene.table(ref)
    found = known.column(column) if known is not None else None
    return "" if found is None else _spelt(found.base or found.type)


def _spelt(type_: str) -> str:
    words = " ".join(re.sub(r"\([^)]*\)", " ", type_).lower().split())
    # What Alembic calls a type that the revision does not tell.
    return "" if words == "null" else _ALIASES.get(words, words)


def _differs(one: str, other: str, parent: Ref) -> str:
    """Return what is wrong about two types; "" where nothing is."""
    if not one or not other or one == other:
        return ""
    if one in _INTEGERS and other in _INTEGERS:
        if _INTEGERS.index(one) > _INTEGERS.index(other):
            return ""
        return (
            f"Rows of {parent} whose key is beyond {one} can have none that refer to"
            " them: such an INSERT fails."
        )
    if any({one, other} <= family for family in _FAMILIES):
        return ""
    return (
        f"It is compared as {other}, for which no index on the column serves: each"
        f" DELETE from {parent} reads the whole table."
    )
