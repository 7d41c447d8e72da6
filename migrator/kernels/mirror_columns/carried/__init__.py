"""Constraints and unique indexes of a column that go over to its heir at retire.

Until then the old column is held to them, and through the dual write both releases
are. The heir gets the like of each before the exchange, proved while others write, and
its name in it. Going back is the same the other way round.

Source: PostgreSQL manual, ALTER TABLE, Notes; ADD table_constraint_using_index.
"""

from migrator.kernels.mirror_columns.carried.base import (
    Carried,
    found,
    leaving_nothing,
    none_came,
)
from migrator.kernels.mirror_columns.carried.needs import (
    footprints,
    notices,
    tried,
)

__all__ = [
    "Carried",
    "footprints",
    "found",
    "leaving_nothing",
    "none_came",
    "notices",
    "tried",
]
