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

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels.two_shapes import Part, TwoShapes
from migrator.plan import Notice, Probe, expression, render

# Documents that are taken there and back: some thousand long ones take a second.
SAMPLE_ROWS = 1000


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
                text=f"At most {SAMPLE_ROWS} rows are taken there and back before the"
                " change; verification compares all."
            )
        ]
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

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trials of the expressions, and of a sample there and back."""
        share = 100 * 2 * SAMPLE_ROWS / max(facts.table.rows, 1)
        sample = sql.SQL("TABLESAMPLE SYSTEM ({}) LIMIT {}").format(
            sql.Literal(min(100.0, share)), sql.Literal(SAMPLE_ROWS)
        )
        (old,) = self.old_parts(facts)
        (new,) = self.new_parts(facts)
        trial = sql.Identifier("pg_temp", facts.table.name.name)
        made = sql.SQL("UPDATE {} SET {} = {}").format(
            trial, sql.Identifier(self.to), expression(new.value)
        )
        question = sql.SQL(
            "WITH tried AS (SELECT {given}::pg_catalog.jsonb AS given,"
            " {back}::pg_catalog.jsonb AS back FROM {trial}), lost AS"
            " (SELECT given, back FROM tried WHERE given IS DISTINCT FROM back)"
            " SELECT CASE WHEN EXISTS (SELECT FROM lost) THEN pg_catalog.concat("
            "(SELECT count(*) FROM lost), ' of ', (SELECT count(*) FROM tried),"
            " ' rows of a sample', (SELECT ', in the keys ' ||"
            " pg_catalog.string_agg(DISTINCT pg_catalog.to_json(key)::text, ', ')"
            " FROM lost, LATERAL (SELECT pg_catalog.jsonb_object_keys(doc) AS key"
            " FROM (VALUES (given), (back)) AS docs (doc)"
            " WHERE pg_catalog.jsonb_typeof(doc) = 'object') AS keys"
            " WHERE (given -> key) IS DISTINCT FROM (back -> key)))"
            " ELSE '' END"
        ).format(
            given=sql.Identifier(self.column), back=expression(old.value), trial=trial
        )
        return (
            *TwoShapes.probes(self, facts),
            Probe(
                statements=(*map(render, self.trial(facts, sample)), render(made)),
                question=render(question),
                otherwise=f"{self.title}: documents do not come back as they were from"
                " the way there and back, {found}.",
                next="let `down` give back all that `up` takes; where the loss is"
                " meant, use TransformColumn, which keeps what either side wrote last.",
            ),
        )

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the old release."""
        down = self.down or self._moved(
            self.to,
            {new: old for old, new in self.rename.items()},
            self.add,
            self.remove,
        )
        return (Part(name=self.column, value=down, type=self.old_type),)

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the new release, in the old one's place."""
        up = self.up or self._moved(
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

    def _moved(
        self,
        column: str,
        rename: Mapping[str, str],
        gone: Mapping[str, str],
        given: Mapping[str, str],
        kept: str | None = None,
    ) -> str:
        """Return the document of a column with its keys moved; others stay."""
        document = _document(column)

        def parts() -> Iterator[sql.Composable]:
            taken = sql.SQL(", ").join(map(sql.Literal, (*rename, *gone)))
            yield sql.SQL("({} OPERATOR(pg_catalog.-) ARRAY[{}]::text[])").format(
                document, taken
            )
            for key, wanted in rename.items():
                yield _copied(document, key, wanted)
            for key, value in given.items():
                yield sql.SQL("pg_catalog.jsonb_build_object({}, {})").format(
                    sql.Literal(key), expression(value)
                )
                if kept is not None:
                    yield _copied(_document(kept), key, key)

        return render(
            # A key cannot be taken from a scalar, and an array would grow by one.
            sql.SQL(
                "CASE WHEN pg_catalog.jsonb_typeof({0}) = 'object'"
                " THEN {1} ELSE {0} END"
            ).format(document, sql.SQL(" OPERATOR(pg_catalog.||) ").join(parts()))
        )


def _document(column: str) -> sql.Composable:
    return sql.SQL("{}::pg_catalog.jsonb").format(sql.Identifier(column))


def _copied(document: sql.Composable, key: str, wanted: str) -> sql.Composable:
    """Return an object of one key of a document; empty where it has none."""
    value = sql.SQL("({} OPERATOR(pg_catalog.->) {})").format(
        document, sql.Literal(key)
    )
    return sql.SQL(
        "CASE WHEN {0} IS NOT NULL THEN pg_catalog.jsonb_build_object({1}, {0})"
        " ELSE '{{}}' END"
    ).format(value, sql.Literal(wanted))
