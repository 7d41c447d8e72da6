"""Changes of a column's type that touch the catalogue alone, as the server says.

Which casts are free depends on types, lengths, collations, operator classes and
time zones; instead of a list, the change is made on an empty copy of the table,
and the files of the copy and of its indexes tell whether anything was rewritten.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

import re
from dataclasses import replace

from psycopg import sql

from migrator.facts import Column, Facts
from migrator.kernels import row_types
from migrator.kernels.direct import catalogue_step
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Probe,
    Step,
    Steps,
    expression,
    render,
    type_name,
)

# What a type's name may hold in parentheses is a limit, unless it stands in quotes.
_LIMIT = re.compile(r'("(?:[^"]|"")*")|\s*\([^()]*\)')
# Without a limit in the name these mean a limit of 1 (manual, section 8.3).
_ONE = {"character": "bpchar", "char": "bpchar", "bit": 'pg_catalog."bit"'}


def unlimited(kind: str) -> str:
    """
    Return a type without its length or precision, for a cast that cuts nothing.

    A cast to varchar(3) cuts silently; a cast to varchar does not, and storing the
    value afterwards raises where it does not fit (manual, section 8.3).
    """
    bare = _LIMIT.sub(lambda found: found[1] or "", kind).strip()
    base, brackets, rest = bare.partition("[")
    return _ONE.get(base.strip().lower(), base.strip()) + brackets + rest


def cast(column: str, kind: str) -> str:
    """Return a column's cast to a type, which cuts nothing."""
    return f"{sql.Identifier(column).as_string(None)}::{unlimited(kind)}"


def collated(kind: str, collation: str | None) -> sql.Composable:
    """Return a type as DDL spells it, with a collation that is not its own."""
    return type_name(f"{kind} COLLATE {collation}" if collation else kind)


def _alter(table: sql.Composable, column: str, kind: sql.Composable) -> sql.Composable:
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
        table, sql.Identifier(column), kind
    )


def _trials(facts: Facts) -> tuple[tuple[sql.Identifier, TableName], ...]:
    """Return a name of an empty copy for the table and each partition."""
    return tuple(
        (sql.Identifier("pg_temp", f"migrator_trial_{number}"), part.name)
        for number, part in enumerate((facts.table, *facts.table.partitions))
    )


_FILES = sql.SQL("SELECT pg_catalog.set_config('migrator.files', ({}), true)")
_FILE = sql.SQL(
    "SELECT pg_catalog.string_agg(c.relname || ' ' ||"
    " pg_catalog.pg_relation_filenode(c.oid), ',' ORDER BY c.relname)"
    " FROM pg_catalog.pg_class c"
    " WHERE c.relnamespace = pg_catalog.pg_my_temp_schema()"
    " AND c.relkind IN ('r', 'i')"
)


def is_of_type(facts: Facts, column: Column, kind: sql.Composable) -> Probe:
    """Return the question whether a column is of a type already."""
    return Probe(
        statements=(
            render(sql.SQL("CREATE TEMP TABLE migrator_trial (trial {})").format(kind)),
        ),
        question=render(
            sql.SQL(
                "SELECT (a.atttypid, a.atttypmod, a.attcollation)"
                " = (b.atttypid, b.atttypmod, b.attcollation)"
                " FROM pg_catalog.pg_attribute a, pg_catalog.pg_attribute b"
                " WHERE a.attrelid = {}::pg_catalog.regclass AND a.attname = {}"
                " AND b.attrelid = 'pg_temp.migrator_trial'::pg_catalog.regclass"
                " AND b.attname = 'trial'"
            ).format(sql.Literal(str(facts.table.name)), sql.Literal(column.name))
        ),
        otherwise="another type",
    )


def is_free(facts: Facts, column: Column, *kinds: sql.Composable) -> Probe:
    """
    Return the question whether a change of type rewrites and scans nothing.

    Args:
        facts: of the table.
        column: the column; a CHECK over it would be scanned for.
        kinds: types that it takes one after the other; asked is for the last.
    """
    trials = _trials(facts)
    copies = (
        sql.SQL(
            "CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING INDEXES)"
        ).format(sql.Identifier(f"migrator_trial_{number}"), table.identifier)
        for number, (_, table) in enumerate(trials)
    )
    before = [
        _alter(trial, column.name, kind) for kind in kinds[:-1] for trial, _ in trials
    ]
    return Probe(
        statements=tuple(
            render(statement)
            for statement in (
                *copies,
                *before,
                _FILES.format(_FILE),
                *(_alter(trial, column.name, kinds[-1]) for trial, _ in trials),
            )
        ),
        question=render(
            sql.SQL(
                "SELECT pg_catalog.current_setting('migrator.files') = ({}) AND {}"
                " AND {}"
            ).format(
                _FILE,
                sql.Literal(not column.checks),
                expression(row_types.not_stored(facts)),
            )
        ),
        otherwise="not free",
    )


def is_steady(facts: Facts, value: str) -> Probe:
    """Return the question whether an expression depends on no setting or clock."""
    trial = sql.Identifier("pg_temp", facts.table.name.name)
    return Probe(
        statements=(
            render(
                sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                    sql.Identifier(facts.table.name.name), facts.table.name.identifier
                )
            ),
            # An index takes immutable expressions only.
            render(
                sql.SQL("CREATE INDEX ON {} (({} IS NULL))").format(
                    trial, expression(value)
                )
            ),
        ),
        question="SELECT true",
        otherwise="",
    )


#: Whether no role and no database has a time zone other than UTC.
IN_UTC = Probe(
    statements=(),
    question="SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s,"
    " pg_catalog.unnest(s.setconfig) AS given (setting)"
    " WHERE pg_catalog.lower(setting) LIKE 'timezone=%'"
    " AND pg_catalog.lower(setting) NOT IN"
    " ('timezone=utc', 'timezone=etc/utc', 'timezone=gmt'))",
    otherwise="another time zone",
)


def change_type(
    facts: Facts,
    column: Column,
    kind: sql.Composable,
    back: sql.Composable | None,
    *,
    no_reverse: str,
) -> Steps:
    """
    Return the change of type in place, with the new statistics it needs.

    The server drops a column's statistics with its type; ANALYZE cannot run in the
    same transaction without holding its lock for as long.

    Args:
        facts: of the table.
        column: as it is.
        kind: the new type.
        back: the old type, where that way is free as well.
        no_reverse: why there is no way back, where there is none.
    """
    table = facts.table.name
    analyze = Autocommit(
        statement=render(
            sql.SQL("ANALYZE {} ({})").format(
                table.identifier, sql.Identifier(column.name)
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
    )
    reverse: tuple[Action, ...] = ()
    if back is not None:
        again = catalogue_step(
            table,
            _alter(table.identifier, column.name, back),
            row_types.compiled_anew(table),
        )
        reverse = (replace(again, done=_type_is(table, column)), analyze)
    return (
        Step(
            name="change_type",
            work=catalogue_step(
                table,
                _alter(table.identifier, column.name, kind),
                row_types.compiled_anew(table),
            ),
            reverse=reverse,
            no_reverse="" if reverse else no_reverse,
        ),
        Step(
            name="analyze_column",
            work=analyze,
            no_reverse="statistics are made anew with the way back",
        ),
    )


def change_back(facts: Facts, name: str, kind: str, down: str) -> Steps:
    """
    Return a plain change of type, for where no release runs: it rewrites the table.

    Args:
        facts: of the table.
        name: the column.
        kind: the type that it gets; its default is cast to it.
        down: SQL expression that makes its values.
    """
    table, ident = facts.table.name, sql.Identifier(name)
    alter = sql.SQL(
        "ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT, ALTER COLUMN {} TYPE {} USING {}"
    ).format(table.identifier, ident, ident, type_name(kind), expression(down))
    column = facts.table.column(name)
    if column is not None and column.default is not None:
        alter += sql.SQL(", ALTER COLUMN {} SET DEFAULT {}").format(
            ident, expression(f"({column.default})::{unlimited(kind)}")
        )
    # Not a catalogue step: it may take as long as it takes.
    work = Autocommit(
        statement=render(alter), lock=Lock.ACCESS_EXCLUSIVE, table=table, scans=True
    )
    return (Step(name="change_back", work=work, no_reverse="upgrade again"),)


def _type_is(table: TableName, column: Column) -> str:
    """Return the question whether a column is of the type that it is of now."""
    return render(
        sql.SQL(
            "SELECT (atttypid, atttypmod) = ({}, {}) FROM pg_catalog.pg_attribute"
            " WHERE attrelid = {}::pg_catalog.regclass AND attname = {}"
        ).format(
            sql.Literal(column.type_oid),
            sql.Literal(column.modifier),
            sql.Literal(str(table)),
            sql.Literal(column.name),
        )
    )
