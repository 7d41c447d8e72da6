"""Parameters of the server: set where they are kept, and put back."""

import re
from dataclasses import replace
from typing import LiteralString

from psycopg import sql

from migrator.errors import Refused
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Probe,
    Refusal,
    Transaction,
    render,
    type_name,
)

#: The scope of ALTER SYSTEM, as `Kind.SETTING` spells it.
SYSTEM = "SYSTEM"

# Parameters that are lists of names: what is stored is quoted item by item.
# Source: PostgreSQL, src/include/utils/guc.h, GUC_LIST_QUOTE.
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
# Of these, lists of identifiers: what stands without quotes is in lower case.
_IDENTIFIERS = {"search_path", "temp_tablespaces"}
# An item in quotes, in which two stand for one, or without, up to a comma.
_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*?))\s*(?:,|\Z)')
# The file that ALTER SYSTEM writes, and what it says of a parameter.
_WRITTEN: LiteralString = (
    "(SELECT f.setting FROM pg_catalog.pg_file_settings f WHERE lower(f.name) = {name}"
    " AND f.sourcefile = pg_catalog.current_setting('data_directory')"
    " || '/postgresql.auto.conf' ORDER BY f.seqno DESC LIMIT 1)"
)

# The same of a database or a role, whose setting `scope` names as DDL does.
_SCOPED: LiteralString = (
    "(SELECT substr(one, strpos(one, '=') + 1) FROM pg_catalog.pg_db_role_setting s"
    " LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase"
    " LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS one"
    " WHERE lower(split_part(one, '=', 1)) = {name} AND concat_ws(' IN ',"
    " 'ROLE \"' || replace(r.rolname, '\"', '\"\"') || '\"',"
    " 'DATABASE \"' || replace(d.datname, '\"', '\"\"') || '\"') = {scope})"
)


def items(name: str, value: str) -> tuple[str, ...]:
    """
    Return the items of a list; of what is none, the whole value.

    Raises:
        Refused: a quote of it is not closed.
    """
    if name.lower() not in _LISTS:
        return (value,)
    lower = name.lower() in _IDENTIFIERS
    found: list[str] = []
    end = 0
    for match in _ITEM.finditer(value):
        if match.start() != end:
            raise Refused(
                f"{value!r} is no list for {name}: a name in it has a quote alone.",
                next='write names with commas between them, and such in quotes: \'"a,b"'
                ", c'.",
            )
        quoted, plain = match.group(1), match.group(2)
        end = match.end()
        if quoted is not None:
            found.append(quoted.replace('""', '"'))
        elif plain:
            found.append(plain.lower() if lower else plain)
    return tuple(found) or ("",)


def _values(name: str, value: str) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, items(name, value)))


def assigned(setting: TableName, value: str | None) -> str:
    """Return the statement that gives a parameter a value, None for none of its own."""
    text = sql.SQL("ALTER {} {} {}").format(
        # Spelt by the catalogue or the pattern, its names in quotes.
        type_name(setting.schema),
        sql.SQL("RESET" if value is None else "SET"),
        sql.Identifier(*setting.name.split(".")),
    )
    if value is not None:
        text += sql.SQL(" = ") + _values(setting.name, value)
    return render(text)


def change(setting: TableName, value: str | None) -> Action:
    """Return what gives a parameter a value; ALTER SYSTEM stands alone."""
    statement = assigned(setting, value)
    if setting.schema != SYSTEM:
        return Transaction(statements=(statement,))
    return Autocommit(
        statement=statement,
        lock=Lock.NONE,
        done=render(
            sql.SQL("SELECT {} IS NOT DISTINCT FROM {}").format(
                _kept(setting), _stored(setting.name, value)
            )
        ),
    )


def put_back(setting: TableName, value: str | None, former: str | None) -> Action:
    """
    Return what gives a parameter its former value, unless it has another by then.

    Args:
        setting: the parameter, and where it is set.
        value: the one that it was given.
        former: the one before; None where there was none of its own.
    """
    kept = _kept(setting)
    given = sql.SQL(
        "{kept} IS DISTINCT FROM {value} AND {kept} IS DISTINCT FROM {former}"
    ).format(kept=kept, value=_stored(setting.name, value), former=_former(former))
    changed = Refusal(
        count=render(sql.SQL("SELECT ({})::int").format(given)),
        listed=render(
            sql.SQL("SELECT COALESCE(quote_literal({}), 'none')").format(kept)
        ),
        why=f"{setting.name} of {setting.schema} was given another value since:"
        " {listed}",
        next=f"where that may go, run {assigned(setting, value)}; then the same command"
        " again.",
    )
    work = change(setting, former)
    if isinstance(work, Transaction):
        # The first one runs before conditions are read.
        first = "SET LOCAL search_path = pg_catalog"
        work = replace(work, statements=(first, *work.statements))
    return replace(work, refusals=(changed,))


def _kept(setting: TableName) -> sql.Composable:
    """Return the query of the value that is kept where a parameter is set."""
    name = sql.Literal(setting.name.lower())
    if setting.schema == SYSTEM:
        return sql.SQL(_WRITTEN).format(name=name)
    return sql.SQL(_SCOPED).format(name=name, scope=sql.Literal(setting.schema))


def _stored(name: str, value: str | None) -> sql.Composable:
    """Return the expression of a value as the server keeps it."""
    if value is None:
        return sql.SQL("NULL")
    wanted = _values(name, value)
    if name.lower() not in _LISTS:
        return wanted
    return sql.SQL(
        "(SELECT string_agg(quote_ident(item), ', ' ORDER BY place)"
        " FROM unnest(ARRAY[{}]) WITH ORDINALITY AS list (item, place))"
    ).format(wanted)


def _former(value: str | None) -> sql.Composable:
    return sql.SQL("NULL") if value is None else sql.Literal(value)


def questions(setting: TableName) -> dict[str, Probe]:
    """
    Return what a parameter is like.

    Keys: `fixed` where nobody sets it; `restarts` where it waits for a restart;
    `reloads` where it is one of the whole server; `narrower` where it is set for
    less than the scope as well.
    """

    def asked(text: LiteralString) -> Probe:
        question = sql.SQL(text).format(
            name=sql.Literal(setting.name.lower()), system=setting.schema == SYSTEM
        )
        return Probe(statements=(), question=render(question), otherwise="no")

    context: LiteralString = (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE lower(name) = {name}"
        " AND context = "
    )
    return {
        "fixed": asked(context + "'internal')"),
        "restarts": asked(context + "'postmaster')"),
        "reloads": asked(context + "'sighup')"),
        "narrower": asked(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s,"
            " unnest(s.setconfig) AS one"
            " WHERE lower(pg_catalog.split_part(one, '=', 1)) = {name}"
            " AND ({system} OR s.setrole <> 0))"
        ),
    }


def probes(title: str, setting: TableName, value: str | None) -> tuple[Probe, ...]:
    """Return the trial of the value, as far as it can be without setting it."""
    refused = f"{title}: the server refuses it"
    correct = "correct the value; pg_settings tells its unit and its bounds."
    if setting.schema != SYSTEM:
        return (
            Probe(
                statements=(assigned(setting, value),),
                question="SELECT true",
                otherwise="no",
                failed=refused,
                next=correct,
            ),
        )
    name = sql.Literal(setting.name)
    allowed = Probe(
        statements=(),
        question=render(
            sql.SQL(
                "SELECT pg_catalog.has_parameter_privilege({}, 'ALTER SYSTEM')"
                " AND pg_catalog.has_function_privilege("
                "'pg_catalog.pg_reload_conf()', 'EXECUTE') AND COALESCE("
                "pg_catalog.current_setting('allow_alter_system', true), 'on') = 'on'"
            ).format(name)
        ),
        otherwise=f"{title}: this role, or this server, does not allow it.",
        next="connect as a superuser, or grant ALTER SYSTEM ON PARAMETER and EXECUTE"
        " ON pg_reload_conf(); see that allow_alter_system is on.",
    )
    if value is None:
        return (allowed,)
    # What only the whole server takes cannot be tried in a session; ALTER SYSTEM
    # looks at the value before it writes it.
    tried = sql.SQL(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_settings"
        " WHERE name = {} AND context NOT IN ('user', 'superuser')) THEN true ELSE"
        " pg_catalog.set_config({}, {}, true) IS NOT NULL END"
    ).format(name, name, sql.Literal(value))
    return (
        allowed,
        Probe(
            statements=(),
            question=render(tried),
            otherwise="no",
            failed=refused,
            next=correct,
        ),
    )
