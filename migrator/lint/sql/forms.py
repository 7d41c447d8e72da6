"""The forms of statements, by their first words."""

from collections.abc import Callable, Iterator

from migrator.lint import statements as st
from migrator.lint.sql.columns import constraint
from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.sql.keys import keys, storage
from migrator.lint.sql.rows import change_rows, copy, with_queries
from migrator.lint.sql.tables import alter_table, create_table
from migrator.lint.sql.tokens import Kind
from migrator.lint.statements import Ref, Statement

Found = Iterator[Statement]

# Kinds of things that CREATE, DROP and ALTER name and that are no tables.
_OBJECTS = (
    "TYPE", "SEQUENCE", "FUNCTION", "PROCEDURE", "AGGREGATE", "ROUTINE", "DOMAIN",
    "COLLATION", "EXTENSION", "SCHEMA", "STATISTICS",
)  # fmt: skip
_TABLE_LIKE = ("TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW", "VIEW")


def read(c: Cursor) -> Found:
    """
    Read a statement.

    Args:
        c: stands before it.

    Raises:
        UnreadError: its form is not known.
    """
    first = c.token.word
    if first in _FORMS:
        c.take(first)
        yield from _FORMS[first](c)


# -- CREATE


def _create(c: Cursor) -> Found:
    replaces = bool(c.take("OR REPLACE"))
    unique = bool(c.take("UNIQUE"))
    if c.take("INDEX"):
        yield _create_index(c, unique=unique)
        return
    c.take("GLOBAL", "LOCAL")
    temporary = bool(c.take("TEMPORARY", "TEMP"))
    c.take("UNLOGGED", "CONSTRAINT", "RECURSIVE")
    match c.take(*_TABLE_LIKE, "TRIGGER", "POLICY"):
        case "TABLE" | "FOREIGN TABLE":
            yield create_table(c, temporary=temporary)
        case "TRIGGER":
            name = c.name()
            c.upto_words("ON")
            c.expect("ON")
            yield st.ChangeTrigger(table=c.ref(), how="CREATE", name=name)
        case "POLICY":
            yield _policy(c, "CREATE POLICY")
        case "VIEW" | "MATERIALIZED VIEW":
            c.take("IF NOT EXISTS")
            yield st.CreateView(view=c.ref(), replaces=replaces)
        case _:
            raise UnreadError


def _create_index(c: Cursor, *, unique: bool) -> Statement:
    concurrently = bool(c.take("CONCURRENTLY"))
    exists = bool(c.take("IF NOT EXISTS"))
    name = None if c.sees("ON") else c.name()
    c.expect("ON")
    only = bool(c.take("ONLY"))
    table = c.ref()
    method = c.name() if c.take("USING") else "btree"
    on = keys(c.group())
    include: tuple[str, ...] = ()
    where, tablespace, distinct = None, None, True
    parameters: tuple[tuple[str, str], ...] = ()
    while taken := c.take(
        "INCLUDE", "NULLS NOT DISTINCT", "NULLS DISTINCT", "WITH", "TABLESPACE", "WHERE"
    ):
        match taken:
            case "INCLUDE":
                include = c.names()
            case "NULLS NOT DISTINCT":
                distinct = False
            case "WITH":
                parameters = storage(c.group())
            case "TABLESPACE":
                tablespace = c.name()
            case "WHERE":
                where = c.rest()
            case _:
                pass
    return st.CreateIndex(
        table=table,
        name=name,
        keys=on,
        unique=unique,
        concurrently=concurrently,
        if_not_exists=exists,
        only=only,
        method=method,
        where=where,
        include=include,
        nulls_not_distinct=not distinct,
        storage=parameters,
        tablespace=tablespace,
    )


def _policy(c: Cursor, how: str) -> Statement:
    c.take("IF EXISTS")
    name = c.name()
    c.expect("ON")
    return st.ChangePolicy(table=c.ref(), how=how, name=name)


# -- DROP


def _drop(c: Cursor) -> Found:
    kind = c.take("TRIGGER", "POLICY", "INDEX", *_TABLE_LIKE, *_OBJECTS)
    if kind == "POLICY":
        yield _policy(c, "DROP POLICY")
        return
    concurrently = bool(kind == "INDEX" and c.take("CONCURRENTLY"))
    c.take("IF EXISTS")
    if kind == "TRIGGER":
        name = c.name()
        c.expect("ON")
        yield st.ChangeTrigger(table=c.ref(), how="DROP", name=name)
        return
    if not kind:
        raise UnreadError
    found: list[Ref] = []
    while True:
        found.append(c.ref())
        if c.sees("("):
            c.group()
        if not c.take(","):
            break
    cascade = bool(c.take("CASCADE"))
    for ref in found:
        match kind:
            case "TABLE" | "FOREIGN TABLE":
                yield st.DropTable(table=ref, cascade=cascade)
            case "INDEX":
                yield st.DropIndex(name=ref, concurrently=concurrently, cascade=cascade)
            case _:
                yield st.DropObject(of=kind, name=ref, cascade=cascade)


# -- ALTER


def _alter(c: Cursor) -> Found:
    kind = c.take("INDEX", "TRIGGER", "POLICY", *_TABLE_LIKE, *_OBJECTS)
    match kind:
        case "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW":
            yield from alter_table(c, lambda: c.text(0, c.at))
        case "INDEX":
            c.take("IF EXISTS")
            name = c.ref()
            c.expect("RENAME TO")
            yield st.RenameIndex(name=name, to=c.name())
        case "TRIGGER":
            yield _alter_trigger(c)
        case "POLICY":
            yield _policy(c, "ALTER POLICY")
        case "TYPE":
            yield _alter_type(c)
        case "DOMAIN":
            yield _alter_domain(c)
        case "SCHEMA":
            schema = c.name()
            c.expect("RENAME TO")
            yield st.RenameSchema(name=schema, to=c.name())
        case "":
            raise UnreadError
        case _:
            c.take("IF EXISTS")
            yield _moved(c, kind, c.ref())


def _alter_trigger(c: Cursor) -> Statement:
    name = c.name()
    c.expect("ON")
    table = c.ref()
    c.expect("RENAME TO")
    return st.ChangeTrigger(table=table, how="RENAME", name=name)


def _alter_type(c: Cursor) -> Statement:
    type_ = c.ref()
    if c.take("ADD VALUE"):
        c.take("IF NOT EXISTS")
        return st.AddEnumValue(type=type_, value=c.string())
    if c.take("RENAME VALUE"):
        value = c.string()
        c.expect("TO")
        return st.RenameEnumValue(type=type_, value=value, to=c.string())
    return _moved(c, "TYPE", type_)


def _alter_domain(c: Cursor) -> Statement:
    domain = c.ref()
    if c.take("ADD"):
        new = constraint(c)
        how = "SET NOT NULL" if new.kind == "n" else "ADD CONSTRAINT"
        return st.ChangeDomain(
            domain=domain,
            how=how,
            not_valid=new.not_valid,
            name=new.name,
            expression=new.expression,
        )
    match c.take(
        "SET NOT NULL",
        "DROP NOT NULL",
        "SET DEFAULT",
        "DROP DEFAULT",
        "VALIDATE CONSTRAINT",
        "DROP CONSTRAINT",
    ):
        case "":
            return _moved(c, "DOMAIN", domain)
        case "VALIDATE CONSTRAINT" | "DROP CONSTRAINT" as how:
            c.take("IF EXISTS")
            return st.ChangeDomain(domain=domain, how=how, name=c.name())
        case how:
            return st.ChangeDomain(domain=domain, how=how, expression=c.rest())


def _moved(c: Cursor, of: str, name: Ref) -> Statement:
    """Read a new name or another schema."""
    if c.sees("("):
        # The arguments of a function.
        c.group()
    if c.take("RENAME TO"):
        return st.RenameObject(of=of, name=name, to=c.name())
    c.expect("SET SCHEMA")
    return st.RenameObject(of=of, name=name, schema=c.name())


# -- tables written anew


def _truncate(c: Cursor) -> Found:
    c.take("TABLE")
    tables = c.refs()
    c.take("RESTART IDENTITY", "CONTINUE IDENTITY")
    yield st.Truncate(tables=tables, cascade=bool(c.take("CASCADE")))


def _vacuum(c: Cursor) -> Found:
    if c.sees("("):
        full = any(_is_on(option, "FULL") for option in c.group().items())
    else:
        full = bool(c.take("FULL"))
        while c.take("FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"):
            pass
    if not full:
        raise UnreadError
    if c.done:
        yield st.RewriteAll(how="VACUUM FULL")
    for item in c.items():
        item.take("ONLY")
        yield st.Rewrite(table=item.ref(), how="VACUUM FULL")


def _is_on(option: Cursor, word: str) -> bool:
    if not option.take(word):
        return False
    return option.done or option.token.text.strip("'").upper() in ("TRUE", "ON", "1")


def _cluster(c: Cursor) -> Found:
    if c.sees("("):
        c.group()
    c.take("VERBOSE")
    if c.done:
        yield st.RewriteAll(how="CLUSTER")
        return
    first = c.ref()
    if c.take("ON"):
        yield st.Rewrite(table=c.ref(), how="CLUSTER", to=first.name)
    else:
        index = c.name() if c.take("USING") else ""
        yield st.Rewrite(table=first, how="CLUSTER", to=index)


def _reindex(c: Cursor) -> Found:
    concurrently = c.sees("(") and any(
        _is_on(option, "CONCURRENTLY") for option in c.group().items()
    )
    of = c.take("INDEX", "TABLE", "SCHEMA", "DATABASE", "SYSTEM")
    if not of:
        raise UnreadError
    concurrently = bool(c.take("CONCURRENTLY")) or concurrently
    # The database's own name may be left out (16+).
    name = Ref("") if c.done else c.ref()
    yield st.Reindex(of=of, name=name, concurrently=concurrently)


def _refresh(c: Cursor) -> Found:
    c.expect("MATERIALIZED VIEW")
    concurrently = bool(c.take("CONCURRENTLY"))
    yield st.RefreshView(view=c.ref(), concurrently=concurrently)


# -- code


def _block(c: Cursor) -> Found:
    yield st.Block()


# -- settings and transactions


def _set(c: Cursor) -> Found:
    local = c.take("SESSION", "LOCAL") == "LOCAL"
    if c.take("TIME ZONE"):
        yield st.SetParameter(name="timezone", value=_value(c), local=local)
        return
    name = _parameter(c)
    if not c.take("=", "TO"):
        raise UnreadError
    yield st.SetParameter(name=name, value=_value(c), local=local)


def _reset(c: Cursor) -> Found:
    if c.sees("ALL"):
        raise UnreadError
    yield st.SetParameter(name=_parameter(c), value="DEFAULT")


def _parameter(c: Cursor) -> str:
    parts = [c.name()]
    while c.take("."):
        parts.append(c.name())
    return ".".join(parts).lower()


def _value(c: Cursor) -> str:
    """Read a value: one string without its quotes, all else as it stands."""
    if c.token.kind is Kind.STRING and c.ahead(1).kind is Kind.END:
        return c.string()
    return c.take("DEFAULT") or c.rest()


def _select(c: Cursor) -> Found:
    if c.passes("INTO"):
        c.upto_words("INTO")
        c.take("INTO")
        temporary = bool(c.take("TEMPORARY", "TEMP"))
        c.take("UNLOGGED", "TABLE")
        yield st.CreateTable(table=c.ref(), temporary=temporary)
        return
    for item in c.items():
        item.take("PG_CATALOG .")
        if not item.take("SET_CONFIG"):
            raise UnreadError
        given = item.group().items()
        if len(given) != 3:
            raise UnreadError
        yield st.SetParameter(
            name=given[0].string().lower(),
            value=_value(given[1]),
            local=bool(given[2].take("TRUE")),
        )


def _begin(c: Cursor) -> Found:
    yield st.Transaction(how="BEGIN")


def _start(c: Cursor) -> Found:
    c.expect("TRANSACTION")
    yield st.Transaction(how="BEGIN")


def _commit(c: Cursor) -> Found:
    yield st.Transaction(how="COMMIT")


def _rollback(c: Cursor) -> Found:
    c.take("WORK", "TRANSACTION")
    if c.take("TO"):
        raise UnreadError
    yield st.Transaction(how="ROLLBACK")


def _lock(c: Cursor) -> Found:
    c.take("TABLE")
    tables = c.refs()
    mode = c.upto_words("MODE").upper() if c.take("IN") else ""
    yield st.LockTable(tables=tables, mode=mode or "ACCESS EXCLUSIVE")


_FORMS: dict[str, Callable[[Cursor], Found]] = {
    "CREATE": _create,
    "DROP": _drop,
    "ALTER": _alter,
    "TRUNCATE": _truncate,
    "VACUUM": _vacuum,
    "CLUSTER": _cluster,
    "REINDEX": _reindex,
    "REFRESH": _refresh,
    "INSERT": change_rows,
    "UPDATE": change_rows,
    "DELETE": change_rows,
    "MERGE": change_rows,
    "COPY": copy,
    "WITH": with_queries,
    "DO": _block,
    "CALL": _block,
    "SET": _set,
    "RESET": _reset,
    "SELECT": _select,
    "BEGIN": _begin,
    "START": _start,
    "COMMIT": _commit,
    "END": _commit,
    "ROLLBACK": _rollback,
    "ABORT": _rollback,
    "LOCK": _lock,
}
