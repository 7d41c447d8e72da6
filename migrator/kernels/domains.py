"""Domains changed without a lock on the tables that have columns of them.

Up to PostgreSQL 18, whatever validates (VALIDATE CONSTRAINT, ADD without NOT VALID,
SET NOT NULL) takes SHARE on each of these tables until all of them are read. The rest
locks no table: ALTER DOMAIN … ADD … NOT VALID holds every value that is made from then
on, also by prepared statements, and no row that is there; one that violates it can
still be updated in other columns.

Source: PostgreSQL manual, ALTER DOMAIN; locks by pg_locks (tests).
"""

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Column, Domain, Facts
from migrator.kernels import requirements
from migrator.kernels.constraints import RENAME_OR_DROP
from migrator.kernels.mirror_columns import read_as
from migrator.kernels.rows import comparisons
from migrator.plan import (
    Autocommit,
    Lock,
    Notice,
    Refusal,
    Step,
    Steps,
    Transaction,
    expression,
    render,
    type_name,
)


def require(facts: Facts) -> Domain:
    """
    Return the domain.

    Raises:
        Refused: it is gone, another role's, or rows that have values are hidden.
    """
    if facts.domain is None:
        raise Refused(
            f"There is no domain {facts.table.name}.", next="correct the name."
        )
    if not facts.domain.owned:
        raise Refused(
            f"The role of this connection does not own domain {facts.table.name}.",
            next="connect as the owner, or as a member of the owner's role.",
        )
    return facts.domain


def notices(facts: Facts) -> tuple[Notice, ...]:
    """Return what a reviewer should know of values that cannot be counted."""
    found = facts.domain.hidden if facts.domain else ()
    if not found:
        return ()
    return (
        Notice(
            text=f"Values in {'; '.join(found)} are not counted: arrays, composite"
            " types and foreign tables are not looked into.",
            needs_assurance=True,
        ),
    )


def altered(facts: Facts, text: sql.Composable) -> Transaction:
    """Return the transaction that alters the domain; it locks no table."""
    alter = sql.SQL("ALTER DOMAIN {} ").format(facts.table.name.identifier)
    return Transaction(statements=(render(alter, text),), lock=Lock.NONE)


def set_default(facts: Facts, text: str | None) -> Step:
    """
    Return the step that sets the default, or drops it; its reverse puts it back.

    Args:
        facts: of the domain, as it is before.
        text: SQL expression; None for no default.
    """

    def to(given: str | None) -> Transaction:
        if given is None:
            return altered(facts, sql.SQL("DROP DEFAULT"))
        return altered(facts, sql.SQL("SET DEFAULT ") + expression(given))

    return Step(
        name="drop_default" if text is None else "set_default",
        work=to(text),
        reverse=(to(require(facts).default),),
    )


def add_check(facts: Facts, name: str, condition: str) -> Transaction:
    """Return the transaction that adds a check and proves nothing, once."""
    add = sql.SQL("ADD CONSTRAINT {} CHECK {} NOT VALID").format(
        sql.Identifier(name), expression(condition)
    )
    return replace(altered(facts, add), done=_is_there(facts, name))


def drop_check(facts: Facts, name: str) -> Transaction:
    """Return the transaction that drops a check, harmless where it is gone."""
    drop = sql.SQL("DROP CONSTRAINT IF EXISTS {}").format(sql.Identifier(name))
    return altered(facts, drop)


def check_again(facts: Facts, name: str, condition: str) -> Autocommit:
    """
    Return the statement that adds a check, refused where values violate it.

    Args:
        facts: of the domain and its tables.
        name: the check's.
        condition: over VALUE.
    """
    (statement,) = add_check(facts, name, condition).statements
    # What this adds stays NOT VALID: one that is proved is somebody else's.
    own = _is_there(facts, name, proved=False)
    taken = Refusal(
        count=f"SELECT ({_is_there(facts, name, proved=True)})::int",
        why=f'another check of domain {facts.table.name} got the name "{name}" since',
        next=RENAME_OR_DROP,
    )
    return Autocommit(
        statement=statement,
        lock=Lock.NONE,
        done=own,
        refusals=(
            taken,
            *(
                Refusal(
                    count=render(
                        sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
                            table.table.name.identifier, violates
                        )
                    ),
                    why="{count:row holds a value|rows hold values}"
                    f' in "{column.name}" of table {table.table.name} that the check'
                    f' "{name}" would not allow',
                    next="give them another value, then run the same command again; or"
                    " keep the new release.",
                )
                for table, column, violates in _columns(facts, condition)
            ),
        ),
    )


def violations(facts: Facts, condition: str) -> Steps:
    """Return the counts of values that a check would not allow."""
    return tuple(
        step
        for table, column, violates in _columns(facts, condition)
        for step in comparisons(
            table,
            render(
                sql.SQL("count_violations {}").format(
                    sql.Identifier(
                        table.table.name.schema, table.table.name.name, column.name
                    )
                )
            ),
            violates,
            shown=(column.name,),
            no_reverse="nothing is changed",
            wrong="a violation of the check",
        )
    )


def require_countable(facts: Facts) -> None:
    """Refuse tables of which rows are hidden, or elsewhere."""
    for table in facts.others:
        requirements.require_all_rows_visible(replace(facts, table=table))
        _ = replace(facts, table=table).leaves


def _columns(
    facts: Facts, condition: str
) -> Iterator[tuple[Facts, Column, sql.Composable]]:
    """Yield each column with its table, and the condition that a row violates."""
    tables = {table.name: table for table in facts.others}
    for name, column in require(facts).columns:
        # Without quotes, SQL reads VALUE as a column of that name.
        known = {"value": sql.Identifier(column)}
        allowed = read_as(condition, known, facts.table.name)
        yield (
            replace(facts, table=tables[name]),
            tables[name].require(column),
            sql.SQL("NOT {}").format(allowed),
        )


def trial(domain: Domain, name: str, condition: str) -> str:
    """Return the statement that makes a temporary domain with a check."""
    return render(
        sql.SQL(
            "CREATE DOMAIN pg_temp.migrator_trial AS {} CONSTRAINT {} CHECK {}"
        ).format(type_name(domain.type), sql.Identifier(name), expression(condition))
    )


def _is_there(facts: Facts, name: str, *, proved: bool | None = None) -> str:
    only = "" if proved is None else f" AND {'' if proved else 'NOT '}convalidated"
    return render(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint"
            " WHERE contypid = {}::pg_catalog.regtype AND conname = {}{})"
        ).format(sql.Literal(str(facts.table.name)), sql.Literal(name), type_name(only))
    )
