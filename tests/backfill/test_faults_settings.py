"""Settings of the role do not reach what the engine relies on."""

import os
import socket
import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql as words

from backfill.live import (
    CHANGE,
    ROWS,
    SETUP,
    AfterRows,
    assert_whole,
    filled,
    number,
    wait_for,
)
from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import AddColumn, SetNotNull, SplitColumn
from migrator.plan import State
from migrator.postgres.connection import Target, ask, connect, transaction
from migrator.runner import Runner
from migrator.settings import Settings


def set_for_role(sql: psycopg.Connection, name: str, value: str) -> None:
    """Set a parameter for the engine's role, in this database only."""
    sql.execute(
        words.SQL("ALTER ROLE postgres IN DATABASE {} SET {} = {}").format(
            words.Identifier(sql.info.dbname),
            words.SQL(name),
            words.SQL(value),  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize("way", ["blocks", "strides", "keys"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout", "'1ms'"),
        ("statement_timeout", "'60ms'"),
        ("idle_in_transaction_session_timeout", "'20ms'"),
        ("transaction_timeout", "'200ms'"),
        ("default_transaction_isolation", "'repeatable read'"),
        ("default_transaction_isolation", "'serializable'"),
        ("row_security", "on"),
        ("synchronous_commit", "remote_apply"),
        ("search_path", "''"),
    ],
)
def test_a_chunk_has_the_engines_own(
    runner: Runner, sql: psycopg.Connection, name: str, value: str, way: str
) -> None:
    """Each row tells under which settings it was filled."""
    if name == "transaction_timeout" and sql.info.server_version < 170000:
        pytest.skip("transaction_timeout is there from PostgreSQL 17 on")
    sql.execute(SETUP.encode())
    set_for_role(sql, name, value)
    told = ", ".join(
        # NULL where the server does not know it yet.
        f"current_setting('{s}', true)"
        for s in (
            "lock_timeout",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "transaction_isolation",
            "row_security",
            "synchronous_commit",
            "transaction_timeout",
        )
    )
    pattern = AddColumn(
        "t", "n", "text", computed=f"concat_ws(', ', {told})", schema="public"
    )
    runner.settings = Settings(chunking=way, hold_s=0)
    runner.expand(Change(revision="c", pattern=pattern))
    assert runner.backfill("c") is State.BACKFILLED
    assert runner.verify("c") is State.VERIFIED
    found = sql.execute("SELECT n, count(*) FROM t GROUP BY 1").fetchall()
    own = "200ms, 600ms, 10s, read committed, off, off"
    if sql.info.server_version >= 170000:
        own += ", 0"
    assert found == [(own, ROWS)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_row_that_the_application_changes(
    runner: Runner, sql: psycopg.Connection, database: str, level: str
) -> None:
    """A chunk that waited for a row takes its new version, at any level of the role."""
    sql.execute(SETUP.encode())
    set_for_role(sql, "default_transaction_isolation", f"'{level}'")
    # Long enough that the chunk is still waiting when the row's holder commits.
    runner.settings = Settings(chunking="blocks", lock_timeout_ms=5000, hold_s=0)
    runner.expand(CHANGE)
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name LIKE 'migrator:%' AND datname = current_database()"
    )
    errors: list[BaseException] = []

    def fill() -> None:
        try:
            runner.backfill("c")
        except BaseException as error:
            errors.append(error)

    with psycopg.connect(database) as other:
        other.execute("UPDATE t SET pad = 'written meanwhile', n = NULL WHERE id = 7")
        thread = threading.Thread(target=fill)
        thread.start()
        wait_for("a chunk that waits", lambda: number(sql, waits) > 0 or bool(errors))
        other.commit()
        thread.join(timeout=60)
    assert errors == []
    written = "SELECT count(*) FROM t WHERE pad = 'written meanwhile' AND n = 14"
    assert number(sql, written) == 1
    # The application's update was filled by its own trigger.
    assert_whole(runner, sql, counted=ROWS - 1)


def test_sessions_outlive_the_roles_patience(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The run's own session may be idle for as long as its workers work."""
    sql.execute(SETUP.encode())
    set_for_role(sql, "idle_session_timeout", "'200ms'")
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle'"
        " AND datname = current_database() AND application_name LIKE 'migrator:%:%'"
        " AND clock_timestamp() - state_change > '500ms'"
    )
    runner.settings = Settings(chunking="blocks", target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    runner.progress = AfterRows(
        ROWS // 4, lambda: wait_for("an idle session", lambda: number(sql, idle) > 0)
    )
    runner.backfill("c")
    assert_whole(runner, sql)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        # Days beyond the 12th, months before it: DMY and MDY read them differently.
        ("timestamptz", "'2026-01-01 12:00+00'::timestamptz + g * '1h'::interval"),
        ("timestamp", "'2026-01-01'::timestamp + g * '1h'::interval"),
        ("date", "'2020-01-01'::date + g"),
        ("interval", "g * '1h'::interval"),
        # Neighbours differ in the last of their digits.
        ("float8", "1 + g * 2.220446049250313e-16"),
    ],
)
def test_keys_are_read_back_as_they_were(
    runner: Runner, sql: psycopg.Connection, key: str, values: str
) -> None:
    """A run under another style of dates goes on where the first one stopped."""
    rows = ROWS // 4
    sql.execute(f"CREATE TABLE t (at {key} PRIMARY KEY, id int)".encode())
    sql.execute(
        f"INSERT INTO t SELECT {values}, g FROM generate_series(1, {rows}) g".encode()
    )
    sql.execute("ANALYZE t")
    runner.settings = Settings(chunking="keys", target_ms=2, hold_s=0)
    runner.expand(CHANGE)

    def style(dates: str, intervals: str, zone: str) -> None:
        set_for_role(sql, "datestyle", dates)
        set_for_role(sql, "intervalstyle", intervals)
        set_for_role(sql, "timezone", zone)
        set_for_role(sql, "extra_float_digits", "-15")

    class StopError(Exception):
        """What stands for the death of the first run."""

    def stop() -> None:
        raise StopError

    # An abbreviation that PostgreSQL reads as the time of another country.
    style("'SQL, DMY'", "'sql_standard'", "'Asia/Kolkata'")
    runner.progress = AfterRows(1, stop)
    with pytest.raises(StopError):
        runner.backfill("c")
    assert 0 < filled(sql) < rows
    style("'German'", "'iso_8601'", "'America/St_Johns'")
    runner.progress = AfterRows(rows + 1, lambda: None)
    assert_whole(runner, sql, rows=rows, counted=rows)


EXPRESSIONS: dict[str, Callable[[str], Pattern]] = {
    "AddColumn": lambda f: AddColumn("t", "n", "text", computed=f"{f}(pad)"),
    "SetNotNull": lambda f: SetNotNull("t", "pad", fill=f"{f}('x')"),
    "SplitColumn": lambda f: SplitColumn("t", "pad", {"n": ("text", f"{f}(pad)")}, "n"),
}


@pytest.mark.parametrize("kind", list(EXPRESSIONS))
def test_the_dual_write_runs_an_expression_as_it_was_tried(
    runner: Runner, sql: psycopg.Connection, database: str, kind: str
) -> None:
    """What only the role's search path finds, the application's writes find too."""
    sql.execute(
        "CREATE SCHEMA tools; CREATE FUNCTION tools.slug(text) RETURNS text"
        " LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';"
        "CREATE TABLE t (id int PRIMARY KEY, pad text); INSERT INTO t VALUES (1, 'A')"
    )
    set_for_role(sql, "search_path", "public, tools")
    runner.expand(Change(revision="c", pattern=EXPRESSIONS[kind]("slug")))
    with psycopg.connect(database, autocommit=True) as app:
        app.execute("SET search_path = public")
        app.execute("UPDATE t SET pad = 'B'; INSERT INTO t VALUES (2, 'C'), (3, NULL)")
    assert runner.backfill("c") is State.BACKFILLED
    assert runner.verify("c") is State.VERIFIED


@pytest.mark.parametrize(
    ("of_role", "durable", "wanted"),
    [
        ("off", True, "local"),
        ("remote_apply", True, "remote_apply"),
        ("on", False, "off"),
    ],
)
def test_commits_wait_for_the_disk_where_they_have_to(
    runner: Runner, sql: psycopg.Connection, of_role: str, durable: bool, wanted: str
) -> None:
    """The end of a pass is on disk although the role does not ask for it."""
    set_for_role(sql, "synchronous_commit", of_role)
    conn = connect(runner.target, "migrator:test")
    with transaction(
        conn, lock_timeout_ms=9, statement_timeout_ms=99, what="it", durable=durable
    ):
        assert ask(conn, "SELECT current_setting('synchronous_commit')") == wanted
    assert ask(conn, "SELECT current_setting('synchronous_commit')") == of_role
    conn.close()


def test_a_silent_connection_is_probed(database: str) -> None:
    """What stands between keeps it known; a URL may say otherwise."""

    def probed_after_s(url: str) -> int:
        conn = connect(Target.from_url(url), "probed")
        with conn, socket.socket(fileno=os.dup(conn.fileno())) as line:
            return line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

    assert probed_after_s(database) == 30
    joint = "&" if "?" in database else "?"
    assert probed_after_s(f"{database}{joint}keepalives_idle=7") == 7
