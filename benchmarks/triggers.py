"""What a dual write costs the application's statements, in the window of a change.

The same statements go to tables with the same rows, all on one server and in turn: one
with a second column and no trigger, one for each kind of dual write.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import click
import psycopg

from benchmarks.report import Row
from benchmarks.shapes import NARROW
from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import RebuildTable, RenameColumn, SplitTable
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner

# Seconds of one run of pgbench: short, so that a load from elsewhere on the machine
# meets all tables alike, and long against its start.
SLICE_S = 1
CLIENTS = 4
# The tables without a dual write of ours.
BARE = "bare"
IDLE = "idle"
PGROLL = "pgroll"
COLUMNS = ("at", "email", "full_name", "id", "n", "name", "pad")


def _pgroll(physical: str, value: str, compared: str) -> str:
    """Return a row trigger like those of pgroll's changes of a column."""
    declared = "".join(f' "{c}" {PGROLL}."{c}"%TYPE := NEW."{c}";' for c in COLUMNS)
    return (
        f"CREATE FUNCTION pgroll_{physical}() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" DECLARE {declared} latest_schema text; search_path text; BEGIN"
        " SELECT current_setting INTO search_path FROM current_setting('search_path');"
        f" IF search_path {compared} 'next' THEN"
        f' NEW."{physical}" = ({value}); NEW.waits = false; END IF;'
        " RETURN NEW; END $$;"
        f" CREATE TRIGGER pgroll_{physical} BEFORE UPDATE OR INSERT ON {PGROLL}"
        f" FOR EACH ROW EXECUTE FUNCTION pgroll_{physical}();"
    )


PATTERNS: Mapping[str, Pattern] = {
    "ours": RenameColumn("ours", "name", "full_name", assured="-"),
    "split": SplitTable("split", "apart", ["name"], key=["id"], assured="-"),
    "rebuild": RebuildTable("rebuild", assured="-"),
}
# None; one that does nothing, which is what any trigger costs; and pgroll's two, which
# both fire for each row, as with its changes of a column's type (source: pkg/backfill
# and op_alter_column.go of github.com/xataio/pgroll at cdbe9b0). Its rename has none:
# it is done by views.
BY_HAND = {
    BARE: "",
    IDLE: "CREATE FUNCTION idle() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NEW; END';"
    f" CREATE TRIGGER idle BEFORE INSERT OR UPDATE ON {IDLE}"
    " FOR EACH ROW EXECUTE FUNCTION idle()",
    PGROLL: f"ALTER TABLE {PGROLL} ADD COLUMN waits boolean DEFAULT true;"
    + _pgroll("full_name", '"name"', "!=")
    + _pgroll("name", '"full_name"', "="),
}
TABLES = (*BY_HAND, *PATTERNS)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int
    bulk_rows: int
    repeat: int


FULL = Size(rows=200_000, bulk_rows=100_000, repeat=15)
QUICK = Size(rows=50_000, bulk_rows=50_000, repeat=3)

# Rates of each table, by repetition.
Rates = dict[str, list[float]]


def _prepare(url: str, size: Size) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS migrator CASCADE")
        for table in (*TABLES, "apart"):
            conn.execute(f"DROP TABLE IF EXISTS {table} CASCADE".encode())
        for table in TABLES:
            conn.execute(
                NARROW.sql(size.rows).replace(" base ", f" {table} ").encode()
                + f"; CREATE INDEX ON {table} (email)".encode()
            )
        for table, statements in BY_HAND.items():
            conn.execute(
                f"ALTER TABLE {table} ADD COLUMN full_name text;"
                f" UPDATE {table} SET full_name = name;".encode()
            )
            conn.execute(statements.encode())
        runner = Runner(Target.from_url(url))
        for name, pattern in PATTERNS.items():
            change = Change(revision=name, pattern=pattern)
            runner.expand(change)
            runner.backfill(change.id)
            runner.verify(change.id)
        for table in TABLES:
            # The same rows a page, however they were filled.
            conn.execute(
                f"ALTER TABLE {table} SET (autovacuum_enabled = off);".encode()
            )
            conn.execute(f"VACUUM (FULL, ANALYZE) {table}".encode())
        conn.execute("CHECKPOINT")


@dataclass(frozen=True)
class _Bench:
    """Ways to send statements to one table; each returns rows per second."""

    server: Server
    conn: psycopg.Connection
    size: Size

    def single(self, statement: str) -> Callable[[str], float]:
        """Return the run of a statement for one row, by pgbench."""

        def run(table: str) -> float:
            with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
                script.write(
                    f"\\set id random(1, {self.size.rows})\n"
                    "\\set v random(1, 1000000000)\n" + statement.format(table=table)
                )
                script.flush()
                done = subprocess.run(
                    [
                        self.server.bindir / "pgbench",
                        *("-n", "-M", "prepared", "-T", str(SLICE_S)),
                        *("-c", str(CLIENTS)),
                        *("-f", script.name, self.server.url("bench")),
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                )
            return float(done.stdout.split("tps = ")[1].split()[0])

        return run

    def bulk(self, statement: str) -> Callable[[str], float]:
        """Return the run of a statement for many rows, committed."""

        def run(table: str) -> float:
            query = statement.format(
                table=table,
                first=self.size.rows + 1,
                last=self.size.rows + self.size.bulk_rows,
                rows=self.size.bulk_rows,
            ).encode()
            began = time.perf_counter()
            self.conn.execute(query)
            seconds = time.perf_counter() - began
            added = f"DELETE FROM {table} WHERE id > {self.size.rows}"
            self.conn.execute(added.encode())
            self.conn.execute(f"VACUUM {table}".encode())
            return self.size.bulk_rows / seconds

        return run


def _measured(name: str, run: Callable[[str], float], repeat: int) -> Rates:
    rates: Rates = {table: [] for table in TABLES}
    # The first one fills what the others reuse, and is not counted.
    for number in range(repeat + 1):
        turn = number % len(TABLES)
        for table in (*TABLES[turn:], *TABLES[:turn]):
            rate = run(table)
            if number:
                rates[table].append(rate)
    click.echo(f"  {name}", err=True)
    return rates


def triggers(server: Server, size: Size) -> Iterator[Row]:
    """Measure each statement on each table."""
    url = server.url("bench")
    _prepare(url, size)
    with psycopg.connect(url, autocommit=True) as conn:
        bench = _Bench(server, conn, size)
        runs: list[tuple[str, float, Callable[[str], float]]] = [
            (
                "UPDATE of the column",
                0.93,
                bench.single("UPDATE {table} SET name = 'set ' || :v WHERE id = :id;"),
            ),
            (
                "UPDATE of another column",
                0.97,
                bench.single("UPDATE {table} SET n = :v WHERE id = :id;"),
            ),
            (
                "bulk INSERT",
                0.85,
                bench.bulk(
                    "INSERT INTO {table} (id, name, email, n, at, pad)"
                    f" SELECT g, {NARROW.values}"
                    " FROM generate_series({first}, {last}) g"
                ),
            ),
            (
                "bulk UPDATE of the column",
                0.9,
                bench.bulk(
                    "UPDATE {table} SET name = 'set ' || random() WHERE id <= {rows}"
                ),
            ),
            (
                "bulk UPDATE of another column",
                0.0,
                bench.bulk("UPDATE {table} SET n = n + 1 WHERE id <= {rows}"),
            ),
        ]
        for name, goal, run in runs:
            yield from _rows(name, goal, _measured(name, run, size.repeat))


SAID = {
    "ours": "dual write in a row",
    "split": "in a table split off",
    "rebuild": "in a table rebuilt",
    PGROLL: "pgroll's triggers",
    IDLE: "a trigger that does nothing",
}


def _rows(name: str, goal: float, rates: Rates) -> Iterator[Row]:
    bare = statistics.median(rates[BARE])
    for table, said in SAID.items():
        rate = statistics.median(rates[table])
        # Of the two in one repetition: what else the machine did then, met both.
        pairs = zip(rates[table], rates[BARE], strict=True)
        ratio = statistics.median(mine / other for mine, other in pairs)
        yield Row(
            measure=f"{name}, {said} / no trigger",
            ours=f"{rate / 1000:.1f} krows/s",
            rival=f"{bare / 1000:.1f} krows/s",
            ratio=ratio,
            goal=goal if table == "ours" else 0.0,
        )
