"""Dual write within a row: columns kept in step with others.

One BEFORE ROW trigger per change, on INSERT and UPDATE, enabled ALWAYS. It
fires on every row that is out of step, not only `UPDATE OF` the columns:
another trigger may change a column, and a row that moves to an earlier page
must not escape a backfill in physical order.

Four kinds of mirror:

- `Twin`: two columns with the same values, written by either release (rename).
- `Pair`: two shapes of the same data, one made from the other by an expression
  each way (split, change of type).
- `Widened`: columns of a wider integer type behind others, which no release sees (a
  key's change of type under the same name).
- `Fill`: one column filled from an expression where it is NULL, written by the
  new release only (a computed column, a fill before NOT NULL).
- `Word`: one column in which a value is stored as another one (a renamed value).

Source: PostgreSQL manual, sections 39.1 (order of triggers) and 41.10.
"""

from migrator.kernels.mirror_columns.base import (
    require_last_trigger,
    require_mirrorable,
)
from migrator.kernels.mirror_columns.fill import Fill
from migrator.kernels.mirror_columns.pair import Pair
from migrator.kernels.mirror_columns.side import Side, read_as
from migrator.kernels.mirror_columns.twin import Twin
from migrator.kernels.mirror_columns.widened import Widened, Widening
from migrator.kernels.mirror_columns.word import Word

__all__ = [
    "Fill",
    "Pair",
    "Side",
    "Twin",
    "Widened",
    "Widening",
    "Word",
    "read_as",
    "require_last_trigger",
    "require_mirrorable",
]
