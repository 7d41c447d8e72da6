"""Trials of a user's SQL on temporary tables, before anything is changed."""

from collections.abc import Callable, Mapping

from psycopg import sql

from migrator.facts import Column, Facts
from migrator.kernels import images
from migrator.plan import Probe, expression, missing, present, render, type_name

# Rows on which an expression is tried, and what they may take together: enough to
# meet a value that it was not written for, and done within some milliseconds.
SAMPLE_ROWS = 1000
SAMPLE_BYTES = 8_000_000


def sample(
    facts: Facts, trial: sql.Composable, column: str | None = None
) -> tuple[sql.Composable, ...]:
    """
    Return statements that fill an empty table of the same shape with some rows.

    They are of pages from all over the table, so that old rows and new ones are among
    them. Of a table whose rows are hidden from this role, or whose access method may
    know no pages, there are none.

    Args:
        facts: of the table.
        trial: the empty one's name.
        column: the only one that it has; None where it has all.

    Source: PostgreSQL manual, SELECT, TABLESAMPLE (SYSTEM).
    """
    drawn = _drawn(facts)
    if drawn is None:
        return ()
    return (
        sql.SQL("INSERT INTO {} SELECT {} FROM {} {}").format(
            trial,
            sql.SQL("*") if column is None else sql.Identifier(column),
            facts.table.name.identifier,
            drawn,
        ),
    )


def _drawn(facts: Facts) -> sql.Composable | None:
    """Return what follows a table's name where some rows of it are asked for."""
    table = facts.table
    parts = (table, *table.partitions)
    if any(p.row_security or p.method not in ("heap", "") for p in parts):
        return None
    rows = SAMPLE_ROWS
    share = 100.0
    if table.rows:
        width = max(1, table.size_bytes // table.rows)
        rows = max(10, min(rows, SAMPLE_BYTES // width))
        # More than that many, since pages are not full.
        share = min(share, 400.0 * rows / table.rows)
    # The copy is NOT NULL there.
    unproved = [present(sql.Identifier(c.name)) for c in table.columns if c.unproved]
    held = [sql.SQL("WHERE"), sql.SQL(" AND ").join(unproved)] if unproved else []
    return sql.SQL(" ").join(
        (
            sql.SQL("TABLESAMPLE SYSTEM ({})").format(sql.Literal(share)),
            *held,
            sql.SQL("LIMIT {}").format(sql.Literal(rows)),
        )
    )


def comes_back(
    facts: Facts,
    made: Callable[[sql.Composable], tuple[sql.Composable, ...]],
    up: Mapping[str, str],
    back: Mapping[str, sql.Composable],
) -> tuple[Probe, ...]:
    """
    Return the trial how many rows of a sample come back other than they were.

    A note tells of them: either side may lose detail, which is nowhere after the drop.

    Args:
        facts: of the table.
        made: returns statements that make a temporary table of the same name with rows,
            given what follows the table's name in their query.
        up: for each new column the expression that makes it.
        back: for each old column the expression that makes it from the new ones.
    """
    drawn = _drawn(facts)
    if drawn is None:
        return ()
    trial = sql.Identifier("pg_temp", facts.table.name.name)
    fill = sql.SQL("UPDATE {} SET {}").format(
        trial,
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), expression(text))
            for name, text in up.items()
        ),
    )
    lost = sql.SQL(" OR ").join(
        images.DIFFER.format(
            images.record(sql.Identifier(name)),
            images.record(
                sql.SQL("{}::{}").format(
                    value, type_name(facts.table.require(name).type)
                )
            ),
        )
        for name, value in back.items()
    )
    return (
        Probe(
            statements=(*map(render, made(drawn)), render(fill)),
            question=_counted(lost, trial),
            otherwise="",
            notice="Taken there and back, {found} rows of a sample lost detail. It"
            " is kept up to the drop, and nowhere afterwards: correct the expressions"
            " where it is needed.",
        ),
    )


def of_a_sample(facts: Facts, rows: sql.Composable, notice: str) -> tuple[Probe, ...]:
    """
    Return the trial how many rows of a sample meet a condition; no note where none do.

    Args:
        facts: of the table.
        rows: the condition, of the table by its name.
        notice: tells it as "{found} rows of a sample".
    """
    drawn = _drawn(facts)
    if drawn is None:
        return ()
    table = facts.table.name
    some = sql.SQL("(SELECT * FROM {} {}) AS {}").format(
        table.identifier, drawn, sql.Identifier(table.name)
    )
    question = _counted(rows, some)
    return (Probe(statements=(), question=question, otherwise="", notice=notice),)


def _counted(rows: sql.Composable, among: sql.Composable) -> str:
    """Return the question how many rows of some meet a condition; "" for none."""
    return render(
        sql.SQL(
            "SELECT CASE WHEN found > 0 THEN pg_catalog.concat(found, ' of ', tried)"
            " ELSE '' END FROM (SELECT count(*) FILTER (WHERE {}) AS found,"
            " count(*) AS tried FROM {}) AS counts"
        ).format(rows, among)
    )


def computes_on_rows(
    made: str,
    facts: Facts,
    trial: sql.Composable,
    condition: str,
    column: str | None = None,
) -> Probe:
    """
    Return the trial that a condition raises no error for rows that are there.

    Whether it holds for them is another question.

    Args:
        made: the statement that makes an empty temporary table.
        facts: of the table.
        trial: the empty one's name.
        condition: SQL over its columns.
        column: the only one of the table that it has; None where it has all.
    """
    return Probe(
        statements=(made, *map(render, sample(facts, trial, column))),
        question=render(
            sql.SQL("SELECT count({}) >= 0 FROM {}").format(
                expression(condition), trial
            )
        ),
        otherwise="",
    )


def default_gives_value(title: str, column: Column, text: str) -> Probe:
    """Return the trial that an expression is a default of a column's, and no NULL."""
    trial = sql.SQL("CREATE TEMP TABLE migrator_trial (trial {} DEFAULT {})").format(
        type_name(column.type), expression(text)
    )
    return Probe(
        statements=(render(trial), "INSERT INTO migrator_trial DEFAULT VALUES"),
        question=render(
            sql.SQL("SELECT {} FROM migrator_trial").format(
                present(sql.Identifier("trial"))
            )
        ),
        otherwise=f"{title}: {text} is NULL.",
        next="give an expression that is not.",
    )


def computes(type: str, text: str, rows: sql.Composable) -> Probe:
    """
    Return the trial that an expression makes values that a column can be given.

    Args:
        type: the column's type in SQL, with modifiers.
        text: SQL expression over a row.
        rows: what follows FROM in a query of some rows.
    """
    trial = sql.SQL("CREATE TEMP TABLE migrator_trial (trial {})").format(
        type_name(type)
    )
    made = sql.SQL("INSERT INTO migrator_trial (trial) SELECT {} FROM {}").format(
        expression(text), rows
    )
    return Probe(
        statements=(render(trial), render(made)), question="SELECT true", otherwise=""
    )


def depends_on_row(
    title: str, made: str, trial: sql.Composable, condition: str
) -> Probe:
    """
    Return the trial that a check's condition depends on its row alone.

    PostgreSQL takes a check's word that it is immutable (manual, section 5.5.1), but
    asks of an index's predicate.

    Args:
        title: the change's, for the message.
        made: the statement that makes an empty temporary table.
        trial: its name.
        condition: SQL over its columns.
    """
    indexed = sql.SQL("CREATE INDEX ON {} ((true)) WHERE {}").format(
        trial, expression(condition)
    )
    return Probe(
        statements=(made, render(indexed)),
        question="SELECT true",
        otherwise="",
        failed=f"{title}: the condition depends on more than the row, so that a stored"
        " row may come to violate it unnoticed",
        next="leave out functions such as now() and random(); a function of yours that"
        " depends on its arguments alone can be IMMUTABLE.",
    )


def reads_no_generated(
    title: str, facts: Facts, *texts: str, trial: tuple[str, ...] = ()
) -> tuple[Probe, ...]:
    """
    Return the trial that expressions read no generated column.

    A BEFORE trigger has no value of those yet: they are computed after it
    (manual, section 5.4).

    Args:
        title: the change's, for the message.
        facts: of the table.
        texts: SQL expressions over the row.
        trial: statements that make a temporary table of the same name with the
            columns that the expressions read; none where the table has them.
    """
    generated = [c.name for c in facts.table.columns if c.generated]
    if not generated:
        return ()
    table = facts.table.name
    read = sql.SQL(", ").join(
        sql.SQL("{} IS NULL AS {}").format(expression(text), sql.Identifier(f"c{n}"))
        for n, text in enumerate(texts)
    )
    view = sql.SQL("CREATE TEMP VIEW migrator_reads AS SELECT {} FROM {}").format(
        read, sql.Identifier("pg_temp" if trial else table.schema, table.name)
    )
    question = sql.SQL(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
        " JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
        " JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid"
        " AND a.attnum = d.refobjsubid"
        " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
        " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND w.ev_class = 'pg_temp.migrator_reads'::pg_catalog.regclass"
        " AND a.attname IN ({}))"
    ).format(sql.SQL(", ").join(map(sql.Literal, generated)))
    known = ", ".join(f'"{name}"' for name in generated)
    return (
        Probe(
            statements=(*trial, render(view)),
            question=render(question),
            otherwise=f"{title}: an expression reads a generated column ({known});"
            " the trigger that computes it for new rows runs before those have a"
            " value.",
            next="write out what the column is generated from.",
        ),
    )


def takes_null(facts: Facts, name: str) -> tuple[Probe, ...]:
    """
    Return the trial that a column's type takes NULL.

    The new release inserts without the old column, and a domain is checked before
    any trigger fires (manual, CREATE DOMAIN, Notes).
    """
    column = facts.table.require(name)
    if column.base is None:
        return ()
    null = sql.SQL("NULL::{}").format(type_name(column.type))
    return (
        Probe(
            statements=(),
            question=render(sql.SQL("SELECT {}").format(missing(null))),
            otherwise="",
            next=f"take the domain off first: ALTER COLUMN … TYPE {column.base}"
            " rewrites nothing.",
            failed=f'Column "{name}" of table {facts.table.name} cannot be left out of'
            " an INSERT by the new release",
        ),
    )


def bare_type(title: str, type: str, default: str = "", otherwise: str = "") -> Probe:
    """
    Return the trial that a column of a type is added without a scan or rewrite.

    Args:
        title: the change's, for the message.
        type: the type's name, with modifiers.
        default: SQL expression; empty for none.
        otherwise: what to say of a default that rewrites the table.
    """
    given = sql.SQL(" DEFAULT ") + expression(default) if default else sql.SQL("")
    return Probe(
        statements=(
            "CREATE TEMP TABLE migrator_trial (first int)",
            "INSERT INTO migrator_trial VALUES (1)",
            "SELECT pg_catalog.set_config('migrator.file',"
            " pg_catalog.pg_relation_filenode('pg_temp.migrator_trial')::text,"
            " true)",
            render(
                sql.SQL("ALTER TABLE migrator_trial ADD COLUMN trial {}{}").format(
                    type_name(type), given
                )
            ),
        ),
        question="SELECT pg_catalog.current_setting('migrator.file')"
        " = pg_catalog.pg_relation_filenode(a.attrelid)::text"
        " AND NOT a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_index"
        " WHERE indrelid = a.attrelid) AND NOT EXISTS"
        " (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = a.attrelid)"
        + (
            ""
            if default
            # It would pass for a value that the new release gave.
            else " AND (SELECT typdefault FROM pg_catalog.pg_type"
            " WHERE oid = a.atttypid) IS NULL"
        )
        + " FROM pg_catalog.pg_attribute a"
        " WHERE a.attrelid = 'pg_temp.migrator_trial'::regclass"
        " AND a.attname = 'trial'",
        otherwise=otherwise
        or f"{title}: the type {type} brings a constraint, a default or an index of"
        " its own; PostgreSQL would scan or rewrite the table under ACCESS"
        " EXCLUSIVE, or take the default for a value that a release wrote.",
        next="use computed=… instead of default=…."
        if default
        else "use its base type, and add the rest by changes of their own.",
    )
