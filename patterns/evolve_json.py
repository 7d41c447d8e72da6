"""Change the shape of a json column's documents while both shapes are in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY (copies)   SHARE UPDATE EXCLUSIVE
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          ADD CHECK NOT VALID (if NOT NULL)    ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                  SHARE UPDATE EXCLUSIVE, full scan
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

Each release reads its own shape, which no single column could give to both. Keys that
the change does not name go across as they are. Before anything is changed, documents
of a sample are taken there and back, and have to come back whole.

Source: PostgreSQL manual, section 9.16, JSON Functions and Operators.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import documents
from migrator.kernels.parts import Part
from migrator.kernels.two_shapes import TwoShapes
from migrator.plan import Notice, Probe


@dataclass(frozen=True, slots=True)
class EvolveJson(TwoShapes):
    """
    Make of the documents in `column` of `table` those in the column `to`.

    Example:
        change = EvolveJson(
            "events",
            "payload",
            "payload_v2",
            rename={"name": "full_name"},
            add={"currency": "'EUR'", "version": "2"},
            remove={"version": "1"},
        )

    Args:
        table: the table's name, without its schema.
        column: the column of the old release, of type json or jsonb.
        to: the column of the new release.
        rename: top-level keys of the old documents, and what the new ones call them.
        add: keys of the new documents, each with the SQL expression of its value;
            one that the new release wrote stays when the old release writes.
        remove: keys of the old documents, each with the SQL expression of the value
            that the old release finds in a row of the new one.
        up: instead of the three, the SQL expression that makes the new document.
        down: the SQL expression that makes the old document, from `to`.
        type: of `to`, in SQL.
        default: SQL expression, of `to` from retire on; asked for where `column`
            has a default.
        old_type: the type of `column`; only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    to: str
    _: KW_ONLY
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    add: Mapping[str, str] = field(default_factory=dict[str, str])
    remove: Mapping[str, str] = field(default_factory=dict[str, str])
    up: str | None = None
    down: str | None = None
    type: str = "jsonb"
    default: str | None = None
    old_type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'evolve the documents of column "{self.column}" of table "{self.table}"'
            f' into "{self.to}"'
        )

    def columns(self) -> frozenset[str]:
        """Return both columns."""
        return frozenset({self.column, self.to})

    def expressions(self) -> tuple[str, ...]:
        """Return how each shape is made from the other."""
        whole = tuple(e for e in (self.up, self.down) if e is not None)
        return (*whole, *self.add.values(), *self.remove.values())

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is no document, and moves that contradict each other."""
        column = facts.table.require(self.column)
        kind = column.base or column.type
        if kind not in ("json", "jsonb"):
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} is of type {kind},'
                " which is neither json nor jsonb.",
                next="use TransformColumn, which takes any type.",
            )
        moves = [*self.rename, *self.add, *self.remove]
        whole = (self.up, self.down)
        if bool(moves) == any(whole) or (any(whole) and not all(whole)):
            raise Refused(
                f"{self.title}: it takes either keys or two expressions.",
                next="give rename=, add= and remove=, or both up= and down=.",
            )
        for keys in ([*self.rename, *self.remove], [*self.rename.values(), *self.add]):
            twice = [key for key in keys if keys.count(key) > 1]
            if twice:
                raise Refused(
                    f'{self.title}: the key "{twice[0]}" is named twice.',
                    next="say once what becomes of it.",
                )
        return TwoShapes.check(self, facts)

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Return what a sample cannot tell, and what stays with the old column."""
        notices = [
            Notice(
                text=f"At most {documents.SAMPLE_ROWS} rows are taken there and back"
                " before the change; verification compares all."
            )
        ]
        column = facts.table.require(self.column)
        if (column.base or column.type) == "json" and self.type != "json":
            notices.append(
                Notice(
                    text=f"{self.type} keeps the last value of a key that a document"
                    " has twice, and neither the order of keys nor how they were"
                    " written. The rest of it is kept up to the drop."
                )
            )
        notices += [
            Notice(
                text=f'Index "{index.name}" reads the documents by an expression or'
                " predicate: it goes at the drop. Build its like on the new column"
                " before the new release is let in."
            )
            for table in facts.table.leaves
            for index in table.indexes
            if not index.plain and self.column in index.columns
        ]
        # Zero arguments would need the class before `slots` made it anew.
        return (*notices, *TwoShapes.remarks(self, facts))

    def there_and_back(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial whether documents come back, whose loss is refused."""
        (old,), (new,) = self.old_parts(facts), self.new_parts(facts)
        return (
            documents.there_and_back(
                self.title,
                facts,
                self.trial(facts, documents.sample(facts)),
                up=new,
                down=old,
            ),
        )

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the old release."""
        back = {new: old for old, new in self.rename.items()}
        down = self.down or documents.moved(self.to, back, self.add, self.remove)
        return (Part(name=self.column, value=down, type=self.old_type),)

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the new release, in the old one's place."""
        up = self.up or documents.moved(
            self.column, self.rename, self.remove, self.add, kept=self.to
        )
        return (
            Part(
                name=self.to,
                value=up,
                type=self.type,
                heir_of=self.column,
                default=self.default,
                bare_of_expressions=True,
            ),
        )
