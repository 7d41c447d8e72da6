"""Change a column's type: in place where that is free, by a second column where not.

phase     statement                            lock on the table
expand    ALTER COLUMN TYPE (free)             ACCESS EXCLUSIVE, no scan
          ANALYZE of the column (free)         SHARE UPDATE EXCLUSIVE, a sample
          ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY (copies)   SHARE UPDATE EXCLUSIVE
          ANALYZE (copies by expressions)      SHARE UPDATE EXCLUSIVE, a sample
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          CREATE UNIQUE INDEX CONCURRENTLY     SHARE UPDATE EXCLUSIVE
          ADD CHECK, FOREIGN KEY NOT VALID     ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                  SHARE UPDATE EXCLUSIVE, full scan
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

Under a name of its own (`to`) each release has its type. Under the same name, the
type changes for both at once, which prepared statements notice.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import in_place, requirements, row_types
from migrator.kernels.mirror_columns import require_mirrorable
from migrator.kernels.parts import Part, require_unread
from migrator.kernels.two_shapes import TwoShapes
from migrator.plan import Notice, Phase, Probe, Steps


@dataclass(frozen=True, slots=True)
class ChangeColumnType(TwoShapes):
    """
    Make `column` of `table` one of `type`.

    Example:
        change = ChangeColumnType("items", "amount", "bigint", to="total")

    Args:
        table: the table's name, without its schema.
        column: the column of the old release.
        type: the new type in SQL, with its length or precision.
        to: the name in the new release; None keeps the name.
        up: SQL expression over `column` that makes the new value; a cast unless
            given.
        down: SQL expression over the new column (`to`, or `column` where the name
            stays) that makes the old value; a cast unless given.
        collation: of the new type, in SQL; None keeps the column's.
        default: SQL expression, of the new column from retire on; the old one's,
            cast, unless given.
        old_type: the type before, as the server spells it; only a downgrade after
            the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    type: str
    to: str | None = None
    _: KW_ONLY
    up: str | None = None
    down: str | None = None
    collation: str | None = None
    default: str | None = None
    old_type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        name = f' as "{self.to}"' if self.to else ""
        return (
            f'change the type of column "{self.column}" of table "{self.table}" to'
            f" {self.type}{name}"
        )

    def columns(self) -> frozenset[str]:
        """Return the column, by both names."""
        return frozenset({self.column, self.to or self.column})

    def expressions(self) -> tuple[str, ...]:
        """Return how each shape is made from the other."""
        return tuple(e for e in (self.up, self.down) if e is not None)

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """Return whether the change is free, and what its casts depend on."""
        column = facts.table.column(self.column)
        if column is None:
            return {}
        asked: dict[str, Probe] = {}
        if "time" in f"{column.type} {self.type}" and None in (self.up, self.down):
            asked = {
                "steady": in_place.is_steady(facts, self._up),
                "utc": in_place.IN_UTC,
            }
        if (self.to, self.up, self.down, self.default) == (None,) * 4:
            old = in_place.collated(column.type, column.collation)
            asked |= {
                "there": in_place.is_of_type(facts, column, self._new_kind),
                "free": in_place.is_free(facts, column, self._new_kind),
                "back": in_place.is_free(facts, column, self._new_kind, old),
            }
        return asked

    def _is_in_place(self, facts: Facts) -> bool:
        table, said = facts.table, facts.answers
        if self.to or table.column(self._shadow(facts)) or _retired(self, facts):
            return False
        steady = said.get("steady", True) or said["utc"]
        return said.get("there", False) or (said.get("free", False) and steady)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what neither way could carry over."""
        column = facts.table.require(self.column)
        if column.collation is not None and self.collation is None:
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} has the collation'
                f" {column.collation}, and the change does not say what becomes of it.",
                next=f"write collation='{column.collation}' to keep it, or"
                ' collation="" for that of the type.',
            )
        if not self._is_in_place(facts):
            return TwoShapes.check(self, facts)
        requirements.require_table(facts)
        require_mirrorable(facts, column, kept=(requirements.COLUMN_GRANTS,))
        require_unread(facts, column)
        if facts.answers["there"]:
            return (Notice(text="The column is of that type already."),)
        notices = [
            Notice(
                text="The change is free, and is made in place at expand: both"
                f' releases read the new type of "{self.column}" from then on, and a'
                " prepared statement that returns it fails in each session until it is"
                ' prepared anew ("cached plan must not change result type").',
                needs_assurance=True,
            ),
            Notice(text=row_types.RETYPED),
            Notice(
                text="The column's statistics go with its old type; ANALYZE follows at"
                " once, and until it ends plans may be worse."
            ),
        ]
        if not facts.answers["back"]:
            notices.append(Notice(text=f"Rolling back: {_STAYS}."))
        return self.assure(tuple(notices))

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Return what the second column does not cover."""
        column = facts.table.require(self.column)
        notices = [
            *TwoShapes.remarks(self, facts),
            Notice(
                text="What a cast drops is dropped: where the new type holds less"
                " (scale, fractions of a second), values are rounded as PostgreSQL"
                " rounds them."
            ),
        ]
        if not facts.answers.get("steady", True):
            notices.append(
                Notice(
                    text="A cast depends on the time zone: that of the engine's"
                    " connection counts, whatever the application's sessions have. To"
                    " be sure, write up and down, e.g. AT TIME ZONE 'UTC'.",
                    needs_assurance=True,
                )
            )
        if self.to is None:
            notices.append(
                Notice(
                    text=f'The name "{self.column}" stays: both releases read the old'
                    " type until retire and the new one afterwards, and a prepared"
                    " statement that returns it fails in each session until it is"
                    ' prepared anew ("cached plan must not change result type").',
                    needs_assurance=True,
                )
            )
            notices.append(Notice(text=row_types.RETYPED))
        notices += [
            Notice(
                text=f"Sequence {sequence} goes over to the new column and keeps its"
                " own type: ALTER SEQUENCE … AS where that has to change as well."
            )
            for sequence in column.sequences
        ]
        return tuple(notices)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of both casts; of a change in place the answers are known."""
        return () if self._is_in_place(facts) else TwoShapes.probes(self, facts)

    def steps(self, phase: Phase, facts: Facts) -> Steps:
        """Return the steps of one phase: of a change in place, those of expand."""
        if not self._is_in_place(facts):
            return TwoShapes.steps(self, phase, facts)
        if phase is not Phase.EXPAND or facts.answers["there"]:
            return ()
        column = facts.table.require(self.column)
        back = (
            in_place.collated(column.type, column.collation)
            if facts.answers["back"]
            else None
        )
        return in_place.change_type(
            facts, column, self._new_kind, back, no_reverse=_STAYS
        )

    def keeps(self) -> None:
        """Return None: its values are the same, and held to the same."""
        return

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column, cast back from the new one."""
        old = _retired(self, facts) or facts.table.column(self.column)
        kind = old.type if old else self.old_type or "text"
        cast = in_place.cast(self.to or self.column, kind)
        return (Part(name=self.column, value=self.down or cast, type=self.old_type),)

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the new type, cast from the old one."""
        old = _retired(self, facts) or facts.table.column(self.column)
        default = self.default
        if default is None and self.up is None and old and old.default is not None:
            default = f"({old.default})::{in_place.unlimited(self.type)}"
        return (
            Part(
                name=self.to or self._shadow(facts),
                value=self._up,
                type=self.type,
                collation=self.collation or None,
                takes=None if self.to else self.column,
                heir_of=self.column,
                default=default,
            ),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the old column; under the same name by a plain ALTER COLUMN TYPE."""
        if self.to is not None:
            return TwoShapes.rebuild(self, facts)
        if self.old_type is None:
            raise Refused(
                f"{self.title}: the type before is not known.",
                next="write old_type=… into the pattern.",
            )
        down = self.down or in_place.cast(self.column, self.old_type)
        return in_place.change_back(facts, self.column, self.old_type, down)

    def _shadow(self, facts: Facts) -> str:
        return names.owned("shadow", self.column, facts.tag)

    @property
    def _up(self) -> str:
        return self.up or in_place.cast(self.column, self.type)

    @property
    def _new_kind(self) -> sql.Composable:
        return in_place.collated(self.type, self.collation)


_STAYS = (
    "the column keeps the new type, which holds all that the old one does; the way"
    " back would rewrite the table under ACCESS EXCLUSIVE, so make it a change of its"
    " own"
)


def _retired(pattern: ChangeColumnType, facts: Facts) -> Column | None:
    return facts.table.column(names.owned("retired", pattern.column, facts.tag))
