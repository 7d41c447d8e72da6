"""A key of a wider type under the same name, with all that refers to it.

Each table gets wider columns behind those of the key (`Widened`). At retire, indexes
over them are built concurrently and NOT NULL is proved by a check; then one
catalogue-only transaction over all tables exchanges the columns' names, with what
hangs on them. Going back is the same exchange with the sides swapped: what it needs
is built on the former columns first.

Source: PostgreSQL manual, ALTER TABLE, Notes; ALTER SEQUENCE.
"""

from migrator.kernels.wider_key.base import WiderKey, linked, referring
from migrator.kernels.wider_key.needs import require, trials
from migrator.kernels.wider_key.steps import backfill, drop, expand, retire, verify

__all__ = [
    "WiderKey",
    "backfill",
    "drop",
    "expand",
    "linked",
    "referring",
    "require",
    "retire",
    "trials",
    "verify",
]
