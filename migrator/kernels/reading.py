"""What the expressions of a change read, and so may not change under them."""

import json
from collections.abc import Mapping

from psycopg import sql

from migrator.facts import Facts
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Probe, expression, render

# The key of what they read.
_READS = "reads"


def asked(
    facts: Facts, *texts: str, trial: tuple[str, ...] = ()
) -> Mapping[str, Probe]:
    """
    Return the question which columns and functions expressions over a row read.

    A trigger has them by their names: a column that is renamed under it would fail each
    write of the table. A function with another text would have it compute otherwise
    than the rows that are filled already.

    Args:
        facts: of the table.
        texts: SQL expressions.
        trial: statements that make a temporary table of the same name with the
            columns that the expressions read; none where the table has them.
    """
    if not texts:
        return {}
    table = facts.table.name
    read = sql.SQL(", ").join(
        sql.SQL("{} IS NULL AS {}").format(expression(text), sql.Identifier(f"c{n}"))
        for n, text in enumerate(texts)
    )
    view = sql.SQL("CREATE TEMP VIEW migrator_reads AS SELECT {} FROM {}").format(
        read, sql.Identifier("pg_temp" if trial else table.schema, table.name)
    )
    question = (
        "SELECT pg_catalog.jsonb_build_object('columns', COALESCE("
        "pg_catalog.jsonb_agg(DISTINCT a.attname) FILTER (WHERE a.attname IS NOT NULL),"
        " '[]'), 'functions', COALESCE(pg_catalog.jsonb_agg(DISTINCT"
        " pg_catalog.jsonb_build_array(n.nspname, pg_catalog.quote_ident(p.proname)"
        " || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')'))"
        " FILTER (WHERE p.oid IS NOT NULL), '[]'))::text"
        " FROM pg_catalog.pg_depend d"
        " JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
        " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid"
        " AND a.attnum = d.refobjsubid AND a.attnum > 0"
        " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " LEFT JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid"
        " AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
        " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
        " AND w.ev_class = 'pg_temp.migrator_reads'::pg_catalog.regclass"
    )
    return {
        _READS: Probe(
            statements=(*trial, render(view)), question=question, otherwise="none"
        )
    }


def footprints(facts: Facts, pattern: Pattern) -> tuple[Footprint, ...]:
    """
    Return what expressions read: it has to stay as it is, others may read it as well.

    Args:
        facts: of the table, with what the server said to `asked`; where it was not
            asked, words that are the names of columns count.
        pattern: whose expressions they are.
    """
    table = facts.table
    columns = pattern.mentioned() & {c.name for c in table.columns}
    functions: list[TableName] = []
    if answer := facts.texts.get(_READS):
        found = json.loads(answer)
        columns = frozenset(found["columns"]).difference(pattern.columns() or ())
        functions = [TableName(*name) for name in found["functions"]]
    read = [(table.name, columns)] if columns else []
    return tuple(
        Footprint(table=name, columns=part, needed=True)
        for name, part in (*read, *((name, None) for name in functions))
    )
