"""A step's progress, noted every few seconds: how fast it goes.

Any machine can tell from it, also while another one does the work.
"""

from dataclasses import dataclass

from migrator.postgres.connection import Connection

# Seconds between two samples of one worker.
EVERY_S = 5.0
# Seconds over which a speed is measured: several chunks of a throttled worker, and
# short enough to follow a change of limits.
OVER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """
    How fast a step goes, over the last minute.

    Args:
        rows_per_s: rows changed or compared.
        left_s: until its end at this speed; None where it stands still.
    """

    rows_per_s: float
    left_s: float | None


# A step `s` as it is now, in blocks or rows done and rows changed.
_NOW = (
    "SELECT s.id, s.end_block,"
    " s.next_block + COALESCE(sum(w.done - (w.stop_block - w.start_block)), 0) AS done,"
    " s.rows + COALESCE(sum(w.rows), 0) AS rows FROM migrator.steps s"
    " LEFT JOIN migrator.windows w ON w.step = s.id WHERE s.id = %s GROUP BY s.id"
)


def take(conn: Connection, step: int) -> None:
    """Note a step's progress as it is now."""
    conn.execute(
        "INSERT INTO migrator.samples (step, done, rows)"
        f" SELECT id, done, rows FROM ({_NOW}) AS now",
        (step,),
    )


def speed(conn: Connection, step: int) -> Speed | None:
    """Return how fast a step goes, None where that cannot be told yet."""
    row = conn.execute(
        # From the first sample of the last minute to now, not to the last one: it may
        # be the first as well, and a worker that stands still takes none.
        "SELECT extract(epoch FROM clock_timestamp() - first.at)::float8 AS s,"
        " now.done - first.done AS done, now.rows - first.rows AS rows,"
        f" greatest(now.end_block - now.done, 0) AS rest FROM ({_NOW}) AS now"
        " CROSS JOIN LATERAL (SELECT * FROM migrator.samples WHERE step = now.id"
        " AND at >= least((SELECT max(at) FROM migrator.samples WHERE step = now.id),"
        " clock_timestamp() - make_interval(secs => %s))"
        # A pause is no time of work, and other limits make another speed.
        " AND at >= COALESCE((SELECT c.at FROM migrator.control c JOIN migrator.steps t"
        " ON t.change = c.change WHERE t.id = now.id), '-infinity')"
        " ORDER BY at LIMIT 1) AS first",
        (step, OVER_S),
    ).fetchone()
    if row is None or row["s"] < 1:
        return None
    done_per_s = float(row["done"]) / row["s"]
    return Speed(
        rows_per_s=float(row["rows"]) / row["s"],
        left_s=row["rest"] / done_per_s if done_per_s > 0 else None,
    )
