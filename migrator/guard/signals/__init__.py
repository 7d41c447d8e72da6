"""One signal per file, one line each here."""

from migrator.guard.signal import Signal
from migrator.guard.signals.archive_backlog import ArchiveBacklog
from migrator.guard.signals.connections import Connections
from migrator.guard.signals.dead_tuples import DeadTuples
from migrator.guard.signals.latency import Latency
from migrator.guard.signals.lock_waiters import LockWaiters
from migrator.guard.signals.oldest_snapshot import OldestSnapshot
from migrator.guard.signals.prometheus import Prometheus
from migrator.guard.signals.query import Query
from migrator.guard.signals.replication_lag import ReplicationLag
from migrator.guard.signals.rollbacks import Rollbacks
from migrator.guard.signals.slot_retention import SlotRetention
from migrator.guard.signals.wal_rate import WalRate

#: Those that need no parameters.
SIGNALS: tuple[type[Signal], ...] = (
    ArchiveBacklog,
    Connections,
    DeadTuples,
    Latency,
    LockWaiters,
    OldestSnapshot,
    ReplicationLag,
    Rollbacks,
    SlotRetention,
    WalRate,
)

__all__ = ["SIGNALS", "Prometheus", "Query"]
