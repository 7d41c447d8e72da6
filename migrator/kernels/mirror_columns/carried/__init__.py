"""Constraints and unique indexes that old columns are held to until retire.

Through the dual write both releases are held to them till then. Where a column has an
heir, and the pattern says that they hold of it as well, that one gets the like of each,
proved while others write, and in the exchange its name. Else retire lifts them, since
values made from the new columns may violate them. Going back is the same the other way
round.

Source: PostgreSQL manual, ALTER TABLE, Notes; ADD table_constraint_using_index.
"""

from migrator.kernels.mirror_columns.carried.base import Carried
from migrator.kernels.mirror_columns.carried.finding import found
from migrator.kernels.mirror_columns.carried.index import (
    CarriedIndex,
    leaving_nothing,
)
from migrator.kernels.mirror_columns.carried.needs import footprints, notices, tried

__all__ = [
    "Carried",
    "CarriedIndex",
    "footprints",
    "found",
    "leaving_nothing",
    "notices",
    "tried",
]
