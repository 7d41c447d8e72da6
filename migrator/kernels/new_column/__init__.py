"""New columns: one file for each way in which they come by their values."""

from migrator.kernels.new_column.base import NewColumn
from migrator.kernels.new_column.counted import IDENTITY, SERIAL, Counted
from migrator.kernels.new_column.filled import Derived, Drawn
from migrator.kernels.new_column.virtual import Virtual

__all__ = [
    "IDENTITY",
    "SERIAL",
    "Counted",
    "Derived",
    "Drawn",
    "NewColumn",
    "Virtual",
]
