"""Dual write across tables: the rows of one table kept in step with another's.

`Shadow` is the mirror of a table that the application uses in one that it does not:
AFTER ROW triggers for INSERT, UPDATE and DELETE and one for TRUNCATE, all enabled
ALWAYS, a copy of the rows that are there, and a comparison of both tables.

A shadow runs one way only. Two tables that the application writes, each mirrored in the
other, would deadlock two requests that touch the same row from either side: each
holds its own row, before any trigger runs, and waits for the other's. So there is one
table that requests write at any time, and what they see under another name is a view
(`Facade`), or the other table once names are exchanged. `Extract` has two that are
written: there one side never changes a row of the other that is there. `ExtractMany`
has three: whoever writes links holds the row with the array first.

A table that goes into another one (`Merge`) has one after the other: its values flow
to rows that requests write as well (`Inflow`), by triggers that wait for none of them;
then a view (`StandIn`) takes its place, and it is a shadow itself.

`BothWays` is for columns that go to a table which is there: no view can stand for it.
It runs both ways, and has that deadlock, on a person's word.

Source: PostgreSQL manual, sections 13.3.4 (deadlocks), 39.1 (AFTER triggers see the
statement's final state) and 41.10.
"""

from migrator.kernels.mirror_table.absorbed import (
    require_mergeable,
    require_still_mergeable,
)
from migrator.kernels.mirror_table.extract import Extract
from migrator.kernels.mirror_table.extract_many import ExtractMany
from migrator.kernels.mirror_table.merge import Merge
from migrator.kernels.mirror_table.moved import Moved, require_pair
from migrator.kernels.mirror_table.shadow import Shadow, shadow_of
from migrator.kernels.mirror_table.split import Split
from migrator.kernels.mirror_table.successor import (
    accessed,
    former,
    require_swappable,
    swap_notices,
)
from migrator.kernels.mirror_table.swap import Swap

__all__ = [
    "Extract",
    "ExtractMany",
    "Merge",
    "Moved",
    "Shadow",
    "Split",
    "Swap",
    "accessed",
    "former",
    "require_mergeable",
    "require_pair",
    "require_still_mergeable",
    "require_swappable",
    "shadow_of",
    "swap_notices",
]
