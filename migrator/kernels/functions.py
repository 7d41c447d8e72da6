"""Functions and procedures made, replaced and dropped; no table is locked."""

from typing import LiteralString

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels import replaced
from migrator.names import TableName
from migrator.plan import Probe, Refusal, Transaction, render, type_name

# The text of a body is not looked into: what it names was there when it was written,
# in a search path that nobody knows.
_UNCHECKED = "SET LOCAL check_function_bodies = off"


def identifier(function: TableName) -> sql.Composed:
    """Return a function's name and arguments as SQL."""
    return sql.SQL("{}.{}").format(
        sql.Identifier(function.schema), type_name(function.name)
    )


def oid(function: TableName) -> sql.Composed:
    """Return the expression of a function's OID, NULL where there is none."""
    name = render(identifier(function))
    return sql.SQL("pg_catalog.to_regprocedure({})").format(sql.Literal(name))


def made(facts: Facts, text: str, *more: sql.Composable) -> Transaction:
    """Return the transaction that runs the user's text as the connection reads it."""
    return Transaction(
        statements=(
            replaced.path(facts),
            render(replaced.text(text)),
            *map(render, more),
        )
    )


def restored(
    facts: Facts, *more: sql.Composable, refusals: tuple[Refusal, ...] = ()
) -> Transaction:
    """Return the transaction that makes a function as it was."""
    return Transaction(
        statements=(
            # The first one runs before conditions are read.
            replaced.FULL_NAMES,
            _UNCHECKED,
            render(replaced.text(facts.definition)),
            *map(render, more),
        ),
        refusals=refusals,
    )


def changed(function: TableName, *known: str | None, next: str) -> tuple[Refusal, ...]:
    """
    Return the condition that a function is as the change made it, or as it was.

    Args:
        function: the function.
        known: what may be there, as the server spells it under the path under which
            the condition is read, "" for no function; the first is what the change
            made, None where it is not known.
        next: what to do where it is another one.
    """
    found = sql.SQL("(SELECT {})").format(_definition(function))
    what = f"function {function.name} of schema {function.schema}"
    return replaced.changed(what, found, *known, next=next)


def _definition(function: TableName) -> sql.Composed:
    return sql.SQL("pg_catalog.pg_get_functiondef({})").format(oid(function))


def drop(
    facts: Facts, function: TableName, next: str, *refusals: Refusal
) -> Transaction:
    """Return the drop of a function on which nothing depends."""
    used = sql.SQL(
        "SELECT count(DISTINCT (d.classid, d.objid)) FROM pg_catalog.pg_depend d"
        " WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
        " AND d.refobjid = {} AND d.deptype = 'n'"
    ).format(oid(function))
    return Transaction(
        statements=(
            replaced.path(facts),
            render(sql.SQL("DROP ROUTINE {}").format(identifier(function))),
        ),
        refusals=(
            Refusal(
                count=render(used),
                why=f"{{count:other object depends|other objects depend}}"
                f" on function {function.name}",
                next=next,
            ),
            *refusals,
        ),
    )


def readings(
    facts: Facts, function: TableName, text: str, *, path: str
) -> dict[str, Probe]:
    """
    Return what the server makes of a text.

    Keys: `made`, the function's definition as the server spells it; `differs`, which
    of its attributes are others than those of the function that is there.

    Args:
        facts: with the function that is there.
        function: the one that the text makes.
        text: the statement of the user.
        path: the search path under which the definition is spelt.
    """
    new = oid(function)
    return {
        "made": Probe(
            statements=(render(replaced.text(text)), path),
            question=render(sql.SQL("SELECT {}").format(_definition(function))),
            otherwise="no",
        ),
        "differs": Probe(
            statements=(_copied(facts.table.name), render(replaced.text(text))),
            question=render(
                sql.SQL(
                    "SELECT pg_catalog.string_agg(was || ' becomes ' || now, ', ')"
                    " FROM pg_temp.migrator_trial t, pg_catalog.pg_proc p,"
                    " unnest({was}, {now}) AS one (was, now)"
                    " WHERE p.oid = {new} AND was <> now"
                ).format(was=_attributes("t"), now=_attributes("p"), new=new)
            ),
            otherwise="no",
        ),
    }


def _copied(function: TableName) -> str:
    """Return the statement that keeps what the catalogue has of a function."""
    return render(
        sql.SQL(
            "CREATE TEMP TABLE migrator_trial AS SELECT *"
            " FROM pg_catalog.pg_proc WHERE oid = {}"
        ).format(oid(function))
    )


def _attributes(row: LiteralString) -> sql.Composed:
    """Return the expression of a function's attributes, as its definition has them."""
    return sql.SQL(
        "ARRAY["
        "'LANGUAGE ' || (SELECT lanname FROM pg_catalog.pg_language l"
        " WHERE l.oid = {row}.prolang),"
        "CASE {row}.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE'"
        " ELSE 'VOLATILE' END,"
        "CASE WHEN {row}.proisstrict THEN 'STRICT' ELSE 'CALLED ON NULL INPUT' END,"
        "CASE WHEN {row}.prosecdef THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END,"
        "CASE WHEN {row}.proleakproof THEN 'LEAKPROOF' ELSE 'NOT LEAKPROOF' END,"
        "CASE {row}.proparallel WHEN 's' THEN 'PARALLEL SAFE'"
        " WHEN 'r' THEN 'PARALLEL RESTRICTED' ELSE 'PARALLEL UNSAFE' END,"
        "'COST ' || {row}.procost,"
        "'ROWS ' || {row}.prorows,"
        "CASE WHEN {row}.prosupport = 0 THEN 'no SUPPORT'"
        " ELSE 'SUPPORT ' || {row}.prosupport::pg_catalog.regproc END,"
        "COALESCE('SET ' || pg_catalog.array_to_string({row}.proconfig, ', SET '),"
        " 'no SET')]"
    ).format(row=sql.SQL(row))


def questions(facts: Facts, function: TableName, text: str) -> dict[str, Probe]:
    """
    Return what a text is like, beside the function that is there.

    Keys: `defined` where it makes that function at all; `secure` where it keeps
    SECURITY DEFINER and the parameters that are set; `apart` where no call of the one
    can mean the other; `unstored` where nothing that is stored was computed by the
    function that is there.

    Args:
        facts: with the function that is there.
        function: the one that the text makes.
        text: the statement of the user.
    """
    old, new = oid(facts.table.name), oid(function)

    def asked(question: LiteralString) -> Probe:
        return Probe(
            statements=(_copied(facts.table.name), render(replaced.text(text))),
            question=render(sql.SQL(question).format(new=new)),
            otherwise="no",
        )

    return {
        "secure": asked(
            "SELECT p.prosecdef >= t.prosecdef"
            " AND COALESCE(p.proconfig @> t.proconfig, t.proconfig IS NULL)"
            " FROM pg_temp.migrator_trial t, pg_catalog.pg_proc p WHERE p.oid = {new}"
        ),
        "apart": asked(
            "SELECT p.provariadic = 0 AND"
            " t.pronargs NOT BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs"
            " FROM pg_temp.migrator_trial t, pg_catalog.pg_proc p WHERE p.oid = {new}"
        ),
        "defined": makes(function, text, otherwise="no"),
        "unstored": Probe(
            statements=(),
            question=render(
                sql.SQL(
                    "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
                    " LEFT JOIN pg_catalog.pg_class c ON c.oid = d.objid"
                    " AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
                    " LEFT JOIN pg_catalog.pg_attrdef e ON e.oid = d.objid"
                    " AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass"
                    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = e.adrelid"
                    " AND a.attnum = e.adnum"
                    " WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
                    " AND d.refobjid = {} AND (c.relkind IN ('i', 'I', 'r', 'p', 'm')"
                    " OR a.attgenerated = 's' OR d.classid"
                    " = 'pg_catalog.pg_constraint'::pg_catalog.regclass))"
                ).format(old)
            ),
            otherwise="no",
        ),
    }


def makes(function: TableName, text: str, **messages: str) -> Probe:
    """Return the trial that a text makes a function, or replaces it."""
    return Probe(
        statements=(render(replaced.text(text)),),
        question=render(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid = {}"
                " AND xmin = pg_catalog.pg_current_xact_id()::xid)"
            ).format(oid(function))
        ),
        **messages,
    )


def goes_back(facts: Facts, text: str, **messages: str) -> Probe:
    """Return the trial that the function can be replaced again by what it was."""
    return Probe(
        statements=(render(replaced.text(text)), *restored(facts).statements),
        question="SELECT true",
        otherwise="no",
        **messages,
    )
