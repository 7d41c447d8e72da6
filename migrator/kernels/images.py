"""Values compared by their images, NULLs among them.

`=` calls citext 'bob' and 'Bob', numeric 1.0 and 1.00 equal, and json has no `=`.
The functions behind `*=` and `*<>`, and not these: in the condition of a trigger the
server spells `ROW(…) *<> ROW(…)` so that it does not read it again, and a dump of the
database could not be restored.

Source: PostgreSQL manual, section 9.25.6 (Composite Type Comparison).
"""

from psycopg import sql

# Of two values that `record` made.
DIFFER = sql.SQL("pg_catalog.record_image_ne({}, {})")
SAME = sql.SQL("pg_catalog.record_image_eq({}, {})")
# What makes one value of a list: to be compared, and to be shown to people.
RECORD = sql.SQL("ROW({})::pg_catalog.record")
SHOWN = sql.SQL("pg_catalog.to_json(ROW({}))")


def record(values: sql.Composable) -> sql.Composable:
    """Return a list of values as one."""
    return RECORD.format(values)
