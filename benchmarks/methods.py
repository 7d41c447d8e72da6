"""Ways to fill a column: ours, and those that it is measured against."""

import json
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from migrator.change import Change
from migrator.facts import Facts
from migrator.kernels import direct
from migrator.kernels.rows import updates
from migrator.pattern import Pattern
from migrator.patterns import RenameColumn
from migrator.plan import Footprint, Notice, Step, Steps
from migrator.postgres.connection import Target
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

# What pgroll does for one batch: keys in order of rows that wait, an update that
# changes nothing, and a row trigger that copies the row's columns to variables,
# reads the search path and computes (source: github.com/xataio/pgroll, pkg/backfill
# at cdbe9b0; batches of 1,000 rows).
PGROLL_ROWS = 1000
# Seconds that a session computes beside the application: as long as traffic alone.
READING_S = 8.0


@dataclass(frozen=True, slots=True)
class FillColumn(Pattern):
    """Add a column and fill it, without any trigger: the bare backfill."""

    table: str
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return "fill a column"

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({"full_name"})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Accept every table."""
        return ()

    def expand(self, facts: Facts) -> Steps:
        """Return the column."""
        add = sql.SQL("ALTER TABLE {} ADD COLUMN full_name text").format(
            facts.table.name.identifier
        )
        work = direct.catalogue_step(facts.table.name, add)
        return (Step(name="add", work=work, no_reverse="a benchmark"),)

    def backfill(self, facts: Facts) -> Steps:
        """Return the fill."""
        return updates(
            facts,
            "fill",
            {"full_name": sql.Identifier("name")},
            sql.SQL("full_name IS DISTINCT FROM name"),
            no_reverse="a benchmark",
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return nothing."""
        return ()

    def footprint(self, table: Any) -> Footprint:
        """Return the table."""
        return Footprint(table=table, columns=None)


@dataclass
class Chunks(Silent):
    """Times of chunks, as the engine tells them."""

    ms: list[float] = field(default_factory=list[float])

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Note a chunk."""
        self.ms.append(seconds * 1000)


@dataclass(frozen=True)
class Outcome:
    """What one run cost."""

    seconds: float
    wal_bytes: int
    heap_bytes: int
    all_bytes: int
    longest_ms: float


@dataclass(frozen=True)
class Method(ABC):
    """A way to fill a column of `t` from `t.name`."""

    name: str
    workers: int = 1
    pattern: Pattern | None = None
    settings: Settings = field(default_factory=Settings)
    #: What is filled.
    column: str = "full_name"

    def prepare(self, url: str, conn: psycopg.Connection) -> Any:
        """Return what `run` needs; not measured."""
        conn.execute("ALTER TABLE t ADD COLUMN full_name text")

    @abstractmethod
    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column; return the longest transaction in ms."""


class Giant(Method):
    """One UPDATE of the whole table."""

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column."""
        began = time.perf_counter()
        conn.execute("UPDATE t SET full_name = name")
        return (time.perf_counter() - began) * 1000


class Rewrite(Method):
    """A rewrite under an exclusive lock: the floor."""

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column."""
        began = time.perf_counter()
        conn.execute("ALTER TABLE t ALTER full_name TYPE text USING (name || '')")
        return (time.perf_counter() - began) * 1000


class PgrollShape(Method):
    """pgroll's statements: batches by key that fire a row trigger."""

    def prepare(self, url: str, conn: psycopg.Connection) -> Any:
        """Make the trigger, and the column that tells which rows are left."""
        super().prepare(url, conn)
        columns = ("id", "name", "email", "n", "at", "pad")
        copies = "".join(f" v_{c} t.{c}%TYPE := NEW.{c};" for c in columns)
        conn.execute(
            "ALTER TABLE t ADD COLUMN waits boolean DEFAULT true;"
            "CREATE OR REPLACE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$DECLARE {copies} path text; BEGIN"
            " SELECT current_setting INTO path FROM current_setting('search_path');"
            " IF path <> 'next' THEN NEW.full_name := v_name; NEW.waits := false;"
            " END IF; RETURN NEW; END$$;"
            "CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON t FOR EACH ROW"
            " EXECUTE FUNCTION fill()".encode()
        )

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column."""
        last: Any = None
        longest = 0.0
        while True:
            began = time.perf_counter()
            after = (
                sql.SQL("") if last is None else sql.SQL(" AND id > {}").format(last)
            )
            row = conn.execute(
                sql.SQL(
                    "WITH batch AS (SELECT id FROM t WHERE waits = true{}"
                    " ORDER BY id LIMIT {} FOR NO KEY UPDATE),"
                    " done AS (UPDATE t SET id = t.id FROM batch WHERE t.id = batch.id"
                    " RETURNING t.id) SELECT max(id) FROM done"
                ).format(after, PGROLL_ROWS)
            ).fetchone()
            longest = max(longest, (time.perf_counter() - began) * 1000)
            if row is None or row[0] is None:
                return longest
            last = row[0]


class Pgroll(Method):
    """pgroll itself, where it is on the PATH: a column's copy, filled at start."""

    def prepare(self, url: str, conn: psycopg.Connection) -> Any:
        """Make its own tables; return the migration's file."""
        folder = tempfile.mkdtemp()
        self._pgroll(url, "init")
        self._pgroll(url, "baseline", "--yes", "base", folder)
        change = {"table": "t", "column": "name", "type": "text"}
        change |= {"up": "name", "down": "name"}
        path = Path(folder) / "fill.json"
        path.write_text(json.dumps({"operations": [{"alter_column": change}]}))
        return path

    def _pgroll(self, url: str, *words: str) -> None:
        args = ["pgroll", "--postgres-url", f"{url}?sslmode=disable", *words]
        subprocess.run(args, check=True, capture_output=True)

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column."""
        began = time.perf_counter()
        self._pgroll(url, "start", str(ready))
        return (time.perf_counter() - began) * 1000


class Reading(Method):
    """A session that computes and writes nothing: what a busy core costs alone."""

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Compute for a while."""
        until = time.monotonic() + READING_S
        while time.monotonic() < until:
            conn.execute(
                "SELECT count(*) FROM generate_series(1, 10000) AS g"
                " WHERE md5(g::text) = ''"
            )
        return 0.0


class Ours(Method):
    """The engine's own backfill."""

    def prepare(self, url: str, conn: psycopg.Connection) -> Any:
        """Expand."""
        chunks = Chunks()
        assert self.pattern is not None
        runner = Runner(
            Target.from_url(url),
            replace(self.settings, workers=self.workers),
            chunks,
            catalogue=(FillColumn, RenameColumn),
        )
        conn.execute("DROP SCHEMA IF EXISTS migrator CASCADE")
        change = Change(revision="bench", pattern=self.pattern)
        runner.expand(change)
        conn.execute("CHECKPOINT")
        return runner, chunks

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Backfill."""
        runner, chunks = ready
        runner.backfill("bench")
        return max(chunks.ms, default=0.0)


GIANT = Giant("one giant UPDATE")
REWRITE = Rewrite("rewrite under an exclusive lock")
PGROLL = PgrollShape("pgroll's statements")
REAL_PGROLL = (
    Pgroll("pgroll", column="_pgroll_new_name") if shutil.which("pgroll") else None
)
READING = Reading("a session that writes nothing")
OURS = Ours("ours, no trigger", pattern=FillColumn("t"))
RENAME = Ours(
    "ours, dual write on", pattern=RenameColumn("t", "name", "full_name", assured="-")
)
TWO = replace(OURS, name="ours, 2 workers", workers=2)
BLOCKS = replace(
    OURS, name="ours, one pass in blocks", settings=Settings(chunking="blocks")
)
