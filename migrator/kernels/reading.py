"""What the expressions of a change read, and so may not change under them.

Source: PostgreSQL manual, section 41.5 (the same of functions: what a trigger calls is
called with the rights of whoever writes); CREATE FUNCTION, Notes.
"""

import json
from collections.abc import Mapping

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Probe, expression, render

# The key of what they read.
_READS = "reads"

# Who writes a table as far as grants tell, and may not call a function. An expression
# in a trigger is read anew in each session, which looks its names up in schemas.
_DENIED = (
    "SELECT CASE w.role WHEN 0 THEN 'PUBLIC' ELSE"
    " pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(w.role)) END AS role, may.what"
    " FROM (SELECT relowner FROM pg_catalog.pg_class WHERE oid = {table}"
    " UNION SELECT a.grantee FROM pg_catalog.pg_class c,"
    " pg_catalog.aclexplode(c.relacl) a"
    " WHERE c.oid = {table} AND a.privilege_type IN ('INSERT', 'UPDATE')"
    " UNION SELECT a.grantee FROM pg_catalog.pg_attribute c,"
    " pg_catalog.aclexplode(c.attacl) a"
    " WHERE c.attrelid = {table} AND a.privilege_type IN ('INSERT', 'UPDATE')"
    ") AS w (role) CROSS JOIN LATERAL (VALUES"
    " (pg_catalog.has_function_privilege(w.role, p.oid, 'EXECUTE'),"
    " 'EXECUTE ON FUNCTION ' || pg_catalog.quote_ident(n.nspname) || '.'"
    " || pg_catalog.quote_ident(p.proname) || '('"
    " || pg_catalog.oidvectortypes(p.proargtypes) || ')'),"
    " (NOT {by_name} OR pg_catalog.has_schema_privilege(w.role, n.oid, 'USAGE'),"
    " 'USAGE ON SCHEMA ' || pg_catalog.quote_ident(n.nspname))) AS may (it, what)"
    " WHERE NOT may.it"
)


def asked(
    facts: Facts, *texts: str, trial: tuple[str, ...] = (), by_name: bool = True
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
        by_name: whether a trigger computes them, and not the server itself.
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
    denied = sql.SQL(_DENIED).format(
        table=sql.SQL("{}::pg_catalog.regclass").format(sql.Literal(str(table))),
        by_name=sql.SQL("true" if by_name else "false"),
    )
    question = sql.SQL(
        "SELECT pg_catalog.jsonb_build_object('columns', COALESCE("
        "pg_catalog.jsonb_agg(DISTINCT a.attname) FILTER (WHERE a.attname IS NOT NULL),"
        " '[]'), 'functions', COALESCE(pg_catalog.jsonb_agg(DISTINCT"
        " pg_catalog.jsonb_build_array(n.nspname, pg_catalog.quote_ident(p.proname)"
        " || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')'))"
        " FILTER (WHERE p.oid IS NOT NULL), '[]'), 'denied', COALESCE("
        "pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_array(x.what, x.role))"
        " FILTER (WHERE x.role IS NOT NULL), '[]'))::text"
        " FROM pg_catalog.pg_depend d"
        " JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
        " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid"
        " AND a.attnum = d.refobjsubid AND a.attnum > 0"
        " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " LEFT JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid"
        " AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
        " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " LEFT JOIN LATERAL ({}) AS x ON p.oid IS NOT NULL"
        " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
        " AND w.ev_class = 'pg_temp.migrator_reads'::pg_catalog.regclass"
    ).format(denied)
    return {
        _READS: Probe(
            statements=(*trial, render(view)),
            question=render(question),
            otherwise="none",
        )
    }


def require_callable(title: str, facts: Facts) -> None:
    """
    Refuse an expression with a function that some who write the table may not call.

    Their writes would fail from expand on.

    Args:
        title: the change's, for the message.
        facts: of the table, with what the server said to `asked`.

    Raises:
        Refused: a privilege is missing.
    """
    answer = facts.texts.get(_READS)
    denied: list[list[str]] = json.loads(answer)["denied"] if answer else []
    if denied:
        raise Refused(
            f"{title}: whoever writes table {facts.table.name} calls the functions of"
            " the expressions, and "
            + "; ".join(f"{role} has no {what}" for what, role in denied)
            + ".",
            next="; ".join(f"GRANT {what} TO {role}" for what, role in denied) + ".",
        )


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
