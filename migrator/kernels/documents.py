"""Documents of json and jsonb columns: their keys moved, and tried there and back.

Source: PostgreSQL manual, section 9.16, JSON Functions and Operators.
"""

from collections.abc import Iterator, Mapping

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels.parts import Part
from migrator.plan import Probe, expression, render

# Documents that are taken there and back: some thousand long ones take a second.
SAMPLE_ROWS = 1000


def moved(
    column: str,
    rename: Mapping[str, str],
    gone: Mapping[str, str],
    given: Mapping[str, str],
    kept: str | None = None,
) -> str:
    """
    Return the expression of a column's document with some of its keys moved.

    Other keys stay as they are, and so does what is no object.

    Args:
        column: the column.
        rename: keys, and what they are called afterwards.
        gone: keys that go; what stands behind them is not read.
        given: keys that come, each with the SQL expression of its value.
        kept: the column whose own values of these keys go before.
    """
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
            "CASE WHEN pg_catalog.jsonb_typeof({0}) = 'object' THEN {1} ELSE {0} END"
        ).format(document, sql.SQL(" OPERATOR(pg_catalog.||) ").join(parts()))
    )


def sample(facts: Facts) -> sql.Composable:
    """Return what follows the table's name in a query of some rows of it."""
    # Twice as many blocks as needed: LIMIT takes the first of those that were drawn.
    share = 100 * 2 * SAMPLE_ROWS / max(facts.table.rows, 1)
    return sql.SQL("TABLESAMPLE SYSTEM ({}) LIMIT {}").format(
        sql.Literal(min(100.0, share)), sql.Literal(SAMPLE_ROWS)
    )


def there_and_back(
    title: str, facts: Facts, made: tuple[sql.Composable, ...], *, up: Part, down: Part
) -> Probe:
    """
    Return the trial that documents come back as they were.

    Args:
        title: the change's, for the message.
        facts: of the table.
        made: statements that make a temporary table of its name, with some rows.
        up: the column of the new documents.
        down: the column of the old ones.
    """
    trial = sql.Identifier("pg_temp", facts.table.name.name)
    fill = sql.SQL("UPDATE {} SET {} = {}").format(
        trial, sql.Identifier(up.name), expression(up.value)
    )
    question = sql.SQL(
        # As text: for jsonb 1.0 and 1.00 are equal.
        "WITH tried AS (SELECT {given}::pg_catalog.jsonb AS given,"
        " {back}::pg_catalog.jsonb AS back FROM {trial}), lost AS"
        " (SELECT given, back FROM tried WHERE given::text IS DISTINCT FROM back::text)"
        " SELECT CASE WHEN EXISTS (SELECT FROM lost) THEN pg_catalog.concat("
        "(SELECT count(*) FROM lost), ' of ', (SELECT count(*) FROM tried),"
        " ' rows of a sample', (SELECT ', in the keys ' ||"
        " pg_catalog.string_agg(DISTINCT pg_catalog.to_json(key)::text, ', ')"
        " FROM lost, LATERAL (SELECT pg_catalog.jsonb_object_keys(doc) AS key"
        " FROM (VALUES (given), (back)) AS docs (doc)"
        " WHERE pg_catalog.jsonb_typeof(doc) = 'object') AS keys"
        " WHERE (given OPERATOR(pg_catalog.->) key)::text"
        " IS DISTINCT FROM (back OPERATOR(pg_catalog.->) key)::text)) ELSE '' END"
    ).format(given=sql.Identifier(down.name), back=expression(down.value), trial=trial)
    return Probe(
        statements=(*map(render, made), render(fill)),
        question=render(question),
        otherwise=f"{title}: documents do not come back as they were from the way there"
        " and back, {found}.",
        next="let `down` give back all that `up` takes; where the loss is meant, use"
        " TransformColumn, which keeps what either side wrote last.",
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
