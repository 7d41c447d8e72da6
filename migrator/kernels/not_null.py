"""NOT NULL proved by a check, and lifted, without a scan under a strong lock."""

from dataclasses import replace

from psycopg import sql

from migrator.facts import Constraint, Facts, Table
from migrator.kernels.constraints import comments, withdrawn
from migrator.kernels.direct import catalogue_step
from migrator.names import TableName, fitted
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Notice,
    Refusal,
    Step,
    Transaction,
    missing,
    present,
    render,
)

# From here on DROP NOT NULL of a parent spares what a partition says itself.
_IS_A_CONSTRAINT = 180000


def stricter(facts: Facts, column: str) -> tuple[Notice, ...]:
    """Return notes on partitions that are NOT NULL where their parent is not."""
    return tuple(
        Notice(
            text=f'Column "{column}" is NOT NULL already on partition {part.name};'
            " rolling back from retired lifts it there as well."
        )
        for part in facts.table.partitions
        if part.require(column).not_null and facts.server_version < _IS_A_CONSTRAINT
    )


def not_null_by_check(
    table: TableName, column: str, check: str, final: tuple[sql.Composable, ...] = ()
) -> tuple[Step, Step, Transaction]:
    """
    Return the steps that prove NOT NULL without a scan under a strong lock.

    A CHECK is added `NOT VALID`, validated under SHARE UPDATE EXCLUSIVE, and
    then lets SET NOT NULL skip its scan.

    Args:
        table: the table.
        column: its column.
        check: the check's name.
        final: statements that run behind SET NOT NULL.

    Returns:
        The step that adds the check, the one that validates it, and the
        transaction that sets NOT NULL and runs `final`; its reverse is the
        caller's.

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    ident = sql.Identifier(check)
    drop: tuple[Action, ...] = (
        catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                table.identifier, ident
            ),
        ),
    )
    add = Step(
        name="add_check",
        work=catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                table.identifier, ident, present(sql.Identifier(column))
            ),
        ),
        reverse=drop,
    )
    validate = Step(
        name="validate_check",
        work=Autocommit(
            statement=render(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    table.identifier, ident
                )
            ),
            lock=Lock.SHARE_UPDATE_EXCLUSIVE,
            table=table,
            scans=True,
        ),
        no_reverse="the proof goes with the check",
    )
    proven = catalogue_step(table, *set_not_null(table, column, check), *final)
    return add, validate, proven


def set_not_null(
    table: TableName, column: str, check: str, like: Constraint | None = None
) -> tuple[sql.Composable, ...]:
    """
    Return the statements that set NOT NULL by a check that proves it.

    Args:
        table: the table.
        column: its column.
        check: the check's name; it is dropped.
        like: the NOT NULL that there was, whose name and comment it gets.
    """
    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
        table.identifier, sql.Identifier(check)
    )
    by_server = fitted(f"{table.name}_{column}", "_not_null")
    if like is None or (like.name == by_server and like.comment is None):
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(
            table.identifier, sql.Identifier(column)
        )
        return (alter, drop)
    add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} NOT NULL {}").format(
        table.identifier, sql.Identifier(like.name), sql.Identifier(column)
    )
    return (add, drop, *comments(table, like))


def elsewhere(table: Table, column: str, at: TableName, name: str) -> Constraint | None:
    """
    Return the NOT NULL that a column has in another table; None where it has no name.

    Args:
        table: the one that has the column.
        column: its name there.
        at: the other table, under the name that it has in the end.
        name: the column's name in that one.
    """
    found = next(
        (c for c in table.constraints if c.kind == "n" and c.columns == (column,)), None
    )
    by_server = fitted(f"{table.name.name}_{column}", "_not_null")
    if found is None or found.name != by_server:
        return found
    return replace(found, name=fitted(f"{at.name}_{name}", "_not_null"))


def not_null_again(
    table: TableName, column: str, check: str, like: Constraint | None = None
) -> tuple[Autocommit, Transaction]:
    """
    Return the actions that turn a `NOT VALID` check into NOT NULL again.

    Args:
        table: the table.
        column: the column that the check holds to NOT NULL.
        check: the check's name; it is dropped.
        like: as in `set_not_null`.

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    ident = sql.Identifier(check)
    validate = Autocommit(
        statement=render(
            sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                table.identifier, ident
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
        done=render(
            sql.SQL(
                "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_constraint"
                " WHERE conrelid = {}::pg_catalog.regclass AND conname = {}"
                " AND NOT convalidated)"
            ).format(sql.Literal(str(table)), sql.Literal(check))
        ),
        scans=True,
    )
    again = catalogue_step(table, *set_not_null(table, column, check, like))
    done = render(
        sql.SQL(
            "SELECT attnotnull FROM pg_catalog.pg_attribute"
            " WHERE attrelid = {}::pg_catalog.regclass AND attname = {}"
        ).format(sql.Literal(str(table)), sql.Literal(column))
    )
    return validate, replace(again, done=done)


def nullable(facts: Facts, column: str, check: str, why: str) -> Step:
    """
    Return the step that lifts NOT NULL; its reverse proves it again by a check.

    Args:
        facts: of the table.
        column: the column.
        check: name for the check of the reverse.
        why: what left NULLs, for the message, e.g. "from the new release".

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    table = facts.table.name
    ident, name = sql.Identifier(column), sql.Identifier(check)
    nulls = Refusal(
        count=render(
            sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
                table.identifier, missing(ident)
            )
        ),
        why=f'{{count:row holds|rows hold}} NULL in "{column}", {why}',
        next=f'give them a value (UPDATE … WHERE "{column}" IS NULL), then run the'
        " same command again; or keep the new release.",
    )
    add = Autocommit(
        statement=render(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                table.identifier, name, present(ident)
            )
        ),
        lock=Lock.ACCESS_EXCLUSIVE,
        table=table,
        done=render(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint"
                " WHERE conrelid = {}::pg_catalog.regclass AND conname = {})"
            ).format(sql.Literal(str(table)), sql.Literal(check))
        ),
        refusals=(nulls,),
    )
    like = facts.table.not_null(column)
    validate, again = not_null_again(table, column, check, like)
    return Step(
        name="lift_not_null",
        work=catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
                table.identifier, ident
            ),
        ),
        # NULLs that came between the count and the check are counted once more.
        reverse=(
            add,
            replace(
                validate,
                refusals=(nulls,),
                withdraw=(withdrawn(table, check),),
            ),
            again,
        ),
    )
