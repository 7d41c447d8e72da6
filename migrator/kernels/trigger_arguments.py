"""Triggers that have columns of their table by name, among their arguments.

`tsvector_update_trigger(tsv, 'pg_catalog.english', title)` and the like look columns up
at each row. The catalogue has arguments as text alone: nothing depends on the columns,
and a rename or a drop leaves the trigger as it is.

Source: PostgreSQL manual, sections 12.4.3 (Triggers for Automatic Updates) and 53.52
(pg_trigger).
"""

import re
from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels.direct import members
from migrator.names import TableName
from migrator.plan import Autocommit, Notice, Refusal, Step, Steps, Transaction, render

# Functions of the server, whose arguments are columns for certain.
_SURE = ("tsvector_update_trigger", "tsvector_update_trigger_column")
# How a definition names them: without a schema, which any other one has.
_RUNS_SURE = re.compile(rf" EXECUTE FUNCTION ({'|'.join(_SURE)})\(")


def notices(facts: Facts, *columns: str, to: str | None = None) -> tuple[Notice, ...]:
    """
    Return a note on each trigger that has a column by its arguments.

    Args:
        facts: of the table.
        columns: those that go at retire.
        to: the name that the column has from then on; None where it has none.
    """
    way = (
        f'with "{to}"' if to else "without it"
    ) + " (CREATE OR REPLACE TRIGGER …) once the old release is gone"
    more = ""
    if to:
        more = (
            " Until then it sees what the new release writes only at the row's next"
            " write. A generated column in place of what it fills has neither fault."
        )
    parts = (facts.table, *facts.table.partitions)
    found = {
        (t.name, column): bool(_RUNS_SURE.search(t.definition))
        for part in parts
        for t in part.triggers
        for column in columns
        if column in t.arguments and not t.name.startswith(names.TRIGGER_PREFIXES)
    }
    return tuple(
        Notice(
            text=f'Trigger "{trigger}" has "{column}" among its arguments: where that'
            " is this column, every write that fires it fails from retire on. Make it"
            f" again {way}{'; retire waits.' if sure else ', before retire.'}{more}",
            needs_assurance=True,
        )
        for (trigger, column), sure in found.items()
    )


def held(
    steps: Steps,
    table: TableName,
    *columns: str,
    assured: str,
    late: bool = False,
) -> Steps:
    """
    Return the steps, the first of which is held while a trigger has such a column.

    Args:
        steps: those of retire or drop.
        table: whose columns go.
        columns: by the names before retire.
        late: whether these are gone: then others may have taken their names.
        assured: a person's word, or "". With one an argument counts where the
            function is one of the server's. What others take it for, only they know:
            `audit('name')` may be a label.
    """
    for at, step in enumerate(steps):
        work = step.work
        if isinstance(work, Transaction | Autocommit):
            found = _named(table, columns, late=late, sure=bool(assured))
            refusals = (*work.refusals, found)
            first = replace(step, work=replace(work, refusals=refusals))
            return (*steps[:at], first, *steps[at + 1 :])
    return steps


def held_back(step: Step, table: TableName, *columns: str) -> Step:
    """Return a step of expand that is not taken back while a trigger has a column."""
    if not step.reverse or not isinstance(step.reverse[0], Transaction):
        return step
    first, *others = step.reverse
    refusals = (*first.refusals, _named(table, columns, late=False))
    return replace(step, reverse=(replace(first, refusals=refusals), *others))


def all_held_back(steps: Steps, table: TableName, *columns: str) -> Steps:
    """Return steps of expand; see `held_back`. What is taken back first asks too."""
    return tuple(held_back(step, table, *columns) for step in steps)


def _named(
    table: TableName, columns: tuple[str, ...], *, late: bool, sure: bool = False
) -> Refusal:
    wanted = sql.SQL(", ").join(map(sql.Literal, columns))
    taken = sql.SQL(
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a"
        " WHERE a.attrelid = t.tgrelid AND a.attname = c.name AND NOT a.attisdropped)"
    )
    found = sql.SQL(
        " FROM pg_catalog.pg_trigger t CROSS JOIN"
        " pg_catalog.unnest(ARRAY[{wanted}]::text[]) AS c (name)"
        " WHERE t.tgrelid IN ({members}) AND t.tgparentid = 0 AND NOT t.tgisinternal"
        " AND t.tgenabled <> 'D'"
        " AND NOT t.tgname::text OPERATOR(pg_catalog.^@) ANY ({own})"
        # Each argument ends with a byte of zero.
        " AND pg_catalog.position('\\x00'::bytea || t.tgargs, '\\x00'::bytea ||"
        " pg_catalog.convert_to(c.name, pg_catalog.getdatabaseencoding()) ||"
        " '\\x00'::bytea) > 0"
    ).format(
        wanted=wanted,
        members=members(table),
        own=sql.Literal(list(names.TRIGGER_PREFIXES)),
    ) + (taken if late else sql.SQL(""))
    if sure:
        found += sql.SQL(
            " AND t.tgfoid IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.proname"
            " IN ({}) AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)"
        ).format(sql.SQL(", ").join(map(sql.Literal, _SURE)))
    told = sql.SQL(
        "pg_catalog.string_agg(pg_catalog.format('%I of trigger %I', c.name,"
        " t.tgname), '; ' ORDER BY t.tgname, c.name)"
    )
    return Refusal(
        count=render(sql.SQL("SELECT count(*)") + found),
        listed=render(sql.SQL("SELECT ") + told + found),
        why="{count:argument of a trigger names a column|arguments of triggers name"
        f" columns}} of table {table} that would go: {{listed}}",
        next="make the trigger again without it (CREATE OR REPLACE TRIGGER …), then"
        " run the same command again. Where it is a label and no column, give it"
        " another text, or disable the trigger meanwhile.",
    )
