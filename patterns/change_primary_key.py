"""Widen a primary key and all that refers to it: int to bigint, under the same name.

phase     statement                            lock on each of the tables
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
verify    count of rows out of step, orphans   ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (copies)   SHARE UPDATE EXCLUSIVE, two scans
          ANALYZE (copies by expressions)      SHARE UPDATE EXCLUSIVE, a sample
          ADD CHECK NOT VALID (if NOT NULL)    ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                  SHARE UPDATE EXCLUSIVE, full scan
          names, keys, sequences exchanged     ACCESS EXCLUSIVE on all, no scan
          VALIDATE CONSTRAINT (keys, checks)   SHARE UPDATE EXCLUSIVE, full scan
drop      DROP COLUMN of the former columns    ACCESS EXCLUSIVE, no scan

The columns are exchanged in one transaction over all tables: a key and a foreign key
to it cannot be apart for an instant. Both releases write the same integers, so that
the wider columns stay out of their sight until then.

Source: PostgreSQL manual, ALTER TABLE, Notes; ADD table_constraint_using_index.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.kernels import dropping, index_copies, requirements, row_types, wider_key
from migrator.kernels.mirror_columns.widened import BITS
from migrator.pattern import Pattern
from migrator.plan import (
    Autocommit,
    Footprint,
    Lock,
    Notice,
    Probe,
    State,
    Step,
    Steps,
    render,
    type_name,
)

_SPELT = {"int2": "smallint", "int": "integer", "int4": "integer", "int8": "bigint"}


@dataclass(frozen=True, slots=True)
class ChangePrimaryKey(Pattern):
    """
    Make a primary key's `column` and the columns that refer to it wider.

    Example:
        change = ChangePrimaryKey("users", "id", assured="reads ids as int64")

    Args:
        table: the table's name, without its schema.
        column: an integer column of its primary key, or of another key.
        to: the wider type: "bigint", or "integer" where the column is smallint.
        old_type: the type before; only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    to: str = "bigint"
    _: KW_ONLY
    old_type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'change the primary key "{self.column}" of table "{self.table}" to'
            f" {self.to}, with what refers to it"
        )

    @property
    def admission(self) -> State:
        """From expanded: the column has its name, and the old type until retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the tables that refer to the column, and those that refer to them."""
        return tuple(
            (t.name, t.schema) for t in wider_key.referring(known, self.column)
        )

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns on either end of a key, and what stands beside them."""
        return self._key(facts).footprints()

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column that is no key or as wide already, and what hangs on it."""
        column = facts.table.require(self.column)
        key = self._key(facts)
        where = f'Column "{column.name}" of table {facts.table.name}'
        keys = (k for k in facts.table.constraints if k.kind in ("p", "u"))
        if not any(column.name in k.columns for k in keys):
            raise Refused(
                f"{where} is in no primary or unique key of the table.",
                next="use ChangeColumnType.",
            )
        if BITS.get(column.type, 0) >= BITS[key.type]:
            raise Refused(
                f"{where} is of type {column.type}, which {key.type} does not widen.",
                next='write to="bigint", or leave the column as it is.',
            )
        wider_key.require(key)
        name = f'"{column.name}"'
        along = [
            f'"{c.name}" of table {p.table.name}'
            for p in key.parts()
            for c in p.columns
            if (p.table.name, c.name) != (facts.table.name, column.name)
        ]
        texts = [
            f"Wider become with it: {', '.join(along)}."
            if along
            else "No column of another table refers to it.",
            "Columns that hold such values without a foreign key stay as they are.",
            f"Until retire a value that {column.type} cannot hold is refused, whichever"
            " release writes it.",
            "Going back from retired builds the indexes of the former columns first,"
            " and from then on refuses values that they cannot hold.",
            "An identity gets a new sequence of the same name, which goes on where the"
            " former one stood; currval() of a session is unset until its next number.",
            row_types.RETYPED,
        ]
        hazards = [
            f"The name {name} stays: both releases read {column.type} until retire"
            f" and {key.type} afterwards, and a prepared statement that returns such a"
            ' column fails in each session until it is prepared anew ("cached plan must'
            f' not change result type"). A function that returns it as {column.type}'
            " fails until it is made anew.",
            "From retire on these columns are the last of their tables: SELECT * and"
            " COPY without a column list see another order, and an INSERT without one"
            " puts values elsewhere.",
            "While retire builds and exchanges, each key has two unique indexes: of two"
            " sessions that INSERT … ON CONFLICT the same new key at once, one may"
            " fail with a unique violation.",
        ]
        hazards += [
            f'Key "{found.name}" of table {p.table.name} is deferrable: while retire'
            " builds and exchanges, its copy is checked at once, and an update that has"
            " duplicates until its transaction's end fails."
            for p in key.parts()
            for _, found in p.indexes()
            if found and found.deferrable
        ]
        return self.assure(
            (
                *(Notice(text=t) for t in texts),
                *(Notice(text=t, needs_assurance=True) for t in hazards),
                *(
                    notice
                    for p in key.parts()
                    for notice in (
                        *requirements.backfill_notices(
                            p.facts, *(c.shadow for c in p.columns)
                        ),
                        *requirements.publication_notices(p.facts),
                        *row_types.comes(p.facts, until="the drop"),
                    )
                    if p.columns
                ),
            )
        )

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the questions how indexes are spelt over the columns behind."""
        asked: dict[str, Probe] = {}
        for part in self._key(facts).parts():
            given = (part.shadows, part.retired)
            asked |= index_copies.asked(part.facts, *given)
        return asked

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the indexes over the wider type."""
        return wider_key.trials(self._key(facts))

    def expand(self, facts: Facts) -> Steps:
        """Return the wider columns with the dual write."""
        return wider_key.expand(self._key(facts))

    def backfill(self, facts: Facts) -> Steps:
        """Return the copies of existing rows."""
        return wider_key.backfill(self._key(facts))

    def verify(self, facts: Facts) -> Steps:
        """Return the comparisons."""
        return wider_key.verify(self._key(facts))

    def retire(self, facts: Facts) -> Steps:
        """Return the indexes, the proofs and the exchange."""
        return wider_key.retire(self._unread(facts))

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the former columns."""
        return wider_key.drop(self._unread(facts))

    def rebuild(self, facts: Facts) -> Steps:
        """Return plain changes of type, which rewrite the tables."""
        if self.old_type is None:
            raise Refused(
                f"{self.title}: the type before is not known.",
                next="write old_type=… into the pattern.",
            )
        wide = sorted(wider_key.linked((facts.table, *facts.others), self.column))
        return tuple(
            step
            for table in (facts.table, *facts.others)
            for at, column in wide
            if at == table.name
            for step in _narrowed(table, column, self._spelt(self.old_type))
        )

    def _unread(self, facts: Facts) -> wider_key.WiderKey:
        """Return the key, where nothing came to read the former columns since."""
        key = self._key(facts)
        for part in key.parts():
            dropping.require_unread(part.facts, *(c.name for c in part.columns))
        return key

    def _key(self, facts: Facts) -> wider_key.WiderKey:
        wanted = self._spelt(self.to)
        if wanted not in BITS:
            raise Refused(
                f"{self.title}: {self.to} is no wider integer type.",
                next='write to="bigint".',
            )
        return wider_key.WiderKey(self.title, facts, self.column, wanted)

    @staticmethod
    def _spelt(kind: str) -> str:
        return _SPELT.get(kind.lower(), kind.lower())


def _narrowed(table: Table, name: str, kind: str) -> Steps:
    """Return the change of one column's type, and of its sequences'."""
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
        table.name.identifier, sql.Identifier(name), type_name(kind)
    )
    sequences = [
        sql.SQL("ALTER SEQUENCE {} AS {}").format(c.name.identifier, type_name(kind))
        for c in table.require(name).counters
        # An identity's goes along with its column.
        if c.always is None
    ]
    # Not catalogue steps: they may take as long as they take.
    return tuple(
        Step(
            name=f"change_back_{n} {name} {table.name}",
            work=Autocommit(
                statement=render(statement),
                lock=Lock.ACCESS_EXCLUSIVE,
                table=table.name,
                scans=True,
            ),
            no_reverse="upgrade again",
        )
        for n, statement in enumerate((alter, *sequences), 1)
    )
