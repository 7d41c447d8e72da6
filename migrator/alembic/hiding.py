"""What `alembic check` and autogenerate are not shown: changes in flight."""

from collections.abc import Callable
from typing import Any

from alembic import context
from sqlalchemy import text
from sqlalchemy.schema import SchemaItem

from migrator.alembic.underway import target_of
from migrator.ledger import store
from migrator.names import LEDGER_SCHEMA, OWNED, TRIGGER_PREFIXES, mentioned
from migrator.plan import Footprint
from migrator.postgres.connection import connect

#: Kinds of objects that a change in flight may own or touch.
_HIDDEN = (
    "table",
    "column",
    "index",
    "unique_constraint",
    "foreign_key_constraint",
    "check_constraint",
)

_PARTITIONS = (
    "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relispartition"
    " AND c.relkind IN ('r', 'p', 'f')"
)


def hiding(own: Callable[..., bool] | None) -> Callable[..., bool]:
    """Return a filter that hides what changes in flight own or touch."""
    known: list[Footprint] | None = None
    path: list[str] = []
    partitions: set[tuple[str, str]] = set()
    detached: set[tuple[str, str]] = set()

    def include(
        item: SchemaItem, name: str | None, kind: str, reflected: bool, other: Any
    ) -> bool:
        nonlocal known, path, partitions, detached
        if own is not None and not own(item, name, kind, reflected, other):
            return False
        if getattr(item, "schema", None) == LEDGER_SCHEMA:
            return False
        # alembic-utils has names with the schema in front, and these without.
        bare: str | None = getattr(item, "signature", name)
        if bare is not None and bare.startswith((OWNED, *TRIGGER_PREFIXES)):
            return False
        if known is None:
            known, path, partitions, detached = _in_flight()
        if kind not in _HIDDEN:
            # A view or a function of alembic-utils, that with its arguments.
            stem = (bare or "").partition("(")[0]
            return not any(
                f.columns is None
                and f.table.schema == getattr(item, "schema", None)
                and f.table.name.partition("(")[0] == stem
                for f in known
            )
        table: Any = item if kind == "table" else getattr(item, "table", None)
        schemas = path if table.schema is None else [table.schema]
        mine = [
            f for f in known if f.table.name == table.name and f.table.schema in schemas
        ]
        if kind == "table" and not reflected:
            # One that a change makes is not there yet. What the model has under any
            # other name is another table, once the name is free.
            return other is not None or not any(f.made for f in mine)
        # A partition that no model has is a part of its table, not one that goes.
        is_part = kind == "table" and any((s, name) in partitions for s in schemas)
        if is_part and other is None:
            return False
        if kind == "foreign_key_constraint":
            # The database may refer to a table by its old name, the model by its new.
            fk: Any = item
            to = fk.elements[0].target_fullname.rpartition(".")[0]
            if any(
                f.columns is None
                and to in (f.table.name, f"{f.table.schema}.{f.table.name}")
                for f in known
            ):
                return False
        columns = (
            {name}
            if kind == "column"
            else {name, *(c.name for c in getattr(item, "columns", ()))}
        )
        if kind == "check_constraint":
            bounded = any((s, table.name) in detached for s in schemas)
            chosen = (bare or "").startswith(f"{table.name}_")
            if bounded and chosen and reflected and other is None:
                return False
            # One as text does not know its columns.
            columns |= _read(item) | _read(other)
        if any(c is not None and c.startswith(OWNED) for c in columns):
            return False
        return not any(
            f.columns is None or not f.columns.isdisjoint(columns) for f in mine
        )

    return include


def _read(check: Any) -> frozenset[str]:
    """Return the words of a check's condition that may be columns."""
    return frozenset() if check is None else mentioned(str(check.sqltext))


def _in_flight() -> tuple[
    list[Footprint], list[str], set[tuple[str, str]], set[tuple[str, str]]
]:
    """
    Return what changes in flight touch, and what else a comparison needs to know.

    Returns:
        Footprints; where names without a schema lead; partitions by schema and name;
        by the same, what was one: the server leaves it a check of its bounds.
    """
    ctx = context.get_context()
    bind = ctx.connection
    if bind is None or ctx.dialect.name != "postgresql":
        return [], [], set(), set()
    schemas = text("SELECT pg_catalog.current_schemas(false)::text[]")
    path = list(bind.execute(schemas).scalar_one())
    partitions = {(schema, name) for schema, name in bind.execute(text(_PARTITIONS))}
    conn = connect(target_of(bind), "migrator:alembic")
    try:
        changes = store.changes(conn)
        found = [
            footprint
            for change in changes
            if change.in_flight
            for footprint in change.footprints
            # What only has to stay is as the models have it.
            if not footprint.needed
        ]
        detached = {
            (footprint.table.schema, footprint.table.name)
            for change in changes
            if change.pattern == "DetachPartition" and change.begun
            # The parent's is the first one.
            for footprint in change.footprints[1:]
        }
    finally:
        conn.close()
    return found, path, partitions, detached
