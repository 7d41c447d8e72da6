"""What goes on in the database at the moment: who is in the way of a step."""

from dataclasses import dataclass

from migrator.names import TableName


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """
    A session, or a prepared transaction, that holds what conflicts with a lock.

    Args:
        pid: its process; 0 where it has none.
        table: what it holds a lock on; None where its snapshot is waited for.
        autovacuum: whether it is a worker of autovacuum.
        forced: whether that one prevents wraparound, so that the server ends it for
            no lock.
        application: its name, where it has one.
        activity: what it does, or that this role may not see it.
        seconds: for how long; 0 where that is not to be seen.
        prepared: the identifier of a prepared transaction; "" of a session.
    """

    pid: int
    table: TableName | None
    autovacuum: bool
    forced: bool
    application: str
    activity: str
    seconds: float
    prepared: str = ""

    def __str__(self) -> str:
        """Return it for a person."""
        since = f" for {self.seconds:.0f} s"
        if self.prepared:
            return f'prepared transaction "{self.prepared}"{since}'
        if not self.autovacuum:
            who = f'application "{self.application}", {self.activity}{since}'
        else:
            why = " that prevents wraparound" if self.forced else ""
            who = f"autovacuum{why}{since if self.seconds else ''}"
        return f"pid {self.pid} ({who})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    The oldest transaction of the database: rows that died since it began stay.

    `held_s` is its age in seconds, `holder` tells whose it is.
    """

    held_s: float
    holder: str
