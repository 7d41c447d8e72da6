"""Ways to fill a column: ours, and those that it is measured against."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql

from migrator.change import Change
from migrator.facts import Facts
from migrator.kernels import direct
from migrator.kernels.mirror_columns import chunked_update
from migrator.pattern import Pattern
from migrator.patterns import RenameColumn
from migrator.plan import Footprint, Notice, Step, Steps
from migrator.postgres.connection import Target
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

# What pgroll does for one batch: keys in order, an update that changes nothing,
# and a row trigger that computes (source: github.com/xataio/pgroll,
# pkg/backfill; batches of 1,000 rows).
PGROLL_ROWS = 1000


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
        work = chunked_update(
            facts,
            {"full_name": sql.Identifier("name")},
            sql.SQL("full_name IS DISTINCT FROM name"),
        )
        return (Step(name="fill", work=work, no_reverse="a benchmark"),)

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
    _last: float = 0.0

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Note a chunk."""
        now = time.perf_counter()
        self.ms.append((now - self._last) * 1000)
        self._last = now


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
    """A way to fill `t.full_name` from `t.name`."""

    name: str
    workers: int = 1
    pattern: Pattern | None = None
    settings: Settings = field(default_factory=Settings)

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
        """Make the trigger."""
        super().prepare(url, conn)
        conn.execute(
            "CREATE OR REPLACE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.full_name := NEW.name; RETURN NEW; END';"
            "CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON t FOR EACH ROW"
            " EXECUTE FUNCTION fill()"
        )

    def run(self, url: str, conn: psycopg.Connection, ready: Any) -> float:
        """Fill the column."""
        last = 0
        longest = 0.0
        while True:
            began = time.perf_counter()
            row = conn.execute(
                "WITH batch AS (SELECT id FROM t WHERE id > %(last)s"
                " ORDER BY id LIMIT %(rows)s FOR NO KEY UPDATE),"
                " done AS (UPDATE t SET id = t.id FROM batch WHERE t.id = batch.id"
                " RETURNING t.id) SELECT max(id) FROM done",
                {"last": last, "rows": PGROLL_ROWS},
            ).fetchone()
            longest = max(longest, (time.perf_counter() - began) * 1000)
            if row is None or row[0] is None:
                return longest
            last = row[0]


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
OURS = Ours("ours, no trigger", pattern=FillColumn("t"))
RENAME = Ours(
    "ours, dual write on", pattern=RenameColumn("t", "name", "full_name", assured="-")
)
TWO = replace(OURS, name="ours, 2 workers", workers=2)
BLOCKS = replace(
    OURS, name="ours, one pass in blocks", settings=Settings(chunking="blocks")
)
